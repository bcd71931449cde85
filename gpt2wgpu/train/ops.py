"""The ops of training: the forward ops that only a trainable graph has, and every backward op.

Letters and grids are those of gpt2wgpu/graph/ops; the kernel of an op is shaders/<name>.wgsl. `dout` is the gradient of the
loss with respect to the output of an op, `dx` with respect to its input. Everything is f32; the numpy functions keep
the dtype of their inputs, so that gradients can be checked in float64.

The ops that sum over tokens give the gradients of weights; those of linear layers and norms are in sums.py. On a device, if
`onto` is 1, the last op of such a sum adds to what its output buffer holds, so that micro-batches accumulate. Numpy ignores
`onto`: its program adds the gradients itself.
"""

from types import SimpleNamespace

import numpy as np

from ..graph.ops.activations import ACTIVATIONS, GELU_TANH
from ..graph.ops.blocks import cdiv, row_blocks
from ..graph.ops.grids import matmul_grid, per_columns, per_element, per_row
from ..graph.ops.self_attention import (
    Heads,
    attention_sizes,
    count_heads,
    equal_runs,
    masked_scores,
    query_blocks,
    split_heads,
    split_qkv,
)
from ..graph.tensor import Array, Grid, op
from .sums import layer_norm_dweight as layer_norm_dweight
from .sums import linear_dweight as linear_dweight
from .sums import sum_parts as sum_parts
from .sums import sum_rows as sum_rows
from .sums import sum_vectors as sum_vectors

# --- forward


@op("a[T,C] b[T,C] -> out[T,C]", grid=per_element("C", "T"))
def add(a: Array, b: Array) -> Array:
    return a + b


@op("x[T,C] -> out[T,C]", grid=per_element("C", "T"))
def activate(x: Array, *, activation: str) -> Array:
    """The activation that `linear` fuses, as a separate op, because the backward pass needs its input."""
    out = np.empty_like(x)
    for at in row_blocks(x):
        out[at] = x[at]
        ACTIVATIONS[activation](out[at])
    return out


@op("x[T,C] tokens:u32[T] seed:u32[1] -> out[T,C]", grid=per_element("C", "T"))
def dropout(x: Array, tokens: Array, seed: Array, *, threshold: int, scale: float, site: int) -> Array:
    """Srivastava et al. 2014: zero where a hash is below the threshold, else scale * x. It is also its own backward op.

    tokens: the index of each token in the micro-batch. site: which dropout of the graph this is. The hash is of
    (seed, site, token, column), so no mask need be kept for the backward pass, and it does not depend on how a micro-batch is
    divided among cores.
    """
    rows = scramble(scramble(tokens ^ scramble(seed)) + np.uint32(site))
    columns = np.arange(x.shape[1], dtype=np.uint32) * np.uint32(0x9E3779B9)
    out = np.empty_like(x)
    for at in row_blocks(x):
        keep = scramble(rows[at, None] ^ columns) >= np.uint32(threshold)
        np.multiply(x[at], keep, out=out[at])
        out[at] *= np.float32(scale)
    return out


def scramble(x: Array) -> Array:
    """A bijection of u32 in which every bit of the input reaches every bit of the output ("lowbias32", Wellons 2018)."""
    x = x ^ (x >> np.uint32(16))
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


# --- linear layers


@op("x[K,N] -> out[N,K]", grid=lambda p: (cdiv(p.N, p.TILE), cdiv(p.K, p.TILE), 1))
def transpose(x: Array) -> Array:
    return x.T


@op("x[T,K] weight[K,N] -> out[T,N]", grid=matmul_grid)
def matmul(x: Array, weight: Array) -> Array:
    """dx of a linear layer is dout @ transpose(weight), so it runs on the matmul kernels of the forward pass."""
    return x @ weight


