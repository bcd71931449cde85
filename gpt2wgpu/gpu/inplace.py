"""Kernels outside any graph that update buffers in place, as an optimiser does; and such buffers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import wgpu

from ..graph.tensor import Array, Grid
from .device import Device
from .failures import named_failures
from .kernels import bind_group_layout, compile_pipeline, read_shader, uniform_bits, uniform_fields
from .library import DispatchHandles
from .upload import ROW_BYTES


@dataclass(frozen=True)
class Dispatch:
    """Buffers in the order of the bindings, the uniform values that never change, and the grid."""

    buffers: Sequence[Any]
    params: Mapping[str, int | float]
    grid: Grid


class InPlace:
    """A kernel and its dispatches, all in one pass. files: its shader, then shared ones."""

    @named_failures
    def __init__(self, device: Device, files: Sequence[str], dispatches: Sequence[Dispatch], written: int) -> None:
        """written: how many bindings, the last ones, are written."""
        self.device = device
        source = "\n".join(map(read_shader, files))
        bindings = 1 + len(dispatches[0].buffers)
        pipeline = compile_pipeline(device, files[0], source, bindings, written)
        self.uniforms = np.zeros((len(dispatches), ROW_BYTES // 4), np.uint32)
        self.varying: dict[str, tuple[str, int, list[int]]] = {}  # a value's type and column, and the rows that lack it
        for column, (name, kind) in enumerate(uniform_fields(source)):
            for i, d in enumerate(dispatches):
                if name in d.params:
                    self.uniforms[i, column] = uniform_bits(d.params[name], kind)
            self.varying[name] = kind, column, [i for i, d in enumerate(dispatches) if name not in d.params]
        usage = wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST
        self.uniform_buffer = device.raw.create_buffer(label=files[0], size=self.uniforms.nbytes, usage=usage)
        self.dispatches: list[DispatchHandles] = []
        self.alive: list[Any] = [pipeline]  # keeps what the handles in `dispatches` refer to
        for i, d in enumerate(dispatches):
            resources = [{"buffer": self.uniform_buffer, "offset": i * ROW_BYTES, "size": ROW_BYTES}]
            resources += [{"buffer": b} for b in d.buffers]
            group = device.raw.create_bind_group(
                label=files[0],
                layout=bind_group_layout(device, bindings, written),
                entries=[{"binding": b, "resource": r} for b, r in enumerate(resources)],
            )
            self.alive.append(group)
            self.dispatches.append((pipeline._internal, group._internal, d.grid))

    @named_failures
    def run(self, **params: int | float) -> None:
        """Start the dispatches, with these uniform values in addition to the fixed ones."""
        for name, (kind, column, rows) in self.varying.items():
            if rows:
                self.uniforms[rows, column] = uniform_bits(params[name], kind)
        self.device.raw.queue.write_buffer(self.uniform_buffer, 0, self.uniforms)
        encoder = self.device.raw.create_command_encoder()
        compute = encoder.begin_compute_pass()
        self.device.library.record_dispatches(compute, self.dispatches)
        compute.end()
        self.device.raw.queue.submit([encoder.finish()])


@named_failures
def new_buffer(device: Device, label: str, count: int) -> Any:
    """A buffer of `count` f32 numbers, all zero."""
    usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
    return device.raw.create_buffer(label=label, size=4 * count, usage=usage)


@named_failures
def read_buffer(device: Device, buffer: Any, count: int) -> Array:
    """The first `count` numbers of a buffer, float32. Waits for the device."""
    return np.frombuffer(device.library.read_buffer(device.raw, buffer, 4 * count), np.float32)


@named_failures
def copy_buffer(device: Device, source: Any, target: Any, count: int) -> None:
    """Copy the first `count` numbers of a buffer to another one."""
    encoder = device.raw.create_command_encoder()
    encoder.copy_buffer_to_buffer(source, 0, target, 0, 4 * count)
    device.raw.queue.submit([encoder.finish()])


@named_failures
def write_buffer(device: Device, buffer: Any, array: Array) -> None:
    device.raw.queue.write_buffer(buffer, 0, np.ascontiguousarray(array, np.float32))
