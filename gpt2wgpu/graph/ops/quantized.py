"""Weights in int8: their format, and products with them.

A weight is q * scale: q in -127 ... 127, symmetric, and one scale in f32 for each group of 64. Groups lie along k in a column of
a linear layer's matrix, and along a row in a table; the last group may be shorter. One scale per column is not enough: of 500
sentences one had a cosine of 0.9984 to the f32 model in all-MiniLM-L6-v2; groups of 64 keep every one above 0.9995. The
scales add 1/16 to the size of q. Files hold them in f16: half of that.
"""

import numpy as np

from ..tensor import Array
from .blocks import cache_blocks, cdiv

GROUP = 64  # weights that share a scale; also in the shaders
LARGEST_Q = 127  # symmetric: -128 is not used


def multiply_int8(x: Array, weight: Array, scale: Array) -> Array:
    """x @ dequantize(weight, scale), a block of columns at a time: only a block is ever in f32."""
    out = np.empty((len(x), weight.shape[1]), x.dtype)
    for at in cache_blocks(weight.shape[1], 4 * len(weight)):
        np.matmul(x, dequantize(weight[:, at], scale[:, at]), out=out[:, at])
    return out


def quantize_matrix(weight: Array, *, half: bool = False) -> tuple[Array, Array]:
    """A matrix (K, N) -> q, int8 (K, N), and scales, f32 (J, N). Each scale is max |weight| / 127 of its group.

    half: scales that f16 holds exactly, rounded up, so that no q exceeds 127; infinite where f16 overflows.
    """
    q = np.empty(weight.shape, np.int8)
    scale = np.empty((cdiv(len(weight), GROUP), weight.shape[1]), np.float32)
    for row, first in zip(scale, range(0, len(weight), GROUP), strict=True):
        group = weight[first : first + GROUP].astype(np.float32)
        np.divide(np.abs(group).max(0), np.float32(LARGEST_Q), out=row)
        row[row < np.finfo(np.float32).tiny] = 0  # devices may compute with zero in place of a subnormal number
        if half:
            row[:] = round_up_f16(row)
        np.rint(np.divide(group, np.where(row > 0, row, np.float32(np.inf)), out=group), out=group)
        q[first : first + GROUP] = np.clip(group, -LARGEST_Q, LARGEST_Q, out=group)
    return q, scale


def round_up_f16(scale: Array) -> Array:
    """The smallest f16 that are at least `scale`, f32."""
    with np.errstate(over="ignore", under="ignore"):
        found = scale.astype(np.float16)
        return np.where(found < scale, np.nextafter(found, np.float16(np.inf)), found)


def quantize_table(table: Array, *, half: bool = False) -> tuple[Array, Array]:
    """A table (V, C) -> q, int8 (V, C), and scales, f32 (V, J). half: as for `quantize_matrix`."""
    q, scale = np.empty(table.shape, np.int8), np.empty((len(table), cdiv(table.shape[1], GROUP)), np.float32)
    for rows in cache_blocks(len(table), 4 * table.shape[1]):
        q[rows], scale[rows] = (a.T for a in quantize_matrix(table[rows].T, half=half))
    return q, scale


def dequantize(q: Array, scale: Array) -> Array:
    """The weights (K, N) in f32: each row of `scale` applies to 64 rows of `q`."""
    weight = q.astype(np.float32, order="C")
    whole = len(q) // GROUP
    weight[: whole * GROUP].reshape(whole, GROUP, q.shape[1])[:] *= scale[:whole, None]
    weight[whole * GROUP :] *= scale[whole:]
    return weight


def dequantize_table(q: Array, scale: Array) -> Array:
    """The values (V, C) of a table in f32: each column of `scale` applies to 64 columns of `q`."""
    table, whole = np.empty(q.shape, np.float32), q.shape[1] // GROUP
    for rows in cache_blocks(len(q), 4 * q.shape[1]):
        block = table[rows]
        block[:] = q[rows]
        groups = block[:, : whole * GROUP].reshape(len(block), whole, GROUP)
        np.multiply(groups, scale[rows, :whole, None], out=groups)
        block[:, whole * GROUP :] *= scale[rows, whole:]
    return table