@op("x[T,C] y[T,C] dout[T,C] -> dx[T,C]", grid=per_element("C", "T"))
def activate_dx(x: Array, y: Array, dout: Array, *, activation: str) -> Array:
    """dout times the derivative of the activation at x, where its value is y.

    An activation of the form y = x s(x) has the derivative s + x s', and s = y / x needs no second tanh. For SiLU
    s' = s (1 - s); for GELU by tanh s = 0.5 (1 + tanh u), so s' = 2 s (1 - s) u'; for exact GELU
    s' = exp(-x^2 / 2) / sqrt(2 pi) (Hendrycks & Gimpel 2016).
    """
    dx = np.empty_like(x)
    blocks = row_blocks(x)
    scratch = np.empty((2, *x[blocks[0]].shape), x.dtype)
    for at in blocks:
        write_derivative(activation, x[at], y[at], dx[at], scratch[:, : len(dx[at])])
        dx[at] *= dout[at]
    return dx


def write_derivative(activation: str, x: Array, y: Array, out: Array, scratch: Array) -> None:
    """The derivative of an activation at x, where its value is y, into `out`. scratch: two more arrays of that shape."""
    if activation == "relu":
        np.greater(y, 0, out=out)
    elif activation == "tanh":
        np.multiply(y, y, out=out)
        np.subtract(1, out, out=out)
    elif activation == "sigmoid":
        np.subtract(1, y, out=out)
        out *= y
    elif activation == "relu6":
        np.greater(y, 0, out=out)
        out *= y < 6
    elif activation == "leaky_relu":
        np.copyto(out, np.where(y > 0, np.float32(1), np.float32(0.01)))
    elif activation == "elu":
        np.minimum(y, 0, out=out)
        out += 1
    elif activation == "gelu_erf":
        ratio_or_half(x, y, *scratch)
        np.multiply(x, x, out=out)
        out *= np.float32(-0.5)
        np.exp(out, out=out)
        out *= np.float32(0.3989422804014327)
        out *= x
        out += scratch[0]
    else:
        s, slope = scratch
        ratio_or_half(x, y, s, slope)
        np.subtract(1, s, out=out)
        out *= y
        if activation == "gelu_tanh":  # 2 u' = 2 a + 6 b x^2
            np.multiply(x, x, out=slope)
            slope *= np.float32(6 * GELU_TANH[1])
            slope += np.float32(2 * GELU_TANH[0])
            out *= slope
        out += s


def ratio_or_half(x: Array, y: Array, s: Array, scratch: Array) -> None:
    """s = y / x, or 0.5, its limit, where both are 0."""
    tiny = np.float32(1e-30)
    np.add(x, tiny, out=scratch)
    np.add(y, tiny / 2, out=s)
    s /= scratch


# --- layer norm


@op("x[T,C] -> stats[T,2]", grid=per_row("T"))
def layer_norm_stats(x: Array, *, eps: float) -> Array:
    """Mean and 1 / standard deviation of each row."""
    stats = np.empty((len(x), 2), x.dtype)
    average = np.full(x.shape[1], 1 / x.shape[1], x.dtype)
    for at in row_blocks(x):
        mean = x[at] @ average
        rows = x[at] - mean[:, None]
        stats[at, 0] = mean
        stats[at, 1] = 1 / np.sqrt(np.einsum("tc,tc->t", rows, rows) / np.float32(x.shape[1]) + np.float32(eps))
    return stats


@op("x[T,C] stats[T,2] weight[C] dout[T,C] -> dx[T,C]", grid=per_row("T"))
def layer_norm_dx(x: Array, stats: Array, weight: Array, dout: Array) -> Array:
    """With n = (x - mean) / std and d = dout * weight: (d - mean(d) - n mean(d n)) / std."""
    dx = np.empty_like(x)
    C = np.float32(x.shape[1])
    for at in row_blocks(x):
        mean, scale = stats[at, :1], stats[at, 1:]
        centred = x[at] - mean
        d = np.multiply(dout[at], weight, out=dx[at])
        mean_dn = np.einsum("tc,tc->t", d, centred)[:, None] * scale / C
        centred *= mean_dn * scale * scale
        d -= (dout[at] @ weight)[:, None] / C
        d *= scale
        d -= centred
    return dx


