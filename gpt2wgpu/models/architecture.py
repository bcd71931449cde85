"""What an architecture says about itself, and what several of them share."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

import numpy as np

from ..graph.tensor import Array, Tensor
from .fields import Fields

# a batch: packing.pack
IDS, POSITIONS, TYPES = (Tensor(("T",), "u32", name) for name in ("ids", "positions", "types"))
SPANS, TILES = Tensor(("B", 2), "u32", "spans"), Tensor(("G", 2), "u32", "tiles")

ACTIVATION_NAMES = {
    "gelu": "gelu_erf",
    "gelu_python": "gelu_erf",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
ACTIVATION_NAMES |= dict.fromkeys(
    ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"), "gelu_tanh"
)

Shapes = dict[str, tuple[int, ...]]  # by name


class Architecture(ABC):
    """A transformer's configuration and all that is particular to its architecture: its graph, and its weights in the files.

    Subclasses are frozen dataclasses, one file each; models/__init__.py lists them. The graph names a weight as it likes,
    by habit as the files do, and lays matrices out (in, out).
    """

    layers: int
    heads: int
    width: int
    context: int  # rows of the position table, or the longest text that it is made for
    vocab: int
    pad: int | None = None  # positions count from pad + 1, over tokens that are not this one; None: from 0, over all

    title: ClassVar[str]  # for people
    model: ClassVar[str]  # its class in `transformers`, without a head
    tokenizer: ClassVar[str] = ""  # whose vocabulary files a folder without tokenizer.json has: a kind of tokenizer.Tokenizer
    decoder: ClassVar[bool] = False  # attends to earlier tokens only

    table: ClassVar[str]  # of token vectors, (V, C)
    block: ClassVar[str]  # a weight (C,) that every block has; {} stands for the number of the block
    prefixes: ClassVar[tuple[str, ...]]  # that names in the files may have
    body: ClassVar[re.Pattern[str]]  # how names of the transformer begin; what the files hold besides belongs to a head
    buffers: ClassVar[re.Pattern[str]]  # tensors of the body that are no weights
    as_is: ClassVar[tuple[str, ...]]  # how names of matrices begin that the files do not hold transposed, as a Linear's

    @classmethod
    @abstractmethod
    def read(cls, fields: Fields) -> Self:
        """From config.json. Raises UserError on anything that the graph does not compute."""

    @abstractmethod
    def hidden(self, layer: int, half: str = "f32") -> Tensor:
        """The hidden state after block `layer` (0: the embeddings) of packed sequences, f32 (T, C), as `hidden_states[layer]`
        of `transformers`. `half` is the dtype of matrices and of what is fed to them: "f32" or "f16"."""

    def parts(self, name: str, shape: tuple[int, ...]) -> Shapes:
        """What a weight of the graph is made of: tensors in the files and their shapes, matrices (in, out), side by side.

        None at all: the weight is no part of the model, and `made`.
        """
        return {name: shape}

    def made(self, name: str, shape: tuple[int, ...]) -> Array:
        """The values of a weight without parts, f32: zeros, as the bias of a linear layer without one; or a computed table."""
        return np.zeros(shape, np.float32)

    def join(self, name: str, arrays: list[Array]) -> Array:
        """The values of a weight of the graph from those of its parts."""
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)

    def split(self, name: str, array: Array) -> dict[str, Array]:
        """The inverse of `join`: parts by name. With `beside`, a file that is read again gives the same bits."""
        parts = self.parts(name, array.shape)
        ends = np.cumsum([shape[-1] for shape in parts.values()])
        return dict(zip(parts, np.split(array, ends[:-1], axis=-1), strict=True))

    def beside(self, read: Callable[[str], Array]) -> dict[str, Array]:
        """What `transformers` expects in the files though no vector depends on it; the pooler comes by itself."""
        return {}

    @property
    def usable_length(self) -> int:
        """How many tokens a text can have."""
        return self.context if self.pad is None else self.context - self.pad - 1

    @property
    def default_layer(self) -> int:
        """The block whose output is best where no sentence-transformers folder says what to take."""
        return self.layers


class Weights:
    """Weights of a graph, as leaves: matrices are `half`, vectors f32."""

    def __init__(self, half: str) -> None:
        self.half = half

    def __call__(self, name: str, *shape: int) -> Tensor:
        return Tensor(shape, self.half if len(shape) == 2 else "f32", name)

    def pair(self, name: str, *shape: int) -> tuple[Tensor, Tensor]:
        """Weight of a shape, and bias as long as its last dimension: of a linear layer (in, out) or a norm."""
        return self(f"{name}.weight", *shape), self(f"{name}.bias", shape[-1])


def read_activation(fields: Fields, name: str, default: str) -> str:
    """One of ops.ACTIVATIONS, from the name that `transformers` has for it."""
    if (found := fields.text(name, default=default)) not in ACTIVATION_NAMES:
        raise fields.refuse(name, f"one of {', '.join(ACTIVATION_NAMES)}")
    return ACTIVATION_NAMES[found]


def read_heads(fields: Fields, *names: str, width: int, default: int) -> int:
    """How many heads the width is divided among."""
    found = fields.integer(*names, default=default)
    if width % found:
        name = next((name for name in names if fields.present(name)), names[0])
        raise fields.refuse(name, f"a divisor of the width, {width}")
    return found
