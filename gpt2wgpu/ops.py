"""Every operation, once: signature, numpy maths, dispatch grid. Its kernel is shaders/<name>.wgsl.

Letters: T tokens, B sequences, C width, K/N a linear layer's in/out, V vocabulary, S context, G query tiles,
M/N rows compared. A, W and O are dtypes, f32 or f16 as the graph decides: of activations, weights, output.
Attributes that a shader declares as `const` are baked into it; the others travel with the sizes.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph import op

Array = NDArray[Any]
CORES = os.cpu_count() or 1


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


# --- running numpy on all cores: it releases the GIL, and a block of rows that fits the cache needs no temporaries in memory


@cache
def threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CORES, thread_name_prefix="gpt2wgpu")


def on_all_cores(fn: Callable[[Any], None], items: Sequence[Any]) -> None:
    """Call fn on every item; each core takes every CORES-th one, so that costs are spread evenly."""
    shares = [items[i::CORES] for i in range(max(1, min(CORES, len(items))))]

    def work(share: Sequence[Any]) -> None:
        for item in share:
            fn(item)

    others = [threads().submit(work, share) for share in shares[1:]]
    work(shares[0])
    for other in others:
        other.result()


def in_row_blocks(fn: Callable[[slice], None], rows: int, row_bytes: int) -> None:
    """Call fn for blocks of rows of about 256 KiB, on all cores."""
    step = max(1, (1 << 18) // row_bytes)
    on_all_cores(fn, [slice(first, first + step) for first in range(0, rows, step)])


# --- activations, in place on a block


def gelu(x: Array, coefficients: tuple[float, ...], clip: float) -> None:
    """Both GELUs have the form x * sigmoid(x * P(x^2)); P is the exact one or approximates logit(Phi(x)) / x."""
    x_clipped = np.clip(x, -clip, clip)
    square = x_clipped * x_clipped
    p = square * np.float32(coefficients[-1])
    for c in coefficients[-2:0:-1]:
        p += np.float32(c)
        p *= square
    p += np.float32(coefficients[0])
    p *= x_clipped
    np.negative(p, out=p)
    np.exp(p, out=p)
    p += 1
    x /= p


# Hendrycks & Gimpel 2016: 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3)
GELU_TANH = (1.5957691216057308, 0.07135481627159861)
# x Phi(x), minimax fit on |x| <= 5.6: in f32 within 6e-7 of the true function (benchmarks/fit_gelu.py)
GELU_ERF = (1.5957685, 0.0726682983, -6.60534367e-05, -1.10546763e-04, 7.94814008e-06, -2.67566308e-07, 3.62785249e-09)


def silu(x: Array) -> None:
    p = np.clip(x, -87, None)
    np.negative(p, out=p)
    np.exp(p, out=p)
    p += 1
    x /= p


def sigmoid(x: Array) -> None:
    np.clip(x, -87, None, out=x)
    np.negative(x, out=x)
    np.exp(x, out=x)
    x += 1
    np.reciprocal(x, out=x)


ACTIVATIONS: dict[str, Callable[[Array], Any]] = {
    "none": lambda x: None,
    "gelu_tanh": lambda x: gelu(x, GELU_TANH, 10.0),
    "gelu_erf": lambda x: gelu(x, GELU_ERF, 5.6),
    "relu": lambda x: np.maximum(x, 0, out=x),
    "silu": silu,
    "tanh": lambda x: np.tanh(x, out=x),
    "sigmoid": sigmoid,
}

# --- the ops


@op("ids:u32[T] positions:u32[T] wte:W[V,C] wpe:W[S,C] -> out[T,C]", grid=lambda p: (cdiv(p.C, 64), p.T, 1))
def embed(ids: Array, positions: Array, wte: Array, wpe: Array, *, first: int = 0) -> Array:
    """Rows `first`... of a vocabulary table plus rows of the position table; ids below `first` or past the table are left out."""
    return wte[ids - first] + wpe[positions]


@op("x[T,C] weight[C] bias[C] -> out:O[T,C]", grid=lambda p: (1, p.T, 1))
def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float = 1e-5) -> Array:
    """Ba et al. 2016, biased variance."""
    out = np.empty_like(x)

    def block(at: slice) -> None:
        rows = np.subtract(x[at], x[at].mean(-1, keepdims=True), out=out[at])
        var = np.einsum("tc,tc->t", rows, rows)[:, None] / np.float32(x.shape[1])
        rows *= 1 / np.sqrt(var + np.float32(eps))
        rows *= weight
        rows += bias

    in_row_blocks(block, len(x), 4 * x.shape[1])
    return out


@op("x:A[T,K] weight:W[K,N] bias[N] -> out:O[T,N]", grid=lambda p: (cdiv(p.N, p.TILE_N), cdiv(p.T, p.TILE_T), 1))
def linear(x: Array, weight: Array, bias: Array, *, activation: str = "none") -> Array:
    """activation(x @ weight + bias)"""
    out = np.matmul(x, weight)

    def block(at: slice) -> None:
        out[at] += bias
        ACTIVATIONS[activation](out[at])

    in_row_blocks(block, len(out), 4 * out.shape[1])
    return out


@op("x:A[T,K] weight:W[K,N] bias[N] residual[T,N] -> out[T,N]", grid=lambda p: (cdiv(p.N, p.TILE_N), cdiv(p.T, p.TILE_T), 1))
def linear_add(x: Array, weight: Array, bias: Array, residual: Array) -> Array:
    """residual + (x @ weight + bias)"""
    out = np.matmul(x, weight)

    def block(at: slice) -> None:
        out[at] += bias
        out[at] += residual[at]

    in_row_blocks(block, len(out), 4 * out.shape[1])
    return out


QUERIES = 32  # at a time: a long text needs no T x T scores, and BLAS leaves the threads to us
FUTURE = np.where(np.tri(QUERIES, dtype=bool), np.float32(0), np.float32(-np.inf))


@op("qkv:A[T,3C] spans:u32[B,2] tiles:u32[G,2] -> out:O[T,C]", grid=lambda p: (p.G, p.C // p.HEAD_SIZE, 1))
def attention(qkv: Array, spans: Array, tiles: Array, *, head_size: int, scale: float, causal: bool) -> Array:
    """Softmax attention inside each packed sequence: tokens of different sequences never meet.

    spans: first and one-past-last token of each sequence. tiles: (sequence, first query inside it), the GPU's work list.
    """
    T, C = len(qkv), qkv.shape[1] // 3
    out = np.empty((T, C), np.float32)
    q, k, v = qkv.reshape(T, 3, C // head_size, head_size).transpose(1, 2, 0, 3)  # each (H, T, D)
    heads_out = out.reshape(T, C // head_size, head_size).transpose(1, 0, 2)  # (H, T, D)

    def block(item: tuple[int, int, int]) -> None:
        start, end, first = item
        last = min(first + QUERIES, end)
        keys = slice(start, last if causal else end)
        scores = (q[:, first:last] * np.float32(scale)) @ k[:, keys].swapaxes(1, 2)  # (H, queries, keys)
        if causal:
            scores[:, :, first - start :] += FUTURE[: last - first, : last - first]
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        np.divide(scores @ v[:, keys], scores.sum(-1, keepdims=True), out=heads_out[:, first:last])

    on_all_cores(block, [(lo, hi, first) for lo, hi in spans.tolist() for first in range(lo, hi, QUERIES)])
    return out


@op("x[T,C] spans:u32[B,2] skip:u32[B] -> out[B,C]", grid=lambda p: (cdiv(p.C, 64), p.B, 1))
def pool(x: Array, spans: Array, skip: Array, *, mode: str) -> Array:
    """One row per sequence; its `skip` leading tokens (a prompt) do not take part: "cls" is the first after them."""
    out = np.empty((len(spans), x.shape[1]), np.float32)
    for row, (start, end), leave in zip(out, spans.tolist(), skip.tolist(), strict=True):
        rows = x[start + leave : end]
        if mode == "mean":
            rows.mean(0, out=row)
        elif mode == "max":
            rows.max(0, out=row)
        elif mode == "sqrt_len_mean":
            np.divide(rows.sum(0), np.sqrt(np.float32(len(rows))), out=row)
        elif mode == "weighted_mean":  # Muennighoff 2022 (SGPT): weights 1, 2, ... by position
            weights = np.arange(leave + 1, end - start + 1, dtype=np.float32)
            np.divide(weights @ rows, weights.sum(), out=row)
        else:
            row[:] = rows[{"cls": 0, "last": -1}[mode]]
    return out


POOLINGS = ("mean", "cls", "max", "last", "weighted_mean", "sqrt_len_mean")


@op("a[B,J] b[B,K] -> out[B,J+K]", grid=lambda p: (cdiv(p.J + p.K, 64), p.B, 1))
def concat(a: Array, b: Array) -> Array:
    return np.concatenate([a, b], axis=1)


@op("x[B,C] -> out[B,C]", grid=lambda p: (1, p.B, 1))
def l2_normalize(x: Array) -> Array:
    """x / max(|x|, 1e-12): a zero vector stays zero."""
    return x / np.maximum(np.sqrt(np.einsum("bc,bc->b", x, x)), np.float32(1e-12))[:, None]


@op("a[M,C] b[N,C] -> out[M,N]", grid=lambda p: (cdiv(p.N, 32), cdiv(p.M, 32), 1))
def similarity(a: Array, b: Array, *, metric: str) -> Array:
    """All pairs of rows: "dot", or the distance "euclidean" or "manhattan". (Cosine: the dot of normalised rows.)"""
    if metric == "dot":
        return a @ b.T
    out = np.empty((len(a), len(b)), np.float32)

    def block(at: slice) -> None:
        for i in range(len(a))[at]:
            difference = b - a[i]
            if metric == "euclidean":
                np.sqrt(np.einsum("nc,nc->n", difference, difference), out=out[i])
            else:
                np.abs(difference, out=difference).sum(1, out=out[i])

    in_row_blocks(block, len(a), 4 * b.size)
    return out
