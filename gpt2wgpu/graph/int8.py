"""Weights in int8: the linear layers' and the vocabulary table's. Activations, and all that is summed, stay as they are.

A weight is q * scale with q in -127 ... 127, symmetric, and a scale in f32 for each group of 64: along k, in a column of a
linear layer's matrix; along a row, in a table. (One scale per column is not enough: of 500 sentences one had a cosine of
0.9984 to the f32 model in all-MiniLM-L6-v2, where groups of 64 keep every one above 0.9995.) A scale costs 1/16 of what it
scales. Norms, biases, position tables and Dense heads are small, and stay as they are.

Letter J: groups. Groups at the end of a matrix may be cut short.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .ops import ACTIVATIONS, cdiv, embed, linear, linear_add, row_blocks
from .tensor import Array, Op, Tensor, op, schedule

GROUP = 64  # also in the shaders
LARGEST = 127


@op("ids:u32[T] positions:u32[T] wte:i8[V,C] scale[V,J] wpe:W[S,C] -> out[T,C]", grid=lambda p: (cdiv(p.C, 64), p.T, 1))
def embed_int8(ids: Array, positions: Array, wte: Array, scale: Array, wpe: Array, *, first: int = 0) -> Array:
    """`embed` with the rows `first`... of a vocabulary table in int8; `scale` holds all of its rows."""
    return dequantise(wte[ids - first].T, scale[ids].T).T + wpe[positions]


@op("x:X[T,K] weight:i8[K,N] scale[J,N] bias[N] -> out:O[T,N]", grid=linear.grid)
def linear_int8(x: Array, weight: Array, scale: Array, bias: Array, *, activation: str = "none") -> Array:
    """activation(x @ weight + bias)"""
    out = multiply_int8(x, weight, scale)
    blocks = row_blocks(len(out), 4 * out.shape[1])
    scratch = np.empty((2, *out[blocks[0]].shape), out.dtype)
    for at in blocks:
        out[at] += bias
        ACTIVATIONS[activation](out[at], scratch[:, : len(out[at])])
    return out


@op("x:X[T,K] weight:i8[K,N] scale[J,N] bias[N] residual[T,N] -> out[T,N]", grid=linear_add.grid)
def linear_add_int8(x: Array, weight: Array, scale: Array, bias: Array, residual: Array) -> Array:
    """residual + (x @ weight + bias)"""
    out = multiply_int8(x, weight, scale)
    for at in row_blocks(len(out), 4 * out.shape[1]):
        out[at] += bias
        out[at] += residual[at]
    return out


def multiply_int8(x: Array, weight: Array, scale: Array) -> Array:
    """x @ weight, some columns at a time, so that there are never many weights in f32."""
    out = np.empty((len(x), weight.shape[1]), x.dtype)
    for at in row_blocks(weight.shape[1], 4 * len(weight)):
        np.matmul(x, dequantise(weight[:, at], scale[:, at]), out=out[:, at])
    return out


# --- between f32 and int8


def quantise(weight: Array) -> tuple[Array, Array]:
    """A matrix (K, N) -> its q, int8 (K, N), and scales, f32 (J, N)."""
    q = np.empty(weight.shape, np.int8)
    scale = np.empty((cdiv(len(weight), GROUP), weight.shape[1]), np.float32)
    for row, first in zip(scale, range(0, len(weight), GROUP), strict=True):
        group = weight[first : first + GROUP].astype(np.float32)
        np.divide(np.abs(group).max(0), np.float32(LARGEST), out=row)
        row[row < np.finfo(np.float32).tiny] = 0  # below, devices compute with zero
        np.rint(np.divide(group, np.where(row > 0, row, np.float32(np.inf)), out=group), out=group)
        q[first : first + GROUP] = np.clip(group, -LARGEST, LARGEST, out=group)
    return q, scale


def quantise_table(table: Array) -> tuple[Array, Array]:
    """A table (V, C) -> its q, int8 (V, C), and scales, f32 (V, J)."""
    q, scale = np.empty(table.shape, np.int8), np.empty((len(table), cdiv(table.shape[1], GROUP)), np.float32)
    for rows in row_blocks(len(table), 4 * table.shape[1]):
        q[rows], scale[rows] = (a.T for a in quantise(table[rows].T))
    return q, scale


def dequantise(q: Array, scale: Array) -> Array:
    """The weights (K, N) in f32."""
    weight = q.astype(np.float32, order="C")
    whole = len(q) // GROUP
    weight[: whole * GROUP].reshape(whole, GROUP, q.shape[1])[:] *= scale[:whole, None]
    weight[whole * GROUP :] *= scale[whole:]
    return weight


# --- a graph and its weights in int8

TWINS: dict[Op, Op] = {embed: embed_int8, linear: linear_int8, linear_add: linear_add_int8}


def in_int8(output: Tensor) -> Tensor:
    """The same graph with twins of its embedding and its linear layers that take int8."""
    found: dict[Tensor, Tensor] = {}
    leaves: dict[Tensor, tuple[Tensor, Tensor]] = {}

    def quantised(weight: Tensor, is_table: bool) -> tuple[Tensor, Tensor]:
        if weight not in leaves:
            rows, columns = map(int, weight.shape)
            scales = (rows, cdiv(columns, GROUP)) if is_table else (cdiv(rows, GROUP), columns)
            values = Tensor(weight.shape, "i8", weight.name, attrs={"table": is_table})
            leaves[weight] = values, Tensor(scales, "f32", f"{weight.name} scale")
        return leaves[weight]

    for t in schedule(output):
        inputs = [found[x] for x in t.inputs]
        if t.op is None:
            found[t] = t
        elif t.op in TWINS:
            at = 2 if t.op is embed else 1
            inputs[at : at + 1] = quantised(inputs[at], t.op is embed)
            found[t] = TWINS[t.op](*inputs, out=t.dtype, **t.attrs)
        else:
            found[t] = Tensor(t.shape, t.dtype, t.name, t.op, tuple(inputs), t.dims, t.types, t.attrs)
    return found[output]


def quantising(read: Callable[[Tensor], Array]) -> Callable[[Tensor], Array]:
    """The weights of such a graph: `read`, which gives those of the f32 graph, with matrices quantised as they are read.

    A scale is asked for after its matrix, as in the graph's order.
    """
    scales: dict[str, Array] = {}

    def weights(t: Tensor) -> Any:
        if t.dtype == "i8":
            array = read(Tensor(t.shape, "f32", t.name))
            q, scales[f"{t.name} scale"] = quantise_table(array) if t.attrs["table"] else quantise(array)
            return q
        return scales.pop(t.name) if t.name in scales else read(t)

    return weights
