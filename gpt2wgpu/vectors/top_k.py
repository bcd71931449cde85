"""The k best rows of a corpus for each query: exact, block by block, in numpy.

A scan in float32 finds the candidates: every row whose score may be among the k best, given how far a sum of C products in
float32 can be off. Their scores are then computed in float64 and rounded to float32. So neither the result nor the order depends
on blocks, threads or the order of sums: the highest score first and, between equal ones, the lower row.

The corpus may be a memory-mapped array, larger than memory: it is read once, in order, and then the rows of the candidates.
"""

from collections.abc import Callable, Iterator
from threading import Lock
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from ..graph.cores import BLAS_ALONE
from ..graph.crew import Crew
from ..graph.tensor import Array
from .coarse import CoarseRows

SCANNED_BYTES = 1 << 21  # of a corpus in float32, scanned at a time by one core: read once, then in the cache
BLOCK_SCORES = 1 << 20  # of one block
QUERIES_TOGETHER = 256
RESCORED_TOGETHER = 1 << 22  # numbers in float64: 32 MiB
CROWDED_BLOCK = 4  # times k candidates of a block; with more, its own k best are found first
POOL_ROOM = 8  # times k candidates are collected before the worse ones are dropped
ScoreBlock = Callable[[slice], Array]  # rows of the corpus -> float32 scores (m, rows)


class Best(NamedTuple):
    """scores: float32 (m, k), falling. ids: int64 (m, k), rows of the corpus; of equal scores the lower row comes first."""

    scores: Array
    ids: Array


