"""The ops of the puzzles in docs/learn/puzzles, each with its numpy definition, its grid and the cases on which it is checked.

They are declared as those of the engine are (graph/tensor.py), and small enough that one kernel teaches one thing. The cases are
sizes that no workgroup divides, several workgroups, and numbers on which the usual mistakes show.
"""

import numpy as np

from ..devices.selftest import Case
from ..graph.ops import ACTIVATIONS, cdiv
from ..graph.ops.grids import per_element, per_row
from ..graph.ops.quantized import dequantize_table
from ..graph.tensor import Array, Op, op

OWN_TILE = 32  # of an output of `tile_matmul`, 8 x 8 threads with 4 x 4 elements each
SHARED_TILE = 16  # of `shared_matmul`, a thread per element


@op("x[T,C] -> out[T,C]", grid=per_element("C", "T"))
def add_ten(x: Array) -> Array:
    """x + 10"""
    return x + np.float32(10)


@op("x[T,C] bias[C] -> out[T,C]", grid=per_element("C", "T"))
def add_bias(x: Array, bias: Array) -> Array:
    """x + bias: the same bias for each row."""
    return x + bias


@op("x[T,C] -> out[T,C]", grid=per_element("C", "T"))
def plain_gelu(x: Array) -> Array:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (Hendrycks & Gimpel 2016)."""
    out = x.copy()
    ACTIVATIONS["gelu_tanh"](out)
    return out


@op("x[T,C] spans:u32[B,2] -> out[B,C]", grid=per_element("C", "B"))
def mean_pool(x: Array, spans: Array) -> Array:
    """The mean of each text's rows, from its first to one before its end."""
    return np.stack([x[first:end].mean(0) for first, end in spans.tolist()])


@op("x[T,C] -> out[T]", grid=per_row("T"))
def lane_sum(x: Array) -> Array:
    """The sum of each row."""
    return x.sum(1)


@op("x[T,C] -> out[T,C]", grid=per_row("T"))
def standardise_rows(x: Array, *, eps: float = 1e-5) -> Array:
    """(x - mean) / sqrt(variance + eps) of each row; the variance is divided by C. A layer norm without weights."""
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(1, keepdims=True) + np.float32(eps))


