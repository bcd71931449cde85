"""Similarities of an Encoder's vectors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from encoders import refusal

from gpt2wgpu import Encoder
from gpt2wgpu.graph.tensor import Array

SIMILARITIES: dict[str, Callable[[Array, Array], float]] = {
    "cosine": lambda x, y: float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)),
    "dot": lambda x, y: float(x @ y),
    "euclidean": lambda x, y: -float(np.linalg.norm(x - y)),
    "manhattan": lambda x, y: -float(np.abs(x - y).sum()),
}


@pytest.fixture
def by_name(make: Callable[..., Encoder]) -> Callable[[str], Encoder]:
    return lambda name: make(layer=0, similarity_fn_name=name)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarity(name: str, by_name: Callable[[str], Encoder]):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((7, 37)), rng.standard_normal((70, 37))
    want = np.array([[SIMILARITIES[name](x, y) for y in b] for x in a])
    model = by_name(name)
    found = model.similarity(a, b)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, want, atol=1e-4)
    np.testing.assert_allclose(model.similarity(a.tolist(), b[0]), want[:, :1], atol=1e-4)
    pairs = model.similarity_pairwise(a, b[:7])
    assert (pairs.shape, pairs.dtype) == ((7,), np.float32)
    np.testing.assert_allclose(pairs, np.diag(want), atol=1e-4)
    single = model.similarity_pairwise(a[0], b[0])
    assert (single.shape, single.dtype) == ((), np.float32)  # as in sentence-transformers
    np.testing.assert_allclose(single, want[0, 0], atol=1e-4)
    for one, many, expected in ((a[0], b, want[0]), (a[:1], b, want[0]), (a, b[0], want[:, 0])):
        np.testing.assert_allclose(model.similarity_pairwise(one, many), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["cosine", "manhattan"])
def test_similarity_in_blocks(name: str, by_name: Callable[[str], Encoder]):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2049, 3), dtype=np.float32), rng.standard_normal((4100, 3), dtype=np.float32)
    found = by_name(name).similarity(a, b)
    assert found.shape == (2049, 4100)
    for i, j in ((0, 0), (2047, 2047), (2048, 2048), (2047, 2048), (2048, 4099), (0, 4096)):
        assert abs(found[i, j] - SIMILARITIES[name](a[i], b[j])) < 1e-5
    np.testing.assert_allclose(found[::97, ::89], by_name(name).similarity(a[::97], b[::89]), atol=1e-6)


def test_similarity_of_a_zero_vector(by_name: Callable[[str], Encoder]):
    model = by_name("cosine")
    a = np.zeros((1, 4))
    assert model.similarity(a, np.ones((1, 4))).tolist() == [[0]]
    assert model.similarity_pairwise(a, np.ones((1, 4))).tolist() == [0]


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarity_of_no_vectors(name: str, by_name: Callable[[str], Encoder], monkeypatch: pytest.MonkeyPatch):
    """A program of no rows would end the process: wgpu panics on a binding of no bytes."""
    from gpt2wgpu import gpu

    class Guarded(gpu.GPUProgram):
        def __init__(self, *args: Any) -> None:
            assert all(args[3].values()), "a capacity of 0"
            super().__init__(*args)

    model = by_name(name)
    monkeypatch.setattr(gpu, "GPUProgram", Guarded)
    none, some = np.empty((0, 4)), np.ones((2, 4))
    for a, b, shape in ((none, some, (0, 2)), (some, none, (2, 0)), (none, none, (0, 0))):
        found = model.similarity(a, b)
        assert (found.shape, found.dtype) == (shape, np.float32)
    assert model.similarity_pairwise(none, none).shape == (0,)
    assert model.similarity_matrix([]).shape == (0, 0)


def test_similarity_refuses_what_does_not_fit(built_in: Encoder):
    assert "one length, got 3 and 4" in refusal(lambda: built_in.similarity(np.ones((2, 3)), np.ones((2, 4))))
    assert "(2, 3) and (3, 3)" in refusal(lambda: built_in.similarity_pairwise(np.ones((2, 3)), np.ones((3, 3))))
    assert "(2, 3) and (2, 4)" in refusal(lambda: built_in.similarity_pairwise(np.ones((2, 3)), np.ones((2, 4))))
    for method in (built_in.similarity, built_in.similarity_pairwise):
        assert "(2, 3, 4)" in refusal(lambda method=method: method(np.ones((2, 3, 4)), np.ones((2, 3))))
        for wrong in ("a cat", ["a", "b"], None, [[1, 2], [3]], [None]):
            assert "vectors" in refusal(lambda method=method, wrong=wrong: method(wrong, wrong))
        refusal(lambda method=method: method([], []))  # vectors of no numbers
    message = refusal(lambda: Encoder(device="numpy", similarity_fn_name="jaccard"))
    assert message == "similarity_fn_name must be one of cosine, dot, euclidean, manhattan, not 'jaccard'"


def test_similarity_matrix(make: Callable[..., Encoder]):
    model = make()
    texts = ["The cat is sleeping", "A feline is resting", "Stock markets fell sharply"]
    matrix = model.similarity_matrix(texts)
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-5)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    assert matrix[0, 1] > max(matrix[0, 2], matrix[1, 2])
    np.testing.assert_allclose(model.similarity_matrix(t for t in texts), matrix, atol=1e-6)
    np.testing.assert_allclose(
        model.similarity_matrix(texts, truncate_dim=9), model.similarity(*[model.encode(texts, truncate_dim=9)] * 2), atol=1e-6
    )
