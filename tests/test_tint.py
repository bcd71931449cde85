"""Every shader compiles in Tint, Chrome's compiler, on WebGPU's default limits: on Dawn's null backend, which needs no driver.

The other tests run naga, of Firefox and of wgpu-py. Tint is stricter in places, and a browser grants the default limits only.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from dawns import null_adapter
from test_ops import AWKWARD

from gpt2wgpu.devices.selftest import Case, case_arrays, forward_cases
from gpt2wgpu.gpu import Device, GPUError, MatrixUnits, kernels, open_device, tiles
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Tensor
from gpt2wgpu.train.selftest import backward_cases

DEFAULTS = {  # of the WebGPU specification
    "max-compute-workgroup-storage-size": 16384,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-storage-buffers-per-shader-stage": 8,
    "max-storage-buffer-binding-size": 128 << 20,
}
TOO_LARGE = "larger than the maximum allowed|exceeds the maximum allowed"


@pytest.fixture(scope="module")
def null() -> Device:
    """Dawn's null backend as a real GPU: it compiles and checks, and computes nothing."""
    opened = open_device(null_adapter(), checked=True)
    assert {name: opened.raw.limits[name] for name in DEFAULTS} == DEFAULTS
    return opened


def forms(null: Device) -> Iterator[Device]:
    """As the device of a real GPU, of llvmpipe and of SwiftShader: they get different kernels."""
    yield null
    for name in ("llvmpipe", "SwiftShader"):
        yield replace(null, adapter=replace(null.adapter, name=name, kind="CPU"), tuned={}, kernels={})


def compile_all(device: Device, t: Tensor) -> None:
    """The kernel of an op in every tile shape that fits the device."""
    known = tiles.tile_candidates(device, kernels.operand_types(t)) if kernels.is_tiled(t) else [None]
    for tile in known:
        kernels.find_kernel(device, t, tile).compile(device)


CASES = [*forward_cases(half=True), *AWKWARD, *backward_cases()]


@pytest.mark.parametrize("name", sorted({case.op.name for case in CASES}))
def test_every_kernel_compiles(name: str, null: Device):
    for case in (case for case in CASES if case.op.name == name):
        t, _ = case_arrays(case)
        for device in forms(null):
            compile_all(device, t)


@pytest.mark.parametrize("name", ["ceiling_copy", "ceiling_fma", "square_sum", "adamw"])
def test_kernels_of_no_op_compile(name: str, null: Device):
    source = "\n".join(map(kernels.read_shader, (name, "row_sum") if name == "square_sum" else (name,)))
    written = source.count("read_write>")
    kernels.compile_pipeline(null, name, source, source.count("@binding("), written)


@pytest.mark.parametrize("half", [False, True])
def test_tiles_beyond_the_limits_are_the_ones_left_out(half: bool, null: Device):
    """So `tile_needs` counts what the compiler counts."""
    t, _ = case_arrays(Case(ops.linear, {"K": 36, "N": 68}, half=half))
    large = replace(null, adapter=replace(null.adapter, limits=dict.fromkeys(null.adapter.limits, 1 << 20)))
    fitting, every = (set(tiles.tile_candidates(d, kernels.operand_types(t))) for d in (null, large))
    assert len(fitting) >= 2 and fitting < every
    for tile in every - fitting:
        with pytest.raises(GPUError, match=TOO_LARGE):
            kernels.find_kernel(null, t, tile).compile(null)


# --- matrix units: Tint reads what the rules make of naga's words; the pipelines are made in test_matrix_units.py


@pytest.mark.parametrize("units", [MatrixUnits(16, 32), MatrixUnits(16, 64), MatrixUnits(8, 8)], ids=str)
def test_shaders_on_matrix_units_are_read(units: MatrixUnits, null: Device):
    assert null.grants_matrices, null.refused
    on_units = replace(null, matrix_units=units, tuned={}, kernels={})
    cases = [c for c in forward_cases(half=True) if c.half and c.op.name.startswith(("linear", "attention"))]
    cases += [
        Case(ops.attention, {"N": 9 * d}, attrs={"head_size": d, "scale": 0.3, "causal": True}, half=True) for d in (32, 64)
    ]
    sources = [kernels.for_matrix_units(on_units, kernels.read_shader("ceiling_matrix"))]
    for t, _ in map(case_arrays, cases):
        found = tiles.MATRIX_TILES if kernels.is_tiled(t) else [None]
        part = units.size / 16
        for tile in (tile and kernels.Tile(*(int(part * n) for n in tile)) for tile in found):
            sources.append(kernels.specialise_source(on_units, t, tile))
    read = {source for source in sources if "subgroup_matrix" in source}
    assert len(read) > 20
    for source in read:
        assert f"@compute @subgroup_size({units.lanes}) @workgroup_size" in source
        on_units.raw.create_shader_module(code=source)


def test_tint_refuses_what_it_should(null: Device):
    """So that a test above can fail: an unknown name, naga's words, and more bindings than the defaults allow."""
    for wrong in ("fn f() -> u32 { return nonsense; }", "enable wgpu_cooperative_matrix;"):
        with pytest.raises(GPUError, match="error: "):
            null.raw.create_shader_module(code=wrong)
    nine = "\n".join(f"@group(0) @binding({i}) var<storage, read> x{i}: array<f32>;" for i in range(9))
    uses = "".join(f"+ x{i}[0]" for i in range(9))
    main = f"@compute @workgroup_size(1) fn main() {{ y[0] = 0.0 {uses}; }}"
    source = f"{nine}\n@group(0) @binding(9) var<storage, read_write> y: array<f32>;\n{main}"
    module = null.raw.create_shader_module(code=source)
    with pytest.raises(GPUError, match="exceeds the maximum per-stage limit"):
        null.raw.create_compute_pipeline(layout="auto", compute={"module": module, "entry_point": "main"})
