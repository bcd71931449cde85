"""Adapters that allow little, or whose drivers say nonsense: a right answer, or one clear line."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from encoders import tiny_gpt2

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.devices import choose, f16_check
from gpt2wgpu.devices.f16_check import find_f16_error
from gpt2wgpu.devices.graph_check import check_graph
from gpt2wgpu.diagnose.driver_notes import driver_note
from gpt2wgpu.gpu import Clock, Device, adapter_key, check_grids, open_device, tiles, tune_matmuls, tuning
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Tensor

TEXTS = ["a cat", "b", "the quick brown fox jumps over the lazy dog"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which nothing is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gpt2wgpu"


@pytest.fixture
def hostile(device: Device, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Device]:
    """Open a GPU that allows no more than these limits, and has none of the features taken away; Encoders get it."""

    def opened(without: tuple[str, ...] = (), driver: str | None = None, **limits: int) -> Device:
        lower = {name.replace("_", "-"): value for name, value in limits.items()}
        real = device.adapter
        adapter = replace(real, kind="DiscreteGPU", features=real.features - set(without), limits={**real.limits, **lower})
        found = open_device(replace(adapter, driver=real.driver if driver is None else driver), checked=True)
        monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (None if wanted == "numpy" else found, ""))
        return found

    return opened


def assert_right(folder: Path, **options: str) -> Encoder:
    """A model on the hostile device gives numpy's vectors."""
    model = Encoder(folder, device="gpu", **options)
    np.testing.assert_allclose(model.encode(TEXTS), Encoder(folder, device="numpy").encode(TEXTS), atol=1e-4)
    return model


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- limits and features


LEAST = {  # that WebGPU guarantees
    "max_compute_workgroup_storage_size": 16384,
    "max_compute_invocations_per_workgroup": 256,
    "max_compute_workgroup_size_x": 256,
    "max_storage_buffers_per_shader_stage": 8,
}


def test_the_least_that_webgpu_guarantees(
    hostile: Callable[..., Device], tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
):
    """No f16, no clock, and no more than that; with half of the threads, a line says which kernel needs them."""
    hostile(("shader-f16", "timestamp-query"), **LEAST)
    model = assert_right(tiny_gpt2(tmp_path / "m"))
    assert model.dtype == "float32" and model.info()["matmul"] == "matmul_workgroup"
    assert "float16" not in capsys.readouterr().err
    (cache / "selftest.json").unlink()  # another adapter
    half = LEAST | {"max_compute_invocations_per_workgroup": 128, "max_compute_workgroup_size_x": 128}
    hostile(("shader-f16", "timestamp-query"), **half)
    said = refused(lambda: Encoder(tiny_gpt2(tmp_path / "m"), device="gpu"))
    assert re.search(r": \w+ \(T=.*\) does not run: .*256.*128; update its driver, or use device='numpy'", said)


def test_less_workgroup_memory_than_webgpu_guarantees(hostile: Callable[..., Device], tmp_path: Path):
    """A smaller tile, as long as there is one."""
    hostile(max_compute_workgroup_storage_size=8192)
    assert_right(tiny_gpt2(tmp_path / "m"), dtype="float32")
    hostile(max_compute_workgroup_storage_size=4096)
    said = refused(lambda: Encoder(tiny_gpt2(tmp_path / "m"), device="gpu", dtype="float32"))
    assert "allows 4096 bytes of workgroup memory and 1024 threads in a workgroup, a matrix product needs 6400 and 64" in said
    assert said.endswith("use device='numpy'")


def test_workgroups_that_are_too_small(hostile: Callable[..., Device], tmp_path: Path):
    """A kernel of another op that the driver does not take is named."""
    for limits in ({"max_compute_workgroup_size_x": 32}, {"max_compute_invocations_per_workgroup": 16}):
        found = hostile(**limits)
        said = refused(partial(check_graph, found, [ops.l2_normalize(Tensor(("B", 8), name="x"))]))
        assert ": l2_normalize (" in said and " does not run: " in said and "64" in said and "device='numpy'" in said
        assert "device='numpy'" in refused(lambda: Encoder(tiny_gpt2(tmp_path / "m"), device="gpu", dtype="float32"))


@pytest.mark.parametrize("limit", [1024, 8192])
def test_tiny_buffers(limit: int, hostile: Callable[..., Device], tmp_path: Path):
    hostile(max_storage_buffer_binding_size=limit, max_buffer_size=limit)
    said = refused(lambda: Encoder(tiny_gpt2(tmp_path / "m"), device="gpu", dtype="float32"))
    assert "device='numpy'" in said


@pytest.mark.parametrize("most", [3, 100])
def test_few_workgroups_side_by_side(most: int, hostile: Callable[..., Device], tmp_path: Path):
    hostile(max_compute_workgroups_per_dimension=most)
    said = refused(lambda: Encoder(tiny_gpt2(tmp_path / "m"), device="gpu", dtype="float32"))
    assert f"allows {most} workgroups side by side, " in said and said.endswith(": use device='numpy'")
    enough = hostile(max_compute_workgroups_per_dimension=200)
    assert assert_right(tiny_gpt2(tmp_path / "m"), dtype="float32").engine.max_tokens == 128
    x = Tensor(("T", 8), name="x")
    check_grids(enough, [ops.glu(x, activation="silu")], {"T": 200})
    assert "glu needs 201" in refused(lambda: check_grids(enough, [ops.glu(x, activation="silu")], {"T": 201}))


