"""Vectors of fewer bits: the numbers of sentence-transformers, and what undoes them."""

import numpy as np
import pytest
from encoders import refusal

from gpt2wgpu import UserError, quantize_embeddings

VECTORS = np.random.default_rng(0).standard_normal((50, 20), dtype=np.float32)


def test_integers_by_hand():
    vectors = np.float32([[0, -510], [255, 0], [100.5, -255.5]])
    assert quantize_embeddings(vectors, "uint8").tolist() == [[0, 0], [255, 255], [100, 127]]
    assert quantize_embeddings(vectors, "int8").tolist() == [[-128, -128], [127, 127], [-28, -1]]


@pytest.mark.parametrize("precision, zero", [("int8", 128), ("uint8", 0)])
def test_integers_are_within_a_step(precision: str, zero: int):
    found = quantize_embeddings(VECTORS, precision)
    lowest, highest = VECTORS.min(axis=0), VECTORS.max(axis=0)
    step = (highest - lowest) / 255
    assert found.dtype == precision and found.shape == VECTORS.shape
    assert (found.min(axis=0) == -zero).all() and (found.max(axis=0) >= 254 - zero).all()
    assert (np.abs(lowest + step * (found.astype(np.float32) + zero) - VECTORS) <= step * 1.01).all()


def test_what_is_outside_the_ranges_is_clipped():
    ranges = np.stack([np.full(20, -0.5), np.full(20, 0.5)])
    for precision, low, high in (("int8", -128, 127), ("uint8", 0, 255)):
        found = quantize_embeddings(VECTORS, precision, ranges=ranges)
        assert (found[VECTORS < -0.5] == low).all() and (found[VECTORS > 0.5] == high).all()
        calibrated = quantize_embeddings(VECTORS, precision, calibration_embeddings=ranges)
        assert np.array_equal(found, calibrated)


def test_a_dimension_that_never_changes():
    vectors = np.float32([[1, 0], [1, 255]])
    assert quantize_embeddings(vectors, "uint8").tolist() == [[0, 0], [0, 255]]


def test_signs():
    vectors = np.float32([[1, -1, 0, 1e-30, -0.0, 1, 1, 1, 1], [-1] * 9])
    assert quantize_embeddings(vectors, "ubinary").tolist() == [[0b10010111, 0b10000000], [0, 0]]
    assert quantize_embeddings(vectors, "binary").tolist() == [[0b10010111 - 128, 0], [-128, -128]]
    assert quantize_embeddings(vectors, "binary").dtype == np.int8
    assert quantize_embeddings(vectors, "ubinary").dtype == np.uint8


def test_float32_is_as_it_was():
    assert np.array_equal(quantize_embeddings(VECTORS, "float32"), VECTORS)


@pytest.mark.parametrize("precision, shape", [("float32", 20), ("int8", 20), ("uint8", 20), ("binary", 3), ("ubinary", 3)])
def test_no_vectors_and_a_single_one(precision: str, shape: int):
    found = quantize_embeddings(np.empty((0, 20)), precision)
    assert found.shape == (0, shape)
    assert found.dtype == quantize_embeddings(VECTORS, precision).dtype
    ranges = np.stack([VECTORS.min(axis=0), VECTORS.max(axis=0)])
    one = quantize_embeddings(VECTORS[7], precision, ranges)
    np.testing.assert_array_equal(one, quantize_embeddings(VECTORS, precision)[7])


@pytest.mark.parametrize(
    "args, message",
    [
        ((VECTORS, "int4"), "precision must be one of float32, int8, uint8, binary, ubinary, not 'int4'"),
        ((VECTORS[None], "int8"), r"takes vectors \(n, C\), not an array of shape \(1, 50, 20\)"),
        ((VECTORS[0], "int8"), "needs ranges, or at least two vectors"),
        ((VECTORS.astype(np.int8), "binary"), "expected vectors of floats, got int8: they are quantized already"),
        (("no vectors", "binary"), "expected vectors of numbers"),
        ((VECTORS, "int8", np.ones((2, 3))), r"ranges have shape \(2, 3\), expected \(2, 20\)"),
        ((VECTORS, "int8", np.ones(20)), r"ranges have shape \(20,\), expected \(2, 20\)"),
        ((VECTORS[:1], "uint8"), "needs ranges, or at least two vectors"),
        ((VECTORS, "int8", None, VECTORS[:1]), "needs ranges, or at least two vectors"),
    ],
)
def test_refusals(args: tuple[object, ...], message: str):
    with pytest.raises(UserError, match=message):
        quantize_embeddings(*args)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_no_integer_stands_for_is_refused(precision: str, value: float):
    """The vector is named: integers would look like any others."""
    vectors = np.eye(3, dtype=np.float32)
    vectors[1, 2] = value
    assert "vector 1 holds NaN or Inf" in refusal(lambda: quantize_embeddings(vectors, precision))
    assert "the vector holds NaN or Inf" in refusal(lambda: quantize_embeddings(vectors[1], precision, ranges=np.eye(3)[:2]))


@pytest.mark.parametrize("ranges", [[[1, 1], [0, 2]], [[np.nan, 0], [1, 1]], [[0, 0], [1, np.inf]]])
def test_ranges_that_are_none_are_refused(ranges: list[list[float]]):
    assert "lowest values first" in refusal(lambda: quantize_embeddings(np.eye(2), "int8", ranges=np.array(ranges)))
