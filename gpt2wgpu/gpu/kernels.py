"""An op and its sizes -> WGSL source -> compute pipeline.

Shaders are plain WGSL. What varies is a line of its own in them, which is set here by replacing it:
`alias A = f32;` (a type letter of the signature) and `const HEAD_SIZE: u32 = 64u;` (an attribute).
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from wgpu.backends.wgpu_native import GPUShaderModule, _api

from ..graph import Grid, Tensor
from .device import Device

PACKAGE = Path(__file__).parents[1]
SHADERS = PACKAGE / "shaders" if (PACKAGE / "shaders").is_dir() else PACKAGE.parent / "shaders"  # a wheel, or a checkout


@dataclass(frozen=True)
class Kernel:
    """A compiled op: its pipeline, the fields of its uniform block and its constants."""

    pipeline: Any
    fields: tuple[str, ...]
    constants: dict[str, int]

    def grid(self, t: Tensor, params: dict[str, Any]) -> Grid:
        assert t.op is not None
        return t.op.grid(SimpleNamespace(**params, **self.constants))


def files(t: Tensor, software: bool) -> tuple[str, ...]:
    """The shader files of an op: which variant, and what it shares with others. Variants give the same bits."""
    assert t.op is not None
    name = t.op.name
    if name in ("layer_norm", "l2_normalize"):
        return name, "row_sum"
    if name in ("linear", "linear_add"):
        activation = ("activation", "is_nan") if name == "linear" else ()
        if int(t.dims["K"]) % 4 or int(t.dims["N"]) % 4:
            return f"{name}_scalar", *activation
        return name, "matmul_registers" if software else "matmul_workgroup", *activation
    return (name, "is_nan") if name == "pool" else (name,)


@cache
def read(name: str) -> str:
    return (SHADERS / f"{name}.wgsl").read_text(encoding="utf-8")


def specialise(t: Tensor, software: bool) -> str:
    """The source of an op's kernel with its types and constant attributes set."""
    source = "\n".join(read(name) for name in files(t, software))
    for letter, dtype in t.types.items():
        source = re.sub(rf"^alias {letter} = f32;", f"alias {letter} = {dtype};", source, flags=re.M)
    for name, value in t.attrs.items():
        value = value.upper() if isinstance(value, str) else f"{int(value)}u"
        source = re.sub(rf"^const {name.upper()}: u32 = .*?;", f"const {name.upper()}: u32 = {value};", source, flags=re.M)
    return "enable f16;\n" + source if "f16" in t.types.values() else source


def compile_kernel(device: Device, t: Tensor) -> Kernel:
    """The kernel of an op, compiled once per device. Raises wgpu's error with its text if the shader is wrong."""
    source = specialise(t, device.adapter.software)
    if source not in device.pipelines:
        assert t.op is not None
        module = shader_module(device, t.op.name, source)
        pipeline = device.raw.create_compute_pipeline(
            label=t.op.name, layout="auto", compute={"module": module, "entry_point": "main"}
        )
        block = re.search(r"struct Params \{(.*?)\}", source)
        assert block is not None
        fields = tuple(re.findall(r"(\w+):", block[1]))
        constants = {name: int(value) for name, value in re.findall(r"^const (\w+): u32 = (\d+)u;", source, flags=re.M)}
        device.pipelines[source] = Kernel(pipeline, fields, constants)
    return device.pipelines[source]


def shader_module(device: Device, label: str, source: str) -> Any:
    """A module without wgpu's bounds checks and loop counters, unless the device is opened for checking.

    wgpu-py has no call of its own for `wgpuDeviceCreateShaderModuleTrusted`. Ours stay in range because ids are
    checked on the host and buffers are padded to whole tiles; the tests run every kernel with the checks on.
    """
    if device.checked:
        return device.raw.create_shader_module(label=label, code=source)
    code = _api.new_struct_p("WGPUShaderSourceWGSL *", code=_api.to_c_string_view(source))
    code[0].chain.next = _api.ffi.NULL
    code[0].chain.sType = _api.lib.WGPUSType_ShaderSourceWGSL
    descriptor = _api.new_struct_p("WGPUShaderModuleDescriptor *", label=_api.to_c_string_view(label))
    descriptor.nextInChain = _api.ffi.cast("WGPUChainedStruct *", code)
    module = _api.libf.wgpuDeviceCreateShaderModuleTrusted(device.raw._internal, descriptor, 0)
    return GPUShaderModule(label, module, device.raw)
