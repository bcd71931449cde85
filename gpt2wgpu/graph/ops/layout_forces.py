"""What pushes the points of a map apart: all pairs of points, for t-SNE."""

from types import SimpleNamespace

import numpy as np

from ..tensor import Array, Grid, op
from .blocks import cdiv

POINTS = 128  # of a workgroup, a thread for each; as many are staged at a time
ROWS_REPELLED = 512  # points that numpy computes at a time


def points_grid(p: SimpleNamespace) -> Grid:
    return cdiv(p.N, POINTS), 1, 1


@op("points[N,4] -> out[N,4]", grid=points_grid)
def repulsion(points: Array) -> Array:
    """For each point of x, y, z, of which the fourth number is ignored: the sum over all of (y_i - y_j) k², with the kernel
    k = 1 / (1 + |y_i - y_j|²), and, fourth, the sum of k, its own 1 among them."""
    place = points[:, :3]
    out = np.empty((len(points), 4), np.float32)
    for start in range(0, len(points), ROWS_REPELLED):
        apart = place[start : start + ROWS_REPELLED, None, :] - place[None]
        kernel = 1 / (1 + np.square(apart).sum(axis=2))
        out[start : start + ROWS_REPELLED, :3] = np.einsum("ijd,ij->id", apart, np.square(kernel))
        out[start : start + ROWS_REPELLED, 3] = kernel.sum(axis=1)
    return out


@op("points[N,4] spans:u32[N,2] targets:u32[E] strengths[E] -> out[N,4]", grid=points_grid)
def attraction(points: Array, spans: Array, targets: Array, strengths: Array) -> Array:
    """For each point of x, y, z, of which the fourth number is ignored: the sum over its edges of strength (y_j - y_i) k, with k
    as in `repulsion`; the fourth is 0. Edges spans[i, 0] up to spans[i, 1] lead from i to their targets j."""
    counts = (spans[:, 1] - spans[:, 0]).astype(np.int64)
    one = np.repeat(np.arange(len(points)), counts)
    edges = np.arange(counts.sum()) + np.repeat(spans[:, 0] - np.cumsum(counts) + counts, counts)
    apart = points[targets[edges], :3] - points[one, :3]
    pull = apart * (strengths[edges] / (1 + np.square(apart).sum(axis=1)))[:, None]
    out = np.zeros((len(points), 4), np.float32)
    for axis in range(3):
        out[:, axis] = np.bincount(one, pull[:, axis], len(points))
    return out
