"""Texts that say the same: pairs whose cosine reaches a threshold, and the groups that these pairs connect."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from ..graph.tensor import Array
from ..vectors.mining import close_neighbours
from .neighbors import distinct_rows, unit_vectors

ROWS_COMPARED_AT_ONCE = 1024
MOST_PAIRS = 20_000_000  # a threshold that more pairs reach is too low


@dataclass(frozen=True)
class Duplicates:
    """pairs: rows i < j, int64 (m, 2), the most similar first; of equal vectors each is paired with the first one only.

    similarities: of the pairs, float32 (m,). groups: rows in rising order, the largest group first.
    """

    pairs: Array
    similarities: Array
    groups: list[list[int]]


def find_duplicates(vectors: Any, threshold: float = 0.9) -> Duplicates:
    """All pairs of rows whose cosine is at least `threshold`, and the groups of rows that are connected by such pairs.

    vectors: (n, C). Exact: every pair is looked at. Raises UserError for a threshold outside 0 to 1, for vectors that are not
    finite, and if more than 20 million pairs reach the threshold.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"threshold must be more than 0 and at most 1, not {threshold!r}")
    unit = unit_vectors(vectors)
    if not len(unit):
        return Duplicates(np.empty((0, 2), np.int64), np.empty(0, np.float32), [])
    distinct = distinct_rows(unit)
    firsts = np.full(len(distinct.unit), len(unit))
    np.minimum.at(firsts, distinct.place, np.arange(len(unit)))
    one = np.flatnonzero(firsts[distinct.place] != np.arange(len(unit)))
    parts = [np.stack([firsts[distinct.place[one]], one], 1)]
    scores = [np.ones(len(one), np.float32)]
    held = len(one)
    # a cosine of 1 is not computed exactly
    for row, members in close_neighbours(distinct.unit, np.float32(threshold - 1e-6), 2, ROWS_COMPARED_AT_ONCE):
        others = members[members > row].astype(np.int64)
        ends = np.stack([np.full(len(others), firsts[row]), firsts[others]], 1)
        parts.append(np.sort(ends, axis=1))
        scores.append(np.minimum(1, distinct.unit[others] @ distinct.unit[row]))
        held += len(others)
        if held > MOST_PAIRS:
            raise UserError(f"more than {MOST_PAIRS:,} pairs have a cosine of at least {threshold:g}: raise the threshold")
    pairs, similarities = np.concatenate(parts), np.concatenate(scores)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -similarities))
    return Duplicates(pairs[order], similarities[order], connected_groups(len(unit), pairs))


def connected_groups(n: int, pairs: Array) -> list[list[int]]:
    """The rows that pairs connect, in groups of at least two, the largest first; of equal ones the one that begins first."""
    lowest = np.arange(n)
    while True:  # each row takes the lowest number in reach, twice as far each time
        before = lowest.copy()
        np.minimum.at(lowest, pairs[:, 0], before[pairs[:, 1]])
        np.minimum.at(lowest, pairs[:, 1], before[pairs[:, 0]])
        lowest = lowest[lowest]
        if np.array_equal(lowest, before):
            break
    order = np.argsort(lowest, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(lowest[order])) + 1)
    return sorted(([*map(int, group)] for group in groups if len(group) > 1), key=lambda group: (-len(group), group[0]))
