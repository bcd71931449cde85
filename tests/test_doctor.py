"""`doctor`: right devices pass, wrong kernels are found."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from process import Run

from gpt2wgpu import Encoder
from gpt2wgpu.devices.selftest import Case, Check, check_op, compare_results, forward_cases
from gpt2wgpu.diagnose.doctor import check_kernels, check_model
from gpt2wgpu.gpu import Device
from gpt2wgpu.graph import ops
from gpt2wgpu.train.selftest import backward_cases as training_cases
from gpt2wgpu.train.selftest import check_step, check_training


@pytest.fixture
def on_gpu(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders that are not asked to use numpy compute on the tests' device."""
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (None if wanted == "numpy" else device, "the tests'"))


def model_checks(**options: Any) -> list[Check]:
    twin = Encoder(device="numpy", **{**options, "dtype": "auto"})
    return [*check_model(Encoder(device="gpu", **options), twin)]


def test_a_right_device_passes_every_check(on_gpu: None, users_gpu: Device):
    checks = [*check_kernels(users_gpu), *model_checks()]
    assert [c for c in checks if not c.ok] == []
    assert {c.name for c in checks} == {case.op.name for case in forward_cases(half=False)} | {
        "built-in model",
        "alone = in a batch",
    }
    assert len(checks) == len(forward_cases(users_gpu.has_f16)) + 2
    assert checks[-1].tolerance == 0


def test_every_op_has_a_check():
    declared = {o for o in vars(ops).values() if hasattr(o, "reference")}
    for half in (False, True):
        assert {case.op for case in forward_cases(half)} == declared


def test_half_precision_is_checked_by_cosine(on_gpu: None, device: Device):
    if not device.has_f16:
        pytest.skip("the device has no shader-f16")
    model, alone = model_checks(dtype="float16", layer=2, pooling="max")
    assert model.name == "built-in model (1 - cosine)"
    assert model.shape == "5 texts, layer 2, float16"
    assert model.ok, model
    assert alone.ok, alone


@pytest.mark.parametrize(
    "options",
    [
        {"prompts": {"q": "query: "}, "default_prompt_name": "q", "truncate_dim": 5, "max_seq_length": 60},
        {"max_seq_length": 10},  # texts that are cut are no warning, which would be an error here
    ],
)
def test_the_model_is_checked_as_it_is_set_up(options: dict[str, Any], on_gpu: None):
    """Its prompts, its cut vectors and its length included."""
    model, alone = model_checks(layer=1, **options)
    assert model.ok, model
    assert alone.ok, alone


