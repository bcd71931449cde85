"""Maps that repair the geometry of vectors: fitted on unlabelled texts, each y = x @ matrix + bias.

Raw models crowd their vectors into a narrow cone: a mean vector and a few large dimensions are the same for every text and hide
what differs (Ethayarajh 2019; Timkey & van Schijndel 2021).

centre          subtract the mean vector
standardise     and divide each dimension by its standard deviation (Timkey & van Schijndel 2021)
whiten:K        keep the K directions of the largest variance, each scaled to variance 1 (Su et al. 2021)
remove_top:K    subtract the mean, and take out the K directions of the largest variance (Mu & Viswanath 2018)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..graph.cores import ONE_THREAD_BLAS
from ..graph.tensor import Array

NAMES = ("centre", "standardise", "whiten:K", "remove_top:K")
SMALLEST_VARIANCE = 1e-10  # of the largest; a direction with less cannot be scaled to variance 1


@dataclass(frozen=True)
class FitStep:
    """One step: "centre", "standardise", "whiten" or "remove_top", and its K, 0 where it has none."""

    name: str
    k: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.k}" if self.k else self.name


@dataclass(frozen=True)
class AffineMap:
    """y = x @ matrix + bias, float64: matrix (inputs, outputs), bias (outputs,)."""

    matrix: Array
    bias: Array

    def apply(self, vectors: Array) -> Array:
        """Vectors (n, inputs) -> float32 (n, outputs)."""
        with ONE_THREAD_BLAS:
            return (vectors.astype(np.float64) @ self.matrix + self.bias).astype(np.float32)


def parse_steps(asked: str | Sequence[str]) -> tuple[FitStep, ...]:
    """ "remove_top:2,standardise", or a list of such names -> the steps, in the order given. Raises UserError."""
    names = asked.split(",") if isinstance(asked, str) else [*asked]
    steps = []
    for given in names:
        name, _, k = str(given).strip().partition(":")
        takes_k = f"{name}:K" in NAMES
        if (not takes_k and name not in NAMES) or (takes_k and not (k.isdecimal() and int(k) > 0)) or (not takes_k and k):
            raise UserError(f"post-processing must be of {', '.join(NAMES)}, K a number from 1, not {given!r}")
        steps.append(FitStep(name, int(k or 0)))
    if not steps:
        raise UserError(f"post-processing must be some of {', '.join(NAMES)}, got none")
    return tuple(steps)


def fit_steps(vectors: Array, steps: Sequence[FitStep]) -> AffineMap:
    """Fit the steps on vectors (n, C) of unlabelled texts, one after the other, and join them to one map.

    Raises UserError if the vectors are too few, or span too few directions for a step.
    """
    x = vectors.astype(np.float64)
    if len(x) < 2:
        raise UserError(f"post-processing is fitted on vectors of at least 2 texts, got {len(x)}")
    if not np.isfinite(x).all():
        raise UserError("post-processing cannot be fitted on vectors that hold NaN or Inf")
    whole = AffineMap(np.eye(x.shape[1]), np.zeros(x.shape[1]))
    with ONE_THREAD_BLAS:
        for step in steps:
            mean = x.mean(0)
            matrix = fit_matrix(x - mean, step)
            x = (x - mean) @ matrix
            whole = AffineMap(whole.matrix @ matrix, (whole.bias - mean) @ matrix)
    return whole


def fit_matrix(centred: Array, step: FitStep) -> Array:
    """What a step multiplies vectors (n, C) by whose mean is zero."""
    width = centred.shape[1]
    if step.name == "centre":
        return np.eye(width)
    if step.name == "standardise":
        deviation = centred.std(0)
        return np.diag(1 / np.where(deviation > 0, deviation, 1))  # a dimension that never changes becomes 0
    width_after(step, width)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    variances, directions = variances[::-1][: step.k], fix_signs(directions[:, ::-1][:, : step.k])
    spanned = count_spanned(variances)
    if spanned < step.k:
        raise UserError(
            f"{step}: the {len(centred)} vectors span only {spanned} directions: fit on more texts, or with a smaller K"
        )
    if step.name == "whiten":
        return directions / np.sqrt(variances)
    return np.eye(width) - directions @ directions.T


def width_after(step: FitStep, width: int) -> int:
    """The dimensions that a step leaves of `width`. Raises UserError if its K is too large."""
    if step.k > width or (step.k == width and step.name == "remove_top"):
        most = width if step.name == "whiten" else width - 1
        raise UserError(f"{step}: vectors of {width} dimensions allow {step.name}:{most} at most")
    return step.k if step.name == "whiten" else width


def count_spanned(variances: Array) -> int:
    """How many of the variances along the principal directions are more than rounding leaves."""
    return int((variances > SMALLEST_VARIANCE * max(float(variances.max(initial=0)), np.finfo(float).tiny)).sum())


def count_directions(vectors: Array) -> int:
    """How many directions vectors (n, C) span around their mean: the largest K of "whiten"."""
    x = vectors.astype(np.float64)
    x -= x.mean(0)
    with ONE_THREAD_BLAS:
        return count_spanned(np.linalg.eigvalsh(x.T @ x / len(x)))


def fix_signs(directions: Array) -> Array:
    """Directions as columns, each with its largest element positive, so that every fit gives the same signs."""
    largest = np.abs(directions).argmax(0)
    return directions * np.sign(directions[largest, np.arange(directions.shape[1])])