def test_a_driver_that_says_nothing(hostile: Callable[..., Device], tmp_path: Path):
    found = hostile(driver="")
    assert_right(tiny_gpt2(tmp_path / "m"), dtype="float32")
    assert driver_note(found.adapter) == ""
    assert adapter_key(found.adapter).count(" | ") >= 3


# --- clocks


@pytest.mark.parametrize("shown", [1e-3, 1e9])
def test_a_clock_that_always_shows_the_same(shown: float, hostile: Callable[..., Device], monkeypatch):
    """Then the choice says nothing, but no shape is wrong. (tests/test_tune.py has a clock that shows zero.)"""
    monkeypatch.setattr(tuning, "ROWS", tuple(range(2, 2 + len(tuning.ROWS))))
    monkeypatch.setattr(tiles, "GPU_TILES", tiles.GPU_TILES[:2])
    monkeypatch.setattr(Clock, "seconds", lambda self: np.full(self.passes, shown))
    found = hostile()
    measured = tune_matmuls(found, [(64, 132, "f32")])
    assert all(m.seconds > 0 for m in measured)
    assert {m.rows for m in measured} == {*tuning.ROWS}


# --- float16


def test_f16_of_this_device_is_right(device: Device):
    if not device.has_f16:
        pytest.skip("the device has no shader-f16")
    assert find_f16_error(replace(device, kernels={}, agreed={})) == ""


@pytest.fixture
def real(device: Device) -> Device:
    if not device.has_f16:
        pytest.skip("the device has no shader-f16")
    return open_device(replace(device.adapter, kind="DiscreteGPU"), checked=True)


def test_a_gpu_that_converts_wrongly_is_used_in_f32(real: Device, monkeypatch, capsys: pytest.CaptureFixture[str]):
    """One line says so; asked for float16, it is refused."""
    assert choose.find_dtype("auto", real) == choose.find_dtype("float16", real) == "float16"
    run = f16_check.run_op

    def flushed(device: Device, case: object, *rest: object) -> np.ndarray:
        found = run(device, case, *rest)
        return np.where(np.abs(found.astype(np.float32)) < 2**-14, np.copysign(1e-5, found), found)

    def clamped(device: Device, case: object, *rest: object) -> np.ndarray:
        return np.clip(run(device, case, *rest), -65504, 65504)

    def coarse(device: Device, case: object, *rest: object) -> np.ndarray:
        return run(device, case, *rest) * np.float32(1.005)

    for wrong in (flushed, clamped, coarse):
        real.agreed.clear()
        monkeypatch.setenv("XDG_CACHE_HOME", "/nonexistent/nowhere")
        monkeypatch.setattr(f16_check, "run_op", wrong)
        capsys.readouterr()
        assert choose.find_dtype("auto", real) == "float32", wrong
        *_, said = capsys.readouterr().err.splitlines()
        assert said.startswith(f"{real.adapter} has float16, but ") and "computing in float32" in said
        assert "use float32" in refused(lambda: choose.find_dtype("float16", real))
        assert choose.find_operand_dtype("int8", real) == "f32"


def test_subnormal_numbers_may_be_zero(real: Device, monkeypatch: pytest.MonkeyPatch):
    """As WGSL allows."""
    run = f16_check.run_op
    monkeypatch.setattr(
        f16_check, "run_op", lambda *a: np.where(np.abs(f := run(*a).astype(np.float32)) < 2**-14, np.float32(0), f)
    )
    assert find_f16_error(replace(real, agreed={})) == ""


# --- drivers that are known


@pytest.mark.parametrize(
    ("name", "driver", "noted"),
    [
        ("Intel(R) Arc(tm) B580 Graphics (BMG G21)", "Mesa 25.1.4", "Mesa before 25.2"),
        ("Intel(R) Arc(tm) B580 Graphics (BMG G21)", "Mesa 25.2.0", ""),
        ("AMD Radeon RX 7900 XTX (RADV NAVI31)", "Mesa 25.2.8-1", "Mesa before 25.3"),
        ("AMD Radeon RX 7900 XTX (RADV NAVI31)", "Mesa 25.3.0", ""),
        ("AMD Radeon RX 7900 XTX (RADV NAVI31)", "Mesa 26.1.6", ""),
        ("NVIDIA GeForce RTX 4080", "565.90", "NVIDIA 565.90"),
        ("NVIDIA GeForce RTX 4080", "566.03", ""),
        ("NVIDIA GeForce RTX 5080", "595.58.03", "NVIDIA 595.58"),
        ("llvmpipe (LLVM 15.0.6, 256 bits)", "Mesa 22.3.6 (LLVM 15.0.6)", ""),
        ("Apple M2", "", ""),
    ],
)
def test_known_drivers_are_noted(name: str, driver: str, noted: str, device: Device):
    note = driver_note(replace(device.adapter, name=name, driver=driver))
    assert noted in note and bool(note) == bool(noted) and "\n" not in note
    if note:
        assert note.endswith(f"; this is {driver}: update it")
