"""Pairs and groups of vectors that are alike, with sentence-transformers' names, defaults and return types.

Where its results depend on the order in which torch finds equal scores, it is defined here: the higher score first, then the
lower row.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from ..errors import between
from ..graph.tensor import Array
from .pairwise import all_pairs
from .retrieval import ScoreFunction, as_rows, best_rows, cos_sim
from .top_k import Best, corpus_blocks, normalize_rows, refuse_not_finite

PAIRS_HELD = 1 << 21  # pairs beyond `max_pairs` that are collected before the worse ones are dropped


class TextEncoder(Protocol):
    """What mining needs of an Encoder or a SentenceTransformer."""

    def encode(self, inputs: Any, **options: Any) -> Any: ...


def paraphrase_mining(
    model: TextEncoder,
    sentences: list[str],
    show_progress_bar: bool = False,
    batch_size: int = 32,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> list[list[float | int]]:
    """The most similar pairs of sentences, best first: [[score, i, j], ...] with i < j.

    The sentences are encoded by the model with these options; the rest is `paraphrase_mining_embeddings`.
    """
    options = {"truncate_dim": truncate_dim, "prompt_name": prompt_name, "prompt": prompt}
    vectors = model.encode(sentences, show_progress_bar=show_progress_bar, batch_size=batch_size, **options)
    return paraphrase_mining_embeddings(
        vectors,
        query_chunk_size=query_chunk_size,
        corpus_chunk_size=corpus_chunk_size,
        max_pairs=max_pairs,
        top_k=top_k,
        score_function=score_function,
    )


def paraphrase_mining_embeddings(
    embeddings: Any,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
) -> list[list[float | int]]:
    """The most similar pairs of vectors (n, C), best first: [[score, i, j], ...] with i < j, at most `max_pairs`.

    A pair is found if one of the two is among the `top_k` most similar ones of the other. Raises UserError as `semantic_search`.
    """
    vectors = as_rows(embeddings)
    chunks = (
        between("query_chunk_size", query_chunk_size, 1, 1 << 40),
        between("corpus_chunk_size", corpus_chunk_size, 1, 1 << 40),
    )
    most, k = between("max_pairs", max_pairs, 1, 1 << 40), between("top_k", top_k, 1, 1 << 40)
    pairs = BestPairs(len(vectors), most)
    for rows in corpus_blocks(len(vectors), chunks[0]):
        found = best_rows(np.asarray(vectors[rows], np.float32), vectors, k + 1, score_function, chunks, rescore=False)
        pairs.add(*neighbour_pairs(found, rows.start, k))
    return pairs.listed()


def neighbour_pairs(found: Best, first: int, k: int) -> tuple[Array, Array, Array]:
    """Scores, rows and neighbours of the k best rows of each query except itself; the first query is row `first`."""
    rows = np.arange(first, first + len(found.ids))[:, None]
    others = found.ids != rows
    others &= np.cumsum(others, axis=1) <= k
    return found.scores[others], np.broadcast_to(rows, others.shape)[others], found.ids[others]


class BestPairs:
    """The best `most` pairs of n rows, each once: with the score that it was first found with."""

    def __init__(self, n: int, most: int) -> None:
        self.n, self.most = n, most
        self.scores, self.keys = np.empty(0, np.float32), np.empty(0, np.int64)
        self.parts: list[tuple[Array, Array]] = []
        self.held = 0

    def add(self, scores: Array, rows: Array, others: Array) -> None:
        keys = np.minimum(rows, others) * self.n + np.maximum(rows, others)
        self.parts.append((scores, keys))
        self.held += len(keys)
        if self.held > PAIRS_HELD:
            self._keep_best()

    def _keep_best(self) -> None:
        scores, keys = (np.concatenate(part) for part in zip((self.scores, self.keys), *self.parts, strict=True))
        keys, firsts = np.unique(keys, return_index=True)
        scores = scores[firsts]
        order = np.lexsort((keys, -scores))[: self.most]
        self.scores, self.keys, self.parts, self.held = scores[order], keys[order], [], 0

    def listed(self) -> list[list[float | int]]:
        self._keep_best()
        rows, others = np.divmod(self.keys, max(self.n, 1))
        return [[*pair] for pair in zip(self.scores.tolist(), rows.tolist(), others.tolist(), strict=True)]


def community_detection(
    embeddings: Any,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Groups of rows whose cosine with a central row is at least `threshold`: the largest group first, its central row first.

    The others of a group follow by falling cosine. Rows are in one group at most; the row with the most neighbours takes its
    group first. show_progress_bar: accepted without effect. Raises UserError as `semantic_search`.
    """
    vectors, least = as_rows(embeddings), between("min_community_size", min_community_size, 1, 1 << 40)
    batch_size = between("batch_size", batch_size, 1, 1 << 40)
    if len(vectors) < least:
        return []
    found = sorted(close_neighbours(vectors, np.float32(threshold), least, batch_size), key=lambda c: len(c[1]), reverse=True)
    used = np.zeros(len(vectors), bool)
    communities = []
    for centre, members in found:
        if used[centre]:
            continue
        free = members[~used[members]]
        if len(free) >= least:
            communities.append([centre, *free[free != centre].tolist()])
            used[communities[-1]] = True
    return sorted(communities, key=len, reverse=True)


def close_neighbours(vectors: Array, threshold: np.float32, least: int, batch_size: int) -> Iterator[tuple[int, Array]]:
    """Each row that has at least `least` rows, itself included, whose cosine with it is at least the threshold; and these
    rows, uint32, by falling cosine."""
    unit = normalize_rows(np.asarray(vectors, np.float32))
    for rows in corpus_blocks(len(unit), batch_size):
        scores = all_pairs(unit[rows], unit, "dot")
        refuse_not_finite(scores, rows.start)
        close = scores >= threshold
        for i in np.flatnonzero(np.count_nonzero(close, axis=1) >= least).tolist():
            members = np.flatnonzero(close[i])
            yield rows.start + i, members[np.argsort(-scores[i, members], kind="stable")].astype(np.uint32)
