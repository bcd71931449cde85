"""Search among vectors, with sentence-transformers' names, defaults and return types.

Its results depend on the order in which torch finds equal scores. Here it is defined: the higher score first, then the lower row.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import UserError, between
from ..graph.tensor import Array
from .convert import to_array
from .pairwise import all_pairs, as_matrix
from .top_k import Best, Candidates, corpus_blocks, refuse_not_finite, top_k

ScoreFunction = Callable[[Any, Any], Any]  # vectors (m, C) and (n, C) -> similarities (m, n), an array or a tensor


def cos_sim(a: Any, b: Any) -> Array:
    """Cosines of all rows of a (m, C) with all rows of b (n, C): float32 (m, n)."""
    return all_pairs(a, b, "cosine")


def dot_score(a: Any, b: Any) -> Array:
    """Dot products of all rows of a (m, C) with all rows of b (n, C): float32 (m, n)."""
    return all_pairs(a, b, "dot")


def semantic_search(
    query_embeddings: Any,
    corpus_embeddings: Any,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500000,
    top_k: int = 10,
    score_function: ScoreFunction = cos_sim,
) -> list[list[dict[str, int | float]]]:
    """For each query the `top_k` most similar vectors of the corpus, best first: [{"corpus_id": 3, "score": 0.91}, ...].

    query_embeddings (m, C) or (C,), corpus_embeddings (n, C): arrays, lists or tensors; a memory-mapped array may be larger
    than memory. score_function: `cos_sim`, `dot_score`, sentence-transformers' functions of these names, or any other that
    gives similarities (m, n); with one of its own, query_chunk_size and corpus_chunk_size say how many rows it gets.
    Raises UserError for vectors of different lengths, and for NaN and Inf.
    """
    queries, corpus = as_matrix(query_embeddings), as_rows(corpus_embeddings)
    check_widths(queries, corpus)
    chunks = (
        between("query_chunk_size", query_chunk_size, 1, 1 << 40),
        between("corpus_chunk_size", corpus_chunk_size, 1, 1 << 40),
    )
    found = best_rows(queries, corpus, between("top_k", top_k, 1, 1 << 40), score_function, chunks, rescore=True)
    return [
        [{"corpus_id": i, "score": score} for i, score in zip(ids, scores, strict=True)]
        for scores, ids in zip(found.scores.tolist(), found.ids.tolist(), strict=True)
    ]


def best_rows(
    queries: Array, corpus: Array, k: int, score_function: ScoreFunction, chunks: tuple[int, int], *, rescore: bool
) -> Best:
    """`top_k` where the function is known, else the k best of what the function gives for chunks of queries and corpus."""
    name = getattr(score_function, "__name__", "")
    module = getattr(score_function, "__module__", None) or ""
    if name in ("cos_sim", "dot_score") and (module == __name__ or module.startswith("sentence_transformers.")):
        return top_k(queries, corpus, k, cosine=name == "cos_sim", rescore=rescore)
    k = min(k, len(corpus))
    found = [
        best_by_function(queries[rows], corpus, k, score_function, chunks[1]) for rows in corpus_blocks(len(queries), chunks[0])
    ]
    empty = Best(np.empty((0, k), np.float32), np.empty((0, k), np.int64))
    return Best(*(np.concatenate(parts) for parts in zip(empty, *found, strict=True)))


def best_by_function(queries: Array, corpus: Array, k: int, score_function: ScoreFunction, chunk: int) -> Best:
    pool = Candidates(len(queries), k)
    for rows in corpus_blocks(len(corpus), chunk):
        block = np.ascontiguousarray(corpus[rows], np.float32)
        scores = to_array(score_function(queries, block))
        if scores.shape != (len(queries), len(block)):
            expected = f"expected {(len(queries), len(block))}, queries x vectors"
            raise UserError(f"score_function gave similarities of shape {scores.shape}, {expected}")
        refuse_not_finite(scores, rows.start)
        pool.add(scores, rows.start, np.zeros(len(queries)))
    return pool.best() if k else Best(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))


def as_rows(vectors: Any) -> Array:
    """Vectors as rows (n, C), a single one as one row. An array of floats stays what it is, memory-mapped or float16, and
    is converted block by block. Raises UserError for other shapes."""
    if isinstance(vectors, np.ndarray) and vectors.ndim == 2 and vectors.dtype.kind == "f" and vectors.shape[1]:
        return vectors
    if hasattr(vectors, "__len__") and not len(vectors):
        return np.empty((0, 0), np.float32)
    return as_matrix(vectors)


def check_widths(queries: Array, corpus: Array) -> None:
    if len(queries) and len(corpus) and queries.shape[1] != corpus.shape[1]:
        raise UserError(
            f"queries have {queries.shape[1]} dimensions and the corpus has {corpus.shape[1]}: use one model for both"
        )
