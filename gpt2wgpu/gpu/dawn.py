"""Dawn, the WebGPU library of Chrome, through wgpudawn, a young third-party package with wgpu-py's interface (extra `dawn`).

It grants matrix units, says which shapes they have, and sets the width of subgroups; wgpu-native does none of it.
Importing this needs wgpudawn.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import wgpu
from wgpudawn.backends.dawn import _api, _helpers, extras, gpu, lib_version_info

from .library import BACKENDS, KEYS, MAPPED, Library, MatrixUnits, Readback
from .matrix_words import tint_source

ffi, lib, libf = _api.ffi, _api.lib, _api.libf  # libf raises Dawn's errors
WAIT = 100_000_000  # nanoseconds in one call: Python looks for Ctrl-C between two
SUBGROUP_MATRIX = "chromium-experimental-subgroup-matrix"

_helpers.ERROR_TYPES.update(  # so that `except wgpu.GPUError` serves both libraries
    Validation=wgpu.GPUValidationError,
    OutOfMemory=wgpu.GPUOutOfMemoryError,
    Internal=wgpu.GPUInternalError,
    Unknown=wgpu.GPUError,
)


class Dawn(Library):
    """Dawn as wgpudawn builds it."""

    version = f"Dawn {'.'.join(map(str, lib_version_info))}"
    prefix, title = "dawn:", "Dawn on "
    matrix_features = (SUBGROUP_MATRIX, "subgroups")
    features = ("shader-f16", "timestamp-query", "subgroup-size-control", "implicit-device-synchronization")
    no_adapter = (
        "Dawn found no WebGPU adapter that it accepts (it says why above; lavapipe must be newer than Mesa 22.3); install a "
        "newer driver, drop 'dawn:'"
    )

    def raw_adapters(self, backends: Sequence[str] = BACKENDS) -> Sequence[Any]:
        """With two toggles: one for experimental features, one for f16 on NVIDIA, which Dawn hides because part of the CTS
        fails there; the self-test decides instead."""
        with suppress(RuntimeError):  # the application already uses wgpudawn: without the toggles there are fewer features
            extras.set_instance_extras(backends=[*backends], enable_toggles=["allow_unsafe_apis", "vulkan_enable_f16_on_nvidia"])
        return [a for a in gpu.enumerate_adapters_sync() if a.info["backend_type"] in backends]

    def request_device(self, adapter: Any, features: Sequence[str], limits: dict[str, int], checked: bool) -> Any:
        """From an adapter found anew, as each one gives a single device.

        Toggles off: timestamps in steps of 0.1 ms, and a second look at each shader that Dawn itself wrote.
        """
        return extras.request_device_sync(
            next((a for a in self.raw_adapters() if a.info == adapter.info), adapter),
            required_features=features,
            required_limits=limits,
            enable_toggles=[] if checked else ["disable_robustness", "disable_workgroup_init"],
            disable_toggles=["timestamp_quantization", *([] if checked else ["enable_spirv_validation"])],
        )

    def matrix_shapes(self, adapter: Any) -> tuple[MatrixUnits, ...]:
        """Square shapes of f16 with sums in f32, as the adapter lists them; 32 lanes first, then wider, then narrower ones."""
        found = []
        for c in extras.get_adapter_properties(adapter).get("subgroup_matrix_configs", ()):
            if (c["component_type"], c["result_component_type"]) == ("f16", "f32") and c["m"] == c["n"] == c["k"]:
                widths = (1 << i for i in range(3, 8))
                found += [MatrixUnits(c["m"], w) for w in widths if c["min_subgroup_size"] <= w <= c["max_subgroup_size"]]
        return tuple(sorted(set(found), key=lambda units: (-units.size, units.lanes < 32, units.lanes)))

    def matrix_source(self, source: str, units: MatrixUnits, features: frozenset[str]) -> str:
        return tint_source(source, units.lanes if "subgroup-size-control" in features else None)

    def trusted_module(self, device: Any, label: str, source: str) -> Any:
        """Like any module: the toggles of the device have switched off its checks."""
        return device.create_shader_module(label=label, code=source)

    def readback(self, device: Any, size: int) -> Readback:
        return DawnReadback(device, size)

    def flush_writes(self, device: Any) -> None:
        libf.wgpuQueueSubmit(device.queue._internal, 0, ffi.NULL)
        info = _api.new_struct(
            "WGPUQueueWorkDoneCallbackInfo", mode=lib.WGPUCallbackMode_WaitAnyOnly, callback=ON_DONE, userdata1=ffi.NULL
        )
        wait_for(libf.wgpuQueueOnSubmittedWorkDone(device.queue._internal, info))

    def timestamp_period(self, device: Any) -> float:
        """Dawn converts ticks itself."""
        return 1.0


INTERRUPTS: list[BaseException] = []  # raised inside a callback, from where they cannot leave


def keep_interrupt(_type: Any, value: BaseException, _traceback: Any) -> None:
    INTERRUPTS.append(value)


def note_dawn_mapping(status: int, _message: Any, key: Any, _: Any) -> None:
    MAPPED[int(ffi.cast("uintptr_t", key))] = status


ON_READY = ffi.callback("WGPUBufferMapCallback", note_dawn_mapping, onerror=keep_interrupt)
ON_DONE = ffi.callback("WGPUQueueWorkDoneCallback", lambda *_: None, onerror=keep_interrupt)


def wait_for(future: Any) -> None:
    """Wait for one future, whatever else is in the queue. Raises KeyboardInterrupt at Ctrl-C."""
    info = ffi.new("WGPUFutureWaitInfo *")
    info.future.id = future.id
    while not info.completed:
        status = libf.wgpuInstanceWaitAny(_helpers.get_wgpu_instance(), 1, info, WAIT)
        if INTERRUPTS:
            raise INTERRUPTS.pop()
        if status not in (lib.WGPUWaitStatus_Success, lib.WGPUWaitStatus_TimedOut):
            raise wgpu.GPUError(f"Dawn cannot wait for the device: status {status}")


class DawnReadback(Readback):
    """The buffer is mapped as soon as it is submitted, which takes effect when the submission is done."""

    def submit(self, commands: Any, size: int) -> None:
        self.device.queue.submit([commands])
        self._size, self._key = -(-size // 4) * 4, next(KEYS)
        info = _api.new_struct(
            "WGPUBufferMapCallbackInfo",
            mode=lib.WGPUCallbackMode_WaitAnyOnly,
            callback=ON_READY,
            userdata1=ffi.cast("void *", self._key),
        )
        self._future = libf.wgpuBufferMapAsync(self.buffer._internal, lib.WGPUMapMode_Read, 0, self._size, info)

    def wait(self) -> bytearray:
        wait_for(self._future)
        if MAPPED.pop(self._key) != lib.WGPUMapAsyncStatus_Success:
            raise wgpu.GPUError("the results cannot be read: the device was lost")
        found, handle = bytearray(self._size), self.buffer._internal
        libf.wgpuBufferReadMappedRange(handle, 0, ffi.from_buffer(found), self._size)
        libf.wgpuBufferUnmap(handle)
        return found


DAWN = Dawn(_api, _helpers)
