"""Attention inside packed sequences, with windows, shared keys and biases.

Rows hold q|k|v: H heads of queries, KV heads of keys and KV heads of values, of D columns each. Arrays of several sequences
of one length have five axes, (b, KV, H / KV, n, D): sequences, heads of keys, the heads of queries that share these, tokens,
columns.
"""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..tensor import Array, Grid, op

QUERY_BLOCK = 64  # 64 x 512 scores take 128 KiB of a core's cache
CAUSAL_MASK = np.where(np.tri(QUERY_BLOCK, dtype=bool), np.float32(0), np.float32(-np.inf))
TOKENS_TOGETHER = 1024  # neighbouring sequences of equal length share numpy calls, up to this many tokens


class Heads(NamedTuple):
    """How many heads of queries, and of keys (and values), lie in a row."""

    queries: int
    keys: int


def count_heads(width: int, head_size: int, kv_heads: int) -> Heads:
    """The heads in rows of `width` columns; kv_heads 0: as many of keys as of queries. Raises ValueError if none fit."""
    keys = kv_heads or width // (3 * head_size)
    queries, rest = divmod(width - 2 * keys * head_size, head_size)
    if rest or keys < 1 or queries < 1 or (queries % keys if kv_heads else queries != keys):
        wanted = "(H+2KV)D], H a multiple of KV" if kv_heads else "3HD]"
        found = f"head_size D={head_size}" + (f" and kv_heads KV={kv_heads}" if kv_heads else "")
        raise ValueError(f"qkv must be X[T,{wanted}, got {width} columns where {found}")
    return Heads(queries, keys)


def attention_sizes(p: SimpleNamespace) -> dict[str, int]:
    """H and C of `attention`'s output."""
    if not 0 <= p.window < 1 << 31:  # kernels subtract it from positions in i32
        raise ValueError(f"window must be 0 (no limit) or a number of tokens, got {p.window}")
    H = count_heads(p.N, p.head_size, p.kv_heads).queries
    return {"H": H, "C": H * p.head_size}


def attention_bias_sizes(p: SimpleNamespace) -> dict[str, int]:
    """C of `attention_bias`'s output."""
    H = count_heads(p.N, p.head_size, 0).queries
    if H != p.H or not p.R % 2:
        raise ValueError(f"bias must be f32[H,R] with H={H} and an odd R, got f32[{p.H}, {p.R}]")
    return {"C": H * p.head_size}


def attention_grid(p: SimpleNamespace) -> Grid:
    """One workgroup for each query tile and head."""
    return p.G, p.C // p.HEAD_SIZE, 1


@op("qkv:X[T,N] spans:u32[B,2] tiles:u32[G,2] -> out:O[T,C]", grid=attention_grid, sizes=attention_sizes)
def attention(
    qkv: Array, spans: Array, tiles: Array, *, head_size: int, scale: float, causal: bool, window: int = 0, kv_heads: int = 0
) -> Array:
    """softmax(scale q k^T) v for each head inside each packed sequence: tokens of different sequences never meet.

    qkv: queries (T, C), keys and values (T, KV D each) side by side. spans: first and one-past-last token of each sequence.
    tiles: (sequence, first query inside it), the GPU's work list. causal: a token sees itself and those before it.
    window: a token sees at most this many tokens before and after it (Beltagy et al. 2020); 0: all. kv_heads: KV; each is
    shared by H / KV neighbouring query heads (Ainslie et al. 2023); 0: KV = H.
    """
    return softmax_attention(qkv, spans, None, head_size, scale, causal, window, kv_heads)


