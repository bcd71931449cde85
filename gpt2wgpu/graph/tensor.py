"""The graph: a Tensor is a named leaf or the output of an Op, and a model is the Tensor that it returns.

An op is declared once, by a signature above its numpy definition:

    @op("x:X[T,K] weight:W[K,N] bias[N] -> out:O[T,N]", grid=matmul_grid)
    def linear(x, weight, bias, *, activation="none"): ...

`x:X[T,K]` is an input of dtype X and shape (T, K). X stands for f32 or f16, as the graph decides; no dtype means f32. A letter is
a size, the same wherever it stands: called on x (T, 384) and weight (384, 1536), `linear` gives a tensor of shape (T, 1536).
A dimension may be a number, a multiple ("3C") or, in the output, a sum ("J+K").

The same signature fixes how the kernel, shaders/linear.wgsl, is bound: binding 0 is the uniform block, which holds the letters in
order of appearance and then the keyword arguments (those that the shader does not declare as `const`); bindings 1, 2, ... are
the arguments in order, the output last:

    struct Params { T: u32, K: u32, N: u32 }
    @group(0) @binding(0) var<uniform> p: Params;
    @group(0) @binding(1) var<storage, read> x: array<vec4<X>>;  // or array<X>, where sizes are not multiples of four
    ...
    @group(0) @binding(4) var<storage, read_write> out: array<vec4<O>>;
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DTYPES: dict[str, np.dtype[Any]] = {  # by their names in WGSL; i8 is stored four to a u32
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
    """A weight or an array of a batch (`op` is None), or the output of an op. `shape` may hold symbols such as "T"."""

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
    """Every tensor that the outputs depend on, each after its inputs."""
    seen: set[Tensor] = set()
    stack = list(outputs)
    while stack:
        if (t := stack.pop()) not in seen:
            seen.add(t)
            stack.extend(t.inputs)
    return sorted(seen, key=lambda t: t.id)  # a tensor is always created after its inputs


def merge_graphs(outputs: Sequence[Tensor]) -> list[Tensor]:
    """The same outputs, with common parts of their graphs computed once. Leaves of the same name become one."""
    known: dict[tuple[object, ...], Tensor] = {}
    new: dict[Tensor, Tensor] = {}
    for t in schedule(*outputs):
        inputs = tuple(new[x] for x in t.inputs)
        same = (t.op, inputs, t.name, t.dtype, t.shape, tuple(t.attrs.items()))
        new[t] = known.setdefault(same, replace(t, inputs=inputs))
    return [new[t] for t in outputs]


class Arg(NamedTuple):
    """One argument of a signature: `weight:W[K,N]` is ("weight", "W", ("K", "N"))."""

    name: str
    dtype: str
    dims: tuple[str, ...]


@dataclass(frozen=True)
class Op:
    """One operation: its signature, its maths in numpy, and the grid on which its kernel is dispatched.

    Calling it on Tensors checks them against the signature and returns the output Tensor; `Op.reference` computes on arrays.
    """

    name: str
    args: tuple[Arg, ...]  # the last one is the output
    reference: Callable[..., Array]
    grid: Callable[[SimpleNamespace], Grid]
    sizes: Callable[[SimpleNamespace], dict[str, int]] | None = None  # letters that follow from other sizes and attributes

    def __call__(self, *inputs: Tensor, out: str = "f32", **attrs: Any) -> Tensor:
        """The output for these inputs. Raises ValueError if they do not fit the signature.

        out: the output's dtype where the signature leaves it open. attrs: the keyword arguments of `reference`; a capital
        letter, such as M=12, is the size of an output dimension that no input has.
        """
        *args, output = self.args
        dims: dict[str, Dim] = {}
        types: dict[str, str] = {}
        for arg, t in zip(args, inputs, strict=True):
            self._match(arg, t, dims, types)
        dims |= {name: size for name, size in attrs.items() if name.isupper()}
        attrs = {**(self.reference.__kwdefaults__ or {}), **attrs}
        if self.sizes is not None:
            try:
                dims |= self.sizes(SimpleNamespace(**dims, **attrs))
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from None
        dtype = types.setdefault(output.dtype, out) if is_type_letter(output.dtype) else output.dtype
        shape = tuple(output_dim(d, dims) for d in output.dims)
        return Tensor(shape, dtype, op=self, inputs=inputs, dims=dims, types=types, attrs=attrs)

    def _match(self, arg: Arg, t: Tensor, dims: dict[str, Dim], types: dict[str, str]) -> None:
        """Enter the sizes and types of an input into `dims` and `types`. Raises ValueError on a mismatch."""
        expected = f"{self.name}: {arg.name} must be {arg.dtype}[{','.join(arg.dims)}], got {t.dtype}{list(t.shape)}"
        dtype = types.setdefault(arg.dtype, t.dtype) if is_type_letter(arg.dtype) else arg.dtype
        if dtype != t.dtype or len(arg.dims) != len(t.shape):
            raise ValueError(expected)
        for dim, size in zip(arg.dims, t.shape, strict=True):
            times, letter = parse_dim(dim)
            if not letter:
                if size != times:
                    raise ValueError(expected)
                continue
            if times > 1:
                if not isinstance(size, int) or size % times:
                    raise ValueError(expected)
                size //= times
            if dims.setdefault(letter, size) != size:
                raise ValueError(f"{expected} where {letter}={dims[letter]}")


def is_type_letter(dtype: str) -> bool:
    """A type letter such as "X" stands for f32 or f16, as the graph decides."""
    return dtype.isupper()


def parse_dim(dim: str) -> tuple[int, str]:
    """A factor and a letter, which is "" for a plain number: "3C" -> (3, "C"), "C" -> (1, "C"), "2" -> (2, "")."""
    match = re.fullmatch(r"(\d*)([A-Z]?)", dim)
    if match is None:
        raise ValueError(f"a dimension is a letter, a number or a multiple of a letter, not {dim!r}")
    factor, letter = match.groups()
    return int(factor or 1), letter


def output_dim(dim: str, dims: Mapping[str, Dim]) -> Dim:
    """The size of a dimension: "C" -> 384 or a symbol, "2" -> 2, "3C" -> 1152, "J+K" -> their sum."""
    if dim in dims:
        return dims[dim]
    total = 0
    for term in dim.split("+"):
        factor, letter = parse_dim(term)
        total += factor * int(dims[letter]) if letter else factor
    return total


def op(
    signature: str,
    grid: Callable[[SimpleNamespace], Grid],
    sizes: Callable[[SimpleNamespace], dict[str, int]] | None = None,
) -> Callable[[Callable[..., Array]], Op]:
    """Declare an op: `@op("x[T,C] weight[C] -> out[T,C]", grid=...)` above its numpy definition (see the top of this file)."""
    found = re.findall(r"(\w+)(?::(\w+))?\[([\w,+]+)\]", signature)
    args = tuple(Arg(name, dtype or "f32", tuple(dims.split(","))) for name, dtype, dims in found)
    return lambda fn: Op(fn.__name__, args, fn, grid, sizes)
