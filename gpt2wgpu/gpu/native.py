"""Calls of wgpu-native that wgpu-py lacks or makes slowly, straight through its cffi binding.

The main reason is waiting. wgpu-py maps a buffer with a thread that waits for all submitted work and meanwhile locks the
device, so no batch can be submitted before the previous one is done. Here the caller's thread waits for one submission
only, and the next batch is in the queue before the device has finished the previous one.
"""

import ctypes
import gc
import itertools
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import wgpu
from wgpu.backends import wgpu_native
from wgpu.backends.wgpu_native import GPUShaderModule, _api, _helpers

ffi, lib, libf = _api.ffi, _api.lib, _api.libf  # libf raises wgpu's errors, but a call costs ten times as much

LIBRARY = f"wgpu-native {'.'.join(map(str, wgpu_native.lib_version_info))}"  # what devices are reached through

DispatchHandles = tuple[Any, Any, tuple[int, int, int]]  # handles of a pipeline and a bind group, and the grid


def trusted_module(device: Any, label: str, source: str) -> GPUShaderModule:
    """A shader module without wgpu's bounds checks and loop counters."""
    code = _api.new_struct_p("WGPUShaderSourceWGSL *", code=_api.to_c_string_view(source))
    code[0].chain.next = ffi.NULL
    code[0].chain.sType = lib.WGPUSType_ShaderSourceWGSL
    descriptor = _api.new_struct_p("WGPUShaderModuleDescriptor *", label=_api.to_c_string_view(label))
    descriptor.nextInChain = ffi.cast("WGPUChainedStruct *", code)
    return GPUShaderModule(label, libf.wgpuDeviceCreateShaderModuleTrusted(device._internal, descriptor, 0), device)


def record_dispatches(compute_pass: Any, dispatches: Iterable[DispatchHandles]) -> None:
    """Record dispatches in a compute pass. If one is wrong, the encoder's finish() raises."""
    handle, null = compute_pass._internal, ffi.NULL
    set_pipeline, set_bind_group = lib.wgpuComputePassEncoderSetPipeline, lib.wgpuComputePassEncoderSetBindGroup
    dispatch = lib.wgpuComputePassEncoderDispatchWorkgroups
    for pipeline, bind_group, (x, y, z) in dispatches:
        set_pipeline(handle, pipeline)
        set_bind_group(handle, 0, bind_group, 0, null)
        dispatch(handle, x, y, z)


def break_cycles(device: Any) -> None:
    """Let a device be freed without a garbage collection: wgpu-py's device and its queue both refer to the device."""
    device.queue._device = None
    device._device = None


def is_forked() -> bool:
    """Whether this process inherited wgpu's instance in a fork, without the drivers' threads."""
    return _forked


def abandon_objects() -> None:
    """In a forked child: forget what the parent made on its devices without releasing it, which would hang."""
    global _forked
    if _helpers._the_instance is None:
        return
    _forked = True
    with suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.on_exit(libc._exit, None)  # before Mesa's exit handler, which crashes: it joins threads of the parent
    for x in gc.get_objects():
        if issubclass(type(x), (_api.GPUObjectBase, _api.GPUAdapter)):
            x._internal = None


_forked = False
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=abandon_objects)


def flush_writes(device: Any) -> None:
    """Submit everything written so far and wait for it: until then wgpu keeps a copy of each write."""
    submission = ffi.new("WGPUSubmissionIndex *", libf.wgpuQueueSubmitForIndex(device.queue._internal, 0, ffi.NULL))
    libf.wgpuDevicePoll(device._internal, True, submission)


def timestamp_period(device: Any) -> float:
    """Nanoseconds of one tick of the device's clock."""
    return float(libf.wgpuQueueGetTimestampPeriod(device.queue._internal))


def note_mapping(status: int, _message: Any, key: Any, _: Any) -> None:
    MAPPED[int(ffi.cast("uintptr_t", key))] = status


MAPPED: dict[int, int] = {}  # the status of each finished mapping, by its key
KEYS = itertools.count(1)
ON_MAPPED = ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)", note_mapping)  # kept: it may be called late


class Readback:
    """A buffer from which the host reads results: copy into `buffer`, `submit`, later `wait`."""

    def __init__(self, device: Any, size: int) -> None:
        usage = wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST
        self.device, self.buffer = device, device.create_buffer(label="readback", size=-(-size // 4) * 4, usage=usage)

    def submit(self, commands: Any, size: int) -> None:
        """Start the commands, the last of which is a copy of `size` bytes into `buffer`."""
        handles = ffi.new("WGPUCommandBuffer []", [commands._internal])
        self._submission = ffi.new("WGPUSubmissionIndex *", libf.wgpuQueueSubmitForIndex(self.device.queue._internal, 1, handles))
        self._size = -(-size // 4) * 4

    def wait(self) -> bytearray:
        """The bytes, once the device is done. The buffer can then be used again.

        Mapping waits until then: a KeyboardInterrupt raised inside a cffi callback would be swallowed.
        """
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
