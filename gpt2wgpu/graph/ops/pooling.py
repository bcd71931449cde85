"""Pooling: token rows to one vector per text; and ops on those vectors."""

import numpy as np

from ..tensor import Array, op
from .blocks import cdiv
from .grids import ELEMENT_THREADS, per_columns, per_row

POOLINGS = ("mean", "cls", "max", "last", "weighted_mean", "sqrt_len_mean")
SIMILARITIES = {"cosine": "dot", "dot": "dot", "euclidean": "euclidean", "manhattan": "manhattan"}  # -> metric of `similarity`


@op("x[T,C] spans:u32[B,2] skip:u32[B] -> out[B,C]", grid=per_columns("C", "B"))
def pool(x: Array, spans: Array, skip: Array, *, mode: str) -> Array:
    """One row per sequence, from its tokens after the first `skip`, which are a prompt. mode: one of POOLINGS.

    "cls" and "last" are the first and the last of these tokens, "sqrt_len_mean" is their sum / sqrt(their number), and
    "weighted_mean" weights a token by its position in the sequence, 1, 2, ... (Muennighoff 2022, SGPT).
    """
    out = np.empty((len(spans), x.shape[1]), x.dtype)
    for row, (start, end), leave in zip(out, spans.tolist(), skip.tolist(), strict=True):
        rows = x[start + leave : end]
        if mode == "mean":
            rows.mean(0, out=row)
        elif mode == "max":
            rows.max(0, out=row)
        elif mode == "sqrt_len_mean":
            np.divide(rows.sum(0), np.sqrt(np.float32(len(rows))), out=row)
        elif mode == "weighted_mean":
            weights = np.arange(leave + 1, end - start + 1, dtype=np.float32)
            np.divide(weights @ rows, weights.sum(), out=row)
        else:
            row[:] = rows[{"cls": 0, "last": -1}[mode]]
    return out


@op("a[B,J] b[B,K] -> out[B,J+K]", grid=lambda p: (cdiv(p.J + p.K, ELEMENT_THREADS), p.B, 1))
def concat(a: Array, b: Array) -> Array:
    """a|b: rows side by side."""
    return np.concatenate([a, b], axis=1)


@op("x[B,C] -> out[B,C]", grid=per_row("B"))
def l2_normalize(x: Array) -> Array:
    """x / max(|x|, 1e-12): a zero vector stays zero."""
    return x / np.maximum(np.sqrt(np.einsum("bc,bc->b", x, x)), np.float32(1e-12))[:, None]


@op("a[M,C] b[N,C] -> out[M,N]", grid=lambda p: (cdiv(p.N, p.PAIRS), cdiv(p.M, p.PAIRS), 1))
def similarity(a: Array, b: Array, *, metric: str) -> Array:
    """All pairs of rows: "dot", or the distance "euclidean" or "manhattan". (Cosine is the dot product of normalized rows.)"""
    if metric == "dot":
        return a @ b.T
    out = np.empty((len(a), len(b)), np.float32)
    for row, vector in zip(out, a, strict=True):  # row by row: memory for one difference (N, C)
        difference = b - vector
        if metric == "euclidean":
            np.sqrt(np.einsum("nc,nc->n", difference, difference), out=row)
        else:
            np.abs(difference, out=difference).sum(1, out=row)
    return out
