"""Norms of rows: LayerNorm and RMSNorm."""

import numpy as np

from ..tensor import Array, op
from .blocks import cdiv, row_blocks
from .grids import per_row


@op("x[T,C] weight[C] bias[C] -> out:O[T,C]", grid=per_row("T"))
def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float = 1e-5) -> Array:
    """(x - mean) / sqrt(variance + eps) * weight + bias, over each row (Ba et al. 2016). The variance is divided by C."""
    C = np.float32(x.shape[1])
    out = np.empty_like(x)
    ones = np.ones(x.shape[1], x.dtype)
    for at in row_blocks(x):
        mean = (x[at] @ ones)[:, None] / C  # BLAS sums four times faster than numpy
        rows = np.subtract(x[at], mean, out=out[at])
        variance = np.einsum("tc,tc->t", rows, rows)[:, None] / C
        rows *= 1 / np.sqrt(variance + np.float32(eps))
        rows *= weight
        rows += bias
    return out


@op("x:X[T,N] weight[K] -> out:O[T,N]", grid=lambda p: (cdiv(p.N, p.size), p.T, 1))
def rms_norm(x: Array, weight: Array, *, size: int, eps: float = 1e-6) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight, over `size` columns at a time (Zhang & Sennrich 2019).

    size: N for a whole row, or the columns of a head. The columns from K on are copied.
    """
    K = len(weight)
    out = np.empty_like(x)
    out[:, K:] = x[:, K:]
    for at in row_blocks(x):
        rows = x[at, :K].reshape(-1, K // size, size)
        mean_square = np.einsum("thd,thd->th", rows, rows)[..., None] / np.float32(size)
        out[at, :K] = (rows * (1 / np.sqrt(mean_square + np.float32(eps)))).reshape(-1, K)
        out[at, :K] *= weight
    return out
