"""Devices of Dawn that compute, beside wgpu-native's in one process. Collected on Dawn only: bash tests/on_dawn."""

import signal
from dataclasses import replace

import numpy as np
import pytest

from gpt2wgpu import Encoder
from gpt2wgpu.cli import main
from gpt2wgpu.devices.selftest import Case, case_arrays, compare_results, run_op
from gpt2wgpu.gpu import Device, GPUProgram, MatrixUnits, choose_adapter, kernels, open_device
from gpt2wgpu.graph import ops

LENGTHS = (1, 70, 17, 132)
CASES = [
    *(Case(ops.linear_add, {"K": k, "N": n}, LENGTHS, half=True) for k, n in ((84, 148), (768, 260))),
    Case(ops.linear, {"K": 84, "N": 148}, LENGTHS, {"activation": "gelu_tanh"}, half=True),
    Case(ops.linear_add_int8, {"K": 84, "N": 148}, LENGTHS, half=True),
    Case(ops.attention, {"N": 576}, LENGTHS, {"head_size": 64, "scale": 1.0, "causal": True}, half=True),
    Case(ops.attention, {"N": 288}, LENGTHS, {"head_size": 32, "scale": 0.3, "causal": False}, half=True),
]


@pytest.fixture(scope="module")
def native() -> Device:
    """wgpu-native's device of the same driver."""
    found = choose_adapter("gpu")
    assert found is not None
    return open_device(found, checked=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op.name} {case}")
def test_both_libraries_give_the_same_results(case: Case, device: Device, native: Device):
    """On matrix units where both grant them, and without."""
    assert device.adapter.name == native.adapter.name and device.library is not native.library
    output, values = case_arrays(case)
    pairs = [(device, native)]
    if device.grants_matrices and native.grants_matrices:
        pairs.append((replace(device, matrix_units=MatrixUnits(8, 8)), replace(native, matrix_units=MatrixUnits(8, 8))))
    for one, other in pairs:
        mine, theirs = run_op(one, case, output, values), run_op(other, case, output, values)
        assert compare_results(case.op.name, str(case), theirs, mine, 1e-3 if output.dtype == "f16" else 2e-5).ok
        sources = [kernels.find_kernel(d, output, None).source for d in (one, other) if not kernels.is_tiled(output)]
        assert all(("_matri" in source) == (one.matrix_units is not None) for source in sources)


def test_an_encoder_on_dawn(capsys: pytest.CaptureFixture[str]):
    texts = ["a cat", "the quick brown fox jumps over the lazy dog " * 5, "12 °C"]
    model = Encoder(device="dawn:gpu", layer=1)
    assert "Dawn on Vulkan" in model.device
    found = model.encode(texts)
    assert compare_results("model", "", Encoder(device="numpy", layer=1).encode(texts), found, 1e-4).ok
    np.testing.assert_array_equal(np.stack([model.encode(t) for t in texts]), found)
    model.close()
    with pytest.raises(SystemExit) as caught:
        main(["info", "--device", "dawn:gpu"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0 and "Dawn on Vulkan" in shown
    assert "chromium-experimental-subgroup-matrix" in shown


def test_ctrl_c_ends_a_wait(production_device: Device, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Even if it comes while Dawn calls back, from where an exception cannot leave."""
    monkeypatch.setattr("gpt2wgpu.gpu.dawn.WAIT", 60_000_000_000)
    output, values = case_arrays(Case(ops.linear, {"K": 512, "N": 512}, (512,)))
    program = GPUProgram(production_device, output, lambda t: values[t.name], {"T": 512})
    expected = program.run(values)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        waits = [program.submit(values) for _ in range(20)]
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        with pytest.raises(KeyboardInterrupt):
            waits[-1]()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert "KeyboardInterrupt" not in capfd.readouterr().err
    for wait in waits[:-1]:
        np.testing.assert_array_equal(wait(), expected)
    np.testing.assert_array_equal(program.run(values), expected)
