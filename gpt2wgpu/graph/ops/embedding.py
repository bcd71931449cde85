"""From token ids to rows of tables, and rotary positions."""

from types import SimpleNamespace

import numpy as np

from ..tensor import Array, Grid, op
from .blocks import cdiv, row_blocks
from .grids import per_element
from .norms import rms_scale
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
    out = np.empty_like(qkv)
    for at in row_blocks(qkv):
        out[at] = qkv[at]
        width = heads * table.shape[1]
        turn_heads(qkv[at, :width], table[positions[at]], out[at, :width])
    return out


def head_sizes(p: SimpleNamespace) -> dict[str, int]:
    """No sizes, but a check that rows and weights of `norm_rotary` are whole heads."""
    if p.N % p.D or p.K % p.D or p.K > p.N or p.D % 2:
        raise ValueError(f"N and K <= N must be multiples of an even D={p.D}, got N={p.N} and K={p.K}")
    return {}


def heads_grid(p: SimpleNamespace) -> Grid:
    """A workgroup for HEADS heads of a row."""
    return cdiv(p.N // p.D, p.HEADS), p.T, 1


@op("qkv:X[T,N] weight[K] positions:u32[T] table[S,D] -> out:O[T,N]", grid=heads_grid, sizes=head_sizes)
def norm_rotary(qkv: Array, weight: Array, positions: Array, table: Array, *, eps: float = 1e-6) -> Array:
    """`rms_norm` of each head of q and k, whose weights lie side by side, then `rotary` (Qwen3). Columns from K on are copied."""
    D, K = table.shape[1], len(weight)
    out = np.empty_like(qkv)
    for at in row_blocks(qkv):
        out[at, K:] = qkv[at, K:]
        heads = qkv[at, :K].reshape(-1, K // D, D)
        normed = (heads * rms_scale(heads, eps)).reshape(-1, K)
        normed *= weight
        out[at, :K] = normed
        turn_heads(normed, table[positions[at]], out[at, :K])
    return out


def turn_heads(old: Array, angles: Array, new: Array) -> None:
    """Rotate `new`, a copy of the rows `old` of whole heads, by cosines | sines (rows, D)."""
    half = angles.shape[1] // 2
    x, y = (a.reshape(len(a), -1, 2, half) for a in (old, new))  # (T, heads, 2, D/2)
    cos, sin = angles.reshape(-1, 2, 1, half).swapaxes(0, 1)  # (T, 1, D/2) each
    y *= cos[:, :, None]
    y[:, :, 0] -= x[:, :, 1] * sin
    y[:, :, 1] += x[:, :, 0] * sin
