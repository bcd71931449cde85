"""The transformer's weights: read from a folder's files, named and laid out as its graph needs them."""

import re

import numpy as np

from ..errors import UserError, show
from ..graph.int8 import int8_weights
from ..graph.tensor import DTYPES, Array, Tensor, schedule
from ..models import Architecture
from .tensors import FLOATS, SCALE, Tensors, is_finite, scales_shape


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
        self.group_axes: dict[str, int] = {}  # tensors in the files that may be int8 -> the axis of their groups
        known = set()
        # the token table and the last block first: then the graph is no larger than the files, whatever config.json claims
        self._check(config.table, (config.vocab, config.width), 1)
        self._check(config.block.format(config.layers - 1), (config.width,))
        graph = schedule(config.hidden(config.layers))
        tables = int8_weights(graph)
        for leaf in graph:
            if leaf.is_weight:
                parts = config.parts(leaf.name, tuple(int(d) for d in leaf.shape))
                transposed = self._is_transposed(leaf)
                axis = int(transposed or tables[leaf.name]) if leaf.name in tables else None
                for name, shape in parts.items():
                    self._check(name, shape[::-1] if transposed else shape, axis)
                    self.parameters += int(np.prod(shape))
                    known.add(stored := self._stored(name))
                    if axis is not None:
                        self.group_axes[stored] = axis
                    if tensors.entries[stored].dtype == "I8":
                        known.add(stored + SCALE)
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

    def stored_int8(self, leaf: Tensor) -> tuple[Array, Array] | None:
        """The integers (in, out) and the scales, f32, of a weight of the graph that the files hold in int8, otherwise None."""
        names = [self._stored(name) for name in self.config.parts(leaf.name, tuple(int(d) for d in leaf.shape))]
        if not names or any(self.tensors.entries[name].dtype != "I8" for name in names):
            return None
        kinds = zip(*(self.tensors.read_int8(name) for name in names), strict=True)
        transposed = self._is_transposed(leaf)
        q, scale = (self.config.join(leaf.name, [a.T if transposed else a for a in arrays]) for arrays in kinds)
        return np.ascontiguousarray(q), np.ascontiguousarray(scale)

    def holds_int8(self) -> bool:
        """Whether the files hold any of these weights in int8."""
        return any(self.tensors.entries[name].dtype == "I8" for name in self.group_axes)

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

    def _check(self, name: str, shape: tuple[int, ...], axis: int | None = None) -> None:
        """axis: of the groups if the tensor may be int8."""
        stored = self._stored(name)
        if stored not in self.tensors.entries:
            stored = self.prefix + name
        self.tensors.check(stored, shape, "config.json", None if axis is None else scales_shape(shape, axis))


def cast_weight(array: Array, leaf: Tensor) -> Array:
    """`array`, contiguous and in the weight's dtype. Raises UserError for a value that overflows f16."""
    with np.errstate(over="ignore", under="ignore"):
        result = np.ascontiguousarray(array, DTYPES[leaf.dtype])
    if result.dtype == np.float16 and array.dtype != np.float16 and not is_finite(result):
        raise UserError(f"tensor {leaf.name} holds values above 65504, the largest in f16: use f32 for this model")
    return result
