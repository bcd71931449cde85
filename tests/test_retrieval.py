"""Search among vectors, mining and communities, against plain sorting. tests/adapters compares with sentence-transformers."""

import numpy as np
import pytest

import gpt2wgpu
from gpt2wgpu.errors import UserError
from gpt2wgpu.vectors import mining, retrieval, top_k
from gpt2wgpu.vectors.coarse import make_coarse


def some_vectors(n: int, width: int = 24, seed: int = 0) -> np.ndarray:
    """Clustered, so that there are neighbours, of different lengths."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, n // 15), width))
    found = centres[rng.integers(len(centres), size=n)] + 0.4 * rng.standard_normal((n, width))
    return (found * rng.uniform(0.5, 2, (n, 1))).astype(np.float32)


def plain_search(queries: np.ndarray, corpus: np.ndarray, k: int, *, cosine: bool) -> tuple[np.ndarray, np.ndarray]:
    """All scores in float64, rounded, sorted: by score, then row."""
    a, b = queries.astype(np.float64), corpus.astype(np.float64)
    if cosine:
        a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a.astype(np.float64), b))
    scores = (a @ b.T).astype(np.float32)
    ids = np.stack([np.lexsort((np.arange(len(b)), -row))[:k] for row in scores])
    return np.take_along_axis(scores, ids, axis=1), ids


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (1, 3000, 10), (3, 1000, 1000), (300, 700, 7), (2, 5, 9)])
def test_top_k_equals_sorting_everything(m: int, n: int, k: int, cosine: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(top_k, "SCANNED_BYTES", 4 * 24 * 64)  # many blocks
    queries, corpus = some_vectors(m, seed=1), some_vectors(n)
    found = top_k.top_k(queries, corpus, k, cosine=cosine)
    scores, ids = plain_search(queries, corpus, min(k, n), cosine=cosine)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6, atol=1e-7)
    assert found.scores.dtype == np.float32 and found.ids.dtype == np.int64


def test_equal_scores_come_in_the_order_of_rows(monkeypatch: pytest.MonkeyPatch):
    """Copies of one vector, in blocks that BLAS computes by different kernels, have one score."""
    monkeypatch.setattr(top_k, "SCANNED_BYTES", 4 * 387 * 33)
    one = np.random.default_rng(0).standard_normal(387).astype(np.float32)
    corpus = np.tile(one, (1000, 1))
    corpus[::7] *= -1
    found = top_k.top_k(one[None] * 3 + 0.1, corpus, 50, cosine=True)
    assert found.ids[0].tolist() == [i for i in range(1000) if i % 7][:50]
    assert len(set(found.scores[0].tolist())) == 1


def test_scores_do_not_depend_on_what_else_is_searched():
    queries, corpus = some_vectors(40, seed=2), some_vectors(900)
    together = top_k.top_k(queries, corpus, 5, cosine=True)
    for i in range(0, 40, 13):
        alone = top_k.top_k(queries[i : i + 1], np.concatenate([corpus, corpus[:0]]), 5, cosine=True)
        np.testing.assert_array_equal(alone.scores[0], together.scores[i])
        np.testing.assert_array_equal(alone.ids[0], together.ids[i])


def test_a_coarse_scan_gives_the_same_result(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(top_k, "SCANNED_BYTES", 4 * 24 * 64)
    queries, corpus = some_vectors(5, seed=1), top_k.normalize_rows(some_vectors(3000))
    corpus[100:130] = corpus[99] + np.float32(1e-3) * some_vectors(30, seed=4)  # closer than int8 can tell apart
    corpus[500] = 0
    coarse = make_coarse(corpus)
    assert coarse.numbers.nbytes * 4 == corpus.nbytes
    back = coarse.numbers * coarse.facts["step"][:, None].astype(np.float64)
    assert (np.linalg.norm(back - corpus, axis=1) <= coarse.facts["lost"]).all() and coarse.facts["lost"].max() < 0.02
    for wanted in (queries, corpus[99:100]):
        found = top_k.top_k(wanted, corpus, 20, cosine=False, longest=1.1, coarse=coarse)
        expected = top_k.top_k(wanted, corpus, 20, cosine=False)
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_rising_corpus_keeps_few_candidates():
    """Every block is better than all before it: the worse ones must be dropped along the way."""
    corpus = np.ones((50_000, 4), np.float32) * np.linspace(0.1, 1, 50_000, dtype=np.float32)[:, None]
    pool = top_k.scan_corpus(np.ones((1, 4), np.float32), corpus, 10, top_k.ScanBounds(exact=True), cosine=False)
    assert sum(len(ids) for _, ids, _, _ in pool.parts) < 6000
    assert top_k.top_k(np.ones((1, 4), np.float32), corpus, 3, cosine=False).ids.tolist() == [[49_999, 49_998, 49_997]]


def test_a_long_vector_may_be_further_off_than_a_short_one():
    """Products that cancel: in float32 the best vector scores far less than its exact score, in any order of sums."""
    rng = np.random.default_rng(0)
    query = np.ones((1, 512), np.float32)
    long = np.repeat(rng.standard_normal(256).astype(np.float32) * 1e6, 2) * np.tile(np.float32([1, -1]), 256)
    corpus = np.full((400, 512), 1e-6, np.float32)
    corpus[300] = long[rng.permutation(512)]
    corpus[300, 7] += 1
    _, ids = plain_search(query, corpus, 5, cosine=False)
    found = top_k.top_k(query, corpus, 5, cosine=False)
    np.testing.assert_array_equal(found.ids, ids)


def test_only_allowed_rows_are_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(top_k, "SCANNED_BYTES", 4 * 24 * 64)
    queries, corpus = some_vectors(3, seed=1), some_vectors(900)
    allowed = np.arange(900) % 3 == 1
    allowed[100:400] = False  # whole blocks
    found = top_k.top_k(queries, corpus, 20, cosine=True, allowed=allowed)
    _, ids = plain_search(queries, corpus[allowed], 20, cosine=True)
    np.testing.assert_array_equal(found.ids, np.flatnonzero(allowed)[ids])
    assert top_k.top_k(queries, corpus, 20, cosine=True, allowed=np.zeros(900, bool)).ids.shape == (3, 0)


def test_memory_mapped_and_half_corpora(tmp_path):
    corpus = some_vectors(500)
    np.save(tmp_path / "v.npy", corpus.astype(np.float16))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    expected = retrieval.semantic_search(corpus[:3], corpus.astype(np.float16).astype(np.float32))
    assert retrieval.semantic_search(corpus[:3], mapped) == expected


def test_wrong_vectors_are_refused():
    corpus = some_vectors(100)
    bad = corpus.copy()
    with pytest.raises(UserError, match=r"^query 299 and vector 0 have no finite similarity"):
        retrieval.semantic_search(np.concatenate([corpus, corpus, corpus[:99], corpus[:1] * np.inf]), corpus)
    bad[57, 3] = np.nan
    with pytest.raises(UserError, match=r"^query 0 and vector 57 have no finite similarity"):
        retrieval.semantic_search(corpus[:1], bad)
    with pytest.raises(UserError, match=r"^queries have 5 dimensions and the corpus has 24"):
        retrieval.semantic_search(corpus[:2, :5], corpus)
    with pytest.raises(UserError, match=r"^score_function gave similarities of shape \(100, 2\), expected \(2, 100\)"):
        retrieval.semantic_search(corpus[:2], corpus, score_function=lambda a, b: np.ones((len(b), len(a))))
    with pytest.raises(UserError, match=r"^top_k must be"):
        retrieval.semantic_search(corpus[:2], corpus, top_k=0)
    with pytest.raises(UserError, match="have no finite similarity"):
        mining.community_detection(bad)


def test_empty_input():
    corpus = some_vectors(10)
    assert retrieval.semantic_search(corpus[:2], corpus[:0]) == [[], []]
    assert retrieval.semantic_search(corpus[:0], corpus) == []
    assert retrieval.semantic_search(corpus[:2], []) == [[], []]
    assert mining.paraphrase_mining_embeddings(corpus[:0]) == []
    assert mining.paraphrase_mining_embeddings(corpus[:1]) == []
    assert mining.community_detection(corpus[:0]) == []
    assert mining.community_detection(corpus[:3]) == []


def test_names_are_public():
    for name in ("semantic_search", "cos_sim", "dot_score"):
        assert getattr(gpt2wgpu, name) is getattr(retrieval, name)
    for name in ("paraphrase_mining", "paraphrase_mining_embeddings", "community_detection"):
        assert getattr(gpt2wgpu, name) is getattr(mining, name)


def test_mining_encodes_and_pairs(built_in):
    texts = ["The cat sleeps on the sofa", "Loans have become more expensive", "A kitten naps on the couch"]
    found = mining.paraphrase_mining(built_in, texts)
    assert found[0][1:] == [0, 2] and len(found) == 3
    assert all(type(x) is t for pair in found for x, t in zip(pair, (float, int, int), strict=True))


def test_the_most_pairs_are_the_best(monkeypatch: pytest.MonkeyPatch):
    vectors = some_vectors(200)
    everything = mining.paraphrase_mining_embeddings(vectors, top_k=300)
    assert len(everything) == 200 * 199 // 2
    monkeypatch.setattr(mining, "PAIRS_HELD", 500)
    assert mining.paraphrase_mining_embeddings(vectors, top_k=300, max_pairs=70, query_chunk_size=9)[:60] == [
        [pytest.approx(score, abs=1e-6), i, j] for score, i, j in everything[:60]
    ]
