"""Losses on the vectors of one micro-batch: each returns the loss and its gradient with respect to them, f32 (n, C).

All are functions of cosines. They are computed in float64, because they subtract nearly equal numbers; the matrix products of
more than FEW vectors are computed in f32 on a few cores, in forms that subtract before they multiply. The two vectors of a
pair lie in neighbouring rows: rows 0 and 1 are pair 0. The bits do not depend on the number of cores.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial

import numpy as np

from ..graph.crew import Crew
from ..graph.tensor import Array
from ..vectors.top_k import row_lengths

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
    if len(vectors) > 2 * FEW:
        return info_nce_of_many(vectors, temperature)
    units, norms = normalized(vectors)
    anchors, positives = units[::2], units[1::2]
    loss, slope = cross_entropy(anchors @ positives.T / temperature)
    slope /= temperature
    dunits = np.empty_like(units)
    dunits[::2], dunits[1::2] = slope @ positives, slope.T @ anchors
    return loss, unit_gradient(dunits, units, norms)


def info_nce_of_many(vectors: Array, temperature: float) -> tuple[float, Array]:
    """`info_nce` with products in f32. The gradient in the logit of an anchor and its positive is its probability less 1, or
    less what the others have: so it is exact where it is small."""
    n, width = len(vectors) // 2, vectors.shape[1]
    anchors, positives = np.empty((2, n, width), np.float32)
    norms, slope, logs = np.empty((n, 2, 1)), np.empty((n, n), np.float32), np.empty(n)
    result = np.empty(vectors.shape, np.float32)
    scale = np.float32(1 / temperature)

    def normalize_pairs(rows: slice) -> None:
        units, lengths = normalized_rows(vectors[2 * rows.start : 2 * rows.stop])
        anchors[rows], positives[rows] = units[::2], units[1::2]
        norms[rows] = lengths.reshape(-1, 2, 1)

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
        result[2 * rows.start : 2 * rows.stop : 2] = projected_rows(found @ positives, anchors[rows], norms[rows, 0])

    def positive_rows(rows: slice) -> None:
        dunits = slope[:, rows].T @ anchors
        result[2 * rows.start + 1 : 2 * rows.stop : 2] = projected_rows(dunits, positives[rows], norms[rows, 1])

    share_blocks((normalize_pairs, n, LOSS_ROWS), (softmax_rows, n, LOSS_ROWS), (positive_rows, n, LOSS_ROWS))
    return float(logs.mean()), result


def distillation(vectors: Array, teacher: Array, weight: float = 1.0) -> tuple[float, Array]:
    """The mean of 1 - cos(vector, teacher's vector), plus `weight` times the mean squared difference between the two
    matrices of all cosines inside the micro-batch (the similarities of Tung & Mori 2019).

    Raises ValueError if the shapes differ.
    """
    if vectors.shape != teacher.shape:
        raise ValueError(f"the teacher's vectors must be {vectors.shape}, like the model's, got {teacher.shape}")
    if len(vectors) > FEW:
        return distillation_of_many(vectors, teacher, weight)
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


def distillation_of_many(vectors: Array, teacher: Array, weight: float) -> tuple[float, Array]:
    """`distillation` with products in f32.

    With unit vectors U and T, and E = U - T, the difference D of the matrices of cosines is E U^T + T E^T, and the gradient
    of its squares is 4 D U = 4 (E (U^T U) + T (E^T U)). So no matrix (n, n) is made, and nearly equal numbers are
    subtracted in E alone, before they are rounded to f32. For the same reason E stands for -T in the gradient of the
    cosines: they differ by U, whose multiples the last projection removes.
    """
    n, width = vectors.shape
    units, errors, targets = (slice(i * width, (i + 1) * width) for i in range(3))
    x = np.empty((n, 3 * width), np.float32)  # U, E and T side by side
    products = np.empty((3 * width, width), np.float32)  # U^T U, E^T U and E^T E one below the other
    norms, result = np.empty((n, 1)), np.empty((n, width), np.float32)
    cosines, squares = np.empty(-(-n // LOSS_ROWS)), np.empty((-(-width // LOSS_COLUMNS), 4))

    def normalize_rows(rows: slice) -> None:
        u, norms[rows] = normalized_rows(vectors[rows])
        t, _ = normalized_rows(teacher[rows])
        cosines[rows.start // LOSS_ROWS] = np.einsum("nc,nc->", u, t)
        x[rows, units], x[rows, targets] = u, t
        u -= t
        x[rows, errors] = u

    def multiply_columns(columns: slice) -> None:
        products[: 2 * width, columns] = x[:, : 2 * width].T @ x[:, columns]
        products[2 * width :, columns] = x[:, errors].T @ x[:, errors][:, columns]

    def square_columns(columns: slice) -> None:
        uu, eu, ee = (products[part, columns].astype(np.float64) for part in (units, errors, targets))
        ue = products[errors][columns].T.astype(np.float64)
        at = columns.start // LOSS_COLUMNS
        squares[at] = [np.einsum("kc,kc->", a, b) for a, b in ((ee, uu), (eu, ue), (ee, eu), (ee, ee))]

    def gradient_rows(rows: slice) -> None:
        dunits = x[rows, width:] @ products[: 2 * width]
        dunits *= np.float32(4 * weight / n**2)
        dunits += x[rows, errors] * np.float32(1 / n)
        result[rows] = projected_rows(dunits, x[rows, units], norms[rows])

    share_blocks(
        (normalize_rows, n, LOSS_ROWS),
        (multiply_columns, width, LOSS_COLUMNS),
        (square_columns, width, LOSS_COLUMNS),
        (gradient_rows, n, LOSS_ROWS),
    )
    of_matrices = squares.sum(0) @ [2, 2, -4, 1]  # of D: 2 tr(H A) + 2 tr(F F) - 4 tr(H F) + tr(H H) with A, F, H in `products`
    return float(1 - cosines.sum() / n + weight / n**2 * of_matrices), result


def take_rows(work: Callable[[slice], None], count: int) -> None:
    """`work` for all of `count` rows: at once if they are few, else in blocks on a few cores."""
    if count <= FEW:
        work(slice(0, count))
    else:
        share_blocks((work, count, LOSS_ROWS))


def share_blocks(*phases: tuple[Callable[[slice], None], int, int]) -> None:
    """(work, count, size): `work` for all blocks of `size` rows out of `count`, on a few cores; one phase after the other."""
    with one_crew() as crew:
        for work, count, size in phases:
            blocks = [slice(i, min(i + size, count)) for i in range(0, count, size)]
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
        units[rows], norms[rows] = normalized_rows(vectors[rows])

    take_rows(normalize_rows, len(vectors))
    return units, norms


def normalized_rows(vectors: Array) -> tuple[Array, Array]:
    """`normalized` for a few vectors, on this core."""
    wide = vectors.astype(np.float64)
    norms = row_lengths(wide)
    wide /= norms
    return wide, norms


def unit_gradient(dunits: Array, units: Array, norms: Array) -> Array:
    """The gradient with respect to vectors, f32, from that with respect to their unit vectors."""
    found = np.empty(units.shape, np.float32)

    def project_rows(rows: slice) -> None:
        found[rows] = projected_rows(dunits[rows], units[rows], norms[rows])

    take_rows(project_rows, len(units))
    return found


def projected_rows(dunits: Array, units: Array, norms: Array) -> Array:
    """`unit_gradient` for a few vectors, on this core, before it is rounded."""
    inward = np.einsum("nc,nc->n", dunits, units)[:, None]
    return (dunits - inward * units) / norms


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
