"""Losses on the vectors of one micro-batch: each returns the loss and its gradient with respect to them, f32 (n, C).

All are functions of cosines. They are computed in float64, because they subtract nearly equal numbers; the matrix products of
more than FEW vectors are computed in f32 on all cores, in forms that subtract before they multiply. The two vectors of a
pair lie in neighbouring rows: rows 0 and 1 are pair 0. The bits do not depend on the number of cores.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial

import numpy as np

from ..graph.crew import Crew
from ..graph.tensor import Array

FEW = 256  # vectors, or pairs, up to which one core computes a loss in float64 sooner than several share it
LOSS_ROWS = 64  # of a block that a core takes
LOSS_COLUMNS = 64  # of a product that a core takes
LOSS_CORES = 4  # to wake more than these takes longer than what they compute
CREW: ContextVar[Crew | None] = ContextVar("CREW", default=None)  # of the loss that is being computed

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
    if len(units) > 2 * FEW:
        loss, dunits = info_nce_of_many(units.astype(np.float32), temperature)
        return loss, unit_gradient(dunits, units, norms)
    anchors, positives = units[::2], units[1::2]
    loss, slope = cross_entropy(anchors @ positives.T / temperature)
    slope /= temperature
    dunits = np.empty_like(units)
    dunits[::2], dunits[1::2] = slope @ positives, slope.T @ anchors
    return loss, unit_gradient(dunits, units, norms)


def info_nce_of_many(units: Array, temperature: float) -> tuple[float, Array]:
    """The loss of many unit vectors f32 (n, C), and its gradient with respect to them.

    The gradient in the logit of an anchor and its positive is its probability less 1, or less what the others have.
    """
    anchors, positives = np.ascontiguousarray(units[::2]), np.ascontiguousarray(units[1::2])
    n = len(anchors)
    dunits, slope, logs = np.empty_like(units), np.empty((n, n), np.float32), np.empty(n)
    danchors, dpositives = dunits[::2], dunits[1::2]
    scale = np.float32(1 / temperature)

    def softmax_rows(rows: slice) -> None:
        own = np.arange(n)[rows]
        found = np.matmul(anchors[rows] * scale, positives.T, out=slope[rows])
        found -= found.max(1, keepdims=True)
        at = own - rows.start, own
        logit = found[at].astype(np.float64)
        np.exp(found, out=found)
        found[at] = 0
        others = found.sum(1, dtype=np.float64)
        total = others + np.exp(logit)
        logs[rows] = np.log(total) - logit
        found *= (1 / (temperature * n * total)).astype(np.float32)[:, None]
        found[at] = -others / (temperature * n * total)
        danchors[rows] = found @ positives

    def positive_rows(rows: slice) -> None:
        dpositives[rows] = slope[:, rows].T @ anchors

    share_blocks((softmax_rows, positive_rows), n)
    return float(logs.mean()), dunits


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
    if n > FEW:
        square, dunits = matrix_distance(units, targets, weight / n**2)
        return float(1 - np.einsum("nc,nc->", units, targets) / n + square), unit_gradient(dunits, units, norms)
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


def matrix_distance(units: Array, targets: Array, weight: float) -> tuple[float, Array]:
    """`weight` times the sum of the squared elements of D = U U^T - T T^T; and f32 (n, C), the gradient with respect to U of that
    less the mean cosine of U and T, up to multiples of each row of U, of which `unit_gradient` takes no notice.

    With E = U - T, D is E U^T + T E^T, and D U is E (U^T U) + T (E^T U): no matrix (n, n) is made, and nearly equal
    numbers are subtracted in E alone, before they are rounded to f32. For the same reason E / n stands for -T / n.
    """
    n, width = units.shape
    u, t, e = np.empty((3, n, width), np.float32)
    products = np.empty((3, width, width), np.float32)  # U^T U, E^T U, E^T E
    sums = np.empty((-(-width // LOSS_COLUMNS), 4))
    dunits = np.empty((n, width), np.float32)

    def round_rows(rows: slice) -> None:
        u[rows], t[rows] = units[rows], targets[rows]
        np.subtract(units[rows], targets[rows], out=e[rows], casting="same_kind")

    def multiply_columns(columns: slice) -> None:
        for out, (a, b) in zip(products, ((u, u), (e, u), (e, e)), strict=True):
            out[:, columns] = a.T @ b[:, columns]

    def square_columns(columns: slice) -> None:
        uu, eu, ee = products[:, :, columns].astype(np.float64)
        ue = products[1, columns].T.astype(np.float64)
        sums[columns.start // LOSS_COLUMNS] = [np.einsum("kc,kc->", a, b) for a, b in ((ee, uu), (eu, ue), (ee, eu), (ee, ee))]

    def gradient_rows(rows: slice) -> None:
        np.matmul(e[rows], products[0], out=dunits[rows])
        dunits[rows] += t[rows] @ products[1]
        dunits[rows] *= np.float32(4 * weight)
        dunits[rows] += e[rows] * np.float32(1 / n)

    share_blocks((round_rows,), n)
    share_blocks((multiply_columns, square_columns), width, LOSS_COLUMNS)
    share_blocks((gradient_rows,), n)
    return weight * float(sums.sum(0) @ [2, 2, -4, 1]), dunits


def take_rows(work: Callable[[slice], None], count: int) -> None:
    """`work` for all of `count` rows: at once if they are few, else in blocks on all cores."""
    if count <= FEW:
        work(slice(0, count))
    else:
        share_blocks((work,), count)


def share_blocks(works: Sequence[Callable[[slice], None]], count: int, size: int = LOSS_ROWS) -> None:
    """Each of `works` for all blocks of `size` rows out of `count`, one after the other, on all cores."""
    blocks = [slice(i, min(i + size, count)) for i in range(0, count, size)]
    with one_crew() as crew:
        for work in works:
            crew.share(partial(work_quietly, work, blocks), len(blocks))


@contextmanager
def one_crew() -> Iterator[Crew]:
    """The crew that computes a loss. Inside this block every part of a loss has the same one: to gather it takes milliseconds."""
    crew = CREW.get()
    with ExitStack() as stack:
        if crew is None:
            crew = stack.enter_context(Crew(most=LOSS_CORES))
            stack.callback(CREW.reset, CREW.set(crew))
        yield crew


def work_quietly(work: Callable[[slice], None], blocks: Sequence[slice], i: int) -> None:
    with np.errstate(all="ignore"):  # of this thread; the loop reports what is not finite
        work(blocks[i])


def normalized(vectors: Array) -> tuple[Array, Array]:
    """Unit vectors (n, C) and lengths (n, 1), float64. The length of a zero vector counts as 1e-12."""
    units, norms = np.empty(vectors.shape), np.empty((len(vectors), 1))

    def normalize_rows(rows: slice) -> None:
        wide = vectors[rows].astype(np.float64)
        norms[rows] = np.maximum(np.sqrt(np.einsum("nc,nc->n", wide, wide)), 1e-12)[:, None]
        np.divide(wide, norms[rows], out=units[rows])

    take_rows(normalize_rows, len(vectors))
    return units, norms


def unit_gradient(dunits: Array, units: Array, norms: Array) -> Array:
    """The gradient with respect to vectors, f32, from that with respect to their unit vectors."""
    found = np.empty(units.shape, np.float32)

    def project_rows(rows: slice) -> None:
        inward = np.einsum("nc,nc->n", dunits[rows], units[rows])[:, None]
        found[rows] = (dunits[rows] - inward * units[rows]) / norms[rows]

    take_rows(project_rows, len(units))
    return found


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
