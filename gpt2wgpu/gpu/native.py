"""wgpu-native, and its calls that wgpu-py lacks or makes slowly, straight through wgpu-py's cffi binding.

The main reason is waiting. wgpu-py maps a buffer with a thread that waits for all submitted work and meanwhile locks the
device, so no batch can be submitted before the previous one is done. Here the caller's thread waits for one submission
only, and the next batch is in the queue before the device has finished the previous one.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import wgpu
from wgpu.backends import wgpu_native
from wgpu.backends.wgpu_native import GPUShaderModule, _api, _helpers, extras

from .library import BACKENDS, KEYS, MAPPED, Library, MatrixUnits, Readback

ffi, lib, libf = _api.ffi, _api.lib, _api.libf  # libf raises wgpu's errors, but a call costs ten times as much


class WgpuNative(Library):
    """The library of wgpu-py."""

    version = f"wgpu-native {'.'.join(map(str, wgpu_native.lib_version_info))}"
    prefix = title = ""
    matrix_features = ("cooperative-matrix", "subgroup")
    features = ("shader-f16", "timestamp-query")
    no_adapter = (
        "no WebGPU adapter found; install a driver (Debian, Ubuntu: apt install mesa-vulkan-drivers; NVIDIA: its own driver, "
        "which brings Vulkan; macOS and Windows have one)"
    )

    def raw_adapters(self, backends: Sequence[str] = BACKENDS) -> Sequence[Any]:
        with suppress(RuntimeError):  # the application already uses wgpu; the filter below suffices
            extras.set_instance_extras(backends=["DX12" if name == "D3D12" else name for name in backends])
        return [a for a in wgpu.gpu.enumerate_adapters_sync() if a.info["backend_type"] in backends]

    def request_device(self, adapter: Any, features: Sequence[str], limits: dict[str, int], checked: bool) -> Any:
        return adapter.request_device_sync(required_features=features, required_limits=limits)

    def matrix_shapes(self, adapter: Any) -> tuple[MatrixUnits, ...]:
        """Guesses, as wgpu-native cannot be asked: NVIDIA, AMD and Intel have fragments of 16 x 16, Apple of 8 x 8.
        Subgroups of 32 lanes come first, as they are common."""
        return MatrixUnits(16, 32), MatrixUnits(16, 64), MatrixUnits(8, 32), MatrixUnits(8, 64)

    def matrix_source(self, source: str, units: MatrixUnits, features: frozenset[str]) -> str:
        return "enable f16;\nenable wgpu_cooperative_matrix;\n" + source

    def trusted_module(self, device: Any, label: str, source: str) -> GPUShaderModule:
        code = _api.new_struct_p("WGPUShaderSourceWGSL *", code=_api.to_c_string_view(source))
        code[0].chain.next = ffi.NULL
        code[0].chain.sType = lib.WGPUSType_ShaderSourceWGSL
        descriptor = _api.new_struct_p("WGPUShaderModuleDescriptor *", label=_api.to_c_string_view(label))
        descriptor.nextInChain = ffi.cast("WGPUChainedStruct *", code)
        return GPUShaderModule(label, libf.wgpuDeviceCreateShaderModuleTrusted(device._internal, descriptor, 0), device)

    def readback(self, device: Any, size: int) -> Readback:
        return NativeReadback(device, size)

    def flush_writes(self, device: Any) -> None:
        commands = device.create_command_encoder().finish()  # raises if the device was lost; polling it would end the process
        handles = ffi.new("WGPUCommandBuffer []", [commands._internal])
        submission = ffi.new("WGPUSubmissionIndex *", libf.wgpuQueueSubmitForIndex(device.queue._internal, 1, handles))
        libf.wgpuDevicePoll(device._internal, True, submission)

    def timestamp_period(self, device: Any) -> float:
        return float(libf.wgpuQueueGetTimestampPeriod(device.queue._internal))


def note_mapping(status: int, _message: Any, key: Any, _: Any) -> None:
    MAPPED[int(ffi.cast("uintptr_t", key))] = status


ON_MAPPED = ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)", note_mapping)  # kept: it may be called late


class NativeReadback(Readback):
    """Mapping waits until the submission is done: a KeyboardInterrupt raised inside a cffi callback would be swallowed."""

    def submit(self, commands: Any, size: int) -> None:
        handles = ffi.new("WGPUCommandBuffer []", [commands._internal])
        self._submission = ffi.new("WGPUSubmissionIndex *", libf.wgpuQueueSubmitForIndex(self.device.queue._internal, 1, handles))
        self._size = -(-size // 4) * 4

    def wait(self) -> bytearray:
        self._poll()
        key, buffer = next(KEYS), self.buffer._internal
        info = _api.new_struct(
            "WGPUBufferMapCallbackInfo",
            mode=lib.WGPUCallbackMode_AllowProcessEvents,
            callback=ON_MAPPED,
            userdata1=ffi.cast("void *", key),
        )
        libf.wgpuBufferMapAsync(buffer, lib.WGPUMapMode_Read, 0, self._size, info)
        while key not in MAPPED:
            self._poll()
        if MAPPED.pop(key) != lib.WGPUMapAsyncStatus_Success:
            raise wgpu.GPUError("the results cannot be read: the device was lost")
        data = bytearray(ffi.buffer(libf.wgpuBufferGetConstMappedRange(buffer, 0, self._size), self._size))
        libf.wgpuBufferUnmap(buffer)
        return data

    def _poll(self) -> None:
        """Wait for this submission, whatever else is in the queue."""
        libf.wgpuDevicePoll(self.device._internal, True, self._submission)


NATIVE = WgpuNative(_api, _helpers)
