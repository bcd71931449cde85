"""Search, mining and communities against sentence-transformers itself, on the same vectors."""

import numpy as np
import pytest
import torch
from sentence_transformers import util as theirs

from gpt2wgpu.vectors import mining, retrieval


def some_vectors(n: int, width: int = 24, seed: int = 0) -> np.ndarray:
    """Clustered, so that there are neighbours, of different lengths."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, n // 15), width))
    found = centres[rng.integers(len(centres), size=n)] + 0.4 * rng.standard_normal((n, width))
    return (found * rng.uniform(0.5, 2, (n, 1))).astype(np.float32)


@pytest.mark.parametrize("function", ["cos_sim", "dot_score"])
@pytest.mark.parametrize("k", [1, 10, 2000])
def test_semantic_search_equals_theirs(function: str, k: int):
    queries, corpus = some_vectors(130, seed=3), some_vectors(1500)
    expected = theirs.semantic_search(queries, corpus, top_k=k, score_function=getattr(theirs, function))
    for score_function in (getattr(retrieval, function), getattr(theirs, function)):
        same_hits(retrieval.semantic_search(queries, corpus, top_k=k, score_function=score_function), expected)
    same_hits(retrieval.semantic_search(queries[0], corpus), theirs.semantic_search(queries[0], corpus))


def test_semantic_search_with_another_function_equals_theirs():
    queries, corpus = some_vectors(30, seed=3), some_vectors(500)
    expected = theirs.semantic_search(queries, corpus, score_function=theirs.euclidean_sim)
    chunks = {"query_chunk_size": 7, "corpus_chunk_size": 90}
    same_hits(retrieval.semantic_search(queries, corpus, score_function=theirs.euclidean_sim, **chunks), expected)


def same_hits(found: list, expected: list) -> None:
    assert [len(hits) for hits in found] == [len(hits) for hits in expected]
    for hits, others in zip(found, expected, strict=True):
        assert [*hits[0]] == [*others[0]]
        off = 2e-6 * max(1, abs(others[0]["score"]))  # their sums are in float32
        np.testing.assert_allclose([h["score"] for h in hits], [h["score"] for h in others], rtol=0, atol=off)
        ours, their = ([h["corpus_id"] for h in side] for side in (hits, others))
        for at in np.flatnonzero(np.array(ours) != np.array(their)):  # only where their scores are as good as equal
            assert abs(others[at]["score"] - hits[at]["score"]) < off


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_k": 5, "max_pairs": 40}, {"query_chunk_size": 50}])
def test_mining_equals_theirs(options: dict):
    vectors = some_vectors(400)
    expected = theirs.paraphrase_mining_embeddings(torch.from_numpy(vectors), **options)
    found = mining.paraphrase_mining_embeddings(vectors, **options)
    np.testing.assert_allclose([p[0] for p in found], [p[0] for p in expected], atol=2e-6)
    assert {tuple(p[1:]) for p in found} == {tuple(p[1:]) for p in expected}


@pytest.mark.parametrize("options", [{}, {"threshold": 0.9, "min_community_size": 2}, {"threshold": 0.5, "batch_size": 7}])
def test_communities_equal_theirs(options: dict):
    vectors = some_vectors(600)
    expected = theirs.community_detection(vectors, **options)
    assert len(expected) > 5
    assert mining.community_detection(vectors, **options) == expected
    assert mining.community_detection(torch.from_numpy(vectors), **options) == expected
