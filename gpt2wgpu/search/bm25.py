"""How well passages match the words of a query: BM25, exact, by one pass over the words of all passages.

Robertson and Zaragoza 2009, with Lucene's idf, ln(1 + (N - df + 0.5) / (df + 0.5)), which is never negative.
"""

import numpy as np

from ..graph.crew import Crew
from ..graph.tensor import Array
from ..vectors.top_k import Best

K1, B = 1.5, 0.75
SCANNED_WORDS = 1 << 17  # at a time: 1 MiB, read once for all words of the query


def bm25_scores(query: Array, words: Array, counts: Array, ends: Array, lengths: Array, allowed: Array) -> Array:
    """The score of each passage, float64 (n,); 0 for those that have none of the query's words or are not allowed.

    query: its distinct words, uint64 (q,). words, counts: those of all passages, one passage after the other; ends (n,): where
    each one's words end. lengths (n,): words of each passage. allowed: bool (n,), the passages that count, also in
    the average length and in how rare a word is.
    """
    scores = np.zeros(len(ends))
    total = int(np.count_nonzero(allowed))
    if not total or not len(query):
        return scores
    mean = max(1.0, float(lengths[allowed].mean(dtype=np.float64)))
    for places in find_words(query, words):
        rows = np.searchsorted(ends, places, side="right")
        keep = allowed[rows]
        rows, often = rows[keep], counts[places[keep]].astype(np.float64)
        idf = np.log1p((total - len(rows) + 0.5) / (len(rows) + 0.5))
        scores[rows] += idf * often * (K1 + 1) / (often + K1 * (1 - B + B * lengths[rows] / mean))
    return scores


def find_words(query: Array, words: Array) -> list[Array]:
    """For each word of the query the places where it stands in `words`, ascending."""
    blocks = range(0, len(words), SCANNED_WORDS)
    found: list[list[Array]] = [[np.empty(0, np.int64)] * len(blocks) for _ in query]

    def scan(i: int) -> None:
        block = np.asarray(words[blocks[i] : blocks[i] + SCANNED_WORDS])
        for places, word in zip(found, query, strict=True):
            places[i] = np.flatnonzero(block == word) + blocks[i]

    if len(blocks) < 2:
        for i in range(len(blocks)):
            scan(i)
    else:
        with Crew() as crew:
            crew.share(scan, len(blocks))
    return [np.concatenate(places) if places else np.empty(0, np.int64) for places in found]


def best_matches(scores: Array, k: int) -> Best:
    """The k best of all passages that match, as for one query: float32 (1, k), the lower row first among equal ones."""
    rows = np.flatnonzero(scores > 0)
    if len(rows) > k:
        least = np.partition(scores[rows], len(rows) - k)[len(rows) - k]
        rows = rows[scores[rows] >= least]
    order = rows[np.lexsort((rows, -scores[rows]))][:k]
    return Best(scores[order].astype(np.float32)[None], order[None])
