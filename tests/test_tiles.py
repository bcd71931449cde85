"""Tile shapes: every one gives the same bits, and every one fits every device."""

import dataclasses
import re

import numpy as np
import pytest

from gpt2wgpu.devices.selftest import TOLERANCE, Case, case_arrays, check_op, compare_results
from gpt2wgpu.gpu import Device, GPUProgram, Tile, kernels, tiles
from gpt2wgpu.gpu.kernels import LONG_K
from gpt2wgpu.gpu.program import TILE
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.reference import NumpyProgram
from gpt2wgpu.graph.tensor import Op


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
@pytest.mark.parametrize("lengths", [(1,), (129,)])
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


ROWS = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130)  # on both sides of every tile's edge


@pytest.mark.parametrize(
    ("o", "k", "dtype"),
    [
        *((ops.linear, 340, dtype) for dtype in ("f32", "f16")),  # in one part
        *((ops.linear_add, 1100, dtype) for dtype in ("f32", "f16")),  # in four parts, the last one shorter
        *((ops.linear_add_int8, 1100, dtype) for dtype in ("i8", "i8f16")),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_row_has_the_same_bits_in_every_tile_and_batch(o: Op, k: int, dtype: str, device: Device):
    """In the tiles of a GPU. K and N end inside a slice and a tile; results hold NaN before, so that none is left out."""
    if dtype.endswith("f16") and not device.has_f16:
        pytest.skip("the device has no shader-f16")
    gpu = as_kind(device, "DiscreteGPU")
    output, values = case_arrays(Case(o, {"K": k, "N": 84}, (130,), half=dtype.endswith("f16")))
    expected = NumpyProgram(output, lambda t: values[t.name]).run(values)
    first = None
    for tile in tiles.tile_candidates(gpu, dtype):
        gpu.tuned["tiles"] = {tiles.matmul_key(output): (tile,) * len(tiles.BUCKETS)}
        program = GPUProgram(gpu, output, lambda t: values[t.name], {"T": 130})
        assert ("const PARTS: u32 = 4u" in program.steps[0].kernels[0][1].source) == (k > LONG_K)
        program.run(values)  # makes the buffers of results, which grow with the batch
        for rows in ROWS[::-1]:
            program.device.raw.queue.write_buffer(program.result, 0, np.full(program.result.size // 4, np.nan, np.float32))
            found = program.run({name: v[:rows] if name in ("x", "residual") else v for name, v in values.items()})
            first = found if first is None else first
            np.testing.assert_array_equal(found, first[:rows], str((tile, rows)))
            after = program.device.raw.queue.read_buffer(program.result, found.nbytes, 16)
            assert np.isnan(np.frombuffer(after, np.float32)).all(), "a row past the last one was written"
    check = compare_results(o.name, "", expected, first, TOLERANCE["f32" if dtype == "f32" else "f16"])
    assert check.ok, check


def test_nan_stays_in_its_row(either: Device):
    """In every tile, at both ends of the batch and of k; no zero that pads a slice may hide or spread it."""
    output, values = case_arrays(Case(ops.linear_add, {"K": 68, "N": 36}, (33,)))
    for row, k in ((0, 67), (32, 0)):
        x = values["x"].copy()
        x[row, k] = np.nan
        for tile in tiles.tile_candidates(either, "f32"):
            either.tuned["tiles"] = {tiles.matmul_key(output): (tile,) * len(tiles.BUCKETS)}
            found = GPUProgram(either, output, lambda t: values[t.name], {"T": 33}).run({**values, "x": x})
            np.testing.assert_array_equal(np.isnan(found).all(axis=1), np.arange(33) == row, str(tile))
            assert np.isnan(found).any(axis=1).sum() == 1


def test_nan_stays_in_its_row_where_four_does_not_divide_it(device: Device):
    output, values = case_arrays(Case(ops.linear_add, {"K": 5, "N": 9}, (3,)))
    values["x"][1] = np.nan
    found = GPUProgram(device, output, lambda t: values[t.name], {"T": 3}).run(values)
    np.testing.assert_array_equal(np.isnan(found), [[False] * 9, [True] * 9, [False] * 9])


def test_no_batch_changes_bits_where_buckets_change_tiles(either: Device):
    """A row alone, and in batches on both sides of every seam."""
    output, values = case_arrays(Case(ops.linear, {"K": 68, "N": 132}, (520,)))
    candidates = tiles.tile_candidates(either, "f32")
    choice = tuple((candidates * len(tiles.BUCKETS))[: len(tiles.BUCKETS)])
    either.tuned["tiles"] = {tiles.matmul_key(output): choice}
    program = GPUProgram(either, output, lambda t: values[t.name], {"T": 520})
    if len(candidates) > 1:
        assert [most for most, _ in program.steps[0].kernels] == [*tiles.BUCKETS]
    whole = program.run(values)
    for rows in (1, 8, 9, 32, 33, 64, 65, 128, 129, 512, 513):
        np.testing.assert_array_equal(program.run({**values, "x": values["x"][:rows]}), whole[:rows])
    for rows, tile in zip((8, 9, 33, 65, 129, 513), choice, strict=True):
        kernel, grid = program.steps[0].choose({"T": rows})
        assert kernel.constants["TILE_T"] == tile.rows
        assert grid == (-(-132 // tile.columns), -(-rows // tile.rows), 1)


@pytest.mark.parametrize(("k", "part"), [(1024, 1024), (1100, 320), (1536, 384)])
def test_k_is_added_up_in_a_fixed_order(k: int, part: int, device: Device):
    """On a GPU: ascending within each part, then the parts. All weights are 1, so that each step is one addition in f32."""
    gpu = as_kind(device, "DiscreteGPU")
    output, values = case_arrays(Case(ops.linear_add, {"K": k, "N": 4}, (1,)))
    ones, zeros = np.ones((k, 4), np.float32), np.zeros((1, 4), np.float32)
    given = {"x": values["x"], "weight": ones, "bias": zeros[0], "residual": zeros}
    sums = [np.add.accumulate(values["x"][0, at : at + part])[-1] for at in range(0, k, part)]
    expected = np.add.accumulate(np.array(sums))[-1]
    for tile in (Tile(8, 16), Tile(8, 8), Tile(32, 32), Tile(64, 64, 8)):
        gpu.tuned["tiles"] = {tiles.matmul_key(output): (tile,) * len(tiles.BUCKETS)}
        program = GPUProgram(gpu, output, lambda t: given[t.name], {"T": 1})
        np.testing.assert_array_equal(program.run(given), np.full((1, 4), expected), str(tile))
    assert part == k or expected != np.add.accumulate(values["x"][0])[-1]


def test_tiles_are_within_the_limits_of_every_device(device: Device):
    gpu = as_kind(device, "DiscreteGPU")
    found = tiles.tile_candidates(gpu, "f32")
    assert found == [*tiles.GPU_TILES, *tiles.SHORT_TILES]
    assert set(tiles.UNMEASURED) <= set(found) and len(tiles.UNMEASURED) == len(tiles.BUCKETS)
    assert len({str(t) for t in found}) == len(found)
    for t in found:
        assert TILE % t.rows == 0 and t.columns % 8 == 0
        assert t.short or t.rows % t.thread_rows == 0
        if t.short:  # whole loads of every lane, slices of whole unrolled steps, and no bank conflicts
            slice4 = 512 // max(t.rows, t.columns)
            assert (t.rows * slice4) % 128 == (t.columns * slice4) % 128 == slice4 % 4 == t.rows % 8 == 0
            assert 128 % slice4 == 128 % t.columns == 0  # and of whole rows at a time
    assert {tiles.tile_needs(gpu, "matmul_workgroup", t)[0] for t in tiles.SHORT_TILES} <= {12288, 16384}
    weak = {**gpu.adapter.limits, "max-compute-workgroup-storage-size": 16384, "max-compute-invocations-per-workgroup": 128}
    weak_device = dataclasses.replace(gpu, adapter=dataclasses.replace(gpu.adapter, limits=weak))
    left = tiles.tile_candidates(weak_device, "f32")
    assert left[0] == found[0]
    assert Tile(128, 128, 8) not in left
    assert Tile(64, 64, 8) in left and Tile(8, 16) in left
    weak["max-compute-invocations-per-workgroup"] = 64
    assert set(tiles.default_tiles(weak_device, "f32")) == {Tile(64, 64, 8)}


def test_matmul_shaders_allow_only_what_is_listed():
    """Widths that the shader files take for granted."""
    assert all(t.columns == 128 and t.rows == t.thread_rows for t in tiles.SOFTWARE_TILES["matmul_registers"])
    assert [t.rows for t in tiles.SOFTWARE_TILES["matmul_unrolled"]] == [
        1 + len(re.findall(r"t \+ \d+u, last", kernels.read_shader("matmul_unrolled")))
    ]
    assert "@workgroup_size(8)" in kernels.read_shader("matmul_registers")
