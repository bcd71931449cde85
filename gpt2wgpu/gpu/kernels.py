"""An op and its sizes -> WGSL source -> compute pipeline.

Shaders are plain WGSL. Whatever varies is on a line of its own, which is replaced here: `alias X = f32;` (a type letter of
the signature) and `const HEAD_SIZE: u32 = 64u;` (an attribute, or the shape of a tile).
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import wgpu

from ..graph.tensor import Grid, Tensor
from . import rows
from .device import Device

PACKAGE = Path(__file__).parents[1]
SHADERS = PACKAGE / "shaders" if (PACKAGE / "shaders").is_dir() else PACKAGE.parent / "shaders"  # in a wheel, or in a checkout


class Tile(NamedTuple):
    """The outputs of a matmul that one workgroup computes, rows x columns, and how many rows of them one thread computes.

    On matrix units a subgroup computes a square of `thread_rows` x `thread_rows` outputs. 0: a tile of matmul_short.wgsl,
    which divides its rows among its threads itself.
    """

    rows: int
    columns: int
    thread_rows: int = 0

    @property
    def short(self) -> bool:
        return self.thread_rows == 0

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}" if self.short else f"{self.rows}x{self.columns}/{self.thread_rows}"


LONG_K = 1024  # a GPU adds up a longer k in parts; a function of the layer's sizes alone, so that no batch changes bits
MATRIX_HEADS = (32, 64)  # head sizes for which the shader of attention on matrix units is written


class Kernel:
    """An op's kernel: its source, the fields of its uniform block and its constants. Compiled on first use."""

    def __init__(self, t: Tensor, source: str) -> None:
        assert t.op is not None
        self.name, self.source, self.bindings = t.op.name, source, 1 + len(t.op.args)
        self.fields = uniform_fields(source)
        self.constants = {name: int(value) for name, value in re.findall(r"^const (\w+): u32 = (\d+)u;", source, flags=re.M)}
        self._pipeline: Any = None

    def compile(self, device: Device) -> Any:
        """The pipeline, on the device that holds this kernel. Raises GPUError with the compiler's message."""
        if self._pipeline is None:
            self._pipeline = compile_pipeline(device, self.name, self.source, self.bindings)
        return self._pipeline

    def grid(self, t: Tensor, params: dict[str, Any]) -> Grid:
        assert t.op is not None
        return t.op.grid(SimpleNamespace(**params, **self.constants))


def uniform_fields(source: str) -> list[tuple[str, str]]:
    """Names and types of the fields in a shader's `struct Params { ... }`, which must be on one line."""
    block = re.search(r"struct Params \{(.*?)\}", source)
    assert block is not None, "the shader has no line 'struct Params { ... }'"
    return re.findall(r"(\w+): (\w+)", block[1])


def uniform_bits(value: float, kind: str) -> int:
    """A value as the 32 bits of a uniform field. kind: the shader's type, as Python's may differ: JSON may write a float as 1."""
    return int(np.float32(value).view(np.uint32)) if kind == "f32" else int(value)


MATMULS = ("linear", "linear_add", "linear_int8", "linear_add_int8", "matmul")  # the ops of Device.matmul

# the shared files that other ops use
SHARED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("layer_norm", "layer_norm_stats", "layer_norm_dx"), ("row_sum", "fours")),
    **dict.fromkeys(("rms_norm", "l2_normalize", "l2_normalize_dx"), ("row_sum", "fours")),
    **dict.fromkeys(("rotary", "norm_rotary"), ("fours",)),
    **dict.fromkeys(("glu", "activate", "activate_dx"), ("activation", "is_nan")),
    **dict.fromkeys(("sum_rows", "layer_norm_dweight", "sum_vectors"), ("column_sum", "token_lanes", "token_parts", "fours")),
    **dict.fromkeys(("attention", "attention_bias"), ("softmax_attention", "attention_keys", "attention_load")),
    **dict.fromkeys(("attention_lse", "attention_dqkv"), ("attention_keys", "attention_load")),
    **dict.fromkeys(("pool", "pool_dx"), ("pooling_modes", "token_lanes", "fours")),
    "nearest_rows": ("is_nan",),
    "sum_parts": ("token_parts",),
}


