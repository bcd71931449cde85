"""The rows of a matrix that are most like a query, for search: the best of each segment of rows."""

from types import SimpleNamespace

import numpy as np

from ..tensor import Array, op
from .blocks import cdiv

SEGMENT = 512  # rows whose best ones are found together
QUERIES = 2  # that share the reading of a segment
NO_ROW = 2.0  # in place of a row's place, where a segment has fewer rows than are kept


def kept_sizes(p: SimpleNamespace) -> dict[str, int]:
    """K: a score and a place for each of `keep` rows of each segment. Raises ValueError."""
    if not 1 <= p.keep <= SEGMENT or p.C % 4:
        raise ValueError(f"keep must be from 1 to {SEGMENT} and C a multiple of 4, got {p.keep} and {p.C}")
    return {"K": 2 * p.keep * cdiv(p.N, SEGMENT)}


@op("a[M,C] b[N,C] -> out[M,K]", grid=lambda p: (cdiv(p.N, SEGMENT), cdiv(p.M, QUERIES), 1), sizes=kept_sizes)
def nearest_rows(a: Array, b: Array, *, keep: int) -> Array:
    """For each query the `keep` best rows of each segment of b by the dot product: all scores, then as many places.

    A segment's best row comes first, of equal ones the lower; NaN is best of all, so that it is not lost. A place is the row's
    number in its segment / SEGMENT. Where a segment has fewer rows the score is 0 and the place NO_ROW.
    """
    segments = cdiv(len(b), SEGMENT)
    out = np.empty((len(a), 2, segments, keep), np.float32)
    out[:, 0], out[:, 1] = 0, NO_ROW
    scores = a @ b.T
    for s in range(segments):
        part = scores[:, s * SEGMENT : (s + 1) * SEGMENT]
        rank = np.where(np.isnan(part), np.float32(np.inf), part)
        best = np.argsort(-rank, axis=1, kind="stable")[:, :keep]
        out[:, 0, s, : best.shape[1]] = np.take_along_axis(part, best, axis=1)
        out[:, 1, s, : best.shape[1]] = best / np.float32(SEGMENT)
    return out.reshape(len(a), -1)
