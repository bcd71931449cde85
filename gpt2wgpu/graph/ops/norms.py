"""Norms of rows: LayerNorm and RMSNorm."""

import numpy as np

from ..tensor import Array, op
from .blocks import row_blocks
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


@op("x[T,C] weight[C] -> out:O[T,C]", grid=per_row("T"))
def rms_norm(x: Array, weight: Array, *, eps: float = 1e-6) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight, over each row (Zhang & Sennrich 2019)."""
    out = np.empty_like(x)
    for at in row_blocks(x):
        np.multiply(x[at], rms_scale(x[at], eps), out=out[at])
        out[at] *= weight
    return out


def rms_scale(x: Array, eps: float) -> Array:
    """1 / sqrt(mean(x^2) + eps) over the last axis, which keeps its place with one element."""
    mean_square = np.einsum("...c,...c->...", x, x)[..., None] / np.float32(x.shape[-1])
    scale: Array = 1 / np.sqrt(mean_square + np.float32(eps))
    return scale
