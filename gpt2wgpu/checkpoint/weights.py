"""The transformer's weights: read from a folder's files, named and laid out as its graph needs them."""

import re

import numpy as np

from ..errors import UserError, show
from ..graph.tensor import DTYPES, Array, Tensor, schedule
from ..models import Architecture
from .tensors import FLOATS, Tensors, is_finite


class TransformerWeights:
    """The transformer's tensors. Tensors outside it (heads) are ignored; unknown ones inside it are an error.

    Silently dropping a LoRA or a layer would change vectors.
    """

    def __init__(self, config: Architecture, tensors: Tensors) -> None:
        """Check all names, shapes and types, from headers only. Raises UserError."""
        self.config, self.tensors = config, tensors
        self.prefix = next((p for p in config.prefixes if p + config.table in tensors.entries), "")
        self.parameters = 0
        self.absent: set[str] = set()  # names of weights of the graph that the files do not hold
        known = set()
        # the token table and the last block first: then the graph is no larger than the files, whatever config.json claims
        self._check(config.table, (config.vocab, config.width))
        self._check(config.block.format(config.layers - 1), (config.width,))
        for leaf in schedule(config.hidden(config.layers)):
            if leaf.is_weight:
                parts = config.parts(leaf.name, tuple(int(d) for d in leaf.shape))
                for name, shape in parts.items():
                    self._check(name, shape[::-1] if self._is_transposed(leaf) else shape)
                    self.parameters += int(np.prod(shape))
                    known.add(self._stored(name))
                if not parts:
                    self.absent.add(leaf.name)
        for name in tensors.entries.keys() - known:
            inside = name.removeprefix(self.prefix)
            if name.startswith(self.prefix) and config.body.match(inside) and not config.buffers.fullmatch(inside):
                expected = f"{config.layers} layers with the tensors of {config.model} only"
                raise UserError(f"{show(tensors.folder)}: unexpected tensor {show(name)}, expected {expected} (config.json)")

    def weights(self, leaf: Tensor) -> Array:
        """The values of a weight of the graph, in its shape and dtype, matrices as (in, out)."""
        shape = tuple(int(d) for d in leaf.shape)
        arrays = [self.tensors.read(self._stored(name)) for name in self.config.parts(leaf.name, shape)]
        if not arrays:
            return cast_weight(self.config.made(leaf.name, shape), leaf)
        return cast_weight(self.config.join(leaf.name, [a.T if self._is_transposed(leaf) else a for a in arrays]), leaf)

    def in_files(self, name: str, array: Array) -> dict[str, Array]:
        """A weight of the graph as the files hold it, the inverse of `weights`; names have no prefix."""
        transposed = self._is_transposed(Tensor(array.shape, name=name))
        return {part: a.T if transposed else a for part, a in self.config.split(name, array).items()}

    def beside(self) -> dict[str, Array]:
        """f32 copies of tensors that `transformers` expects in the files although no vector needs them, such as the pooler's."""
        entries = self.tensors.entries.items()
        names = [n.removeprefix(self.prefix) for n, e in entries if n.startswith(f"{self.prefix}pooler.") and e.dtype in FLOATS]
        found = {name: self.tensors.read(self.prefix + name).astype(np.float32) for name in names}
        return found | self.config.beside(lambda name: self.tensors.read(self._stored(name)).astype(np.float32))

    def _is_transposed(self, leaf: Tensor) -> bool:
        """Whether the files hold a matrix as (out, in), as torch's Linear does."""
        return len(leaf.shape) == 2 and not leaf.name.startswith(self.config.as_is)

    def _stored(self, name: str) -> str:
        """The name in the files: with the prefix, and with TensorFlow's names for LayerNorm (gamma, beta) where they use them."""
        old = re.sub(r"LayerNorm\.(weight|bias)$", lambda m: "LayerNorm." + {"weight": "gamma", "bias": "beta"}[m[1]], name)
        return self.prefix + (old if self.prefix + name not in self.tensors.entries and old != name else name)

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        stored = self._stored(name)
        if stored not in self.tensors.entries:
            stored = self.prefix + name
        self.tensors.check(stored, shape, "config.json")


def cast_weight(array: Array, leaf: Tensor) -> Array:
    """`array`, contiguous and in the weight's dtype. Raises UserError for a value that overflows f16."""
    with np.errstate(over="ignore", under="ignore"):
        result = np.ascontiguousarray(array, DTYPES[leaf.dtype])
    if result.dtype == np.float16 and array.dtype != np.float16 and not is_finite(result):
        raise UserError(f"tensor {leaf.name} holds values above 65504, the largest in f16: use f32 for this model")
    return result
