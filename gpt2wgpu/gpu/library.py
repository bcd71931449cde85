"""What the runner asks of a WebGPU library beyond wgpu-py's interface, which both libraries have.

wgpu-native is the default (native.py); Dawn is the one of devices named "dawn:..." (dawn.py). Everything else in this package
asks a device's library where the two differ. Errors of either are wgpu's classes (failures.py).
"""

import ctypes
import gc
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import wgpu

DispatchHandles = tuple[Any, Any, tuple[int, int, int]]  # handles of a pipeline and a bind group, and the grid

BACKENDS = ("Vulkan", "Metal", "D3D12")  # OpenGL is left out: it lists the same hardware again, with fewer features
KEYS = itertools.count(1)  # of mappings, for their callbacks
MAPPED: dict[int, int] = {}  # the status of each finished mapping, by its key


class MatrixUnits(NamedTuple):
    """How a device multiplies cooperative matrices: square fragments of `size` x `size`, by subgroups of up to `lanes`."""

    size: int
    lanes: int


class Readback(ABC):
    """A buffer from which the host reads results: copy into `buffer`, `submit`, later `wait`."""

    def __init__(self, device: Any, size: int) -> None:
        usage = wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST
        self.device, self.buffer = device, device.create_buffer(label="readback", size=-(-size // 4) * 4, usage=usage)

    @abstractmethod
    def submit(self, commands: Any, size: int) -> None:
        """Start the commands, the last of which is a copy of `size` bytes into `buffer`."""

    @abstractmethod
    def wait(self) -> bytearray:
        """The bytes, once the device is done; it may be computing later submissions. The buffer can then be used again.

        Raises wgpu.GPUError if the device was lost.
        """


class Library(ABC):
    """A WebGPU library. `raw` devices are its own, of the class GPUDevice that both have.

    version: what it is, with its number. prefix: of the names of its devices. title: for messages; "" for the default.
    matrix_features: what a device must grant for matrix units, the main one first. features: wanted wherever they are listed.
    no_adapter: what to do where it finds none.
    """

    version: str
    prefix: str
    title: str
    matrix_features: tuple[str, ...]
    features: tuple[str, ...]
    no_adapter: str

    def __init__(self, api: Any, helpers: Any) -> None:
        """api, helpers: the modules _api and _helpers of its Python package."""
        self.api, self.helpers, self.lib, self.ffi = api, helpers, api.lib, api.ffi
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.abandon_objects)

    @abstractmethod
    def raw_adapters(self, backends: Sequence[str] = BACKENDS) -> Sequence[Any]:
        """Every adapter of these backends."""

    @abstractmethod
    def request_device(self, adapter: Any, features: Sequence[str], limits: dict[str, int], checked: bool) -> Any:
        """A raw device of a raw adapter. checked: its shaders keep their bounds checks and loop counters.
        Raises wgpu.GPUError or RuntimeError."""

    @abstractmethod
    def matrix_shapes(self, adapter: Any) -> tuple[MatrixUnits, ...]:
        """The matrix units to try on a raw adapter, the best first."""

    @abstractmethod
    def matrix_source(self, source: str, units: MatrixUnits, features: frozenset[str]) -> str:
        """A shader on matrix units, as shaders/ has it, in the words of this library. features: what the device granted."""

    @abstractmethod
    def trusted_module(self, device: Any, label: str, source: str) -> Any:
        """A shader module without bounds checks and loop counters."""

    @abstractmethod
    def readback(self, device: Any, size: int) -> Readback: ...

    @abstractmethod
    def flush_writes(self, device: Any) -> None:
        """Submit everything written so far and wait for it: until then a library keeps a copy of each write."""

    @abstractmethod
    def timestamp_period(self, device: Any) -> float:
        """Nanoseconds of one tick of the device's clock."""

    def read_buffer(self, device: Any, buffer: Any, size: int) -> bytearray:
        """The first `size` bytes of a buffer, a multiple of 4. Waits for everything submitted before."""
        readback = self.readback(device, size)
        encoder = device.create_command_encoder()
        encoder.copy_buffer_to_buffer(buffer, 0, readback.buffer, 0, size)
        readback.submit(encoder.finish(), size)
        found = readback.wait()
        readback.buffer.destroy()
        return found

    def record_dispatches(self, compute_pass: Any, dispatches: Iterable[DispatchHandles]) -> None:
        """Record dispatches in a compute pass. If one is wrong, the encoder's finish() raises."""
        handle, null, lib = compute_pass._internal, self.ffi.NULL, self.lib
        set_pipeline, set_bind_group = lib.wgpuComputePassEncoderSetPipeline, lib.wgpuComputePassEncoderSetBindGroup
        dispatch = lib.wgpuComputePassEncoderDispatchWorkgroups
        for pipeline, bind_group, (x, y, z) in dispatches:
            set_pipeline(handle, pipeline)
            set_bind_group(handle, 0, bind_group, 0, null)
            dispatch(handle, x, y, z)

    def break_cycles(self, device: Any) -> None:
        """Let a device be freed without a garbage collection: a device and its queue both refer to the device."""
        device.queue._device = None
        device._device = None

    def abandon_objects(self) -> None:
        """In a forked child: forget what the parent made on its devices without releasing it, which would hang."""
        global _forked
        if self.helpers._the_instance is None:
            return
        if not _forked:
            _forked = True
            with suppress(OSError, AttributeError):  # not glibc
                libc = ctypes.CDLL(None)
                libc.on_exit(libc._exit, None)  # before Mesa's exit handler, which crashes: it joins threads of the parent
        for x in gc.get_objects():
            if issubclass(type(x), (self.api.GPUObjectBase, self.api.GPUAdapter)):
                x._internal = None


_forked = False


def is_forked() -> bool:
    """Whether this process inherited a library's instance in a fork, without the drivers' threads."""
    return _forked
