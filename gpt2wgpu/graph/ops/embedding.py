"""From token ids to rows of tables, and rotary positions."""

import numpy as np

from ..tensor import Array, op
from .blocks import row_blocks
from .grids import per_element
from .quantized import dequantize


@op("ids:u32[T] positions:u32[T] wte:W[V,C] wpe:W[S,C] -> out[T,C]", grid=per_element("C", "T"))
def embed(ids: Array, positions: Array, wte: Array, wpe: Array, *, first: int = 0) -> Array:
    """wte[ids] + wpe[positions]: rows of the token table and of the position table.

    A device that cannot bind the whole token table gets it in pieces, one dispatch each: `wte` then begins with row `first`,
    and a dispatch leaves tokens whose ids are in another piece unchanged.
    """
    return wte[ids - first] + wpe[positions]


@op("ids:u32[T] positions:u32[T] wte:i8[V,C] scale[V,J] wpe:W[S,C] -> out[T,C]", grid=per_element("C", "T"))
def embed_int8(ids: Array, positions: Array, wte: Array, scale: Array, wpe: Array, *, first: int = 0) -> Array:
    """`embed` with a vocabulary table in int8. `scale` holds the scales of all rows, even if `wte` is a piece."""
    return dequantize(wte[ids - first].T, scale[ids].T).T + wpe[positions]


@op("qkv:X[T,N] positions:u32[T] table[S,D] -> out:O[T,N]", grid=per_element("N", "T"))
def rotary(qkv: Array, positions: Array, table: Array, *, heads: int) -> Array:
    """(x, y) -> (x cos - y sin, y cos + x sin) in the first `heads` heads of a row: rotary positions (Su et al. 2021).

    x is an element of a head's first half and y the same element of its second half. The heads are those of q and k; the
    columns after them are copied. table: the cosines of each position's angles, then their sines (models/rotary.py).
    """
    half = table.shape[1] // 2
    out = np.empty_like(qkv)
    for at in row_blocks(qkv):
        out[at] = qkv[at]
        shape = (len(qkv[at]), heads, 2, half)
        old, new = (a[at, : 2 * half * heads].reshape(shape) for a in (qkv, out))  # views: (T, heads, 2, D/2)
        cos, sin = table[positions[at]].reshape(-1, 2, 1, half).swapaxes(0, 1)  # (T, 1, D/2) each
        new *= cos[:, :, None]
        new[:, :, 0] -= old[:, :, 1] * sin
        new[:, :, 1] += old[:, :, 0] * sin
    return out
