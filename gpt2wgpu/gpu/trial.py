"""Runs a kernel that may be wrong: on buffers of their own, with marks in and behind what it should write.

The output is filled with a mark before each run, and every buffer is longer than its data. So an element that was not written
is found, a write past the end is found, and what is read past an end is NaN.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import wgpu

from ..graph.tensor import DTYPES, Array, Grid
from .clock import Clock
from .device import Device
from .failures import named_failures
from .kernels import bind_group_layout
from .upload import ROW_BYTES

GUARD_BYTES = 1 << 16  # behind each buffer's data
# NaN of a kind that no arithmetic makes: in the output, and behind it, where nothing was written
UNWRITTEN = {"f32": 0x7FC0DEAD, "f16": 0x7EAD}
# NaN of another kind behind the inputs, and integers that no case has
BEHIND_INPUTS = {"f32": 0x7FC0BEEF, "f16": 0x7EBE, "u32": 0xFFFFFFFF, "i8": 0x80}
UNSIGNED = {4: np.uint32, 2: np.uint16, 1: np.uint8}  # by bytes, to compare bits
ENOUGH_SECONDS = 2e-3  # of a pass that is timed: a shorter one repeats its dispatch
MOST_REPEATS = 200


def marked_bytes(marks: Mapping[str, int], dtype: str, size: int) -> Array:
    """`size` bytes, rounded up to whole u32, and GUARD_BYTES more, all of a dtype's mark."""
    width = DTYPES[dtype].itemsize
    return np.full((-(-size // 4) * 4 + GUARD_BYTES) // width, marks[dtype], UNSIGNED[width]).view(np.uint8)


class Trial:
    """The buffers of one kernel's inputs and output, on which several kernels can be run.

    inputs: (dtype, array) in the order of the bindings 1, 2, ... output: dtype and number of elements.
    """

    @named_failures
    def __init__(self, device: Device, inputs: Sequence[tuple[str, Array]], output: tuple[str, int]) -> None:
        self.device, self.dtype, self.count = device, *output
        self.blank = marked_bytes(UNWRITTEN, self.dtype, self.count * DTYPES[self.dtype].itemsize)
        self.buffers: list[Any] = []
        for dtype, array in inputs:
            data = np.ascontiguousarray(array, DTYPES[dtype]).reshape(-1).view(np.uint8)
            filled = marked_bytes(BEHIND_INPUTS, dtype, data.nbytes)
            filled[: data.nbytes] = data
            self.buffers.append(self._buffer(filled))
        self.out = self._buffer(self.blank)

    def _buffer(self, data: Array) -> Any:
        usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
        made = self.device.raw.create_buffer(label="trial", size=data.nbytes, usage=usage)
        self.device.raw.queue.write_buffer(made, 0, data)
        return made

    def _bind(self, uniforms: Array) -> tuple[Any, Any]:
        """The uniform buffer, which must be kept, and the bind group. uniforms: the fields of the block as 32 bits each."""
        usage = wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST
        block = self.device.raw.create_buffer(label="trial", size=ROW_BYTES, usage=usage)
        self.device.raw.queue.write_buffer(block, 0, uniforms)
        bound = [block, *self.buffers, self.out]
        group = self.device.raw.create_bind_group(
            layout=bind_group_layout(self.device, len(bound)),
            entries=[{"binding": i, "resource": {"buffer": b}} for i, b in enumerate(bound)],
        )
        return block, group

    @named_failures
    def run(self, pipeline: Any, uniforms: Array, grid: Grid) -> tuple[Array, Array]:
        """The output (count,) and what is behind it, each as bits: unsigned integers as wide as its dtype."""
        kept = self._bind(uniforms)
        self.device.raw.queue.write_buffer(self.out, 0, self.blank)
        encoder = self.device.raw.create_command_encoder()
        self._record(encoder, pipeline, kept[1], grid, 1, None)
        self.device.raw.queue.submit([encoder.finish()])
        data = self.device.library.read_buffer(self.device.raw, self.out, self.blank.nbytes)
        bits = np.frombuffer(data, UNSIGNED[DTYPES[self.dtype].itemsize])
        return bits[: self.count], bits[self.count :]

    def _record(self, encoder: Any, pipeline: Any, group: Any, grid: Grid, repeats: int, timestamps: Any) -> None:
        compute = encoder.begin_compute_pass(timestamp_writes=timestamps)
        self.device.library.record_dispatches(compute, [(pipeline._internal, group._internal, grid)] * repeats)
        compute.end()

    @named_failures
    def time(self, pipeline: Any, uniforms: Array, grid: Grid, repeats: int = 1) -> float:
        """Seconds of one dispatch, by the device's clock if it has one; the mean of `repeats`."""
        kept = self._bind(uniforms)
        clock = Clock(self.device, 1) if self.device.clock else None
        encoder = self.device.raw.create_command_encoder()
        self._record(encoder, pipeline, kept[1], grid, repeats, clock.around(0) if clock else None)
        commands = encoder.finish()
        started = time.perf_counter()
        self.device.raw.queue.submit([commands])
        self.device.library.read_buffer(self.device.raw, self.out, 4)
        passed = time.perf_counter() - started
        return (float(clock.seconds()[0]) or passed if clock else passed) / repeats

    def repeats(self, pipeline: Any, uniforms: Array, grid: Grid) -> int:
        """How many dispatches make a pass that is long enough to be timed."""
        fastest = min(self.time(pipeline, uniforms, grid) for _ in range(3))  # the first one may be slow
        return min(MOST_REPEATS, math.ceil(ENOUGH_SECONDS / max(fastest, 1e-7)))

    def is_unwritten(self, bits: Array) -> Array:
        """Which elements still have the mark."""
        return bits == UNWRITTEN[self.dtype]

    def close(self) -> None:
        for buffer in (*self.buffers, self.out):
            buffer.destroy()
