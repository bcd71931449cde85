"""Adapters, and the life of a device: chosen, freed with its last user, lost, and left behind by a fork."""

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wgpu

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.devices.selftest import Case, case_arrays
from gpt2wgpu.gpu import (
    Adapter,
    Clock,
    Device,
    DeviceLost,
    Dispatch,
    GPUError,
    GPUProgram,
    InPlace,
    OutOfDeviceMemory,
    choose_adapter,
    list_adapters,
    new_buffer,
    open_device,
    read_buffer,
    write_buffer,
)
from gpt2wgpu.gpu import device as device_module
from gpt2wgpu.gpu.failures import name_failure
from gpt2wgpu.graph import ops

# --- adapters


def adapter(index: int, name: str, kind: str) -> Adapter:
    return Adapter(index, name, kind, "Vulkan", "", frozenset(), {}, None)


SOFTWARE = adapter(0, "llvmpipe (LLVM 15)", "CPU")
VIRTUAL = adapter(1, "Virtio", "VirtualGPU")
INTEGRATED = adapter(2, "Intel UHD", "IntegratedGPU")
DISCRETE = adapter(3, "NVIDIA GeForce 10", "DiscreteGPU")
SECOND = adapter(4, "NVIDIA GeForce 20", "DiscreteGPU")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`machine(a, b)`: these are the adapters found."""
    return lambda *found: monkeypatch.setattr(device_module, "list_adapters", lambda library: found)


def test_the_best_real_gpu_is_taken(machine: Callable[..., None]):
    machine(SOFTWARE, VIRTUAL, INTEGRATED, DISCRETE, SECOND)
    assert choose_adapter("auto") is choose_adapter("gpu") is DISCRETE
    machine(SOFTWARE, VIRTUAL, INTEGRATED)
    assert choose_adapter("auto") is choose_adapter("gpu") is INTEGRATED
    machine(SOFTWARE, VIRTUAL)
    assert choose_adapter("auto") is choose_adapter("gpu") is VIRTUAL


def test_a_software_adapter_is_taken_only_when_asked_for(machine: Callable[..., None]):
    machine(SOFTWARE)
    assert choose_adapter("auto") is None
    assert choose_adapter("gpu") is choose_adapter("0") is choose_adapter("llvm") is choose_adapter("LLVMpipe") is SOFTWARE


def test_an_adapter_by_number_or_part_of_its_name(machine: Callable[..., None]):
    machine(SOFTWARE, VIRTUAL, INTEGRATED, DISCRETE, SECOND)
    assert choose_adapter("1") is VIRTUAL
    assert choose_adapter("4") is SECOND
    assert choose_adapter("geforce") is DISCRETE
    assert choose_adapter("GeForce 20") is SECOND
    assert choose_adapter("intel") is INTEGRATED
    for wrong in ("5", "10", "cuda", "geforce 30", "-1"):  # "10" is part of a name, but a number
        with pytest.raises(
            UserError, match=f"^device '{wrong}' is none of the adapters found .0: llvmpipe.*4: NVIDIA GeForce 20"
        ):
            choose_adapter(wrong)


def test_without_any_adapter(machine: Callable[..., None]):
    machine()
    assert choose_adapter("auto") is None
    for wanted in ("gpu", "0", "nvidia"):
        with pytest.raises(UserError, match=r"no WebGPU adapter found; install a driver .*mesa-vulkan-drivers") as caught:
            choose_adapter(wanted)
        assert "\n" not in str(caught.value)


def test_adapters_of_this_machine(device: Device):
    found = list_adapters(device.library)
    assert device.adapter in found
    assert [a.index for a in found] == list(range(len(found)))
    assert all(a.backend != "OpenGL" for a in found)
    assert device.adapter.name in str(device.adapter)
    assert device.has_f16 == ("shader-f16" in device.adapter.features)
    assert choose_adapter(os.environ.get("GPT2WGPU_TEST_DEVICE", "gpu")) == device.adapter


def test_a_driver_that_opens_no_device_is_named(device: Device, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("Request device failed (3): no\n\nqueue left")

    monkeypatch.setattr(device_module, "request_device", fail)
    with pytest.raises(UserError) as caught:
        open_device(device.adapter)
    assert str(caught.value) == f"{device.adapter} cannot be opened: Request device failed (3): no queue left"


def test_the_environment_is_left_as_it_was(device: Device, monkeypatch: pytest.MonkeyPatch):
    """Mesa's device-select layer is silenced while adapters are listed, not in the user's other programs."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("NODEVICE_SELECT", raising=False)
    before = dict(os.environ)
    device_module.find_adapters.__wrapped__(device.library)
    assert dict(os.environ) == before


