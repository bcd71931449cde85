"""A question -> the best passages of an index: by meaning, by words, or both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..encoder import Encoder
from ..errors import UserError, between
from ..graph.memory import available_memory
from ..graph.tensor import Array
from ..vectors.top_k import Best, top_k
from .bm25 import best_matches, bm25_scores
from .reader import Index
from .words import split_words, word_number

MOST_WANTED = 1 << 24
SEARCH_MODES = ("hybrid", "semantic", "lexical")
UNIT = 1.00001  # no vector of an index is longer
FUSED_WITH = 60  # Cormack, Clarke and Buettcher 2009: a passage gets 1 / (60 + its place) from each list
FUSED_FROM = 100  # passages of each list that are fused, at least; four times as many as are wanted


@dataclass(frozen=True)
class Hit:
    """A passage. score: the cosine (semantic), BM25 (lexical), or the sum of 1 / (60 + place) in both lists (hybrid).

    path: the first of the files that hold it; others: the other ones. semantic, lexical: its cosine and its BM25, where known.
    """

    path: str
    first: int
    last: int
    text: str
    score: float
    semantic: float | None = None
    lexical: float | None = None
    others: list[str] = field(default_factory=list)


def check_mode(mode: str) -> None:
    if mode not in SEARCH_MODES:
        raise UserError(f"mode must be one of {', '.join(SEARCH_MODES)}, not {mode!r}")


def search_index(
    index: Index,
    query: str,
    vector: Array | None,
    k: int = 10,
    mode: str = "hybrid",
    below: Sequence[str] | None = None,
    find: Callable[[Array, int], Best] | None = None,
) -> list[Hit]:
    """The k best passages of an index, best first; among equal ones the earlier row. vector: of the query, (C,); not needed
    for "lexical". below: only in these files and below these folders, which are absolute. find: gives the k best of all passages
    for vectors (m, C), such as `DeviceCorpus.top_k`. Raises UserError.
    """
    check_mode(mode)
    between("k", k, 1, MOST_WANTED)
    allowed = index.allowed(None if below is None else [*below])
    lists: dict[str, dict[int, float]] = {}
    wanted = k if mode != "hybrid" else max(FUSED_FROM, 4 * k)
    if mode != "lexical":
        if vector is None:
            raise UserError(f"mode {mode} needs the vector of the query")
        given = np.atleast_2d(vector)
        coarse = index.coarse if is_larger_than_memory(index.vectors) else None
        if find is not None:
            found = find(given, wanted)
        else:
            found = top_k(given, index.vectors, wanted, cosine=False, allowed=allowed, longest=UNIT, coarse=coarse)
        lists["semantic"] = as_scores(found)
    if mode != "semantic":
        words = np.array(sorted({word_number(word) for word in split_words(query)}), np.uint64)
        ends = (index.rows["word"] + index.rows["words"]).astype(np.int64)
        scores = bm25_scores(words, index.words, index.counts, ends, index.rows["length"], allowed)
        lists["lexical"] = as_scores(best_matches(scores, wanted))
    return [make_hit(index, row, score, lists) for row, score in fuse_lists(lists, k)]


def is_larger_than_memory(vectors: Array) -> bool:
    """Whether the vectors of an index would not stay in memory between two searches, so that their int8 form is scanned first."""
    free = available_memory()
    return free is not None and vectors.nbytes > free // 2


def as_scores(found: Best) -> dict[int, float]:
    """Row -> score, best first."""
    return dict(zip(found.ids[0].tolist(), found.scores[0].tolist(), strict=True))


def fuse_lists(lists: dict[str, dict[int, float]], k: int) -> list[tuple[int, float]]:
    """The k best rows and their scores: of one list its own, of two lists by reciprocal rank fusion."""
    if len(lists) == 1:
        (only,) = lists.values()
        return [*only.items()][:k]
    fused: dict[int, float] = {}
    for found in lists.values():
        for place, row in enumerate(found, 1):
            fused[row] = fused.get(row, 0.0) + 1 / (FUSED_WITH + place)
    return sorted(fused.items(), key=lambda item: (-item[1], item[0]))[:k]


def make_hit(index: Index, row: int, score: float, lists: dict[str, dict[int, float]]) -> Hit:
    path, *others = index.files_of(row)
    own = {name: found.get(row) for name, found in lists.items()}
    first, last = int(index.rows["first"][row]), int(index.rows["last"][row])
    return Hit(path, first, last, index.text(row), score, own.get("semantic"), own.get("lexical"), others)


def encode_question(encoder: Encoder, query: str) -> Array:
    """The vector of a query, with the model's prompt for queries, of length 1: float32 (C,)."""
    vector: Array = encoder.encode_query(query, normalize_embeddings=True)
    return vector