ON_GPUS = ("matmul_workgroup", "matmul_cooperative")  # what Device.matmul chooses where it is no software driver

# the variants for GPUs, whose lanes share the rows of a tile, and the shared files that they use
FLASH: dict[str, tuple[str, ...]] = {
    **{name: (f"{name}_flash", "flash_forward", "flash_tile", "attention_keys") for name in ("attention", "attention_bias")},
    **{name: (f"{name}_flash", "flash_tile", "attention_keys") for name in ("attention_lse", "attention_dqkv")},
}


def shader_files(t: Tensor, matmul: str) -> tuple[str, ...]:
    """The shader files of an op: its own, then shared ones. matmul: what Device.matmul chose, or matmul_short.

    All variants of a matmul give the same bits, except the one on matrix units, which rounds sums differently: a device uses
    it in every f16 matmul or in none, and in attention or not. Attention adds up in another order on a GPU than on a software
    driver.
    """
    assert t.op is not None
    name = t.op.name
    if name in MATMULS:
        activation = ("activation", "is_nan") if name in ("linear", "linear_int8") else ()
        if not in_fours(t):
            return f"{name}_scalar", "scalar_matmul", *activation
        order: tuple[str, ...] = ()
        if matmul in ("matmul_workgroup", "matmul_short"):
            in_parts = name.startswith("linear_add") and int(t.dims["K"]) > LONG_K  # others may have results in f16
            order = "matmul_order", "k_in_parts" if in_parts else "k_in_one"
        return name, matmul, *order, *activation
    if name == "transpose" and not in_fours(t):
        return ("transpose_scalar",)
    if name == "linear_dweight":
        product = "dweight_workgroup" if matmul in ON_GPUS else "dweight_registers"
        return (name, product, "token_parts") if in_fours(t) else ("linear_dweight_scalar", "token_parts")
    if name == "attention" and matmul == "matmul_cooperative" and suits_matrix_units(t):
        return ("attention_cooperative",)
    if name in FLASH and matmul in ON_GPUS and t.attrs["head_size"] % 4 == 0:
        return FLASH[name]
    shared = SHARED.get(name, ())
    return name, *(rows.group_file(t) if file == "fours" else file for file in shared)


def suits_matrix_units(t: Tensor) -> bool:
    """Whether an attention can run on matrix units: a head size of MATRIX_HEADS, its own keys per head, no window."""
    a = t.attrs
    return a["head_size"] in MATRIX_HEADS and not a.get("window") and a.get("kv_heads") in (None, 0, t.dims.get("H"))


@cache
def read_shader(name: str) -> str:
    return (SHADERS / f"{name}.wgsl").read_text(encoding="utf-8")


def in_fours(t: Tensor) -> bool:
    """Whether rows of a linear layer's input and output can be read four elements at a time."""
    return not (int(t.dims["K"]) % 4 or int(t.dims["N"]) % 4)


def is_tiled(t: Tensor) -> bool:
    """Whether an op is a matmul whose kernel comes in several tile shapes."""
    return t.op is not None and t.op.name in MATMULS and in_fours(t)


def operand_types(t: Tensor) -> str:
    """The dtypes of a matmul's operands: "f32" or "f16"; "i8" or "i8f16" for int8 weights with f32 or f16."""
    if t.op is not None and t.op.name.endswith("int8"):
        return "i8f16" if "f16" in t.types.values() else "i8"
    return t.types.get("W") or t.types.get("X", "f32")


def kernel_files(device: Device, t: Tensor, tile: Tile | None = None) -> tuple[str, ...]:
    """The shader files of an op's kernel on a device: its own, then shared ones."""
    chosen = device.attention if t.op is not None and t.op.name == "attention" else device.matmul
    return shader_files(t, "matmul_short" if tile is not None and tile.short else chosen(operand_types(t)))


