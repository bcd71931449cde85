"""Where each text stands on a map: principal components, or t-SNE from the exact nearest neighbours, in 2 or 3 dimensions.

The same vectors give the same map: the seed fixes the only random numbers, every sum has one order, and rows are laid out in
the order of their content, so that shuffling a file moves no point (equal vectors aside, which share one place).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import between
from ..graph.tensor import Array
from .device_forces import DeviceForces, suits_device
from .forces import edge_attraction, exact_repulsion, grid_repulsion
from .neighbors import DistinctRows, Neighbors, distinct_rows, exact_neighbors, unit_vectors

if TYPE_CHECKING:
    from ..gpu import Device

NEIGHBORS = 30  # of each point that attract it; as many as t-SNE's perplexity of 30 has in its core
PERPLEXITY = 15.0  # of their strengths
EXACT_POINTS = 600  # up to which the exact repulsion is as fast as the grid
ROUNDS = (250, 500)  # with the attraction strengthened, so that clusters find together, and after that
EXAGGERATION = 12.0
START_SPREAD = 1e-4  # standard deviation of the starting layout
Forces = Callable[[Array], tuple[Array, Array, float]]  # points -> push, pull and Z, see forces.py
LayoutProgress = Callable[[int, int], None]  # rounds done, and of how many


def principal_components(vectors: Any, dims: int = 2) -> Array:
    """The rows along the directions in which they vary most, float32 (n, dims). Signs are fixed by the largest weight.

    vectors: (n, C); only their directions count, as for cosine similarity. Raises UserError unless they are finite.
    """
    unit = unit_vectors(vectors)
    between("dims", dims, 1, 1 << 16)
    found = np.zeros((len(unit), dims), np.float32)
    if len(unit) < 2:
        return found
    distinct, place = distinct_rows(unit)
    counts = np.bincount(place, minlength=len(distinct))[:, None]
    centred = distinct.astype(np.float64)
    centred -= (counts * centred).sum(axis=0) / len(unit)
    directions = np.linalg.eigh(centred.T @ (counts * centred))[1][:, ::-1][:, :dims]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(directions.shape[1])])
    found[:, : directions.shape[1]] = (centred @ directions)[place]
    return found


def neighbor_layout(vectors: Any, dims: int = 2, seed: int = 0, progress: LayoutProgress | None = None) -> Array:
    """t-SNE of the rows, float32 (n, dims): texts of like meaning stand together.

    vectors: (n, C), compared by cosine. dims: 2 or 3. seed: moves the starting points by a hundredth of their spread. Equal
    vectors stand around one place. progress: called with the rounds done and all of them.
    Raises UserError unless the vectors are finite.
    """
    distinct = distinct_rows(unit_vectors(vectors))
    return layout_distinct(distinct, layout_neighbors(distinct), dims, seed, progress)


def layout_neighbors(distinct: DistinctRows) -> Neighbors:
    """The neighbours that `layout_distinct` needs: k of each row, (m, k); k is 0 for a single one."""
    m = len(distinct.unit)
    if m < 2:
        return Neighbors(np.empty((m, 0), np.int32), np.empty((m, 0), np.float32))
    return exact_neighbors(distinct.unit, min(NEIGHBORS, m - 1))


def layout_distinct(
    distinct: DistinctRows,
    neighbors: Neighbors,
    dims: int = 2,
    seed: int = 0,
    progress: LayoutProgress | None = None,
    device: "Device | None" = None,
) -> Array:
    """`neighbor_layout` of rows whose neighbours are known. device: computes the forces, if it suits so many points."""
    between("dims", dims, 2, 3)
    between("seed", seed, 0, 2**63 - 1)
    unit = distinct.unit
    points = principal_components(unit, dims).astype(np.float64)
    if len(unit) > 3:
        k = neighbors.rows.shape[1]
        squares = np.maximum(0, 2 - 2 * neighbors.similarities.astype(np.float64))
        edges = undirected_edges(neighbors.rows, neighbor_strengths(squares, min(PERPLEXITY, k / 2)))
        start = points / (points[:, 0].std() or 1.0) + np.random.default_rng(seed).normal(0, 0.01, points.shape)
        with layout_forces(device, len(unit), edges) as forces:
            points = optimise_layout(START_SPREAD * start, forces, progress or (lambda done, of: None))
    return spread_equal(points, distinct.place).astype(np.float32)


def neighbor_strengths(squares: Array, perplexity: float) -> Array:
    """How strongly each neighbour attracts its row, float64 (n, k), rows of sum 1: Gaussians of the asked perplexity.

    squares: squared distances (n, k). The width of each row's Gaussian is found by bisection.
    """
    squares = squares - squares.min(axis=1, keepdims=True)
    low, high = np.zeros(len(squares)), np.full(len(squares), np.inf)
    beta = np.full(len(squares), 1 / max(float(squares.mean()), 1e-12))
    wanted = np.log(perplexity)
    for _ in range(64):
        weights = np.exp(-squares * beta[:, None])
        total = weights.sum(axis=1)
        entropy = np.log(total) + beta * (squares * weights).sum(axis=1) / total
        wide = entropy > wanted
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
        beta = np.where(np.isinf(high), np.minimum(beta * 2, 1e30), (low + np.minimum(high, 1e30)) / 2)
    weights = np.exp(-squares * beta[:, None])
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def undirected_edges(neighbors: Array, strengths: Array) -> tuple[Array, Array, Array]:
    """Each pair of neighbours once: its two rows, sorted, and the strength of its edge; all strengths together are 1/2."""
    n, k = neighbors.shape
    one, other = np.repeat(np.arange(n, dtype=np.int64), k), neighbors.ravel().astype(np.int64)
    keys, where = np.unique(np.minimum(one, other) * n + np.maximum(one, other), return_inverse=True)
    return keys // n, keys % n, np.bincount(where.ravel(), strengths.ravel()) / (2 * n)


@contextmanager
def layout_forces(device: "Device | None", n: int, edges: tuple[Array, Array, Array]) -> Iterator[Forces]:
    """Push, pull and Z of n points: on the device if it suits so many, else in numpy."""
    if device is not None and suits_device(device, n):
        on_device = DeviceForces(device, n, edges)
        try:
            yield on_device.compute
        finally:
            on_device.close()
        return
    repel = exact_repulsion if n <= EXACT_POINTS else grid_repulsion

    def compute(points: Array) -> tuple[Array, Array, float]:
        push, z = repel(points)
        return push, edge_attraction(points, *edges), z

    yield compute


def optimise_layout(points: Array, forces: Forces, progress: LayoutProgress) -> Array:
    """Move points by attraction and repulsion: gradient descent with momentum and a gain for each coordinate.

    The learning rate is n / 12 (Belkina et al., 2019). points: float64 (n, d).
    """
    rate = max(len(points) / EXAGGERATION, 50.0)
    speed, gains = np.zeros_like(points), np.ones_like(points)
    total = sum(ROUNDS)
    for done in range(total):
        early = done < ROUNDS[0]
        push, pull, z = forces(points)
        step = 4 * (pull * (EXAGGERATION if early else 1) + push / z)
        gains = np.maximum(np.where(step * speed > 0, gains + 0.2, gains * 0.8), 0.01)
        speed = (0.5 if early else 0.8) * speed + rate * gains * step
        points = points + speed
        points -= points.mean(axis=0)
        progress(done + 1, total)
    return points


def spread_equal(points: Array, place: Array) -> Array:
    """A point for each row: rows of equal vectors stand around the place of their vector, like seeds in a sunflower.

    points: (m, d) of the distinct vectors. place: the number of each row's vector.
    """
    counts = np.bincount(place, minlength=len(points))
    if len(place) == len(points):
        return points[place]
    order = np.argsort(place, kind="stable")
    rank = np.empty(len(place))
    rank[order] = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)
    extent = float(np.ptp(points, axis=0).max()) or 1.0
    radius = np.sqrt(rank) * min(0.05 * extent / np.sqrt(counts.max()), 0.1 * extent / np.sqrt(len(place)))
    angle = rank * np.pi * (3 - np.sqrt(5))
    found = points[place]
    found[:, 0] += radius * np.cos(angle)
    found[:, 1] += radius * np.sin(angle)
    return found
