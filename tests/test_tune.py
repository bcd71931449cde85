"""Tile shapes: every one gives the same bits, and what was measured is kept in a file that nothing depends on."""

import dataclasses
import json
import math
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import wgpu

from gpt2wgpu import UserError
from gpt2wgpu.cli import main
from gpt2wgpu.devices.selftest import Case, arrays, check_op, self_test
from gpt2wgpu.diagnose.profile import tune_model
from gpt2wgpu.gpu import Device, GPUProgram, Measurement, Tile, kernels, open_device, tiles
from gpt2wgpu.gpu.program import TILE
from gpt2wgpu.gpu.tuning import ROWS, SMALLEST, Bench, graph_matmuls, prepare_tiles, tune_matmuls
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Tensor

SMALL = (64, 132, "f32")  # K, N


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Not the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gpt2wgpu" / "tiles.json"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch):
    """Few rows, so that a software driver is done soon."""
    monkeypatch.setattr("gpt2wgpu.gpu.tuning.ROWS", (2, 3, 5, 9))


def fresh(device: Device, kind: str = "") -> Device:
    """The same device as a process finds it that starts now; `kind`: said to be of another kind."""
    adapter = dataclasses.replace(device.adapter, kind=kind or device.adapter.kind)
    return dataclasses.replace(device, adapter=adapter, tuned={})


@pytest.fixture(params=["CPU", "DiscreteGPU"])
def either(request: pytest.FixtureRequest, device: Device) -> Device:
    """With the kernels of a software driver, and with those of a GPU."""
    return fresh(device, request.param)


def in_every_tile(device: Device, case: Case) -> list[np.ndarray]:
    output, values = arrays(case)
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
    """Of a GPU and of a software driver alike; so the choice may depend on anything."""
    if half and not device.has_f16:
        pytest.skip("the device has no shader-f16")
    case = Case(ops.linear_add, {"K": k, "N": 148}, lengths, half=half)
    found = in_every_tile(either, case) + in_every_tile(fresh(device, "CPU"), case)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
    assert np.isfinite(found[0]).all()


def test_every_tile_equals_numpy(either: Device):
    case = Case(ops.linear_add, {"K": 84, "N": 148}, (37,))
    output, _ = arrays(case)
    for tile in tiles.tile_candidates(either, "f32"):
        either.tuned["tiles"] = {tiles.matmul_key(output): (tile,) * len(tiles.BUCKETS)}
        check = check_op(either, case)
        assert check.ok, (tile, check)


def test_no_batch_changes_bits_where_buckets_change_tiles(either: Device):
    """A row alone, and in batches on both sides of every seam."""
    output, values = arrays(Case(ops.linear, {"K": 68, "N": 132}, (520,)))
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
    gpu = fresh(device, "DiscreteGPU")
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


def test_where_the_file_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert tiles.cache_file() == tmp_path / "cache" / "gpt2wgpu" / "tiles.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    if os.name == "posix":
        assert tiles.cache_file() == tmp_path / ".cache" / "gpt2wgpu" / "tiles.json"
        monkeypatch.setattr(sys, "platform", "darwin")
        assert tiles.cache_file() == tmp_path / "Library" / "Caches" / "gpt2wgpu" / "tiles.json"


def test_what_was_measured_is_kept(device: Device, cache: Path, quick: None):
    first = fresh(device)
    found = tune_matmuls(first, [SMALL])
    assert {(f.matmul, f.tile) for f in found} == {(SMALL, t) for t in tiles.tile_candidates(device, "f32")}
    assert all(f.gflops > 0 for f in found)
    kept = json.loads(cache.read_text())
    assert list(kept["adapters"]) == [tiles.adapter_key(device)]
    assert [*cache.parent.iterdir()] == [cache]
    second = fresh(device)
    assert tiles.chosen_tiles(second) == first.tuned["tiles"] == {SMALL: tiles.chosen_tiles(first)[SMALL]}


