"""Matrix units are used where they are granted and right. No device here has any: the decision is tested, not the kernel."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from gpt2wgpu import Encoder, backend, ops
from gpt2wgpu.checks import Case, arrays, check_op, with_matrix_units
from gpt2wgpu.gpu import Device, kernels, open_device


@pytest.fixture
def granted(device: Device) -> Device:
    """A device that says it has matrix units."""
    if not device.half:
        pytest.skip("the device has no shader-f16")
    return replace(device, granted=device.granted | {"cooperative-matrix"}, kernels={})


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put the workgroup kernel, changed, in the place of the one on matrix units, which no driver here compiles."""

    def put(old: str = "", new: str = "") -> None:
        read, compile_pipeline = kernels.read, kernels.compile_pipeline

        def changed(name: str) -> str:
            return read("matmul_workgroup").replace(old, new) if name == "matmul_cooperative" else read(name)

        def without_extension(device: Device, label: str, source: str, bindings: int) -> object:
            return compile_pipeline(device, label, source.replace("enable wgpu_cooperative_matrix;\n", ""), bindings)

        monkeypatch.setattr(kernels, "read", changed)
        monkeypatch.setattr(kernels, "compile_pipeline", without_extension)

    return put


def test_not_granted(device: Device):
    assert with_matrix_units(device) == (device, "the device does not grant cooperative-matrix")


def test_a_feature_that_is_listed_and_then_refused_is_done_without(device: Device):
    listed = replace(device.adapter, features=device.adapter.features | {"cooperative-matrix", "subgroup"})
    opened = open_device(listed)
    assert "cooperative-matrix" not in opened.granted
    assert opened.half == device.half


def test_a_kernel_that_does_not_compile_is_refused_in_one_line(granted: Device):
    found, why = with_matrix_units(granted)
    assert found is granted
    assert not found.matrix_units
    assert why.startswith("matrix units refused linear_add: ")
    assert "wgpu_cooperative_matrix" in why
    assert "\n" not in why


@pytest.mark.parametrize(("old", "new"), [("k4 < k4s", "k4 + 1u < k4s"), ("row0 + ", "row0 + 1u * ")])
def test_wrong_results_are_refused(old: str, new: str, granted: Device, stand_in: Callable[..., None]):
    stand_in(old, new)
    found, why = with_matrix_units(granted)
    if new == "row0 + 1u * ":  # the same kernel, written differently
        assert found.matrix_units
        return
    assert found is granted
    assert "wrongly: error" in why


def test_right_results_are_used_by_every_f16_matmul_and_no_other(granted: Device, stand_in: Callable[..., None]):
    stand_in()
    found, why = with_matrix_units(granted)
    assert found.matrix_units
    assert why == "matrix units"
    for half in (False, True):
        output, _ = arrays(Case(ops.linear, {"K": 8, "N": 12}, half=half))
        assert ("matmul_cooperative" in kernels.files(output, False, matrix_units=True)) == half
        assert check_op(found, Case(ops.linear, {"K": 20, "N": 36}, half=half)).ok
    odd, _ = arrays(Case(ops.linear, {"K": 5, "N": 12}, half=True))
    assert kernels.files(odd, False, matrix_units=True)[0] == "linear_scalar"


def test_what_info_says(device: Device, granted: Device, stand_in: Callable[..., None]):
    assert backend.find_matmul(None, "float32") == (None, "BLAS")
    assert Encoder(device="numpy", layer=0).info()["matmul"] == "BLAS"
    gpu = replace(granted, adapter=replace(granted.adapter, kind="DiscreteGPU"))
    assert backend.find_matmul(gpu, "float32") == (gpu, "workgroup tiles")
    found, why = backend.find_matmul(gpu, "float16")
    assert found is gpu
    assert why.startswith("workgroup tiles (matrix units refused")
    stand_in()
    found, why = backend.find_matmul(replace(gpu, kernels={}), "float16")
    assert found.matrix_units
    assert why == "matrix units"
