"""What a device can do at most: which features it grants, and bare loops of copies, multiply-adds and tensor cores.

    python benchmarks/ceilings.py [ADAPTER]          (its number in `gpt2wgpu info`; default 0)

One JSON object per line as it goes. on_a_gpu.py runs this in a process of its own: the experimental feature
"cooperative-matrix" may take the process with it.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import wgpu

from gpt2wgpu import gpu
from gpt2wgpu.devices.selftest import MATRIX_UNITS, with_matrix_units
from gpt2wgpu.gpu import native

FEATURES = ("shader-f16", "timestamp-query", "subgroup", "cooperative-matrix")
THREADS = 128  # of a workgroup; on NVIDIA four subgroups

FMA = """
@group(0) @binding(0) var<storage, read_write> x: array<vec4<T>>;
@compute @workgroup_size(128)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let m = x[id.x % 64u];
    var a = m; var b = m + T(1); var c = m + T(2); var d = m + T(3);
    var e = m + T(4); var f = m + T(5); var g = m + T(6); var h = m + T(7);
    for (var i = 0u; i < ROUNDSu; i++) {
        a = fma(a, m, m); b = fma(b, m, m); c = fma(c, m, m); d = fma(d, m, m);
        e = fma(e, m, m); f = fma(f, m, m); g = fma(g, m, m); h = fma(h, m, m);
    }
    x[64u + id.x] = a + b + c + d + e + f + g + h;
}
"""


def say(**found: Any) -> None:
    print(json.dumps(found), flush=True)


def wait(device: Any, buffer: Any) -> None:
    device.queue.read_buffer(buffer, 0, 16)


def rate(run: Callable[[int], None], at_least: float = 0.05) -> float:
    """Seconds of one of many dispatches: their number grows until all of them take long enough."""
    run(1)
    count = 1
    while True:
        start = time.perf_counter()
        run(count)
        seconds = time.perf_counter() - start
        if seconds > at_least or count > 1 << 16:
            return seconds / count
        count *= 2 if seconds > at_least / 8 else 8


def dispatcher(device: Any, source: str, buffers: list[Any], workgroups: int) -> Callable[[int], None]:
    module = native.trusted_module(device, "ceiling", source)
    pipeline = device.create_compute_pipeline(layout="auto", compute={"module": module, "entry_point": "main"})
    entries = [{"binding": i, "resource": {"buffer": b}} for i, b in enumerate(buffers)]
    group = device.create_bind_group(layout=pipeline.get_bind_group_layout(0), entries=entries)

    def run(count: int) -> None:
        encoder = device.create_command_encoder()
        compute = encoder.begin_compute_pass()
        compute.set_pipeline(pipeline)
        compute.set_bind_group(0, group)
        for _ in range(count):
            compute.dispatch_workgroups(workgroups)
        compute.end()
        device.queue.submit([encoder.finish()])
        wait(device, buffers[-1])

    return run


def buffer(device: Any, size: int, data: np.ndarray | None = None) -> Any:
    usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
    made = device.create_buffer(size=size, usage=usage)
    if data is not None:
        device.queue.write_buffer(made, 0, data)
    return made


def copy(device: Any, size: int) -> None:
    a, b = buffer(device, size), buffer(device, size)

    def run(count: int) -> None:
        encoder = device.create_command_encoder()
        for _ in range(count):
            encoder.copy_buffer_to_buffer(a, 0, b, 0, size)
        device.queue.submit([encoder.finish()])
        wait(device, b)

    say(ceiling="copy, bytes read and written", gb_per_s=2 * size / rate(run) / 1e9, mib=size >> 20)


def fma(device: Any, dtype: str, workgroups: int, rounds: int) -> None:
    size = {"f32": 4, "f16": 2}[dtype]
    x = buffer(device, 4 * size * (64 + THREADS * workgroups), np.full(256, 0.5, f"f{size}"))
    source = ("enable f16;\n" if dtype == "f16" else "") + f"alias T = {dtype};" + FMA.replace("ROUNDS", str(rounds))
    seconds = rate(dispatcher(device, source, [x], workgroups))
    say(ceiling=f"multiply-add, {dtype}", tflops=2 * 4 * 8 * rounds * THREADS * workgroups / seconds / 1e12)


def matrices(device: gpu.Device) -> None:
    """Checked against numpy before their rate counts."""
    found, why = with_matrix_units(device, MATRIX_UNITS[2:] if device.adapter.software else MATRIX_UNITS)
    say(check="matrix units", fragments=found.matrix_units and found.matrix_units.size, why=why)
    if found.matrix_units and found.clock:
        say(ceiling="matrix units, f16 to f32", tflops=gpu.measure_ceilings(found).matrix_gflops / 1e3)


def main() -> None:
    adapter = gpu.list_adapters()[int(sys.argv[1]) if len(sys.argv) > 1 else 0]
    for feature in FEATURES:
        try:
            device = adapter.raw.request_device_sync(required_features=[feature])
            say(feature=feature, offered=feature in adapter.features, granted=feature in device.features)
        except Exception as e:
            say(feature=feature, offered=feature in adapter.features, granted=False, why=str(e)[:300])
    opened = gpu.open_device(adapter)
    device = opened.raw
    workgroups, rounds = (8, 256) if adapter.software else (132 * 16, 4096)
    copy(device, (64 if adapter.software else 1024) << 20)
    fma(device, "f32", workgroups, rounds)
    if "shader-f16" in adapter.features and not adapter.software:
        fma(device, "f16", workgroups, rounds)
    if "cooperative-matrix" in opened.granted:
        matrices(opened)


if __name__ == "__main__":
    main()
