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