def test_what_others_have_measured_stays(device: Device, cache: Path, quick: None):
    cache.parent.mkdir(parents=True)
    other = {"64x64 f16": ["64x64/8"] * 4}
    cache.write_text(json.dumps({"version": tiles.__version__, "adapters": {"another GPU": other}}))
    tune_matmuls(fresh(device), [SMALL])
    kept = json.loads(cache.read_text())["adapters"]
    assert kept["another GPU"] == other
    assert len(kept) == 2


def entry(name: str = "64x132 f32", tile: object = "24x128/24", count: int = 4) -> object:
    return {name: [tile] * count}


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "null", "[" * 100000, '{"version": 1}', '{"version": "0.0.0", "adapters": {"ADAPTER": {}}}'),
        *({"ADAPTER": e} for e in (entry("64x132"), entry("a b"), entry(tile="7x7/7"), entry(tile=[1]), entry(count=3))),
        *({"ADAPTER": e} for e in ([], None, {"64x132 f32": None}, {"64x132 f32": "24x128/24"})),
        {"another": entry()},
        b"\xff\xfe\x00",
    ],
    ids=lambda c: repr(c)[:40],
)
def test_a_broken_or_foreign_file_is_as_none_and_is_rewritten(content: object, device: Device, cache: Path, quick: None):
    cache.parent.mkdir(parents=True)
    if isinstance(content, dict):
        content = json.dumps({"version": tiles.__version__, "adapters": content})
    data = content if isinstance(content, bytes) else str(content).replace("ADAPTER", tiles.adapter_key(device)).encode()
    cache.write_bytes(data)
    mine = fresh(device, "CPU")
    assert tiles.chosen_tiles(mine) == {}
    tune_matmuls(mine, [SMALL])
    assert [*tiles.chosen_tiles(fresh(mine))] == [SMALL]


def test_a_right_entry_is_taken(device: Device, cache: Path):
    cache.parent.mkdir(parents=True)
    cache.write_text(json.dumps({"version": tiles.__version__, "adapters": {tiles.adapter_key(device): entry(tile="8x128/8")}}))
    assert tiles.chosen_tiles(fresh(device, "CPU")) == {SMALL: (Tile(8, 128, 8),) * 4}


def test_a_folder_that_cannot_be_written_is_no_error(device: Device, tmp_path: Path, monkeypatch, quick: None):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    mine = fresh(device)
    tune_matmuls(mine, [SMALL])
    assert [*tiles.chosen_tiles(mine)] == [SMALL]
    assert tiles.chosen_tiles(fresh(device)) == {}


def test_a_write_that_fails_leaves_nothing(device: Device, cache: Path, monkeypatch, quick: None):
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    tune_matmuls(fresh(device), [SMALL])
    assert [*cache.parent.iterdir()] == []


# --- on first use


def large() -> Tensor:
    k, n = 260, SMALLEST // 260 + 4 - (SMALLEST // 260) % 4
    return ops.linear(Tensor(("T", k), name="x"), Tensor((k, n), name="w"), Tensor((n,), name="b"))


def test_a_new_gpu_is_measured_once(device: Device, monkeypatch: pytest.MonkeyPatch, quick: None):
    calls = []

    def spy(d: Device, wanted: list, seconds: float) -> None:
        calls.append((wanted, seconds))
        tune_matmuls(d, wanted, seconds)

    monkeypatch.setattr("gpt2wgpu.gpu.tuning.tune_matmuls", spy)
    t = large()
    for _ in range(2):
        gpu = fresh(device, "DiscreteGPU")
        GPUProgram(gpu, t, lambda w: np.zeros(w.shape, np.float32), {"T": 1})
        prepare_tiles(gpu, [t])
    assert calls == [([tiles.matmul_key(t)], 2.0)]
    prepare_tiles(fresh(device, "CPU"), [t])
    assert len(calls) == 1, "a software driver is measured by `gpt2wgpu tune` only"


