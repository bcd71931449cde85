"""Kernels as a reader would write them, and how tests check them."""

from collections.abc import Callable
from pathlib import Path

from gpt2wgpu.devices.selftest import forward_cases
from gpt2wgpu.diagnose.shader_check import ShaderReport, check_shader
from gpt2wgpu.gpu import Device

CASES = [case for case in forward_cases(half=False) if case.op.name in ("layer_norm", "l2_normalize", "concat", "similarity")]
# A whole kernel of an op of the engine, as a reader would write it: a thread per element.
CONCAT = """// op: concat
struct Params { B: u32, J: u32, K: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.J + p.K) { return; }
  let at = id.y * (p.J + p.K) + id.x;
  if (id.x < p.J) { out[at] = a[id.y * p.J + id.x]; } else { out[at] = b[id.y * p.K + id.x - p.J]; }
}
"""
Check = Callable[..., ShaderReport]


def text_checker(device: Device, folder: Path) -> Check:
    """`check(name, text, old, new, ...)` checks a file of that name, with each `old` replaced by `new`."""

    def check_text(name: str, text: str, *changes: str) -> ShaderReport:
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        path = folder / f"{name}.wgsl"
        path.write_text(text, encoding="utf-8")
        return check_shader(path, device, CASES)

    return check_text
