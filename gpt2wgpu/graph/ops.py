"""Every operation, once: signature, numpy maths, dispatch grid. Its kernel is shaders/<name>.wgsl.

Letters: T tokens, B sequences, C width, K/N a linear layer's in/out, V vocabulary, S context, G query tiles, H heads,
D head size, R distances, M/N rows compared. X, W and O are dtypes, f32 or f16 as the graph decides: of activations, weights,
output.
Attributes that a shader declares as `const` are baked into it; the others travel with the sizes.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .tensor import Array, op


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def row_blocks(rows: int, row_bytes: int) -> list[slice]:
    """Blocks of rows of about 1 MiB: what is done to a block step by step stays in the cache.

    Smaller ones cost more: at every call the threads of two cores may have to wait for Python's lock.
    """
    step = max(1, (1 << 20) // row_bytes)
    return [slice(first, first + step) for first in range(0, rows, step)]


# --- activations, in place on a block of rows, with scratch space of its shape


def gelu(x: Array, scratch: Array, coefficients: tuple[float, ...]) -> None:
    """Both GELUs have the form 0.5 x (1 + tanh(x P(x^2))); the exact one with a P that is fitted."""
    p, square = scratch
    np.multiply(x, x, out=square)
    if len(coefficients) > 1:
        np.multiply(square, np.float32(coefficients[-1]), out=p)
        for c in coefficients[-2:0:-1]:
            p += np.float32(c)
            p *= square
        p += np.float32(coefficients[0])
        p *= x
    else:
        np.multiply(x, np.float32(coefficients[0]), out=p)
    np.tanh(p, out=p)
    p += 1
    x *= np.float32(0.5)
    x *= p


# Hendrycks & Gimpel 2016: u = sqrt(2/pi) (x + 0.044715 x^3)
GELU_TANH = (0.7978845608028654, 0.035677408136300125)
# x Phi(x) with P(x^2) = logit(Phi(x)) / 2x, a minimax fit on |x| <= 5.6 (benchmarks/fit_gelu.py): within 6e-7 in f32
GELU_ERF = (0.79788425, 0.0363341492, -3.30267184e-05, -5.52733815e-05, 3.97407004e-06, -1.33783154e-07, 1.81392624e-09)


def sigmoid(x: Array, scratch: Array) -> None:
    x *= np.float32(0.5)
    np.tanh(x, out=x)
    x += 1
    x *= np.float32(0.5)


ACTIVATIONS: dict[str, Callable[[Array, Array], Any]] = {
    "none": lambda x, scratch: None,
    "gelu_tanh": lambda x, scratch: gelu(x, scratch, GELU_TANH),
    "gelu_erf": lambda x, scratch: gelu(x, scratch, GELU_ERF),
    "relu": lambda x, scratch: np.maximum(x, 0, out=x),
    "silu": lambda x, scratch: gelu(x, scratch, (0.5,)),  # x sigmoid(x) = 0.5 x (1 + tanh(x / 2))
    "tanh": lambda x, scratch: np.tanh(x, out=x),
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
    ones, width = np.ones(x.shape[1], x.dtype), np.float32(x.shape[1])
    for at in row_blocks(len(x), 4 * x.shape[1]):
        rows = np.subtract(x[at], (x[at] @ ones)[:, None] / width, out=out[at])  # BLAS sums four times faster than numpy
        var = np.einsum("tc,tc->t", rows, rows)[:, None] / width
        rows *= 1 / np.sqrt(var + np.float32(eps))
        rows *= weight
        rows += bias
    return out


@op("x:X[T,N] weight[K] -> out:O[T,N]", grid=lambda p: (cdiv(p.N, p.size), p.T, 1))
def rms_norm(x: Array, weight: Array, *, size: int, eps: float = 1e-6) -> Array:
    """Zhang & Sennrich 2019, over `size` columns at a time: all N, or those of a head. Columns from K on stay as they are."""
    K = len(weight)
    out = np.empty_like(x)
    out[:, K:] = x[:, K:]
    for at in row_blocks(len(x), 4 * x.shape[1]):
        rows = x[at, :K].reshape(-1, K // size, size)
        square = np.einsum("thd,thd->th", rows, rows)[..., None] / np.float32(size)
        out[at, :K] = (rows * (1 / np.sqrt(square + np.float32(eps)))).reshape(-1, K)
        out[at, :K] *= weight
    return out


@op("x:X[T,K] weight:W[K,N] bias[N] -> out:O[T,N]", grid=lambda p: (cdiv(p.N, p.TILE_N), cdiv(p.T, p.TILE_T), 1))
def linear(x: Array, weight: Array, bias: Array, *, activation: str = "none") -> Array:
    """activation(x @ weight + bias)"""
    out = x @ weight
    blocks = row_blocks(len(out), 4 * out.shape[1])
    scratch = np.empty((2, *out[blocks[0]].shape), out.dtype)
    for at in blocks:
        out[at] += bias
        ACTIVATIONS[activation](out[at], scratch[:, : len(out[at])])
    return out


@op("x:X[T,K] weight:W[K,N] bias[N] residual[T,N] -> out[T,N]", grid=lambda p: (cdiv(p.N, p.TILE_N), cdiv(p.T, p.TILE_T), 1))
def linear_add(x: Array, weight: Array, bias: Array, residual: Array) -> Array:
    """residual + (x @ weight + bias)"""
    out = x @ weight
    for at in row_blocks(len(out), 4 * out.shape[1]):
        out[at] += bias
        out[at] += residual[at]
    return out


@op("x:X[T,2N] -> out:O[T,N]", grid=lambda p: (cdiv(p.N, 64), p.T, 1))
def glu(x: Array, *, activation: str) -> Array:
    """Gated linear unit (Shazeer 2020): activation(a) * b, where a and b lie side by side."""
    N = x.shape[1] // 2
    out = x[:, :N].copy()
    blocks = row_blocks(len(x), 4 * N)
    scratch = np.empty((2, *out[blocks[0]].shape), out.dtype)
    for at in blocks:
        ACTIVATIONS[activation](out[at], scratch[:, : len(out[at])])
        out[at] *= x[at, N:]
    return out


@op("qkv:X[T,N] positions:u32[T] table[S,D] -> out:O[T,N]", grid=lambda p: (cdiv(p.N, 64), p.T, 1))
def rotary(qkv: Array, positions: Array, table: Array, *, heads: int) -> Array:
    """Rotary positions (Su et al. 2021) in the first `heads` heads of a row, those of q and k; what follows stays as it is.

    Element i of a head's first half and element i of its second are the two coordinates that are turned.
    table: cos of each position's angles, then their sin; models/rotary.py makes it.
    """
    half = table.shape[1] // 2
    out = np.empty_like(qkv)
    for at in row_blocks(len(qkv), 4 * qkv.shape[1]):
        out[at] = qkv[at]
        turned = (len(qkv[at]), heads, 2, half)
        x, y = (a[at, : 2 * half * heads].reshape(turned) for a in (qkv, out))  # views: (T, heads, 2, D/2)
        cos, sin = table[positions[at]].reshape(-1, 2, 1, half).swapaxes(0, 1)  # (T, 1, D/2) each
        y *= cos[:, :, None]
        y[:, :, 0] -= x[:, :, 1] * sin
        y[:, :, 1] += x[:, :, 0] * sin
    return out


# --- attention


def attention_heads(width: int, head_size: int, kv_heads: int) -> tuple[int, int]:
    """How many heads of queries, and of keys and values, lie in rows of q|k|v. Raises ValueError if none can."""
    kv = kv_heads or width // (3 * head_size)
    heads, rest = divmod(width - 2 * kv * head_size, head_size)
    if rest or kv < 1 or heads < 1 or (heads % kv if kv_heads else heads != kv):
        wanted = "(H+2KV)D], H a multiple of KV" if kv_heads else "3HD]"
        found = f"head_size D={head_size}" + (f" and kv_heads KV={kv_heads}" if kv_heads else "")
        raise ValueError(f"qkv must be X[T,{wanted}, got {width} columns where {found}")
    return heads, kv


def attention_sizes(p: SimpleNamespace) -> dict[str, int]:
    if not 0 <= p.window < 1 << 31:
        raise ValueError(f"window must be 0 (no limit) or a number of tokens, got {p.window}")
    heads, _ = attention_heads(p.N, p.head_size, p.kv_heads)
    return {"H": heads, "C": heads * p.head_size}


def attention_bias_sizes(p: SimpleNamespace) -> dict[str, int]:
    heads, _ = attention_heads(p.N, p.head_size, 0)
    if heads != p.H or not p.R % 2:
        raise ValueError(f"bias must be f32[H,R] with H={heads} and an odd R, got f32[{p.H}, {p.R}]")
    return {"C": heads * p.head_size}


@op(
    "qkv:X[T,N] spans:u32[B,2] tiles:u32[G,2] -> out:O[T,C]",
    grid=lambda p: (p.G, p.C // p.HEAD_SIZE, 1),
    sizes=attention_sizes,
)
def attention(
    qkv: Array, spans: Array, tiles: Array, *, head_size: int, scale: float, causal: bool, window: int = 0, kv_heads: int = 0
) -> Array:
    """Softmax attention inside each packed sequence: tokens of different sequences never meet.

    qkv: queries (T, C), keys and values (T, KV D each) side by side. spans: first and one-past-last token of each sequence.
    tiles: (sequence, first query inside it), the GPU's work list.
    window: a token sees those at most so many before and after it (Beltagy et al. 2020), 0: all. kv_heads: KV; each is
    shared by H / KV neighbouring heads of queries (Ainslie et al. 2023), 0: KV = H.
    """
    return softmax_attention(qkv, spans, None, head_size, scale, causal, window, kv_heads)


@op(
    "qkv:X[T,N] spans:u32[B,2] tiles:u32[G,2] bias[H,R] -> out:O[T,C]",
    grid=lambda p: (p.G, p.C // p.HEAD_SIZE, 1),
    sizes=attention_bias_sizes,
)
def attention_bias(qkv: Array, spans: Array, tiles: Array, bias: Array, *, head_size: int, scale: float, causal: bool) -> Array:
    """Attention with a bias by distance (Raffel et al. 2020, MPNet): bias[h, clamp(j - i, -(R//2), R//2) + R//2] is added
    to the scaled score of query i and key j."""
    return softmax_attention(qkv, spans, bias, head_size, scale, causal)


def softmax_attention(
    qkv: Array,
    spans: Array,
    bias: Array | None,
    head_size: int,
    scale: float,
    causal: bool,
    window: int = 0,
    kv_heads: int = 0,
) -> Array:
    heads = attention_heads(qkv.shape[1], head_size, kv_heads)
    out = np.empty((len(qkv), heads[0] * head_size), qkv.dtype)
    for start, count, n in alike(spans):
        rows = slice(start, start + count * n)
        q, k, v = split_heads(qkv[rows], count, n, heads, head_size)
        result = share_heads(out[rows], count, n, heads, head_size)
        for first, last, keys in query_blocks(n, causal, window):
            scores = masked_scores(q, k, scale, first, last, keys, causal, window, bias)
            scores -= scores.max(-1, keepdims=True)
            np.exp(scores, out=scores)
            np.divide(scores @ v[..., keys, :], scores.sum(-1, keepdims=True), out=result[..., first:last, :])
    return out


def split_heads(qkv: Array, count: int, n: int, heads: tuple[int, int], head_size: int) -> list[Array]:
    """Views of queries, keys and values of `count` sequences of n tokens, each (b, KV, heads that share these, n, D)."""
    width = heads[0] * head_size
    parts = np.split(qkv, [width, width + heads[1] * head_size], axis=1)
    return [share_heads(part, count, n, heads, head_size) for part in parts]


def share_heads(rows: Array, count: int, n: int, heads: tuple[int, int], head_size: int) -> Array:
    return rows.reshape(count, n, heads[1], -1, head_size).transpose(0, 2, 3, 1, 4)


def query_blocks(n: int, causal: bool, window: int) -> list[tuple[int, int, slice]]:
    """First and one-past-last query of each block, and the keys that it sees: a long text needs no T x T scores."""
    reach = window or n
    blocks = [(first, min(first + QUERIES, n)) for first in range(0, n, QUERIES)]
    return [(i, end, slice(max(i - reach, 0), end if causal else min(end + reach, n))) for i, end in blocks]


QUERIES = 64  # of a block
FUTURE = np.where(np.tri(QUERIES, dtype=bool), np.float32(0), np.float32(-np.inf))


def masked_scores(
    q: Array, k: Array, scale: float, first: int, last: int, keys: slice, causal: bool, window: int, bias: Array | None = None
) -> Array:
    """The scores of a block of queries, with the bias; -inf where a key is hidden."""
    scores = (q[..., first:last, :] * np.float32(scale)) @ k[..., keys, :].swapaxes(-1, -2)  # (b, KV, shared, queries, keys)
    if bias is not None or 0 < window < k.shape[-2] - 1:
        scores += by_distance(first, last, keys, causal, window, bias)
    elif causal:
        scores[..., first:] += FUTURE[: last - first, : last - first]
    return scores


def by_distance(first: int, last: int, keys: slice, causal: bool, window: int, bias: Array | None) -> Array:
    """What is added to the scores of a block, (H or 1, 1, queries, keys): a view, as it depends on key - query only."""
    distance = np.arange(keys.start - last + 1, keys.stop - first)
    added = np.zeros((1, len(distance)), np.float32)
    if bias is not None:
        reach = bias.shape[1] // 2
        added = bias[:, distance.clip(-reach, reach) + reach]
    if causal:
        added[:, distance > 0] = -np.inf
    if window:
        added[:, abs(distance) > window] = -np.inf
    return sliding_window_view(added, keys.stop - keys.start, axis=1)[:, None, ::-1]


def alike(spans: Array) -> list[tuple[int, int, int]]:
    """Neighbouring sequences of one length: (first token, how many sequences, their length). Up to 1024 tokens together."""
    runs: list[tuple[int, int, int]] = []
    for start, end in spans.tolist():
        n = end - start
        if runs and runs[-1][2] == n and (runs[-1][1] + 1) * n <= 1024:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, n)
        else:
            runs.append((start, 1, n))
    return runs


@op("x[T,C] spans:u32[B,2] skip:u32[B] -> out[B,C]", grid=lambda p: (cdiv(p.C, 64), p.B, 1))
def pool(x: Array, spans: Array, skip: Array, *, mode: str) -> Array:
    """One row per sequence; its `skip` leading tokens (a prompt) do not take part: "cls" is the first after them."""
    out = np.empty((len(spans), x.shape[1]), x.dtype)
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
    for row, vector in zip(out, a, strict=True):
        difference = b - vector
        if metric == "euclidean":
            np.sqrt(np.einsum("nc,nc->n", difference, difference), out=row)
        else:
            np.abs(difference, out=difference).sum(1, out=row)
    return out
