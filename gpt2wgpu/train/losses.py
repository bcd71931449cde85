"""Losses on the vectors of one micro-batch: each returns the loss and its gradient with respect to them, f32 (n, C).

All are functions of cosines. They are computed in float64, because they subtract nearly equal numbers and a micro-batch
has few vectors. The two vectors of a pair lie in neighbouring rows: rows 0 and 1 are pair 0.
"""

import numpy as np

from ..graph.tensor import Array

LOSSES = {  # the names of the losses, and how a model card describes them
    "contrastive": "margin contrastive loss on labelled pairs (margin {margin:g})",
    "info_nce": "in-batch softmax on pairs that belong together (temperature {temperature:g})",
    "cosine": "squared difference of cosine and score on rated pairs",
    "distillation": "1 - cosine to a teacher's vectors, and the differences of the matrices of cosines",
}


def contrastive(vectors: Array, labels: Array, margin: float) -> tuple[float, Array]:
    """Hadsell et al. 2006 on the cosine distance d = 1 - cos, which lies in [0, 2]: the mean over pairs of d^2 where the
    label is 1 (alike), and of max(0, margin - d)^2 where it is 0."""
    units, norms = normalized(vectors)
    distance = 1 - np.einsum("pc,pc->p", units[::2], units[1::2])
    short = np.maximum(0, margin - distance)
    alike = np.asarray(labels) == 1
    slope = np.where(alike, 2 * distance, -2 * short) / len(distance)
    return float(np.where(alike, distance**2, short**2).mean()), pair_gradient(-slope, units, norms)


def cosine_regression(vectors: Array, scores: Array) -> tuple[float, Array]:
    """Mean over pairs of (cosine - score)^2, with scores in [0, 1] (Reimers & Gurevych 2019)."""
    units, norms = normalized(vectors)
    difference = np.einsum("pc,pc->p", units[::2], units[1::2]) - scores
    return float((difference**2).mean()), pair_gradient(2 * difference / len(difference), units, norms)


def info_nce(vectors: Array, temperature: float) -> tuple[float, Array]:
    """Oord et al. 2018, with the positives of the other pairs as negatives: the mean cross-entropy of the softmax of
    cosines / temperature, where each anchor (even rows) must find its own positive (odd rows)."""
    units, norms = normalized(vectors)
    anchors, positives = units[::2], units[1::2]
    loss, slope = cross_entropy(anchors @ positives.T / temperature)
    slope /= temperature
    dunits = np.empty_like(units)
    dunits[::2], dunits[1::2] = slope @ positives, slope.T @ anchors
    return loss, unit_gradient(dunits, units, norms)


def distillation(vectors: Array, teacher: Array, weight: float = 1.0) -> tuple[float, Array]:
    """The mean of 1 - cos(vector, teacher's vector), plus `weight` times the mean squared difference between the two
    matrices of all cosines inside the micro-batch (the similarities of Tung & Mori 2019).

    Raises ValueError if the shapes differ.
    """
    if vectors.shape != teacher.shape:
        raise ValueError(f"the teacher's vectors must be {vectors.shape}, like the model's, got {teacher.shape}")
    units, norms = normalized(vectors)
    targets, _ = normalized(teacher)
    n = len(units)
    difference = units @ units.T - targets @ targets.T
    loss = 1 - (units * targets).sum() / n + weight * (difference**2).mean()
    return float(loss), unit_gradient(4 * weight / n**2 * difference @ units - targets / n, units, norms)


def pair_distillation(vectors: Array, teacher: Array, first: Array) -> tuple[float, Array]:
    """The mean over pairs of (the cosine of the pair's two vectors - that of the teacher's)^2, after Tung & Mori 2019.

    first: the row of each pair's first vector, int (p,); the second is the next row. Other rows have no gradient. Without
    pairs the loss is 0.
    """
    found = np.zeros(vectors.shape, np.float32)
    if not len(first):
        return 0.0, found
    rows = np.stack([first, first + 1], axis=1).reshape(-1)
    units, norms = normalized(vectors[rows])
    targets, _ = normalized(teacher[rows])
    cosines, judged = (np.einsum("pc,pc->p", u[::2], u[1::2]) for u in (units, targets))
    difference = cosines - judged
    found[rows] = pair_gradient(2 * difference / len(first), units, norms)
    return float((difference**2).mean()), found


def normalized(vectors: Array) -> tuple[Array, Array]:
    """Unit vectors (n, C) and lengths (n, 1), float64. The length of a zero vector counts as 1e-12."""
    wide = vectors.astype(np.float64)
    norms = np.maximum(np.sqrt(np.einsum("nc,nc->n", wide, wide)), 1e-12)[:, None]
    return wide / norms, norms


def unit_gradient(dunits: Array, units: Array, norms: Array) -> Array:
    """The gradient with respect to vectors, from that with respect to their unit vectors."""
    inward = np.einsum("nc,nc->n", dunits, units)[:, None]
    return ((dunits - inward * units) / norms).astype(np.float32)


def pair_gradient(slope: Array, units: Array, norms: Array) -> Array:
    """The gradient with respect to vectors, from that with respect to the cosines of pairs, slope (p,)."""
    dunits = np.empty_like(units)
    dunits[::2], dunits[1::2] = slope[:, None] * units[1::2], slope[:, None] * units[::2]
    return unit_gradient(dunits, units, norms)


def cross_entropy(logits: Array) -> tuple[float, Array]:
    """The mean of -log(softmax) on the diagonal of logits (n, n), and its gradient with respect to them."""
    shifted = logits - logits.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    n = len(logits)
    return float(-np.trace(logs) / n), (np.exp(logs) - np.eye(n)) / n
