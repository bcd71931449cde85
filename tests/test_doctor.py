"""`doctor` and the start-up self-test: right devices pass, wrong kernels are found."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.devices.selftest import Case, Check, check_op, compare, forward_cases, self_test
from gpt2wgpu.diagnose.doctor import check_device
from gpt2wgpu.gpu import Device, inplace, kernels
from gpt2wgpu.graph import ops
from gpt2wgpu.train.selftest import backward_cases as training_cases
from gpt2wgpu.train.selftest import check_step, check_training


@pytest.fixture
def on_gpu(device: Device, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Encoder]:
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (None if wanted == "numpy" else device, "the tests'"))
    return lambda **options: Encoder(device="gpu", **options)


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """`wrong("pool", old, new)`: the source of that shader is another one."""

    def change(shader: str, old: str, new: str) -> None:
        right = kernels.read_shader
        assert old in right(shader)
        for module in (kernels, inplace):
            monkeypatch.setattr(
                module, "read_shader", lambda name: right(name).replace(old, new) if name == shader else right(name)
            )

    return change


def test_a_right_device_passes_every_check(on_gpu: Callable[..., Encoder]):
    model = on_gpu()
    checks = list(check_device(model))
    assert [c for c in checks if not c.ok] == []
    kinds = [c.name for c in checks]
    assert set(kinds) == {case.op.name for case in forward_cases(half=False)} | {"built-in model", "alone = in a batch"}
    assert len(checks) == len(forward_cases(model.engine.place.device.has_f16)) + 2
    assert checks[-1].tolerance == 0


def test_every_op_has_a_check():
    declared = {o for o in vars(ops).values() if hasattr(o, "reference")}
    for half in (False, True):
        assert {case.op for case in forward_cases(half)} == declared


def test_half_precision_is_checked_by_cosine(on_gpu: Callable[..., Encoder], device: Device):
    if not device.has_f16:
        pytest.skip("the device has no shader-f16")
    *_, model, alone = check_device(on_gpu(dtype="float16", layer=2, pooling="max"))
    assert model.name == "built-in model (1 - cosine)"
    assert model.shape == "5 texts, layer 2, float16"
    assert model.ok, model
    assert alone.ok, alone


def test_there_is_nothing_to_check_in_numpy():
    assert list(check_device(Encoder(device="numpy"))) == []


def test_the_model_is_checked_as_it_is_set_up(on_gpu: Callable[..., Encoder]):
    """Its prompts, its cut vectors and its length included."""
    options = {"prompts": {"q": "query: "}, "default_prompt_name": "q", "truncate_dim": 5, "max_seq_length": 60, "layer": 1}
    *_, model, alone = check_device(on_gpu(**options))
    assert model.ok, model
    assert alone.ok, alone


def test_texts_that_are_cut_are_no_warning(on_gpu: Callable[..., Encoder]):
    """Warnings are errors here."""
    *_, model, _ = check_device(on_gpu(max_seq_length=10, layer=1))
    assert model.ok, model


WRONG = [
    ("layer_norm", "+ p.eps", "+ 1.5 * p.eps + 0.001"),
    ("layer_norm", "weight[c], bias[c]", "weight[c], bias[0]"),
    ("row_sum", "half > 0u", "half > 1u"),
    ("attention_keys", "query + 1u, CAUSAL", "query + 2u, CAUSAL"),
    ("softmax_attention", "total[e] *= fade;", ""),
    ("embed", "wpe[positions[t]", "wpe[min(positions[t], 3u)"),
    ("linear_add", "residual[at] +", "0.99 * residual[at] +"),
    ("linear_add_scalar", "k < p.K", "k < p.K - 1u"),
    ("l2_normalize", "/ norm", ""),
]


@pytest.mark.parametrize(("shader", "old", "new"), WRONG)
def test_a_wrong_kernel_is_refused_at_the_start(shader: str, old: str, new: str, device: Device, wrong: Callable[..., None]):
    wrong(shader, old, new)
    with pytest.raises(UserError, match=r" computes (\w+) \(.*\) wrongly: error .*device='numpy'") as caught:
        self_test(device)
    assert "\n" not in str(caught.value)
    assert re.search(r"computes (\w+)", str(caught.value))[1] in (
        shader.removesuffix("_scalar").removesuffix("_keys").removeprefix("softmax_"),
        "layer_norm",
    )


def test_a_right_device_passes_the_self_test(device: Device):
    self_test(device)


def test_a_wrong_kernel_is_found_in_kernel_and_model(on_gpu: Callable[..., Encoder], wrong: Callable[..., None]):
    wrong("layer_norm", "f32(p.C) + p.eps", "f32(p.C) + p.eps + 0.01")
    bad = {c.name for c in check_device(on_gpu()) if not c.ok}
    assert bad == {"layer_norm", "built-in model"}


def test_a_right_device_passes_every_check_of_training(device: Device):
    checks = list(check_training(device))
    assert [c for c in checks if not c.ok] == []
    assert [c.name for c in checks] == [*(case.op.name for case in training_cases()), "training step"]


@pytest.mark.parametrize(
    ("shader", "old", "new"),
    [
        ("adamw", "sqrt(v[i]) + p.eps", "sqrt(v[i]) + p.eps + 0.001"),
        ("adamw", "* p.decay", ""),
        ("square_sum", "fma(x[i], x[i], square)", "fma(x[i], x[i], 1.01 * square)"),
        ("linear_dweight", "t < p.T", "t < p.T - 1u"),
        ("scatter_rows", "dtable[at] = sum", "dtable[at] = 1.01 * sum"),
    ],
)
def test_a_step_finds_a_wrong_kernel(shader: str, old: str, new: str, device: Device, wrong: Callable[..., None]):
    assert check_step(device).ok
    wrong(shader, old, new)
    assert not check_step(device).ok


@pytest.mark.parametrize("found", [[1, np.nan], [np.inf, 2], [-np.inf, np.nan]])
def test_nan_and_infinity_are_infinite_errors(found: list[float]):
    check = compare("op", "", np.array([1, 2], np.float32), np.array(found, np.float32), 1e9)
    assert check.error == float("inf")
    assert not check.ok


def test_compare_by_hand():
    check = compare("op", "C=2", np.array([1, -4], np.float32), np.array([1, -4.5], np.float32), 0.125)
    assert check == Check("op", "C=2", 0.125, 0.125)
    assert check.ok
    assert not compare("op", "", np.array([1, -4], np.float32), np.array([1, -4.51], np.float32), 0.125).ok
    assert compare("op", "", np.zeros(2), np.zeros(2), 0.0).ok
    assert not compare("op", "", np.zeros(2), np.full(2, 1e-9), 1e-3).ok  # where all should be zero
    assert not Check("op", "", float("nan"), 1.0).ok


@pytest.mark.parametrize("value", ["log(-1.0 - abs(x[row]))", "x[row] * 3e38 * 3e38", "0.5"])
def test_a_kernel_that_gives_nan_infinity_or_a_wrong_number(value: str, device: Device, wrong: Callable[..., None]):
    wrong("l2_normalize", "x[row + c] / norm", value)
    assert not check_op(device, Case(ops.l2_normalize, {"C": 70})).ok
