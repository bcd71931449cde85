"""Clusters that the eye sees on a map: from each point one climbs to where points are denser, up to a peak."""

import numpy as np

from ..graph.tensor import Array

CELLS = 192  # of the density's grid, along the longer side
DEPTH = 0.18  # of the lower peak's height: with a saddle less deep, two peaks are one
CHANCE = 0.6  # likewise, of the root of that height, which is the number of points around it: how much that varies by chance
LEAST_POINTS = 3  # points of a cluster


def density_clusters(points: Array) -> Array:
    """A cluster for each point (n, 2), numbered from 0 by size, or -1 for points in groups that are too small: int64 (n,)."""
    n = len(points)
    if n < LEAST_POINTS:
        return np.full(n, -1, np.int64)
    blur = max(0.13 / n**0.25, 0.45 / n**0.5)  # of the extent: the width of the Gaussian around each point
    cells, shape = grid_cells(points, blur)
    height = smooth_counts(np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape), blur)
    peaks = merge_peaks(climb_cells(height), height.ravel(), shape)
    found = peaks[cells]
    names, where, sizes = np.unique(found, return_inverse=True, return_counts=True)
    least = max(LEAST_POINTS, n // 2000)
    rank = np.full(len(names), -1, np.int64)
    kept = np.flatnonzero(sizes >= least)
    rank[kept[np.argsort(-sizes[kept], kind="stable")]] = np.arange(len(kept))
    return rank[where.ravel()]


def grid_cells(points: Array, blur: float) -> tuple[Array, tuple[int, int]]:
    """The number of each point's cell, and the shape of the grid, which has a margin of three widths of the blur."""
    low = points.min(axis=0)
    extent = float(np.ptp(points, axis=0).max()) or 1.0
    margin = int(np.ceil(3 * blur * CELLS)) + 1
    at = np.floor((points - low) / extent * (CELLS - 1)).astype(np.int64) + margin
    shape = tuple(int(most) + 1 + margin for most in at.max(axis=0))
    return at[:, 0] * shape[1] + at[:, 1], (shape[0], shape[1])


def smooth_counts(counts: Array, blur: float) -> Array:
    """The counts of a grid with a Gaussian around each point, float64."""
    width = max(0.8, blur * CELLS)
    steps = np.arange(-int(4 * width) - 1, int(4 * width) + 2)
    weights = np.exp(-0.5 * np.square(steps / width))
    found = counts.astype(np.float64)
    for axis in (0, 1):
        found = np.apply_along_axis(lambda line: np.convolve(line, weights, "full")[len(steps) // 2 :][: len(line)], axis, found)
    return found


def climb_cells(height: Array) -> Array:
    """For each cell of a grid the cell of the peak that it climbs to, int64 (cells,). Of equal heights the last is higher."""
    rows, columns = height.shape
    number = np.arange(height.size).reshape(height.shape)
    padded = np.pad(height, 1, constant_values=-1.0)
    best, target = height.copy(), number.copy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            other = padded[1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + columns]
            step = dy * columns + dx
            higher = (other > best) | ((other == best) & (number + step > target))
            best, target = np.where(higher, other, best), np.where(higher, number + step, target)
    found = target.ravel()
    while not np.array_equal(found, further := found[found]):
        found = further
    return found


def merge_peaks(found: Array, height: Array, shape: tuple[int, int]) -> Array:
    """The peaks of `climb_cells`, where two between which there is hardly a saddle are one."""
    number = np.arange(height.size).reshape(shape)
    pairs = np.concatenate(
        [np.stack([a.ravel(), b.ravel()], 1) for a, b in ((number[1:], number[:-1]), (number[:, 1:], number[:, :-1]))]
    )
    pairs = pairs[found[pairs[:, 0]] != found[pairs[:, 1]]]
    saddles = height[pairs].min(axis=1)
    parent = {int(peak): int(peak) for peak in np.unique(found)}

    def root(peak: int) -> int:
        while parent[peak] != peak:
            peak = parent[peak]
        return peak

    for i in np.argsort(-saddles, kind="stable"):
        one, other = root(int(found[pairs[i, 0]])), root(int(found[pairs[i, 1]]))
        low, high = (one, other) if (height[one], one) < (height[other], other) else (other, one)
        if one != other and height[low] - saddles[i] < max(DEPTH * height[low], CHANCE * np.sqrt(height[low])):
            parent[low] = high
    roots = np.arange(height.size)
    for peak in parent:
        roots[peak] = root(peak)
    return roots[found]
