"""How alike two vectors are: five measures, each from two vectors (C,) to one number, computed in float64.

Vectors may be arrays, lists or tensors. All raise UserError unless both have one length, at least 1, and are finite.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from .convert import to_array

Vector = NDArray[np.float64]


def cosine_similarity(a: ArrayLike, b: ArrayLike) -> float:
    """Cosine of the angle between them, -1 to 1; 0.0 if one of them is zero, which has no direction."""
    return clipped_cosine(*check_vectors(a, b))


def euclidean_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Length of the straight line from one to the other."""
    x, y = check_vectors(a, b)
    return float(np.sqrt(np.square(x - y).sum()))


def manhattan_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Sum of the differences along each dimension."""
    x, y = check_vectors(a, b)
    return float(np.abs(x - y).sum())


def dot_product(a: ArrayLike, b: ArrayLike) -> float:
    """Sum of the products along each dimension."""
    x, y = check_vectors(a, b)
    return float(x @ y)


def pearson_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Cosine of the two after subtracting from each its mean, -1 to 1; 0.0 if one of them is constant."""
    x, y = check_vectors(a, b)
    # Subtracting a rounded mean from a constant vector may leave noise, which correlates with anything.
    if x.min() == x.max() or y.min() == y.max():
        return 0.0
    return clipped_cosine(x - x.mean(), y - y.mean())


class Metric(NamedTuple):
    """A measure, and what the command line prints about it."""

    label: str
    function: Callable[[ArrayLike, ArrayLike], float]
    meaning: str


METRICS = {
    m.function.__name__: m
    for m in (
        Metric("Cosine similarity", cosine_similarity, "higher = more similar, range -1 to 1"),
        Metric("Euclidean distance", euclidean_distance, "lower = more similar, 0 = identical"),
        Metric("Manhattan distance", manhattan_distance, "lower = more similar, 0 = identical"),
        Metric("Dot product", dot_product, "higher = more similar, grows with the vectors' lengths"),
        Metric("Pearson correlation", pearson_correlation, "higher = more similar, range -1 to 1"),
    )
}


def check_vectors(a: Any, b: Any) -> tuple[Vector, Vector]:
    """Both as float64 (C,). Raises UserError saying what they are instead."""
    x, y = to_array(a, np.float64), to_array(b, np.float64)
    if x.ndim != 1 or y.ndim != 1 or x.shape != y.shape or not len(x):
        raise UserError(f"expected two vectors of one length, at least 1, got shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError("expected finite numbers, got NaN or Inf")
    return x, y


def clipped_cosine(x: Vector, y: Vector) -> float:
    """The cosine, clipped to -1 to 1: rounding may carry it past these. 0.0 if one vector is zero."""
    scale_x, scale_y = np.abs(x).max(), np.abs(y).max()
    if scale_x == 0 or scale_y == 0:
        return 0.0
    x, y = x / scale_x, y / scale_y  # so that no square overflows or vanishes
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))