def top_k(
    queries: Array,
    corpus: Array,
    k: int,
    *,
    cosine: bool,
    rescore: bool = True,
    allowed: Array | None = None,
    longest: float | None = None,
    coarse: CoarseRows | None = None,
) -> Best:
    """The k best rows of a corpus (n, C) for each query (m, C), by the dot product or the cosine; all rows if there are fewer.

    allowed: bool (n,), which rows may be found. longest: no row is longer; without it the lengths are computed. coarse: the rows
    in int8, which are scanned instead, for dot products of rows of known length; the result is the same.
    rescore=False leaves the scores of the scan, whose last bits depend on how BLAS adds up: for results far larger than a search.
    Raises UserError if a score is not finite.
    """
    k = min(k, len(corpus) if allowed is None else int(np.count_nonzero(allowed)))
    if not k or not len(queries):
        return Best(np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64))
    if cosine:
        queries = normalize_rows(queries.astype(np.float64)).astype(np.float32)
    found = []
    for first in range(0, len(queries), QUERIES_TOGETHER):
        part = np.ascontiguousarray(queries[first : first + QUERIES_TOGETHER], np.float32)
        bounds = ScanBounds(rescore, first, longest, coarse)
        pool = scan_corpus(part, corpus, k, bounds, cosine=cosine, allowed=allowed)
        if rescore:
            pool.rescore(part, corpus, cosine=cosine)
        found.append(pool.best())
    return Best(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


class ScanBounds(NamedTuple):
    """exact: whether all rows are wanted that may be among the k best; else those that are by the scan's scores. first: the
    number of the first query, for messages. longest: no row is longer; None if unknown."""

    exact: bool
    first: int = 0
    longest: float | None = None
    coarse: CoarseRows | None = None


def scan_corpus(
    queries: Array, corpus: Array, k: int, bounds: ScanBounds, *, cosine: bool, allowed: Array | None = None
) -> "Candidates":
    """The candidates of one pass over the corpus."""
    width = corpus.shape[1]
    lengths = np.sqrt(np.einsum("mc,mc->m", queries, queries, dtype=np.float64))
    pool = Candidates(len(queries), k)
    relative = rounding_error(width) * lengths if bounds.exact else np.zeros(len(queries))

    def score(rows: slice) -> tuple[Array, Array]:
        """The scores (m, rows) and how far those of each query may be off."""
        if bounds.coarse is not None:
            facts = bounds.coarse.facts[rows]
            scores = queries @ np.asarray(bounds.coarse.numbers[rows], np.float32).T * facts["step"]
            lost = float(facts["lost"].max(initial=0))
            return scores, lengths * lost + relative * ((bounds.longest or 1.0) + lost)
        block = np.ascontiguousarray(corpus[rows], np.float32)
        with np.errstate(all="ignore"):  # what is not finite is refused below
            scores = dot_products(queries, block)
            if cosine:
                scores /= np.maximum(np.sqrt(row_squares(block)), np.float32(1e-12))
                return scores, relative
            if not bounds.exact or bounds.longest is not None:
                return scores, relative * (bounds.longest or 1.0)
            return scores, relative * float(np.sqrt(row_squares(block).max()))

    def scan(i: int) -> None:
        rows = blocks[i]
        scores, off = score(rows)
        refuse_not_finite(scores, rows.start, bounds.first)
        pool.add(scores, rows.start, off, None if allowed is None else allowed[rows])

    blocks = [*corpus_blocks(len(corpus), min(SCANNED_BYTES // (4 * width), BLOCK_SCORES // len(queries)))]
    if len(queries) * corpus.size <= BLAS_ALONE:
        for i in range(len(blocks)):
            scan(i)
        return pool
    with Crew() as crew:
        crew.share(scan, len(blocks))
    return pool


def dot_products(queries: Array, rows: Array) -> Array:
    """queries @ rows.T, float32 (m, n). With one query, numpy 2 reads the rows about twice as fast as BLAS does."""
    if len(queries) == 1 and hasattr(np, "vecdot"):
        products: Array = np.vecdot(rows, queries[0])
        return products[None]
    return queries @ rows.T


def row_squares(x: Array) -> Array:
    """The square of each row's length, float32 (n,)."""
    if hasattr(np, "vecdot"):  # from numpy 2; half as long as einsum
        return np.vecdot(x, x)
    return np.einsum("nc,nc->n", x, x)


def rounding_error(width: int) -> float:
    """A bound on how far a float32 sum of `width` products, in any order, is from the exact one, relative to both lengths.

    Higham 2002, section 3.1; 8 more roundings are for the lengths by which a cosine is divided.
    """
    return float((width + 8) * 2.0**-24 * 1.01)


def corpus_blocks(n: int, rows: int) -> Iterator[slice]:
    rows = max(1, rows)
    return (slice(i, min(i + rows, n)) for i in range(0, n, rows))


def normalize_rows(x: Array) -> Array:
    """x / max(|x|, 1e-12), row by row, in x's own precision. Rows with NaN or Inf give NaN."""
    with np.errstate(all="ignore"):
        return x / row_lengths(x)


def row_lengths(x: Array) -> Array:
    """max(|x|, 1e-12) of each row, (n, 1), in x's own precision."""
    return np.maximum(np.sqrt(np.einsum("nc,nc->n", x, x)), 1e-12)[:, None]


def refuse_not_finite(scores: Array, first: int, first_query: int = 0) -> None:
    """Raises UserError if one of the scores (m, rows) is not finite. first: the row of the first column."""
    if not np.isfinite(scores).all():
        query, row = (int(i) for i in np.argwhere(~np.isfinite(scores))[0])
        which = f"query {first_query + query} and vector {first + row}"
        raise UserError(f"{which} have no finite similarity: one of them holds NaN, Inf or numbers that are too large")


class Candidates:
    """Rows that may be among the k best, of several queries. Threads may add to it in any order."""

    def __init__(self, queries: int, k: int) -> None:
        self.count, self.k = queries, k
        self.bound = np.full(queries, -np.inf)  # k rows are known that score at least this
        self.parts: list[tuple[Array, ...]] = []  # queries, ids, scores, how far these may be off
        self.held, self.room = 0, max(POOL_ROOM * k * queries, 4096)
        self.lock = Lock()

    def add(self, scores: Array, first: int, off: Array, allowed: Array | None = None) -> None:
        """The candidates of a block (m, rows), whose first row is `first`. off (m,): how far its scores may be off.

        allowed: bool (rows,), which rows may be candidates.
        """
        columns_of = np.arange(scores.shape[1]) if allowed is None else np.flatnonzero(allowed)
        if allowed is not None and len(columns_of) < scores.shape[1]:
            scores = scores[:, columns_of]
        rows, bound = scores.shape[1], self.bound
        found = scores >= (bound - off)[:, None]
        if rows > self.k and np.count_nonzero(found) > CROWDED_BLOCK * self.k * self.count:
            bound = np.maximum(bound, np.partition(scores, rows - self.k, axis=1)[:, rows - self.k] - off)
            found = scores >= (bound - off)[:, None]
        queries, columns = np.nonzero(found)
        with self.lock:
            self.bound = np.maximum(self.bound, bound)
            self.parts.append((queries, columns_of[columns] + first, scores[queries, columns], off[queries]))
            self.held += len(queries)
            if self.held > self.room:
                self._drop_worse()

    def note(self, scores: Array, off: Array) -> None:
        """Raise the bounds by the scores of rows (m, n) that are added later; -inf stands for none."""
        if scores.shape[1] >= self.k:
            least = np.partition(scores, scores.shape[1] - self.k, axis=1)[:, scores.shape[1] - self.k]
            self.bound = np.maximum(self.bound, least - off)

    def add_listed(self, queries: Array, rows: Array, scores: Array, off: Array) -> None:
        """Candidates one by one: of which query, which row, its score."""
        keep = scores >= (self.bound - off)[queries]
        queries = queries[keep]
        self.parts.append((queries, rows[keep], scores[keep], off[queries]))

    def _joined(self) -> tuple[Array, ...]:
        return tuple(np.concatenate(part) for part in zip(*self.parts, strict=True))

    def _places(self, queries: Array, ids: Array, scores: Array) -> tuple[Array, Array]:
        """The order by query, falling score and row; and each one's place among its query's in that order."""
        order = np.lexsort((ids, -scores, queries))
        starts = np.searchsorted(queries[order], np.arange(self.count))
        return order, np.arange(len(order)) - starts[queries[order]]

    def _drop_worse(self) -> None:
        queries, ids, scores, off = self._joined()
        sure = scores - off
        order, place = self._places(queries, ids, sure)
        last = order[place == self.k - 1]
        self.bound[queries[last]] = np.maximum(self.bound[queries[last]], sure[last])
        keep = scores + off >= self.bound[queries]
        self.parts = [(queries[keep], ids[keep], scores[keep], off[keep])]
        self.held = int(keep.sum())
        self.room = max(self.room, 2 * self.held)  # many equal scores are not sorted again at once

    def rescore(self, queries: Array, corpus: Array, *, cosine: bool, ids: Array | None = None) -> None:
        """Replace the scores of the scan by exact ones: computed in float64, then rounded. ids: the corpus's names of rows."""
        of, rows_found, *_ = self._joined()
        ids = rows_found if ids is None else ids[rows_found]
        order = np.argsort(ids, kind="stable")  # read the corpus in order
        of, ids = of[order], ids[order]
        scores = np.empty(len(ids))
        wide = queries.astype(np.float64)
        for rows in corpus_blocks(len(ids), RESCORED_TOGETHER // corpus.shape[1]):
            vectors = np.asarray(corpus[ids[rows]], np.float64)
            scores[rows] = np.einsum("nc,nc->n", normalize_rows(vectors) if cosine else vectors, wide[of[rows]])
        self.parts = [(of, ids, scores.astype(np.float32), np.zeros(len(ids)))]

    def best(self) -> Best:
        """The k best of each query, which has at least k candidates."""
        queries, ids, scores, _ = self._joined()
        order, place = self._places(queries, ids, scores)
        keep = order[place < self.k]
        return Best(scores[keep].astype(np.float32).reshape(self.count, self.k), ids[keep].reshape(self.count, self.k))