@op(
    "qkv:X[T,N] spans:u32[B,2] tiles:u32[G,2] bias[H,R] -> out:O[T,C]",
    grid=attention_grid,
    sizes=attention_bias_sizes,
)
def attention_bias(qkv: Array, spans: Array, tiles: Array, bias: Array, *, head_size: int, scale: float, causal: bool) -> Array:
    """softmax(scale q k^T + bias by distance) v (Raffel et al. 2020; MPNet).

    The score of query i and key j gets bias[h, clamp(j - i, -(R//2), R//2) + R//2].
    """
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
    rows: slice | None = None,
) -> Array:
    """Both ops, one block of queries at a time: exp(s - max(s)) v / sum(exp(s - max(s))), s being the scores.

    rows: the only rows that are computed, where all of them are one sequence.
    """
    heads = count_heads(qkv.shape[1], head_size, kv_heads)
    wanted = rows or slice(0, len(qkv))
    out = np.empty((wanted.stop - wanted.start, heads.queries * head_size), qkv.dtype)
    ones = np.ones(len(qkv), qkv.dtype)
    for start, count, n in equal_runs(spans):
        q, k, v = split_qkv(qkv[start : start + count * n], count, n, heads, head_size)
        first, last = (wanted.start, wanted.stop) if rows else (0, n)
        result = split_heads(out[start : start + count * (last - first)], count, last - first, heads.keys, head_size)
        for queries, keys in query_blocks(first, last, n, causal, window):
            scores = masked_scores(q, k, scale, queries, keys, causal, window, bias)
            scores -= scores.max(-1, keepdims=True)
            np.exp(scores, out=scores)
            sums = scores @ ones[: scores.shape[-1]]  # BLAS sums faster than numpy
            np.divide(scores @ v[..., keys, :], sums[..., None], out=result[..., queries.start - first : queries.stop - first, :])
    return out


def equal_runs(spans: Array) -> list[tuple[int, int, int]]:
    """Runs of neighbouring sequences of equal length: (first token, how many sequences, their length)."""
    runs: list[tuple[int, int, int]] = []
    for start, end in spans.tolist():
        n = end - start
        if runs and runs[-1][2] == n and (runs[-1][1] + 1) * n <= TOKENS_TOGETHER:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, n)
        else:
            runs.append((start, 1, n))
    return runs


def split_qkv(qkv: Array, count: int, n: int, heads: Heads, head_size: int) -> list[Array]:
    """Views of the queries (b, KV, H / KV, n, D), keys and values (b, KV, 1, n, D) of `count` sequences of n tokens."""
    width = heads.queries * head_size
    parts = np.split(qkv, [width, width + heads.keys * head_size], axis=1)
    return [split_heads(part, count, n, heads.keys, head_size) for part in parts]


def split_heads(rows: Array, count: int, n: int, kv_heads: int, head_size: int) -> Array:
    """A view (b, KV, heads that share, n, D) of rows (b n, heads D)."""
    return rows.reshape(count, n, kv_heads, -1, head_size).transpose(0, 2, 3, 1, 4)


def query_blocks(first: int, last: int, n: int, causal: bool, window: int) -> list[tuple[slice, slice]]:
    """The queries first ... last - 1 in blocks, and the keys, of n, that each block sees: a long text never needs all n x n
    scores."""
    reach = window or n
    blocks = [slice(i, min(i + QUERY_BLOCK, last)) for i in range(first, last, QUERY_BLOCK)]
    return [(b, slice(max(b.start - reach, 0), b.stop if causal else min(b.stop + reach, n))) for b in blocks]


def masked_scores(
    q: Array, k: Array, scale: float, queries: slice, keys: slice, causal: bool, window: int, bias: Array | None = None
) -> Array:
    """scale q k^T + bias of a block of queries, (b, KV, H / KV, queries, keys); -inf where a key is hidden."""
    scores = (q[..., queries, :] * np.float32(scale)) @ k[..., keys, :].swapaxes(-1, -2)
    if bias is not None or 0 < window < k.shape[-2] - 1:
        scores += distance_bias(queries, keys, causal, window, bias)
    elif causal:
        size = queries.stop - queries.start
        scores[..., queries.start :] += CAUSAL_MASK[:size, :size]  # earlier keys are seen by the whole block
    return scores


def distance_bias(queries: slice, keys: slice, causal: bool, window: int, bias: Array | None) -> Array:
    """The bias and mask added to a block's scores, (H or 1, 1, queries, keys); they depend on key - query only."""
    distance = np.arange(keys.start - queries.stop + 1, keys.stop - queries.start)
    added = np.zeros((1, len(distance)), np.float32)
    if bias is not None:
        reach = bias.shape[1] // 2
        added = bias[:, distance.clip(-reach, reach) + reach]
    if causal:
        added[:, distance > 0] = -np.inf
    if window:
        added[:, abs(distance) > window] = -np.inf
    return sliding_window_view(added, keys.stop - keys.start, axis=1)[:, None, ::-1]  # a view: no n x n array