@op("x[T,C] -> out[T,C]", grid=per_row("T"))
def plain_softmax(x: Array) -> Array:
    """exp(x) / sum(exp(x)) of each row."""
    powers = np.exp(x - x.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@op("score[T,C] value[C] -> out[T]", grid=lambda p: (cdiv(p.T, 64), 1, 1))
def softmax_mean(score: Array, value: Array) -> Array:
    """The mean of the values, weighted by the softmax of each row's scores."""
    return plain_softmax.reference(score) @ value


@op("q[T,C] k[T,C] v[T,C] spans:u32[B,2] -> out[T,C]", grid=per_element("C", "T"))
def causal_attention(q: Array, k: Array, v: Array, spans: Array) -> Array:
    """softmax(q k^T / sqrt(C)) v in each text: a token sees those of its own text up to itself (Vaswani et al. 2017)."""
    out = np.empty_like(v)
    for first, end in spans.tolist():
        for t in range(first, end):
            seen = slice(first, t + 1)
            scores = k[seen] @ q[t] / np.sqrt(np.float32(q.shape[1]))
            out[t] = plain_softmax.reference(scores[None])[0] @ v[seen]
    return out


@op("x[T,K] weight[K,N] -> out[T,N]", grid=lambda p: (cdiv(p.N, OWN_TILE), cdiv(p.T, OWN_TILE), 1))
def tile_matmul(x: Array, weight: Array) -> Array:
    """x @ weight, 4 x 4 elements a thread."""
    return x @ weight


@op("x[T,K] weight[K,N] -> out[T,N]", grid=lambda p: (cdiv(p.N, SHARED_TILE), cdiv(p.T, SHARED_TILE), 1))
def shared_matmul(x: Array, weight: Array) -> Array:
    """x @ weight, with both matrices staged in workgroup memory."""
    return x @ weight


@op("q:i8[V,C] scale[V,J] -> out[V,C]", grid=per_element("C", "V"))
def unpack_int8(q: Array, scale: Array) -> Array:
    """q * scale: a row has one scale for each group of 64 columns, and four q in each u32, the first one lowest."""
    return dequantize_table(q, scale)


def wide_numbers(rows: int, columns: int, reach: float) -> Array:
    """Normal random numbers, and in each row one of `reach` and one of -`reach`. f32."""
    x = np.random.default_rng(rows).standard_normal((rows, columns), dtype=np.float32)
    x[:, -1], x[:, columns // 2] = -reach, reach
    return x


def distant_numbers(rows: int, columns: int) -> Array:
    """Numbers near 100 that differ by about 1: the mean of squares less the square of the mean has few digits left. f32."""
    return np.random.default_rng(columns).standard_normal((rows, columns), dtype=np.float32) + np.float32(100)


def one_constant_row(rows: int, columns: int) -> Array:
    """Normal random numbers, but for the first row, whose variance is 0. f32."""
    x = np.random.default_rng(rows).standard_normal((rows, columns), dtype=np.float32)
    x[0] = 2.0**-10
    return x


def low_numbers(rows: int, columns: int) -> Array:
    """Numbers near -200, whose powers are 0 in f32. f32."""
    return np.random.default_rng(columns).standard_normal((rows, columns), dtype=np.float32) - np.float32(200)


def growing_scores(rows: int, columns: int) -> Array:
    """Scores whose maximum grows along a row, up to 200. f32."""
    noise = np.random.default_rng(columns).standard_normal((rows, columns), dtype=np.float32)
    return noise + np.linspace(-200, 200, columns, dtype=np.float32)


def puzzle_case(declared: Op, lengths: tuple[int, ...] = (1, 5, 33), *, x: Array | None = None, **sizes: int) -> Case:
    """A case of a puzzle's op. x: its first argument, if that is not random."""
    return Case(declared, sizes, lengths, given={} if x is None else {declared.args[0].name: x})


PUZZLE_CASES = [
    puzzle_case(add_ten, (1,), C=64),
    puzzle_case(add_ten, C=192),
    puzzle_case(add_bias, (1,), C=64),
    puzzle_case(add_bias, C=70),
    puzzle_case(add_bias, (2, 3), C=1),
    puzzle_case(plain_gelu, C=70),
    puzzle_case(plain_gelu, C=70, x=wide_numbers(39, 70, 90.0)),
    puzzle_case(mean_pool, (1,), C=64),
    puzzle_case(mean_pool, C=70),
    puzzle_case(lane_sum, (1,), C=64),
    puzzle_case(lane_sum, C=200),
    puzzle_case(lane_sum, C=3),
    puzzle_case(standardise_rows, C=132),
    puzzle_case(standardise_rows, C=3),
    puzzle_case(standardise_rows, C=132, x=distant_numbers(39, 132)),
    puzzle_case(standardise_rows, C=132, x=one_constant_row(39, 132)),
    puzzle_case(plain_softmax, C=64),
    puzzle_case(plain_softmax, C=200),
    puzzle_case(plain_softmax, C=3),
    puzzle_case(plain_softmax, C=200, x=wide_numbers(39, 200, 200.0)),
    puzzle_case(plain_softmax, C=70, x=low_numbers(39, 70)),
    puzzle_case(softmax_mean, C=20),
    puzzle_case(softmax_mean, (33, 40), C=70, x=growing_scores(73, 70)),
    puzzle_case(softmax_mean, (33, 40), C=70, x=-growing_scores(73, 70)),
    puzzle_case(softmax_mean, (33, 40), C=70, x=low_numbers(73, 70)),
    puzzle_case(causal_attention, (1,), C=32),
    puzzle_case(causal_attention, (1, 20, 7), C=70),
    puzzle_case(tile_matmul, (32,), K=8, N=32),
    puzzle_case(tile_matmul, (1, 5, 33), K=37, N=70),
    puzzle_case(shared_matmul, (16,), K=16, N=16),
    puzzle_case(shared_matmul, (1, 5, 33), K=37, N=70),
    puzzle_case(unpack_int8, V=5, C=64),
    puzzle_case(unpack_int8, V=7, C=200),
    puzzle_case(unpack_int8, V=3, C=70),
]
