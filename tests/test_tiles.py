"""Tile shapes: every one gives the same bits, and every one fits every device."""

import dataclasses
import math
import re

import numpy as np
import pytest

from gpt2wgpu.devices.selftest import Case, case_arrays, check_op
from gpt2wgpu.gpu import Device, GPUProgram, Tile, kernels, tiles
from gpt2wgpu.gpu.program import TILE
from gpt2wgpu.graph import ops


def as_kind(device: Device, kind: str) -> Device:
    """The same device, said to be of another kind, and not tuned."""
    return dataclasses.replace(device, adapter=dataclasses.replace(device.adapter, kind=kind), tuned={})


@pytest.fixture(params=["CPU", "DiscreteGPU"])
def either(request: pytest.FixtureRequest, device: Device) -> Device:
    """A device with the kernels of a software driver, and one with those of a GPU."""
    return as_kind(device, request.param)


def in_every_tile(device: Device, case: Case) -> list[np.ndarray]:
    output, values = case_arrays(case)
    found = []
    for tile in tiles.tile_candidates(device, output.types["W"]):
        device.tuned["tiles"] = {tiles.matmul_key(output): (tile,) * len(tiles.BUCKETS)}
        program = GPUProgram(device, output, lambda t: values[t.name], {"T": sum(case.lengths)})
        assert f"TILE_T: u32 = {tile.rows}u" in program.steps[0].kernels[0][1].source
        found.append(program.run(values))
    return found


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("lengths", [(1,), (37,), (129,)])
@pytest.mark.parametrize("k", [4, 84])
def test_every_tile_gives_the_same_bits(k: int, lengths: tuple[int], half: bool, either: Device, device: Device):
    """So the choice may depend on anything. Both for a GPU and for a software driver."""
    if half and not device.has_f16:
        pytest.skip("the device has no shader-f16")
    case = Case(ops.linear_add, {"K": k, "N": 148}, lengths, half=half)
    found = in_every_tile(either, case) + in_every_tile(as_kind(device, "CPU"), case)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
    assert np.isfinite(found[0]).all()


def test_every_tile_equals_numpy(either: Device):
    case = Case(ops.linear_add, {"K": 84, "N": 148}, (37,))
    output, _ = case_arrays(case)
    for tile in tiles.tile_candidates(either, "f32"):
        either.tuned["tiles"] = {tiles.matmul_key(output): (tile,) * len(tiles.BUCKETS)}
        check = check_op(either, case)
        assert check.ok, (tile, check)


def test_no_batch_changes_bits_where_buckets_change_tiles(either: Device):
    """A row alone, and in batches on both sides of every seam."""
    output, values = case_arrays(Case(ops.linear, {"K": 68, "N": 132}, (520,)))
    choice = tuple(tiles.tile_candidates(either, "f32")[:4])
    either.tuned["tiles"] = {tiles.matmul_key(output): choice}
    program = GPUProgram(either, output, lambda t: values[t.name], {"T": 520})
    assert [most for most, _ in program.steps[0].kernels] == [32, 128, 512, math.inf]
    whole = program.run(values)
    for rows in (1, 31, 32, 33, 128, 129, 512, 513):
        np.testing.assert_array_equal(program.run({**values, "x": values["x"][:rows]}), whole[:rows])
    for rows, tile in zip((32, 33, 129, 513), choice, strict=True):
        kernel, grid = program.steps[0].choose({"T": rows})
        assert kernel.constants["TILE_T"] == tile.rows
        assert grid == (-(-132 // tile.columns), -(-rows // tile.rows), 1)


def test_tiles_are_within_the_limits_of_every_device(device: Device):
    gpu = as_kind(device, "DiscreteGPU")
    found = tiles.tile_candidates(gpu, "f32")
    assert found == list(tiles.GPU_TILES)
    assert len({str(t) for t in found}) == len(found)
    for t in found:
        assert TILE % t.rows == 0 and t.rows % t.thread_rows == 0 and t.columns % 8 == 0
    weak = {**gpu.adapter.limits, "max-compute-workgroup-storage-size": 16384, "max-compute-invocations-per-workgroup": 128}
    weak_device = dataclasses.replace(gpu, adapter=dataclasses.replace(gpu.adapter, limits=weak))
    left = tiles.tile_candidates(weak_device, "f32")
    assert left[0] == found[0]
    assert Tile(128, 128, 8) not in left
    assert Tile(64, 64, 8) in left


def test_matmul_shaders_allow_only_what_is_listed():
    """Widths that the shader files take for granted."""
    assert all(t.columns == 128 and t.rows == t.thread_rows for t in tiles.SOFTWARE_TILES["matmul_registers"])
    assert [t.rows for t in tiles.SOFTWARE_TILES["matmul_unrolled"]] == [
        1 + len(re.findall(r"t \+ \d+u, last", kernels.read_shader("matmul_unrolled")))
    ]
    assert "@workgroup_size(8)" in kernels.read_shader("matmul_registers")
