"""The repulsion between all points of a layout: exactly, or over a grid, whose cost grows with n and not with n².

With the kernel k(r) = 1 / (1 + r²) of t-SNE (van der Maaten and Hinton, 2008) point i is pushed by the sum over all j of
(y_i - y_j) k², and the sum of all k is the normaliser Z. The grid is the one of Linderman et al. (2019): each point's weight is
shared out to the nodes around it by Lagrange's polynomials, the kernels are applied to the nodes by FFT, and read back likewise.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from ..graph import ops
from ..graph.tensor import Array

SPACING = {2: 0.5, 3: 0.8}  # between nodes, at least; the kernels' own scale is 1
MOST_NODES = {2: 380, 3: 36}  # along an axis: bounds time and memory for layouts that spread far
NODES = 3  # that share a point's weight, along an axis


def exact_repulsion(points: Array) -> tuple[Array, float]:
    """The push on each point, float64 (n, d), and Z, from all pairs of points (n, d)."""
    n, d = points.shape
    found = ops.repulsion.reference(pad_points(points)).astype(np.float64)
    return found[:, :d], float(found[:, 3].sum()) - n


def pad_points(points: Array) -> Array:
    """Points (n, d) as the ops take them, float32 (n, 4)."""
    found = np.zeros((len(points), 4), np.float32)
    found[:, : points.shape[1]] = points
    return found


def grid_repulsion(points: Array) -> tuple[Array, float]:
    """`exact_repulsion` to a few hundredths, by way of a grid."""
    y = np.asarray(points, np.float64)
    d = y.shape[1]
    low = y.min(axis=0)
    extent = float((y.max(axis=0) - low).max())
    spacing = SPACING[d]
    while extent / spacing > MOST_NODES[d]:  # in steps, so that the kernels of the last round serve again
        spacing *= 1.1
    at = (y - low) / spacing + 1  # a margin, as a point's share goes to nodes on both sides
    shape = tuple(grid_length(int(most) + 3) for most in at.max(axis=0))
    nodes, shares = share_weights(at, shape)
    weights = np.bincount(nodes.ravel(), shares.ravel(), minlength=int(np.prod(shape))).reshape(shape).astype(np.float32)
    padded = [2 * size for size in shape]
    axes = tuple(range(d))
    spectrum = np.fft.rfftn(weights, padded, axes)
    fields = []
    for kernel in kernel_spectra(shape, spacing):
        field = np.fft.irfftn(spectrum * kernel, padded, axes)
        inside = field[tuple(slice(0, size) for size in shape)].ravel()
        fields.append(np.einsum("in,in->i", inside[nodes], shares, dtype=np.float64))
    return np.stack(fields[1:], axis=1), float(fields[0].sum() - self_kernel(shares, d, spacing).sum())


def self_kernel(shares: Array, d: int, spacing: float) -> Array:
    """What the grid takes for the kernel of each point with itself, (n,): exactly it would be 1. It pushes no point."""
    nodes = np.stack(np.meshgrid(*[np.arange(NODES)] * d, indexing="ij"), axis=-1).reshape(-1, d) * spacing
    kernel = 1 / (1 + np.square(nodes[:, None] - nodes[None]).sum(axis=2))
    return np.asarray(np.einsum("in,in->i", shares @ kernel.astype(np.float32), shares, dtype=np.float64))


def share_weights(at: Array, shape: Sequence[int]) -> tuple[Array, Array]:
    """The nodes around each point, as numbers in a flat grid, and their shares of it: both (n, nodes^d)."""
    n, d = at.shape
    size = NODES
    first = np.floor(at - (size - 2) / 2).astype(np.int64)
    inside = at - first
    along = np.empty((d, size, n))
    for j in range(size):
        others = [k for k in range(size) if k != j]
        along[:, j] = np.prod([(inside.T - k) / (j - k) for k in others], axis=0)
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(d)]
    base = first @ np.array(strides)
    nodes, shares = np.empty((n, size**d), np.int64), np.empty((n, size**d), np.float32)
    for i, steps in enumerate(product(range(size), repeat=d)):
        nodes[:, i] = base + sum(step * stride for step, stride in zip(steps, strides, strict=True))
        shares[:, i] = np.prod([along[axis, step] for axis, step in enumerate(steps)], axis=0)
    return nodes, shares


@lru_cache(maxsize=2)
def kernel_spectra(shape: tuple[int, ...], spacing: float) -> list[Array]:
    """The spectra of k, and of (y_i - y_j) k² along each axis, on a grid twice as large as `shape` that wraps round."""
    steps = [np.fft.fftfreq(2 * size, 1 / (2 * size)) * spacing for size in shape]
    apart = np.meshgrid(*steps, indexing="ij", sparse=True)
    kernel = 1 / (1 + sum(np.square(a) for a in apart))
    kernels = [kernel, *(a * np.square(kernel) for a in apart)]
    return [np.fft.rfftn(k.astype(np.float32)) for k in kernels]


def grid_length(least: int) -> int:
    """The next of a few lengths that FFTs are fast for; few, so that the kernels of the last round serve again."""
    return next(
        length for length in (16, 20, 24, 30, 36, 40, 48, 60, 72, 80, 96, 120, 144, 180, 216, 256, 300, 384) if length >= least
    )


def edge_attraction(points: Array, sources: Array, targets: Array, strengths: Array) -> Array:
    """The pull on each point, float64 (n, d): the sum over its edges of strength (y_j - y_i) k, at both ends of each edge."""
    y = np.asarray(points, np.float64)
    n, d = y.shape
    pull = np.empty_like(y)
    apart = [np.take(y[:, axis], targets) - np.take(y[:, axis], sources) for axis in range(d)]
    squares = np.square(apart[0])
    for a in apart[1:]:
        squares += np.square(a)
    scale = strengths / (1 + squares)
    for axis, a in enumerate(apart):
        force = a * scale
        pull[:, axis] = np.bincount(sources, force, n) - np.bincount(targets, force, n)
    return pull