def test_a_wrong_kernel_is_found_in_kernel_and_model(
    on_gpu: None, users_gpu: Device, wrong: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    wrong("layer_norm", "f32(p.C) + p.eps", "f32(p.C) + p.eps + 0.01")
    assert {c.name for c in check_kernels(users_gpu) if not c.ok} == {"layer_norm"}
    monkeypatch.setattr("gpt2wgpu.devices.graph_check.check_graph", lambda device, tensors: None)
    assert {c.name for c in model_checks() if not c.ok} == {"built-in model"}


def test_a_right_device_passes_every_check_of_training(users_gpu: Device):
    checks = list(check_training(users_gpu))
    assert [c for c in checks if not c.ok] == []
    assert [c.name for c in checks] == [*(case.op.name for case in training_cases()), "training step"]


@pytest.mark.parametrize(
    ("shader", "old", "new"),
    [
        ("adamw", "sqrt(v[i]) + p.eps", "sqrt(v[i]) + p.eps + 0.001"),
        ("adamw", "* p.decay", ""),
        ("average", "fma(p.share, ", "fma(1.01 * p.share, "),
        ("square_sum", "fma(x[i], x[i], square)", "fma(x[i], x[i], 1.01 * square)"),
        ("dweight_registers", "t < end", "t < end - 1u"),
        ("scatter_rows", "dtable[at] = sum", "dtable[at] = 1.01 * sum"),
    ],
)
def test_a_step_finds_a_wrong_kernel(shader: str, old: str, new: str, device: Device, wrong: Callable[..., None]):
    assert check_step(device).ok
    wrong(shader, old, new)
    assert not check_step(device).ok


@pytest.mark.parametrize("found", [[1, np.nan], [np.inf, 2], [-np.inf, np.nan]])
def test_nan_and_infinity_are_infinite_errors(found: list[float]):
    check = compare_results("op", "", np.array([1, 2], np.float32), np.array(found, np.float32), 1e9)
    assert check.error == float("inf")
    assert not check.ok


def test_nan_that_numpy_has_must_be_found_in_its_row():
    expected = np.array([[1, 2], [np.nan, np.nan], [3, 4]], np.float32)
    assert compare_results("op", "", expected, np.array([[1, 2], [np.nan, 7], [3, 4]]), 0.0).ok
    for found in ([[1, 2], [7, 7], [3, 4]], [[1, np.nan], [np.nan, 7], [3, 4]], [[1, 2], [np.nan, 7], [3, 5]]):
        assert not compare_results("op", "", expected, np.array(found), 1e-3).ok


def test_compare_by_hand():
    check = compare_results("op", "C=2", np.array([1, -4], np.float32), np.array([1, -4.5], np.float32), 0.125)
    assert check == Check("op", "C=2", 0.125, 0.125)
    assert check.ok
    assert not compare_results("op", "", np.array([1, -4], np.float32), np.array([1, -4.51], np.float32), 0.125).ok
    assert compare_results("op", "", np.zeros(2), np.zeros(2), 0.0).ok
    assert not compare_results("op", "", np.zeros(2), np.full(2, 1e-9), 1e-3).ok  # where all should be zero
    assert not Check("op", "", float("nan"), 1.0).ok
    assert not Check("op", "", 0.0, 1.0, "does not compile").ok


def test_a_wrong_row_of_small_values_is_found():
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((4, 16))
    expected[2] *= 1e-6
    found = expected * (1 + 1e-6 * rng.standard_normal((4, 16)))
    assert compare_results("op", "", expected, found, 2e-5).ok
    for wrong in (-found[2], 0 * found[2], np.roll(found[2], 1), 1.01 * found[2]):
        check = compare_results("op", "", expected, np.concatenate([found[:2], wrong[None], found[3:]]), 2e-5)
        assert 1e-3 < check.error <= 0.25 + 1e-3  # at most twice a row's largest value, of which an eighth counts
        assert not check.ok


@pytest.mark.parametrize("value", ["log(-1.0 - abs(row[i]))", "row[i] * 3e38 * 3e38", "0.0 * row[i] + 0.5"])
def test_a_kernel_that_gives_nan_infinity_or_a_wrong_number(value: str, device: Device, wrong: Callable[..., None]):
    wrong("l2_normalize", "row[i] / norm", value)
    assert not check_op(device, Case(ops.l2_normalize, {"C": 70})).ok


# --- kernels that do not compile


def test_a_kernel_that_does_not_compile_is_one_failed_check(users_gpu: Device, wrong: Callable[..., None]):
    """The row shows the first line of the compiler's message; the other kernels are still checked."""
    wrong("layer_norm", "let mean", "nonsense")
    checks = [*check_kernels(users_gpu)]
    assert {c.name for c in checks if not c.ok} == {"layer_norm"}
    [failure] = {c.failure for c in checks if not c.ok}
    assert failure == "Shader 'layer_norm' parsing error: no definition in scope for identifier: `nonsense`"


def test_training_that_does_not_compile_is_a_failed_check(users_gpu: Device, wrong: Callable[..., None]):
    wrong("adamw", "sqrt(v[i])", "nonsense")
    *_, step = check_training(users_gpu)
    assert step.name == "training step" and not step.ok and step.failure.startswith("Shader 'adamw' parsing error: no def")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels and no training, as the command is what is tried here."""
    chosen = (ops.layer_norm, ops.concat)
    cases = [c for c in forward_cases(half=False) if c.op in chosen and not c.nan]
    monkeypatch.setattr("gpt2wgpu.diagnose.doctor.forward_cases", lambda half: cases)
    monkeypatch.setattr("gpt2wgpu.train.selftest.backward_cases", lambda: [])


def test_the_command_survives_a_kernel_that_does_not_compile(few: None, device: Device, wrong: Callable[..., None], run: Run):
    code, out, err = run("doctor", "--device", device.adapter.index, "--layer", "1")
    assert (code, err) == (0, "") and "5 of 5 within tolerance" in out
    wrong("layer_norm", "let mean", "nonsense")
    code, out, err = run("doctor", "--device", device.adapter.index, "--layer", "1")
    assert (code, err) == (1, "")
    found = [line.split()[0] for line in out.splitlines()[3:-2]]
    assert found == ["FAILED", "ok", "ok", "FAILED"]  # no model without layer_norm; concat and the training step are right
    assert re.search(r"^FAILED +- +2e-05  layer_norm .* T=39 C=132: Shader 'layer_norm' parsing error: no def", out, re.M)
    assert re.search(r"^FAILED +- +1e-04  built-in model +opening it: ", out, re.M)
    assert "Traceback" not in out


def test_the_report_in_json(few: None, device: Device, wrong: Callable[..., None], run: Run):
    code, out, err = run("doctor", "--json", "--device", device.adapter.index, "--layer", "1")
    report = json.loads(out)
    assert (code, err, report["ok"]) == (0, "", True)
    assert report["machine"]["cores"] >= 1 and report["machine"]["system"] and report["versions"]["wgpu"].startswith("0.32")
    adapter = report["adapters"][device.adapter.index]
    assert (adapter["name"], adapter["backend"]) == (device.adapter.name, device.adapter.backend)
    assert adapter["driver"] == device.adapter.driver and adapter["limits"] == device.adapter.limits
    assert set(adapter["features"]) == device.adapter.features
    assert report["device"]["name"] == str(device.adapter)
    assert [c["name"] for c in report["checks"]] == [
        "layer_norm",
        "concat",
        "training step",
        "built-in model",
        "alone = in a batch",
    ]
    assert all(c["ok"] and c["error"] <= c["tolerance"] and "failure" not in c for c in report["checks"])
    code, out, err = run("doctor", "--json", "--device", "numpy")
    assert (code, err, json.loads(out)["ok"], json.loads(out)["checks"]) == (0, "", None, [])  # nothing was checked
    wrong("layer_norm", "weight[c], bias[c])", "weight[c], bias[c] + log(-1.0 - abs(bias[c])))")
    code, out, err = run("doctor", "--json", "--device", device.adapter.index, "--layer", "1")
    report = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (code, err, report["ok"]) == (1, "", False)
    assert report["checks"][0] | {"shape": ""} == {
        "name": "layer_norm",
        "shape": "",
        "error": None,
        "tolerance": 2e-05,
        "ok": False,
    }
    assert not report["checks"][3]["ok"] and "layer_norm" in report["checks"][3]["failure"]  # the self-test refuses the model


def test_a_wrong_model_is_an_error_of_the_user(run: Run, tmp_path: Path):
    code, out, err = run("doctor", "--model", tmp_path / "nothing", "--device", "gpu")
    assert (code, out) == (1, "") and err.startswith("error: ") and err.count("\n") == 1
