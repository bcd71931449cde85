"""The ops that sum over tokens for the weights and biases of linear layers. Their letters and `onto`: see ops.py.

The gradient of a weight is a product over all tokens T of a micro-batch, while a small weight has few tiles: too few workgroups
for a large GPU. So the tokens are cut into up to P parts, whose sums a second op adds in their order. How they are cut depends
on T and P alone, so the same batch gives the same bits every time.
"""

from functools import reduce
from types import SimpleNamespace

import numpy as np

from ..graph.ops.blocks import cdiv
from ..graph.ops.grids import per_columns, per_element
from ..graph.tensor import Array, Grid, op

SHORTEST_PART = 256  # tokens; shorter parts would take longer to add up than they save
PART_STEP = 16  # tokens; a part's length is a multiple of it
MOST_PARTS = 64
WEIGHT_TILE = 64  # rows and columns of the tile of dweight_workgroup.wgsl
WORKGROUPS = 2048  # wanted for a weight: two turns for a GPU that runs a thousand at a time


def count_parts(K: int, N: int) -> int:
    """P for a weight (K, N), so that there are about WORKGROUPS parts of tiles: their sums take at most 33 MB."""
    return max(1, min(MOST_PARTS, WORKGROUPS // (cdiv(K, WEIGHT_TILE) * cdiv(N, WEIGHT_TILE))))


def part_length(T: int, P: int) -> int:
    """Tokens of a part; the last one may be shorter. token_parts.wgsl has the same formula."""
    return max(SHORTEST_PART, cdiv(T, P * PART_STEP) * PART_STEP)


def dweight_grid(p: SimpleNamespace) -> Grid:
    """A workgroup for each tile of each part that has tokens."""
    return cdiv(p.N, p.TILE_N), cdiv(p.K, p.TILE_K), cdiv(p.T, part_length(p.T, p.P))


@op("x[T,K] dout[T,N] -> parts[P,K,N]", grid=dweight_grid)
def linear_dweight(x: Array, dout: Array, *, P: int) -> Array:
    """The gradient in the weight of a linear layer, in parts: the sums over some tokens of the outer products of x and dout.

    Parts without tokens are zero; the kernel does not write them, and `sum_parts` does not read them.
    """
    length = part_length(len(x), P)
    parts = np.zeros((P, x.shape[1], dout.shape[1]), x.dtype)
    for part, first in zip(parts, range(0, len(x), length), strict=False):
        np.matmul(x[first : first + length].T, dout[first : first + length], out=part)
    return parts


@op("parts[P,K,N] -> dweight[K,N]", grid=per_element("N", "K"))
def sum_parts(parts: Array, *, T: int | str, onto: int | str = 0) -> Array:
    """The sum of the parts, in their order. T: the tokens that they are sums over."""
    return reduce(np.add, parts)


@op("dout[T,C] -> dbias[C]", grid=per_columns("C"))
def sum_rows(dout: Array, *, onto: int | str = 0) -> Array:
    """The gradient in a bias: the sum over tokens."""
    return np.ones(len(dout), dout.dtype) @ dout