# --- freed with the last user


def matmul_program(device: Device) -> tuple[GPUProgram, dict[str, np.ndarray]]:
    output, values = case_arrays(Case(ops.linear, {"K": 36, "N": 68}))
    return GPUProgram(device, output, lambda t: values[t.name], {"T": 100}), values


def square_sum(device: Device, x: object, sums: object) -> InPlace:
    return InPlace(device, ["square_sum", "row_sum"], [Dispatch([x, sums], {"N": 1, "first": 0}, (1, 1, 1))], 1)


def test_a_dropped_program_and_device_are_freed_without_a_garbage_collection(device: Device):
    gc.collect()
    gc.disable()
    try:
        opened = open_device(device.adapter)
        program, values = matmul_program(opened)
        program.run(values)
        update = InPlace(
            opened,
            ["square_sum", "row_sum"],
            [Dispatch([program.result, new_buffer(opened, "sum", 1)], {"N": 1, "first": 0}, (1, 1, 1))],
            1,
        )
        update.run()
        clock = Clock(opened, 1)
        things = [program, opened, opened.raw, opened.raw.queue, program.result, program.upload.buffer, update, clock]
        left = [weakref.ref(x) for x in things]
        del things, update, clock, program, opened
        assert [r() for r in left if r() is not None] == []
    finally:
        gc.enable()


def test_encoders_in_turn_leave_nothing_on_the_device(device: Device):
    """Nor does an encoder from which others were made."""
    gc.collect()
    gc.disable()
    try:
        left = []
        for _ in range(3):
            model = Encoder(device=os.environ.get("GPT2WGPU_TEST_DEVICE", "gpu"), layer=1)
            model.with_layers([0, 1]).encode(["a", "b"])
            model.similarity(model.encode(["a", "b"]), model.encode("c"))
            model.encode(["a", "b"], output_value="token_embeddings")
            raw = model.engine.place.device.raw
            left += [weakref.ref(x) for x in (raw, raw.queue, model.engine.program, model.engine.program.upload.buffer)]
            del model, raw
        assert [r() for r in left if r() is not None] == []
    finally:
        gc.enable()


def test_a_closed_program_leaves_the_buffers_of_another_alone(device: Device):
    program, values = matmul_program(device)
    expected = program.run(values)
    other = GPUProgram(device, program.output, lambda t: program.weights[t], {"T": 100})
    np.testing.assert_array_equal(other.run(values), expected)
    other.close()
    np.testing.assert_array_equal(program.run(values), expected)
    program.close()
    assert program.bytes == 0


# --- lost, and out of memory


def test_whatever_is_asked_of_a_lost_device_says_that_it_is_lost(device: Device):
    opened = open_device(device.adapter)
    program, values = matmul_program(opened)
    program.run(values)
    buffer, clock = new_buffer(opened, "x", 4), Clock(opened, 1)
    update = square_sum(opened, program.result, buffer)
    wait = program.submit(values)
    opened.raw.destroy()
    calls: list[Callable[[], object]] = [
        wait,
        lambda: program.run(values),
        lambda: program.put(program.inputs[0], values["x"]),
        lambda: matmul_program(opened),
        lambda: new_buffer(opened, "y", 4),
        lambda: read_buffer(opened, buffer, 4),
        lambda: write_buffer(opened, buffer, np.zeros(4)),
        lambda: Clock(opened, 1),
        clock.seconds,
        update.run,
    ]
    for call in calls:
        with pytest.raises(DeviceLost) as caught:
            call()
        assert str(caught.value).startswith(f"{device.adapter} was lost: ") and "\n" not in str(caught.value)
    program.close()
    again, _ = matmul_program(open_device(device.adapter))
    assert np.isfinite(again.run(values)).all()