# --- attention


@op("qkv[T,N] spans:u32[B,2] tiles:u32[G,2] -> lse[T,H]", grid=lambda p: (p.G, p.H, 1), sizes=attention_sizes)
def attention_lse(
    qkv: Array, spans: Array, tiles: Array, *, head_size: int, scale: float, causal: bool, window: int = 0, kv_heads: int = 0
) -> Array:
    """log(sum(exp(scores))) of each token and head, from which the backward pass gets the softmax of a score in one step."""
    heads = count_heads(qkv.shape[1], head_size, kv_heads)
    lse = np.empty((len(qkv), heads.queries), qkv.dtype)
    for start, count, n in equal_runs(spans):
        rows = slice(start, start + count * n)
        q, k, _ = split_qkv(qkv[rows], count, n, heads, head_size)
        result = split_heads(lse[rows], count, n, heads.keys, 1)[..., 0]  # (b, KV, heads that share, n)
        for queries, keys in query_blocks(0, n, n, causal, window):
            scores = masked_scores(q, k, scale, queries, keys, causal, window)
            top = scores.max(-1, keepdims=True)
            scores -= top
            np.exp(scores, out=scores)
            np.add(top[..., 0], np.log(np.einsum("bhsqk->bhsq", scores)), out=result[..., queries])
    return lse


@op("qkv[T,N] out[T,C] dout[T,C] lse[T,H] spans:u32[B,2] tiles:u32[G,2] -> dqkv[T,N]", grid=lambda p: (p.G, p.H, 1))
def attention_dqkv(
    qkv: Array,
    out: Array,
    dout: Array,
    lse: Array,
    spans: Array,
    tiles: Array,
    *,
    head_size: int,
    scale: float,
    causal: bool,
    window: int = 0,
    kv_heads: int = 0,
) -> Array:
    """The gradients in queries, keys and values, with the softmax recomputed (Dao et al. 2022, appendix B).

    P = exp(scale q k - lse), dv = P^T dout, dS = P (dout v - sum(dout out)), dq = scale dS k, dk = scale dS^T q.
    Keys and values that several heads share get the sum over these heads.
    """
    dqkv = np.zeros_like(qkv)
    T, H = lse.shape
    heads = Heads(H, kv_heads or H)
    delta = np.einsum("thd,thd->th", dout.reshape(T, H, head_size), out.reshape(T, H, head_size))
    for start, count, n in equal_runs(spans):
        rows = slice(start, start + count * n)
        q, k, v = split_qkv(qkv[rows], count, n, heads, head_size)
        dq, dk, dv = split_qkv(dqkv[rows], count, n, heads, head_size)
        do = split_heads(dout[rows], count, n, heads.keys, head_size)
        shift, drop = (split_heads(a[rows], count, n, heads.keys, 1) for a in (lse, delta))  # (b, KV, heads that share, n, 1)
        for queries, keys in reversed(query_blocks(0, n, n, causal, window)):  # without a window the last block sees every key
            p = masked_scores(q, k, scale, queries, keys, causal, window)
            p -= shift[..., queries, :]
            np.exp(p, out=p)
            ds = do[..., queries, :] @ v[..., keys, :].swapaxes(-1, -2)
            ds -= drop[..., queries, :]
            ds *= p
            ds *= np.float32(scale)
            np.matmul(ds, k[..., keys, :], out=dq[..., queries, :])
            for d, weights, values in ((dv, p, do), (dk, ds, q)):
                if queries.stop == n and not window and not kv_heads:
                    np.matmul(weights.swapaxes(-1, -2), values[..., queries, :], out=d)
                else:
                    part = weights.swapaxes(-1, -2) @ values[..., queries, :]
                    d[..., keys, :] += part.sum(2, keepdims=True) if kv_heads else part
    return dqkv


