"""Losses against PyTorch (tests/golden/losses.npz, written by make_golden_gradients.py), and the learning rate."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpt2wgpu.graph.tensor import Array
from gpt2wgpu.train import losses
from gpt2wgpu.train.adamw import learning_rate

with np.load(Path(__file__).parent / "golden" / "losses.npz") as arrays:
    GOLDEN = dict(arrays)
LOSSES: dict[str, Callable[[Array], tuple[float, Array]]] = {
    "contrastive": lambda v: losses.contrastive(v, GOLDEN["labels"], 0.5),
    "cosine_regression": lambda v: losses.cosine_regression(v, GOLDEN["scores"]),
    "info_nce": lambda v: losses.info_nce(v, 0.05),
    "distillation": lambda v: losses.distillation(v, GOLDEN["teacher"], 0.7),
}


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_equal_pytorch(name: str):
    value, gradient = LOSSES[name](GOLDEN["vectors"])
    assert gradient.dtype == np.float32
    assert value == pytest.approx(float(GOLDEN[f"{name}_loss"]), rel=1e-10)
    np.testing.assert_allclose(gradient, GOLDEN[f"{name}_gradient"], rtol=1e-6, atol=1e-8)


def test_the_margin_counts_in_this_example():
    near = [np.abs(LOSSES["contrastive"](GOLDEN["vectors"])[1][i]).max() for i in (2, 3, 4)]
    assert near[0] > 0 and near[1] > 0


@pytest.mark.parametrize("name", LOSSES)
def test_zero_vectors_give_finite_gradients(name: str):
    value, gradient = LOSSES[name](np.zeros_like(GOLDEN["vectors"]))
    assert np.isfinite(value) and np.isfinite(gradient).all()


# --- many vectors: in f32, in other forms


def in_float64(loss: Callable[[], tuple[float, Array]], monkeypatch: pytest.MonkeyPatch) -> tuple[float, Array]:
    """The same loss as for few vectors."""
    with monkeypatch.context() as patch:
        patch.setattr(losses, "FEW", 1 << 30)
        return loss()


def alike_vectors(count: int, width: int, noise: float) -> tuple[Array, Array]:
    """A teacher's vectors, whose cosines are around 0.2, and vectors that differ from them by `noise`."""
    teacher, other = np.random.default_rng(0).standard_normal((2, count, width), dtype=np.float32)
    teacher += 0.5
    return (teacher + np.float32(noise) * other).astype(np.float32), teacher


@pytest.mark.parametrize("noise", [1e-4, 0.05, 3.0])
@pytest.mark.parametrize(("count", "width"), [(257, 36), (300, 70), (1001, 5), (260, 400)])
def test_distillation_of_many_vectors_is_as_exact(count: int, width: int, noise: float, monkeypatch: pytest.MonkeyPatch):
    """Also where both matrices of cosines are nearly equal."""
    vectors, teacher = alike_vectors(count, width, noise)
    vectors[3] = teacher[5] = 0
    vectors[3] += 1  # no text has the vector 0, whose gradient is 1e12 times as large
    value, gradient = losses.distillation(vectors, teacher, 10.0)
    expected, right = in_float64(lambda: losses.distillation(vectors, teacher, 10.0), monkeypatch)
    assert gradient.dtype == np.float32
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, right, rtol=1e-5, atol=2e-6 * np.abs(right).max())


@pytest.mark.parametrize("noise", [0.05, 3.0])
@pytest.mark.parametrize(("pairs", "width"), [(257, 36), (300, 70), (1001, 5), (260, 400)])
def test_info_nce_of_many_pairs_is_as_exact(pairs: int, width: int, noise: float, monkeypatch: pytest.MonkeyPatch):
    """Whether the positives are found at once or hardly at all."""
    vectors = np.stack(alike_vectors(pairs, width, noise), 1).reshape(2 * pairs, width)
    value, gradient = losses.info_nce(vectors, 0.05)
    expected, right = in_float64(lambda: losses.info_nce(vectors, 0.05), monkeypatch)
    assert gradient.dtype == np.float32
    assert value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, right, rtol=1e-4, atol=1e-5 * np.abs(right).max())


@pytest.mark.parametrize("name", ["distillation", "info_nce"])
def test_many_vectors_give_the_same_bits_on_any_number_of_cores(name: str, monkeypatch: pytest.MonkeyPatch):
    vectors, teacher = alike_vectors(600, 100, 0.5)
    found = []
    for count in (1, 2, 3, 2):
        monkeypatch.setattr("gpt2wgpu.graph.cores.usable_cores", lambda count=count: count)
        value, gradient = losses.distillation(vectors, teacher) if name == "distillation" else losses.info_nce(vectors, 0.05)
        found.append((value, gradient.tobytes()))
    assert found.count(found[0]) == len(found)


@pytest.mark.parametrize("name", ["distillation", "info_nce"])
def test_many_vectors_that_are_not_finite(name: str):
    """The loss says so, and nothing warns."""
    vectors, teacher = alike_vectors(600, 20, 0.5)
    vectors[7, 3] = np.nan
    with np.errstate(all="ignore"):  # as the loop calls it
        value, _ = losses.distillation(vectors, teacher) if name == "distillation" else losses.info_nce(vectors, 0.05)
    assert not np.isfinite(value)


def test_a_teacher_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"the teacher's vectors must be \(12, 5\), like the model's, got \(12, 4\)"):
        losses.distillation(GOLDEN["vectors"], GOLDEN["teacher"][:, :4])


def test_hard_pairs_against_differences_and_each_pair_alone():
    rng = np.random.default_rng(0)
    vectors, teacher = rng.standard_normal((2, 7, 5))
    first = np.array([0, 3, 5])
    value, gradient = losses.pair_distillation(vectors, teacher, first)
    cosines = [
        [float(v[i] @ v[i + 1] / np.linalg.norm(v[i]) / np.linalg.norm(v[i + 1])) for i in first] for v in (vectors, teacher)
    ]
    assert value == pytest.approx(np.mean(np.subtract(*cosines) ** 2), rel=1e-12)
    numeric = np.zeros_like(vectors)
    for at in np.ndindex(*vectors.shape):
        step = np.zeros_like(vectors)
        step[at] = 1e-5
        up, down = (losses.pair_distillation(vectors + sign * step, teacher, first)[0] for sign in (1, -1))
        numeric[at] = (up - down) / 2e-5
    np.testing.assert_allclose(gradient, numeric, atol=1e-8)
    assert gradient.dtype == np.float32 and not gradient[2].any() and gradient[[0, 1, 3, 4, 5, 6]].any(axis=1).all()
    assert losses.pair_distillation(vectors, 3 * vectors, first)[0] == pytest.approx(0)
    none, zero = losses.pair_distillation(vectors, teacher, first[:0])
    assert none == 0 and not zero.any() and zero.shape == vectors.shape


def test_learning_rate():
    rates = [learning_rate(step, 10, 2.0, 4) for step in range(1, 11)]
    np.testing.assert_allclose(rates[:5], [0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.2
    assert learning_rate(1, 1, 2.0, 0) == 2.0
