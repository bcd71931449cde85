"""BM25 against its formula, word by word; words and identifiers; fusion of ranks."""

import math
from collections import Counter

import numpy as np
import pytest

from gpt2wgpu.search import bm25
from gpt2wgpu.search.query import fuse_lists
from gpt2wgpu.search.words import count_words, split_words, word_number

TEXTS = ["the cat sat on the mat", "a dog", "", "cat cat cat dog", "error E1234 in read_http_header", "mat " * 300]


def columns(texts: list[str]) -> tuple[np.ndarray, ...]:
    counted = [count_words(text) for text in texts]
    ends = np.cumsum([len(numbers) for numbers, _, _ in counted])
    return (
        np.concatenate([numbers for numbers, _, _ in counted]),
        np.concatenate([counts for _, counts, _ in counted]),
        ends,
        np.array([length for _, _, length in counted], np.uint32),
    )


def plain_bm25(query: str, texts: list[str], allowed: np.ndarray) -> list[float]:
    documents = [Counter(split_words(text)) for text in texts]
    among = [d for d, yes in zip(documents, allowed, strict=True) if yes]
    mean = sum(d.total() for d in among) / len(among)
    scores = [0.0] * len(texts)
    for word in sorted(set(split_words(query))):
        df = sum(word in d for d in among)
        idf = math.log(1 + (len(among) - df + 0.5) / (df + 0.5))
        for i, d in enumerate(documents):
            if allowed[i] and d[word]:
                scores[i] += idf * d[word] * 2.5 / (d[word] + 1.5 * (0.25 + 0.75 * d.total() / mean))
    return scores


@pytest.mark.parametrize("scanned", [4, 1 << 17])
@pytest.mark.parametrize("query", ["cat", "the dog and the cat", "header", "none of them here", "mat E1234"])
def test_scores_equal_the_formula(query: str, scanned: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bm25, "SCANNED_WORDS", scanned)
    words, counts, ends, lengths = columns(TEXTS)
    numbers = np.array(sorted({word_number(word) for word in split_words(query)}), np.uint64)
    for allowed in (np.ones(6, bool), np.array([1, 0, 1, 1, 1, 0], bool)):
        found = bm25.bm25_scores(numbers, words, counts, ends, lengths, allowed)
        np.testing.assert_allclose(found, plain_bm25(query, TEXTS, allowed), rtol=1e-12)
    assert not bm25.bm25_scores(numbers, words, counts, ends, lengths, np.zeros(6, bool)).any()


def test_the_best_matches_are_sorted_and_never_empty_ones():
    scores = np.array([0, 2, 1, 2, 0, 3.0])
    found = bm25.best_matches(scores, 3)
    assert found.ids.tolist() == [[5, 1, 3]] and found.scores.tolist() == [[3, 2, 2]]
    assert bm25.best_matches(scores, 9).ids.tolist() == [[5, 1, 3, 2]]
    assert bm25.best_matches(np.zeros(3), 3).ids.shape == (1, 0)


def test_identifiers_are_found_by_their_parts():
    assert split_words("readHTTPHeader2 max_seq_length") == [
        *("readhttpheader2", "read", "http", "header"),
        *("max_seq_length", "max", "seq", "length"),
    ]
    assert split_words("E4711 word") == ["e4711", "4711", "word"]
    assert split_words("Straße ＡＢＣ naïve") == ["strasse", "abc", "naïve"]
    assert split_words("東京タワー") == ["東", "京", "タ", "ワ", "ー", "東京", "京タ", "タワ", "ワー"]
    assert split_words("...!?") == []


def test_ranks_are_fused():
    lists = {"semantic": {7: 0.9, 3: 0.8}, "lexical": {3: 5.0, 9: 2.0}}
    assert fuse_lists(lists, 5) == [(3, 1 / 62 + 1 / 61), (7, 1 / 61), (9, 1 / 62)]
    assert fuse_lists({"lexical": {4: 2.0, 2: 2.0}}, 1) == [(4, 2.0)]
