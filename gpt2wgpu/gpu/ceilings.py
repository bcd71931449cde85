"""The highest rates that a device reaches: in a loop of nothing but fma, the same on matrix units, and in a copy."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import wgpu

from ..errors import UserError
from .clock import Clock
from .device import Device
from .failures import named_failures
from .kernels import bind_group_layout, compile_pipeline, for_matrix_units, read_shader

THREADS = 1 << 18  # that run the fma loop
COPIED = 128 << 20  # bytes, more than a GPU's cache
COPIED_BY_SOFTWARE = 32 << 20
LONG_ENOUGH = 0.01  # seconds


@dataclass(frozen=True)
class Ceilings:
    """gflops: f32 multiplications and additions, 1e9 per second. gbps: bytes read and written, 1e9 per second.

    matrix_gflops: f16 multiplications and f32 additions of the matrix units, 0 where they are not in use.
    """

    gflops: float
    gbps: float
    matrix_gflops: float = 0.0


@named_failures
def measure_ceilings(device: Device) -> Ceilings:
    """Takes some tenths of a second. Raises UserError if the device has no clock, or one that stands still."""
    if not device.clock:
        raise UserError(f"{device.adapter} has no timestamp-query: it cannot be measured")
    limits = device.adapter.limits
    most = min(limits["max-storage-buffer-binding-size"], limits["max-buffer-size"])
    size = min(COPIED_BY_SOFTWARE if device.adapter.software else COPIED, most // 4096 * 4096)
    usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC
    x, out = (device.raw.create_buffer(size=n, usage=usage) for n in (size, max(size, 16 * THREADS)))
    copied = run_ceiling(device, "ceiling_copy", read_shader("ceiling_copy"), size // 16, [x, out], size // 16 // 256, 8)
    fma = read_shader("ceiling_fma")
    gflops = loop_rate(device, "ceiling_fma", fma, out, THREADS // 64) * THREADS * read_constant(fma, "FLOPS") / 1e9
    matrix = 0.0
    if device.matrix_units:
        source = for_matrix_units(device, read_shader("ceiling_matrix"))
        groups = 64 if device.adapter.software else THREADS // 64
        rate = loop_rate(device, "ceiling_matrix", source, out, groups)
        subgroups = float(np.frombuffer(device.library.read_buffer(device.raw, out, 4), np.float32)[0])
        matrix = rate * groups * subgroups * read_constant(source, "PRODUCTS") * 2 * device.matrix_units.size**3 / 1e9
    return Ceilings(gflops, 8 * 2 * size / copied / 1e9, matrix)


def read_constant(source: str, name: str) -> int:
    found = re.search(rf"const {name}: u32 = (\d+)u", source)
    assert found is not None
    return int(found[1])


def loop_rate(device: Device, label: str, source: str, out: Any, groups: int) -> float:
    """Rounds per second of a shader's loop, made long enough to be measured."""
    rounds = 16
    while True:
        seconds = run_ceiling(device, label, source, rounds, [out], groups)
        if seconds > LONG_ENOUGH or rounds >= 1 << 20:
            return rounds / seconds
        rounds *= 4


def run_ceiling(device: Device, label: str, source: str, param: int, buffers: list[Any], groups: int, repeats: int = 1) -> float:
    """Seconds that `repeats` dispatches of a shader take: the best of three passes, after one to warm up.

    A clock that is too coarse shows zero: then eight times as many are timed.
    """
    pipeline = compile_pipeline(device, label, source, 1 + len(buffers))
    uniform = device.raw.create_buffer(size=16, usage=wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST)
    device.raw.queue.write_buffer(uniform, 0, np.array([param, 0, 0, 0], np.uint32))
    bind_group = device.raw.create_bind_group(
        layout=bind_group_layout(device, 1 + len(buffers)),
        entries=[{"binding": i, "resource": {"buffer": b}} for i, b in enumerate([uniform, *buffers])],
    )
    clock = Clock(device, 4)
    for factor in (1, 8, 64):
        encoder = device.raw.create_command_encoder()
        for i in range(clock.passes):
            compute = encoder.begin_compute_pass(timestamp_writes=clock.around(i))
            device.library.record_dispatches(
                compute, [(pipeline._internal, bind_group._internal, (groups, 1, 1))] * repeats * factor
            )
            compute.end()
        device.raw.queue.submit([encoder.finish()])
        seconds = float(clock.seconds()[1:].min())
        if seconds > 0:
            return seconds / factor
    raise UserError(f"the clock of {device.adapter} stands still: it cannot be measured")