def specialise_source(device: Device, t: Tensor, tile: Tile | None = None, stand_in: Mapping[str, str] | None = None) -> str:
    """The source of an op's kernel, with its types, constant attributes and tile filled in.

    stand_in: other texts for some of its files, by their names.
    """
    parts = kernel_files(device, t, tile)
    texts = {name: read_shader(name) for name in parts} | dict(stand_in or {})
    source = set_types("\n".join(texts[name] for name in parts), t)
    constants = dict(t.attrs)
    if tile is not None:
        constants |= {"tile_t": tile.rows, "tile_n": tile.columns, "thread_rows": tile.thread_rows}
    if device.adapter.software and "softmax_attention" in parts:
        constants["each"] = 2 if device.adapter.unrolls else 4  # queries per thread; a GPU lacks the registers for more than one
    constants |= rows.row_constants(t, parts, device.adapter.software)
    if "ones" in parts:
        source = rows.ungroup(source)
    source = set_constants(source, constants)
    if "coop_mat" in source:
        return for_matrix_units(device, source)
    return enable_f16(source, t)


def set_types(source: str, t: Tensor) -> str:
    """The source with the dtypes of an op's type letters, on its lines `alias X = f32;`."""
    for letter, dtype in t.types.items():
        source = re.sub(rf"^alias {letter} = f32;", f"alias {letter} = {dtype};", source, flags=re.M)
    return source


def enable_f16(source: str, t: Tensor) -> str:
    """The source with a first line that allows f16, where a type letter stands for it."""
    return "enable f16;\n" + source if "f16" in t.types.values() else source


def set_constants(source: str, constants: Mapping[str, Any]) -> str:
    """The source with other values for these `const NAME: u32 = ...;` lines, if it has them."""
    for name, value in constants.items():
        value = value.upper() if isinstance(value, str) else f"{int(value)}u"
        source = re.sub(rf"^const {name.upper()}: u32 = .*?;", f"const {name.upper()}: u32 = {value};", source, flags=re.M)
    return source


def for_matrix_units(device: Device, source: str) -> str:
    """The source with the device's fragment and subgroup sizes filled in, in the words of its library."""
    assert device.matrix_units is not None
    size, lanes = device.matrix_units
    source = set_constants(source, {"fragment": size, "subgroup": lanes}).replace("coop_mat16x16", f"coop_mat{size}x{size}")
    return device.library.matrix_source(source, device.matrix_units, device.granted)


def find_kernel(device: Device, t: Tensor, tile: Tile | None = None) -> Kernel:
    """The kernel of an op, made once per device and source. Its pipeline is compiled on first use."""
    source = specialise_source(device, t, tile)
    if source not in device.kernels:
        device.kernels[source] = Kernel(t, source)
    return device.kernels[source]


def compile_pipeline(device: Device, label: str, source: str, bindings: int, written: int = 1) -> Any:
    """A pipeline with a uniform block, inputs and outputs. Its layout depends only on how many, so tiles share bind groups.
    `written`: how many bindings, the last ones, are written; more than one in an optimiser.

    wgpu's bounds checks and loop counters are off unless the device was opened for checking. The kernels stay in range
    because the host checks ids and pads buffers to whole tiles; the tests run every kernel with the checks on.
    """
    if device.checked:
        module = device.raw.create_shader_module(label=label, code=source)
    else:
        module = device.library.trusted_module(device.raw, label, source)
    layout = device.raw.create_pipeline_layout(bind_group_layouts=[bind_group_layout(device, bindings, written)])
    return device.raw.create_compute_pipeline(label=label, layout=layout, compute={"module": module, "entry_point": "main"})


def bind_group_layout(device: Device, bindings: int, written: int = 1) -> Any:
    """The layout for a uniform block, inputs, and `written` outputs, `bindings` in all; made once per device."""
    if (bindings, written) not in device.layouts:
        kinds = ["uniform", *["read-only-storage"] * (bindings - 1 - written), *["storage"] * written]
        entries = [
            {"binding": i, "visibility": wgpu.ShaderStage.COMPUTE, "buffer": {"type": kind}} for i, kind in enumerate(kinds)
        ]
        device.layouts[bindings, written] = device.raw.create_bind_group_layout(entries=entries)
    return device.layouts[bindings, written]
