"""Vectors to numbers: the five measures on awkward vectors."""

import numpy as np
import pytest

from gpt2wgpu import UserError
from gpt2wgpu.vectors.measures import (
    METRICS,
    cosine_similarity,
    dot_product,
    euclidean_distance,
    manhattan_distance,
    pearson_correlation,
)
from gpt2wgpu.vectors.pairwise import all_pairs

rng = np.random.default_rng(0)


def test_by_hand():
    a, b = [1, 2, 2], [4, 0, 3]
    assert dot_product(a, b) == 10
    assert cosine_similarity(a, b) == pytest.approx(10 / (3 * 5))
    assert euclidean_distance(a, b) == pytest.approx(np.sqrt(9 + 4 + 1))
    assert manhattan_distance(a, b) == 6
    # about their means (5/3 and 7/3): (-2/3, 1/3, 1/3) and (5/3, -7/3, 2/3)
    assert pearson_correlation(a, b) == pytest.approx((-10 - 7 + 2) / np.sqrt(6 * 78))


def test_equals_numpy_on_random_vectors():
    for n in (2, 3, 256, 1600):
        a, b = rng.standard_normal((2, n), dtype=np.float32)
        x, y = a.astype(np.float64), b.astype(np.float64)
        assert cosine_similarity(a, b) == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-12)
        assert euclidean_distance(a, b) == pytest.approx(np.linalg.norm(x - y), rel=1e-12)
        assert manhattan_distance(a, b) == pytest.approx(np.linalg.norm(x - y, 1), rel=1e-12)
        assert pearson_correlation(a, b) == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-9)


def test_like_and_opposite():
    for scale in (1e-38, 1e-3, 1.0, 1e37):
        a = (rng.standard_normal(100) * scale).astype(np.float32)
        for function in (cosine_similarity, pearson_correlation):
            assert function(a, a) == pytest.approx(1, abs=1e-12)
            assert function(a, -a) == pytest.approx(-1, abs=1e-12)
            assert function(a, -a) >= -1 and function(a, a) <= 1
        for function in (euclidean_distance, manhattan_distance):
            assert function(a, a) == 0


def test_no_length_of_a_vector_overflows_or_vanishes():
    for scale in (1e-200, 1e200):
        assert cosine_similarity([scale, 0], [scale, scale]) == pytest.approx(np.sqrt(0.5))
        assert pearson_correlation([scale, 0, 0], [scale, 0, 0]) == pytest.approx(1)


def test_a_zero_vector_is_like_nothing():
    zero, a = np.zeros(3), np.array([1.0, 2.0, 4.0])
    assert cosine_similarity(zero, a) == cosine_similarity(a, zero) == cosine_similarity(zero, zero) == 0.0
    assert euclidean_distance(zero, zero) == 0.0


def test_a_constant_vector_correlates_with_nothing():
    constant = np.full(255, 0.1)  # its mean, rounded, is not 0.1
    a = rng.standard_normal(255)
    assert pearson_correlation(constant, a) == pearson_correlation(a, constant) == pearson_correlation(constant, constant) == 0.0
    assert pearson_correlation([3], [4]) == 0.0


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_gives_a_float_and_refuses_what_is_no_pair(name: str):
    metric = METRICS[name]
    assert type(metric.function(np.float32([1, 2]), [3, 5])) is float
    assert metric.label and metric.meaning
    for a, b in (([1, 2], [1, 2, 3]), ([], []), ([[1, 2]], [[1, 2]]), (1, 2)):
        with pytest.raises(ValueError, match="two vectors of one length"):
            metric.function(a, b)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            metric.function([1, bad], [1, 2])


def test_a_matrix_that_is_too_large_for_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.graph.memory.available_memory", lambda: 399_999_999)
    a = np.ones((10_000, 3), np.float32)
    expected = "the similarities of 10,000 with 10,000 vectors take 400 MB of memory, this machine has 400 MB free: compare fewer"
    with pytest.raises(UserError, match=expected):
        all_pairs(a, a, "cosine")
    assert all_pairs(a, a[:9], "cosine").shape == (10_000, 9)