def test_small_matmuls_are_not_measured(device: Device, cache: Path):
    """Nor are those of the self-test."""
    gpu = fresh(device, "DiscreteGPU")
    self_test(gpu)
    assert not cache.exists()
    assert graph_matmuls([large(), ops.linear(Tensor(("T", 8)), Tensor((8, 8)), Tensor((8,)))]) == [tiles.matmul_key(large())]


def test_what_there_was_no_time_for_keeps_the_default(device: Device):
    gpu = fresh(device, "DiscreteGPU")
    assert tune_matmuls(gpu, [SMALL], seconds=0) == []
    assert tiles.chosen_tiles(gpu) == {SMALL: (tiles.GPU_TILES[0],) * 4}


def test_a_device_without_a_clock_is_measured_by_wall_time(device: Device, quick: None):
    adapter = dataclasses.replace(device.adapter, features=device.adapter.features - {"timestamp-query"})
    opened = open_device(adapter)
    assert not opened.clock
    found = tune_matmuls(opened, [SMALL])
    assert len(found) == len(ROWS) * len(tiles.tile_candidates(opened, "f32"))
    assert all(f.seconds > 0 for f in found)


def test_a_tile_that_computes_something_else_is_left_out(either: Device, monkeypatch: pytest.MonkeyPatch, quick: None):
    """Or that the driver cannot compile."""
    first, second, *rest = tiles.tile_candidates(either, "f32")
    right = kernels.specialise

    def change(device: Device, t: Tensor, tile: Tile | None = None) -> str:
        source = right(device, t, tile)
        if tile == first:
            return source
        return source.replace("k4 = 0u;", "k4 = 1u;") if tile == second else source.replace("k4s", "nonsense", 1)

    monkeypatch.setattr(kernels, "specialise", change)
    with pytest.raises(wgpu.GPUError):
        kernels.compile_kernel(either, ops.linear(Tensor(("T", 4)), Tensor((4, 4)), Tensor((4,))), rest[0]).compile(either)
    assert [*Bench(either, SMALL, math.inf).kernels] == [first]
    assert {f.tile for f in tune_matmuls(either, [SMALL])} == {first}


# --- the command


def test_tune_takes_the_matmuls_of_the_model(device: Device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.diagnose.profile.find_device", lambda wanted: (device, "the tests'"))
    monkeypatch.setattr("gpt2wgpu.diagnose.profile.tune_matmuls", lambda device, found: found)
    assert tune_model(None, "gpu", "auto", 1) == (device, [(256, 768, "f32"), (256, 1024, "f32"), (1024, 256, "f32")])
    assert tune_model(None, "gpu", "auto", 0) == (device, [])
    if device.has_f16:
        assert tune_model(None, "gpu", "float16", 1)[1] == [(256, 768, "f16"), (256, 1024, "f16"), (1024, 256, "f16")]


def test_tune_needs_a_gpu():
    with pytest.raises(UserError, match=r"^tune measures kernels of a GPU: numpy"):
        tune_model(None, "numpy", "auto", None)


def test_the_command_prints_a_table(device: Device, monkeypatch, capsys: pytest.CaptureFixture[str], cache: Path):
    found = [Measurement((768, 3072, "f16"), r, t, s) for r, t, s in ((24, Tile(8, 128, 8), 1.0), (24, Tile(16, 128, 16), 0.01))]
    monkeypatch.setattr("gpt2wgpu.diagnose.profile.tune_model", lambda **_: (device, found))
    with pytest.raises(SystemExit) as caught:
        main(["tune"])
    assert not caught.value.code
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["768", "x", "3072", "f16", "24"]
    assert lines[3].split() == ["8x128/8", "0.1"]
    assert lines[4].split() == ["16x128/16", "11.3*"]
    assert lines[-1] == f"kept in {cache}"
    with pytest.raises(SystemExit):
        main(["tune", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["measured"][1] == {
        "k": 768,
        "n": 3072,
        "dtype": "f16",
        "rows": 24,
        "tile": "16x128/16",
        "gflops": found[1].gflops,
    }
