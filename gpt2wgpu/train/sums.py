"""The ops that sum over tokens for the weights and biases of linear layers and norms. Their letters and `onto`: see ops.py.

The gradient of a weight is a sum over all tokens T of a micro-batch, while a small weight has few tiles, and a vector few
columns: too few workgroups for a large GPU. So the tokens are cut into up to P parts, whose sums a second op adds. How they are
cut depends on T and P alone, so the same batch gives the same bits every time.
"""

from functools import reduce
from types import SimpleNamespace

import numpy as np

from ..graph.ops.blocks import cdiv, row_blocks
from ..graph.ops.grids import per_columns, per_element
from ..graph.tensor import Array, Grid, op

SHORTEST_PART = 256  # tokens, for a matrix; shorter parts would take longer to add up than they save
VECTOR_PART = 64  # tokens, for a vector: four for each of a workgroup's 16 lanes, which are under way at a time
PART_STEP = 16  # tokens; a part's length is a multiple of it
MOST_PARTS = 64
WEIGHT_TILE = 64  # rows and columns of the tile of dweight_workgroup.wgsl
WORKGROUPS = 2048  # wanted for a weight: two turns for a GPU that runs a thousand at a time


def count_parts(K: int, N: int) -> int:
    """P for a weight (K, N), so that there are about WORKGROUPS parts of tiles: their sums take at most 33 MB."""
    return max(1, min(MOST_PARTS, WORKGROUPS // (cdiv(K, WEIGHT_TILE) * cdiv(N, WEIGHT_TILE))))


def part_length(T: int, P: int, shortest: int = SHORTEST_PART) -> int:
    """Tokens of a part; the last one may be shorter. token_parts.wgsl has the same formula."""
    return max(shortest, cdiv(T, P * PART_STEP) * PART_STEP)


def token_parts(T: int, P: int, shortest: int = SHORTEST_PART) -> list[slice]:
    """The tokens of each part that has any."""
    length = part_length(T, P, shortest)
    return [slice(first, first + length) for first in range(0, T, length)]


def dweight_grid(p: SimpleNamespace) -> Grid:
    """A workgroup for each tile of each part that has tokens."""
    return cdiv(p.N, p.TILE_N), cdiv(p.K, p.TILE_K), len(token_parts(p.T, p.P))


def vector_grid(p: SimpleNamespace) -> Grid:
    """A workgroup for some columns of each part that has tokens."""
    return per_columns("C")(p)[0], len(token_parts(p.T, p.P, p.SHORTEST_PART)), 1


@op("x[T,K] dout[T,N] -> parts[P,K,N]", grid=dweight_grid)
def linear_dweight(x: Array, dout: Array, *, P: int) -> Array:
    """The gradient in the weight of a linear layer, in parts: the sums over some tokens of the outer products of x and dout.

    Parts without tokens are zero; the kernel does not write them, and `sum_parts` does not read them.
    """
    parts = np.zeros((P, x.shape[1], dout.shape[1]), x.dtype)
    for part, at in zip(parts, token_parts(len(x), P), strict=False):
        np.matmul(x[at].T, dout[at], out=part)
    return parts


@op("parts[P,K,N] -> dweight[K,N]", grid=per_element("N", "K"))
def sum_parts(parts: Array, *, T: int | str, onto: int | str = 0) -> Array:
    """The sum of the parts, in their order. T: the tokens that they are sums over."""
    return reduce(np.add, parts)


@op("dout[T,C] -> parts[P,C]", grid=vector_grid)
def sum_rows(dout: Array, *, P: int, shortest_part: int = VECTOR_PART) -> Array:
    """The gradient in a bias, in parts as those of `linear_dweight`: the sums over some tokens."""
    parts = np.zeros((P, dout.shape[1]), dout.dtype)
    for part, at in zip(parts, token_parts(len(dout), P, shortest_part), strict=False):
        np.matmul(np.ones(len(dout[at]), dout.dtype), dout[at], out=part)
    return parts


@op("x[T,C] stats[T,2] dout[T,C] -> parts[P,C]", grid=vector_grid)
def layer_norm_dweight(x: Array, stats: Array, dout: Array, *, P: int, shortest_part: int = VECTOR_PART) -> Array:
    """The sums over some tokens of dout (x - mean) / std, in parts as those of `sum_rows`."""
    parts = np.zeros((P, x.shape[1]), x.dtype)
    for part, tokens in zip(parts, token_parts(len(x), P, shortest_part), strict=False):
        x_part, stats_part, dout_part = x[tokens], stats[tokens], dout[tokens]
        for at in row_blocks(x_part):
            rows = x_part[at] - stats_part[at, :1]
            rows *= dout_part[at]
            part += np.ascontiguousarray(stats_part[at, 1]) @ rows
    return parts


@op("parts[P,C] -> gradient[C]", grid=per_columns("C"))
def sum_vectors(parts: Array, *, T: int | str, shortest_part: int = VECTOR_PART, onto: int | str = 0) -> Array:
    """The sum of the parts of `sum_rows` or `layer_norm_dweight`. T: the tokens that they are sums over."""
    return reduce(np.add, parts)