NO_MEMORY = "Validation Error\n\nCaused by:\n  In wgpuDeviceCreateBuffer\n    Not enough memory left."  # from wgpu-native 29


@pytest.mark.parametrize("error", [wgpu.GPUValidationError(NO_MEMORY), wgpu.GPUOutOfMemoryError("")])
def test_a_lack_of_memory_has_its_own_class(error: GPUError, device: Device, monkeypatch: pytest.MonkeyPatch):
    opened = open_device(device.adapter)

    def full(**_: object) -> None:
        raise error

    monkeypatch.setattr(opened.raw, "create_buffer", full)
    for call in (lambda: new_buffer(opened, "x", 4), lambda: matmul_program(opened)):
        with pytest.raises(OutOfDeviceMemory, match=r"has no memory left: use a smaller batch or model, or device='numpy'$"):
            call()
    assert issubclass(OutOfDeviceMemory, MemoryError)


def test_a_program_without_enough_memory_frees_what_it_has(device: Device, monkeypatch: pytest.MonkeyPatch):
    """Even while the error is kept, as a notebook does; and without a garbage collection once it is dropped."""
    opened = open_device(device.adapter)
    output, values = case_arrays(Case(ops.linear_add, {"K": 36, "N": 68}))
    create, made, destroyed = opened.raw.create_buffer, [], []
    buffers = device.library.api.GPUBuffer
    destroy = buffers.destroy
    monkeypatch.setattr(buffers, "destroy", lambda self: destroyed.append(id(self)) or destroy(self))

    def full(**options: object) -> object:
        if len(made) == 3:
            raise wgpu.GPUValidationError(NO_MEMORY)
        made.append(create(**options))
        return made[-1]

    monkeypatch.setattr(opened.raw, "create_buffer", full)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(OutOfDeviceMemory) as caught:
            GPUProgram(opened, output, lambda t: values[t.name], {"T": 100})
        assert [id(buffer) for buffer in made] == destroyed
        left = [weakref.ref(buffer) for buffer in made]
        made.clear()
        del caught
        assert [r() for r in left if r() is not None] == []
    finally:
        gc.enable()


def test_other_errors_keep_their_class(device: Device):
    assert name_failure(GPUError("Validation Error: Shader 'x' parsing error"), device.adapter) is None
    with pytest.raises(GPUError, match=r"maximum|exceeds the max"):
        new_buffer(device, "x", 1 << 40)


# --- left behind by a fork

FORK = """
import os, signal, sys
from gpt2wgpu import Encoder, UserError
from gpt2wgpu.gpu import list_adapters, new_buffer, open_device, read_buffer

device = os.environ.get("GPT2WGPU_TEST_DEVICE", "gpu")
model = Encoder(device=device, layer=0)
vectors = model.encode(["a", "b"])
opened = model.engine.place.device
buffer = new_buffer(opened, "x", 4)
expected = Encoder(device="numpy", layer=0).encode(["a", "b"])
if child := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(60)  # ends it if it waits for ever
calls = [
    lambda: model.encode(["a", "b"]),
    lambda: model.similarity(vectors, vectors),
    lambda: Encoder(device=device, layer=0),
    lambda: read_buffer(opened, buffer, 4),
    lambda: new_buffer(opened, "x", 4),
    list_adapters,
    lambda: open_device(opened.adapter),
]
for call in calls:
    try:
        call()
    except UserError as error:
        assert str(error).startswith("this process was forked from one that uses a GPU"), error
        assert chr(10) not in str(error)
    else:
        raise AssertionError("no error")
assert (Encoder(device="numpy", layer=0).encode(["a", "b"]) == expected).all()
del model, opened, buffer, calls, call  # releasing what the parent made would wait for ever, as would the end
"""

PRELOADED = """
import os, signal
import gpt2wgpu.gpu  # imports wgpu, but asks it for nothing
if child := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(60)
from gpt2wgpu import Encoder
assert Encoder(device=os.environ.get("GPT2WGPU_TEST_DEVICE", "gpu"), layer=0).encode("a").shape == (384,)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("code", [FORK, PRELOADED], ids=["after the device was used", "after an import"])
def test_a_forked_child(code: str, device: Device):
    """One line says that the device stayed behind; numpy works, and the child can end. A first device works in a child too."""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], timeout=180, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()
