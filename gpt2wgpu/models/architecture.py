"""What every architecture declares, and what several of them share."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

import numpy as np

from ..graph.tensor import Array, Tensor
from .fields import Fields

# the arrays of a batch, as packing.pack_batch makes them
IDS, POSITIONS, TYPES = (Tensor(("T",), "u32", name) for name in ("ids", "positions", "types"))
SPANS, TILES = Tensor(("B", 2), "u32", "spans"), Tensor(("G", 2), "u32", "tiles")

ACTIVATION_NAMES = {
    "gelu": "gelu_erf",
    "gelu_python": "gelu_erf",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu6": "relu6",
    "leaky_relu": "leaky_relu",
}
ACTIVATION_NAMES |= dict.fromkeys(
    ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"), "gelu_tanh"
)

MOST_LAYERS = 1 << 12  # bounds memory if config.json claims an absurd number of layers

Shapes = dict[str, tuple[int, ...]]  # of tensors, by name


class Architecture(ABC):
    """A transformer's configuration, its graph, and how a folder's files hold the weights of that graph.

    Subclasses are frozen dataclasses, one file each, listed in models/__init__.py. They repeat each other on purpose, BERT,
    DistilBERT and MPNet almost line by line: each is one page, to be read side by side with `transformers`, and a change to
    one model cannot change another.

    The graph names its weights as the files do where it can, and lays matrices out (in, out). It may join several
    tensors of the files into one weight. Five methods say how. In DistilBERT, with x for "transformer.layer.0.attention":

        parts("x.qkv_lin.weight", (768, 2304)) -> {"x.q_lin.weight": (768, 768), "x.k_lin.weight": ..., "x.v_lin.weight": ...}
        join("x.qkv_lin.weight", [q, k, v])    -> one array (768, 2304), to load a model
        split("x.qkv_lin.weight", qkv)         -> {"x.q_lin.weight": q, "x.k_lin.weight": k, "x.v_lin.weight": v}, to save it

    A weight that the files do not hold has no parts and is computed. In Nomic BERT:

        parts("angles", (2048, 64)) -> {};  made("angles", (2048, 64)) -> the table of rotary positions

    And the files may hold a tensor that is not a weight of the graph. BERT adds row 0 of its token types to its positions, so

        beside(read) -> {"embeddings.token_type_embeddings.weight": the types without row 0}, saved for `transformers`
    """

    layers: int
    heads: int
    width: int
    context: int  # rows of the position table; with rotary positions, the longest text that the model was made for
    vocab: int
    pad: int | None = None  # positions start at pad + 1 and skip tokens with this id; None: they start at 0 and skip none

    title: ClassVar[str]  # the name in messages
    model: ClassVar[str]  # the class in `transformers`, without a head
    tokenizer: ClassVar[str] = ""  # the kind of tokenizer (tokenizer/settings.py) if the folder does not name a class
    decoder: ClassVar[bool] = False  # attends to earlier tokens only

    table: ClassVar[str]  # the weight that holds the vectors of tokens, (V, C)
    block: ClassVar[str]  # a weight (C,) that every block has; {} stands for the number of the block
    prefixes: ClassVar[tuple[str, ...]]  # what names in the files may begin with
    body: ClassVar[re.Pattern[str]]  # matches the names of the transformer's tensors; others belong to a head
    buffers: ClassVar[re.Pattern[str]]  # matches tensors of the body that are not weights
    unused: ClassVar[tuple[str, ...]] = ()  # fields of config.json that change no vector, in addition to unused.UNUSED
    as_is: ClassVar[tuple[str, ...]]  # prefixes of matrices that the files hold as (in, out); a torch Linear's are (out, in)

    @classmethod
    @abstractmethod
    def read(cls, fields: Fields) -> Self:
        """The configuration in config.json. Raises UserError for a field that the graph does not support."""

    @abstractmethod
    def hidden(self, layer: int, operand_dtype: str = "f32") -> Tensor:
        """The hidden state after block `layer` (0: the embeddings), f32 (T, C): `hidden_states[layer]` of `transformers`.

        operand_dtype: "f32" or "f16", the dtype of matrices and of what they are multiplied with.
        """

    def parts(self, name: str, shape: tuple[int, ...]) -> Shapes:
        """The tensors in the files that make up a weight of the graph, with their shapes, matrices as (in, out).

        {} if the files do not hold the weight: then `made` computes it.
        """
        return {name: shape}

    def made(self, name: str, shape: tuple[int, ...]) -> Array:
        """The values of a weight that has no parts, f32: zeros for a missing bias, or a computed table."""
        return np.zeros(shape, np.float32)

    def join(self, name: str, arrays: list[Array]) -> Array:
        """The values of a weight of the graph, from those of its parts, in the order of `parts`."""
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)

    def split(self, name: str, array: Array) -> dict[str, Array]:
        """The inverse of `join`: parts by name. Files written from `split` and `beside` load with the same bits."""
        parts = self.parts(name, array.shape)
        ends = np.cumsum([shape[-1] for shape in parts.values()])
        return dict(zip(parts, np.split(array, ends[:-1], axis=-1), strict=True))

    def beside(self, read: Callable[[str], Array]) -> dict[str, Array]:
        """Tensors, other than the pooler's, that `transformers` expects in the files although no vector depends on them.

        read: gives a tensor of the files by name, f32.
        """
        return {}

    @property
    def usable_length(self) -> int:
        """The largest number of tokens of a text."""
        return self.context if self.pad is None else self.context - self.pad - 1

    @property
    def default_layer(self) -> int:
        """The block whose output is used if the folder has no modules.json."""
        return self.layers


class Weights:
    """Makes the leaves of a graph that are weights: matrices in `dtype`, vectors in f32."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def __call__(self, name: str, *shape: int) -> Tensor:
        return Tensor(shape, self.dtype if len(shape) == 2 else "f32", name)

    def pair(self, name: str, *shape: int) -> tuple[Tensor, Tensor]:
        """`name.weight` of this shape, (in, out) of a linear layer or (C,) of a norm, and `name.bias` of its last axis."""
        return self(f"{name}.weight", *shape), self(f"{name}.bias", shape[-1])


def read_activation(fields: Fields, name: str, default: str) -> str:
    """One of ops.ACTIVATIONS, by its name in `transformers`. Raises UserError for others."""
    if (found := fields.text(name, default=default)) not in ACTIVATION_NAMES:
        raise fields.refuse(name, f"one of {', '.join(ACTIVATION_NAMES)}")
    return ACTIVATION_NAMES[found]


def read_heads(fields: Fields, *names: str, width: int, default: int) -> int:
    """The number of heads. Raises UserError if it does not divide the width."""
    found = fields.integer(*names, default=default)
    if width % found:
        name = next((name for name in names if fields.present(name)), names[0])
        raise fields.refuse(name, f"a divisor of the width, {width}")
    return found
