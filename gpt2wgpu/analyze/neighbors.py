"""The nearest rows of every row of a matrix, exactly, and an order of rows that depends on nothing but their content."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError, between
from ..graph import ops
from ..graph.tensor import Array
from ..vectors.pairwise import as_matrix
from ..vectors.top_k import top_k


class Neighbors(NamedTuple):
    """rows: int32 (n, k), the nearest other rows of each row, best first. similarities: their cosines, float32 (n, k)."""

    rows: Array
    similarities: Array


class DistinctRows(NamedTuple):
    """The distinct rows of a matrix in the order of their hashes, (m, C); and for each row which of them it is, (n,)."""

    unit: Array
    place: Array


def finite_vectors(vectors: Any) -> Array:
    """Vectors as rows, float32 (n, C). Raises UserError for anything but finite numbers."""
    if len(vectors) == 0:
        return np.empty((0, 1), np.float32)
    found = as_matrix(vectors)
    wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(wrong):
        more = f" and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        raise UserError(
            f"vector {wrong[0]}{more} has NaN or Inf in it, expected finite numbers: embed its text again or leave it out"
        )
    return found


def unit_vectors(vectors: Any) -> Array:
    """`finite_vectors`, each of length 1; a zero vector stays zero."""
    found = finite_vectors(vectors)
    scale = np.abs(found).max(axis=1, keepdims=True)  # so that no square overflows or vanishes
    return np.asarray(ops.l2_normalize.reference(found / np.where(scale > 0, scale, 1)), np.float32)


def distinct_rows(unit: Array) -> DistinctRows:
    """Equal rows are one, and the order is that of their hashes: what is computed of these rows does not depend on the order of
    the matrix."""
    digests = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in unit]
    kinds = {digest: i for i, digest in enumerate(sorted(set(digests)))}
    place = np.fromiter((kinds[digest] for digest in digests), np.int64, len(digests))
    first = np.empty(len(kinds), np.int64)
    first[place[::-1]] = np.arange(len(unit))[::-1]
    return DistinctRows(unit[first], place)


def exact_neighbors(unit: Array, k: int) -> Neighbors:
    """The k nearest other rows of each row by cosine; of equally similar ones those with the lowest numbers.

    unit: rows of length 1, float32 (n, C). Raises UserError unless 1 <= k < n.
    """
    n = len(unit)
    between("k", k, 1, n - 1)
    found = top_k(unit, unit, k + 1, cosine=False, rescore=False)
    other = found.ids != np.arange(n)[:, None]
    other &= np.cumsum(other, axis=1) <= k  # a row with many equal ones may be missing from its own list
    return Neighbors(found.ids[other].reshape(n, k).astype(np.int32), found.scores[other].reshape(n, k))


def expand_neighbors(found: Neighbors, place: Array, k: int) -> Neighbors:
    """The k nearest other rows of each row, from the neighbours of the distinct rows. place: as in `DistinctRows`.

    found: of the distinct rows, at least k of each or all others. Equal rows come first.
    """
    n = len(place)
    if n == len(found.rows):
        first = np.argsort(place)
        return Neighbors(first[found.rows[place, :k]].astype(np.int32), found.similarities[place, :k])
    members = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])
    rows, similarities = np.zeros((n, k), np.int32), np.zeros((n, k), np.float32)
    for i, own in enumerate(place.tolist()):
        alike = members[own][: k + 1]
        alike = alike[alike != i][:k]
        parts, scores = [alike], [np.ones(len(alike), np.float32)]
        held = len(alike)
        for other, score in zip(found.rows[own].tolist(), found.similarities[own].tolist(), strict=True):
            if held >= k:
                break
            parts.append(members[other][: k - held])
            scores.append(np.full(len(parts[-1]), score, np.float32))
            held += len(parts[-1])
        rows[i], similarities[i] = np.concatenate(parts), np.concatenate(scores)
    return Neighbors(rows, similarities)
