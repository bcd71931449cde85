"""The graph: a Tensor is a named leaf or the output of an Op; a model is the Tensor it returns."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DTYPES: dict[str, np.dtype[Any]] = {  # of tensors, by the names that WGSL has for them; i8 is stored four to a u32
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "u32": np.dtype(np.uint32),
    "i8": np.dtype(np.int8),
}
Dim = int | str  # "T", "B" and "G" stay symbolic until a batch arrives
Grid = tuple[int, int, int]
_ids = itertools.count()


@dataclass(frozen=True, eq=False)
class Tensor:
    """A weight or batch array (`op` is None) or the result of an op. `shape` may hold symbols."""

    shape: tuple[Dim, ...]
    dtype: str = "f32"
    name: str = ""
    op: "Op | None" = None
    inputs: tuple["Tensor", ...] = ()
    dims: dict[str, Dim] = field(default_factory=dict)  # the signature's letters here, such as {"T": "T", "C": 768}
    types: dict[str, str] = field(default_factory=dict)  # its type letters, such as {"X": "f16"}
    attrs: dict[str, Any] = field(default_factory=dict)  # keyword arguments, such as {"eps": 1e-5}
    id: int = field(default_factory=lambda: next(_ids))

    @property
    def is_weight(self) -> bool:
        """A leaf of fixed size; the arrays of a batch are u32 or have symbols in their shape."""
        return self.op is None and self.dtype != "u32" and all(isinstance(d, int) for d in self.shape)


def schedule(*outputs: Tensor) -> list[Tensor]:
    """Every tensor the outputs need, in an order that can be executed."""
    seen: set[Tensor] = set()
    stack = list(outputs)
    while stack:
        if (t := stack.pop()) not in seen:
            seen.add(t)
            stack.extend(t.inputs)
    return sorted(seen, key=lambda t: t.id)  # a tensor is always created after its inputs


def merge_graphs(outputs: Sequence[Tensor]) -> list[Tensor]:
    """The same outputs, with what their graphs have in common computed once. Leaves of one name are one."""
    known: dict[Any, Tensor] = {}
    new: dict[Tensor, Tensor] = {}
    for t in schedule(*outputs):
        inputs = tuple(new[x] for x in t.inputs)
        same = (t.op, inputs, t.name, t.dtype, t.shape, tuple(t.attrs.items()))
        new[t] = known.setdefault(same, replace(t, inputs=inputs))
    return [new[t] for t in outputs]


@dataclass(frozen=True)
class Op:
    """One operation: its signature, its maths in numpy, and the grid its WGSL kernel is dispatched on.

    Calling it on Tensors checks them against the signature and returns the output Tensor;
    `Op.reference` computes on arrays.
    """

    name: str
    args: tuple[tuple[str, str, tuple[str, ...]], ...]  # (name, dtype, dims); the last one is the output
    reference: Callable[..., Any]
    grid: Callable[[SimpleNamespace], Grid]
    sizes: Callable[[SimpleNamespace], dict[str, int]] | None = None  # letters that follow from other sizes and attributes

    def __call__(self, *inputs: Tensor, out: str = "f32", **attrs: Any) -> Tensor:
        """`out` is the output's dtype where the signature leaves it open. Raises ValueError on a mismatch.

        An attribute named by a letter, such as H=12, is the size of an output dimension that no input has; others are
        found by `sizes`, which raises ValueError where they cannot be.
        """
        *args, (_, out_dtype, out_dims) = self.args
        dims: dict[str, Dim] = {}
        types: dict[str, str] = {}
        for (arg, dtype, pattern), t in zip(args, inputs, strict=True):
            want = f"{self.name}: {arg} must be {dtype}[{','.join(pattern)}], got {t.dtype}{list(t.shape)}"
            if is_type_letter(dtype):
                dtype = types.setdefault(dtype, t.dtype)
            if len(pattern) != len(t.shape) or dtype != t.dtype:
                raise ValueError(want)
            for dim, size in zip(pattern, t.shape, strict=True):
                times, name = parse_dim(dim)
                if not name:
                    name, times = dim, 1  # "2" stands for itself
                    dims[name] = times * int(dim)
                if times > 1:  # "3C" matches any multiple of three
                    if not isinstance(size, int) or size % times:
                        raise ValueError(want)
                    size //= times
                if dims.setdefault(name, size) != size:
                    raise ValueError(f"{want} where {name}={dims[name]}")
        dims = {name: size for name, size in dims.items() if not name.isdigit()}
        dims |= {name: size for name, size in attrs.items() if name.isupper()}
        attrs = {**(self.reference.__kwdefaults__ or {}), **attrs}
        if self.sizes is not None:
            try:
                dims |= self.sizes(SimpleNamespace(**dims, **attrs))
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from None
        if is_type_letter(out_dtype):
            out_dtype = types.setdefault(out_dtype, out)
        shape = tuple(output_dim(d, dims) for d in out_dims)
        return Tensor(shape, out_dtype, op=self, inputs=inputs, dims=dims, types=types, attrs=attrs)


def is_type_letter(dtype: str) -> bool:
    """A type letter such as "X" stands for f32 or f16, as the graph decides."""
    return dtype.isupper()


def parse_dim(dim: str) -> tuple[int, str]:
    """ "3C" -> (3, "C"),  "C" -> (1, "C"),  "2" -> (2, "")."""
    match = re.fullmatch(r"(\d*)([A-Z]?)", dim)
    if match is None:
        raise ValueError(f"a dimension is a letter, a number or a multiple of a letter, not {dim!r}")
    return int(match[1] or 1), match[2]


def output_dim(dim: str, dims: dict[str, Dim]) -> Dim:
    """The size of an output dimension: "C", "2", "3C" or a sum of such, "J+K"."""
    if dim in dims:
        return dims[dim]
    return sum(times * int(dims[name]) if name else times for times, name in map(parse_dim, dim.split("+")))


def op(
    signature: str,
    grid: Callable[[SimpleNamespace], Grid],
    sizes: Callable[[SimpleNamespace], dict[str, int]] | None = None,
) -> Callable[[Callable[..., Any]], Op]:
    """Declare an op: `@op("x[T,C] weight[C] -> out[T,C]", grid=...)` above its numpy definition."""
    args = tuple((n, d or "f32", tuple(s.split(","))) for n, d, s in re.findall(r"(\w+)(?::(\w+))?\[([\w,+]+)\]", signature))
    return lambda fn: Op(fn.__name__, args, fn, grid, sizes)
