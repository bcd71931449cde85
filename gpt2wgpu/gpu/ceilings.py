"""What a device can do at best, measured: a loop of nothing but fma, and a copy."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import wgpu

from . import native
from .clock import Clock
from .device import Device
from .kernels import bind_group_layout, compile_pipeline, read

THREADS = 1 << 18  # of the fma loop
COPIED = 128 << 20  # bytes, more than a GPU's cache
COPIED_BY_SOFTWARE = 32 << 20
LONG_ENOUGH = 0.01  # seconds


@dataclass(frozen=True)
class Ceilings:
    """gflops: f32 multiplications and additions, 1e9 per second. gbps: bytes read and written, 1e9 per second."""

    gflops: float
    gbps: float


def measure_ceilings(device: Device) -> Ceilings:
    """Takes some tenths of a second. The device must have a clock."""
    limits = device.adapter.limits
    most = min(limits["max-storage-buffer-binding-size"], limits["max-buffer-size"])
    size = min(COPIED_BY_SOFTWARE if device.adapter.software else COPIED, most // 4096 * 4096)
    x, out = (device.raw.create_buffer(size=n, usage=wgpu.BufferUsage.STORAGE) for n in (size, max(size, 16 * THREADS)))
    flops = re.search(r"FLOPS: u32 = (\d+)u", read("ceiling_fma"))
    assert flops is not None
    rounds = 16
    while True:
        seconds = run(device, "ceiling_fma", rounds, [out], THREADS // 64)
        if seconds > LONG_ENOUGH or rounds >= 1 << 20:
            break
        rounds *= 4
    copied = run(device, "ceiling_copy", size // 16, [x, out], size // 16 // 256, 8)
    return Ceilings(THREADS * rounds * int(flops[1]) / seconds / 1e9, 8 * 2 * size / copied / 1e9)


def run(device: Device, shader: str, param: int, buffers: list[Any], groups: int, repeats: int = 1) -> float:
    """Seconds of so many dispatches of a shader: the best of three passes, after one that does not count."""
    pipeline = compile_pipeline(device, shader, read(shader), 1 + len(buffers))
    uniform = device.raw.create_buffer(size=16, usage=wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST)
    device.raw.queue.write_buffer(uniform, 0, np.array([param, 0, 0, 0], np.uint32))
    bind_group = device.raw.create_bind_group(
        layout=bind_group_layout(device, 1 + len(buffers)),
        entries=[{"binding": i, "resource": {"buffer": b}} for i, b in enumerate([uniform, *buffers])],
    )
    clock = Clock(device, 4)
    encoder = device.raw.create_command_encoder()
    for i in range(clock.passes):
        compute = encoder.begin_compute_pass(timestamp_writes=clock.around(i))
        native.record(compute, [(pipeline._internal, bind_group._internal, (groups, 1, 1))] * repeats)
        compute.end()
    clock.resolve(encoder)
    device.raw.queue.submit([encoder.finish()])
    return max(float(clock.seconds()[1:].min()), 1e-9)