# --- embedding


def scatter_grid(p: SimpleNamespace) -> Grid:
    """A workgroup for COLUMNS columns of a few rows of the table; these and the rest are constants of the kernel."""
    return cdiv(p.C, p.COLUMNS), cdiv(p.V, p.LINES // p.TOKEN_LANES), 1


@op("dout[T,C] order:u32[T] rows:u32[V,2] -> dtable[V,C]", grid=scatter_grid)
def scatter_rows(dout: Array, order: Array, rows: Array, *, onto: int | str = 0) -> Array:
    """The gradient in a table: for each row, the sum over the tokens that took it, in token order.

    order: the tokens, sorted by the row they took. rows: where in `order` the tokens of each row begin and end (exclusive).
    """
    dtable = np.zeros((len(rows), dout.shape[1]), dout.dtype)
    taken, sums = row_sums(dout, order, rows)
    dtable[taken] = sums
    return dtable


def row_sums(dout: Array, order: Array, rows: Array) -> tuple[Array, Array]:
    """The rows of a table that tokens took (n,), and their gradients (n, C); the other rows have none."""
    taken = np.flatnonzero(rows[:, 0] < rows[:, 1])
    return taken, np.add.reduceat(dout[order], rows[taken, 0].astype(np.intp), axis=0)


def sorted_rows(taken: Array, count: int) -> tuple[Array, Array]:
    """`order` and `rows` of `scatter_rows`, for tokens that took the rows `taken` (T,) of a table with `count` rows."""
    counts = np.bincount(taken, minlength=count)
    ends = np.cumsum(counts)
    order = np.argsort(taken.astype(np.uint16), kind="stable")  # numpy sorts numbers of 16 bits five times as fast
    if count > 1 << 16:
        order = order[np.argsort((taken >> 16).astype(np.uint16)[order], kind="stable")]
    return order.astype(np.uint32), np.stack([ends - counts, ends], axis=1).astype(np.uint32)


# --- from vectors to tokens


@op("x[T,C] dout[B,C] spans:u32[B,2] skip:u32[B] -> dx[T,C]", grid=per_columns("C", "B"))
def pool_dx(x: Array, dout: Array, spans: Array, skip: Array, *, mode: str) -> Array:
    """The part of a sequence's gradient that each of its tokens gets. If several tokens share the maximum, the first gets it."""
    dx = np.zeros_like(x)
    for row, (start, end), leave in zip(dout, spans.tolist(), skip.tolist(), strict=True):
        rows = dx[start + leave : end]
        if mode == "mean":
            rows[:] = row / np.float32(len(rows))
        elif mode == "max":
            rows[x[start + leave : end].argmax(0), np.arange(len(row))] = row
        elif mode == "sqrt_len_mean":
            rows[:] = row / np.sqrt(np.float32(len(rows)))
        elif mode == "weighted_mean":
            weights = np.arange(leave + 1, end - start + 1, dtype=x.dtype)
            np.multiply((weights / weights.sum())[:, None], row, out=rows)
        else:
            rows[{"cls": 0, "last": -1}[mode]] = row
    return dx


@op("x[T,N] -> out[T,M]", grid=per_element("M", "T"))
def columns(x: Array, *, M: int, first: int) -> Array:
    """M columns, starting at `first`: the backward op of `concat`."""
    return x[:, first : first + M].copy()


@op("x[B,C] dout[B,C] -> dx[B,C]", grid=per_row("B"))
def l2_normalize_dx(x: Array, dout: Array) -> Array:
    """With u = x / |x|: (dout - u (u dout)) / |x|. Where |x| <= 1e-12: dout / 1e-12."""
    norm = np.sqrt(np.einsum("bc,bc->b", x, x))[:, None]
    held = np.maximum(norm, np.float32(1e-12))
    u = x / held * (norm > np.float32(1e-12))
    return (dout - u * np.einsum("bc,bc->b", u, dout)[:, None]) / held
