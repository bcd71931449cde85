"""Tile shapes are measured once for an adapter, and kept in a file that may be deleted."""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import wgpu

from gpt2wgpu.devices.graph_check import check_graph
from gpt2wgpu.gpu import Device, GPUProgram, Tile, device_cache, kernels, open_device, tiles
from gpt2wgpu.gpu.tuning import SMALLEST, Bench, graph_matmuls, matmul_operands, prepare_tiles, tune_matmuls
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Tensor

SMALL = (64, 132, "f32")  # K, N
QUICK = (2, 3, 5, 7, 8, 9)  # rows of each bucket


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache other than the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gpt2wgpu" / "tiles.json"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch):
    """Few rows, so that a software driver is done soon."""
    monkeypatch.setattr("gpt2wgpu.gpu.tuning.ROWS", QUICK)


def fresh(device: Device, kind: str = "") -> Device:
    """The same device as a process finds it that starts now; `kind`: said to be of another kind."""
    adapter = dataclasses.replace(device.adapter, kind=kind or device.adapter.kind)
    return dataclasses.replace(device, adapter=adapter, tuned={})


@pytest.fixture(params=["CPU", "DiscreteGPU"])
def either(request: pytest.FixtureRequest, device: Device) -> Device:
    """A device with the kernels of a software driver, and one with those of a GPU."""
    return fresh(device, request.param)


def test_where_the_file_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert device_cache.cache_file("tiles") == tmp_path / "cache" / "gpt2wgpu" / "tiles.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    if os.name == "posix":
        assert device_cache.cache_file("tiles") == tmp_path / ".cache" / "gpt2wgpu" / "tiles.json"
        monkeypatch.setattr(sys, "platform", "darwin")
        assert device_cache.cache_file("tiles") == tmp_path / "Library" / "Caches" / "gpt2wgpu" / "tiles.json"


def test_what_was_measured_is_kept(device: Device, cache: Path, quick: None):
    first = fresh(device)
    found = tune_matmuls(first, [SMALL])
    assert {(f.matmul, f.tile) for f in found} == {(SMALL, t) for t in tiles.tile_candidates(device, "f32")}
    assert all(f.gflops > 0 for f in found)
    kept = json.loads(cache.read_text())
    assert list(kept["adapters"]) == [device_cache.adapter_key(device.adapter)]
    assert [*cache.parent.iterdir()] == [cache]
    second = fresh(device)
    assert tiles.chosen_tiles(second) == first.tuned["tiles"] == {SMALL: tiles.chosen_tiles(first)[SMALL]}


def test_what_others_have_measured_stays(device: Device, cache: Path, quick: None):
    cache.parent.mkdir(parents=True)
    other = {"64x64 f16": ["64x64/8"] * 6}
    cache.write_text(json.dumps({"version": device_cache.__version__, "adapters": {"another GPU": other}}))
    tune_matmuls(fresh(device), [SMALL])
    kept = json.loads(cache.read_text())["adapters"]
    assert kept["another GPU"] == other
    assert len(kept) == 2


def entry(name: str = "64x132 f32 matmul_registers", tile: object = "24x128/24", count: int = len(tiles.BUCKETS)) -> object:
    return {name: [tile] * count}


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "null", "[" * 100000, '{"version": 1}', '{"version": "0.0.0", "adapters": {"ADAPTER": {}}}'),
        *({"ADAPTER": e} for e in (entry("64x132"), entry("a b c"), entry(tile="7x7/7"), entry(tile=[1]), entry(count=3))),
        *({"ADAPTER": e} for e in ([], None, entry("64x132 f32"), entry("064x132 f32 matmul_registers"))),
        *({"ADAPTER": {"64x132 f32 matmul_registers": e}} for e in (None, "24x128/24")),
        {"another": entry()},
        b"\xff\xfe\x00",
    ],
    ids=lambda c: repr(c)[:40],
)
def test_a_broken_or_foreign_file_is_as_none_and_is_rewritten(content: object, device: Device, cache: Path, quick: None):
    cache.parent.mkdir(parents=True)
    if isinstance(content, dict):
        content = json.dumps({"version": device_cache.__version__, "adapters": content})
    data = (
        content
        if isinstance(content, bytes)
        else str(content).replace("ADAPTER", device_cache.adapter_key(device.adapter)).encode()
    )
    cache.write_bytes(data)
    mine = fresh(device, "CPU")
    assert tiles.chosen_tiles(mine) == {}
    tune_matmuls(mine, [SMALL])
    assert [*tiles.chosen_tiles(fresh(mine))] == [SMALL]


def test_a_right_entry_is_taken(device: Device, cache: Path):
    cache.parent.mkdir(parents=True)
    cache.write_text(
        json.dumps(
            {"version": device_cache.__version__, "adapters": {device_cache.adapter_key(device.adapter): entry(tile="8x128/8")}}
        )
    )
    assert tiles.chosen_tiles(fresh(device, "CPU")) == {SMALL: (Tile(8, 128, 8),) * 6}


@pytest.mark.parametrize("home", [True, False])
def test_a_folder_that_cannot_be_written_is_no_error(
    home: bool, device: Device, tmp_path: Path, monkeypatch, quick: None, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    if not home:  # a user without HOME and without an entry in passwd
        monkeypatch.setenv("XDG_CACHE_HOME", "~/nothing")
        monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    mine = fresh(device)
    tune_matmuls(mine, [SMALL])
    assert [*tiles.chosen_tiles(mine)] == [SMALL]
    assert tiles.chosen_tiles(fresh(device)) == {}
    why = "Not a directory" if home else "set HOME or XDG_CACHE_HOME"
    err = capsys.readouterr().err
    assert f"what was measured of {device.adapter.name} cannot be kept" in err and why in err


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

    def spy(d: Device, wanted: list, seconds: float, *, anew: bool) -> None:
        calls.append((wanted, seconds))
        tune_matmuls(d, wanted, math.inf, anew=anew)

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
    check_graph(gpu, [large()])
    assert not cache.exists()
    assert graph_matmuls([large(), ops.linear(Tensor(("T", 8)), Tensor((8, 8)), Tensor((8,)))]) == [tiles.matmul_key(large())]


def test_what_there_was_no_time_for_is_not_remembered(device: Device, cache: Path):
    gpu = fresh(device, "DiscreteGPU")
    assert tune_matmuls(gpu, [SMALL], seconds=0) == []
    assert tiles.chosen_tiles(gpu) == {}
    assert not cache.exists()
    ladder = tiles.tile_ladder(gpu, matmul_operands(SMALL)[0])
    assert ladder == ((8, Tile(8, 16)), (128, Tile(32, 32)), (math.inf, Tile(64, 64, 8)))


@pytest.mark.parametrize(
    ("believed", "expected"), [(0, [(8, True)]), (500, [(8, True), (512, True)]), (1000, [(8, True), (512, True), (8, False)])]
)
def test_a_time_of_zero_is_not_believed(believed: int, expected: list, device: Device, quick: None, monkeypatch):
    """If the clock shows zero, more repeats are timed, and then wall time is used. believed: repeats that show a time."""
    gpu = fresh(device, "DiscreteGPU")
    if not gpu.clock:
        pytest.skip("the device has no timestamp-query")
    rounds: list[tuple[int, bool]] = []
    original = Bench._round

    def coarse(self: Bench, tried: Sequence[Tile], rows: int, repeats: int, by_clock: bool) -> dict[Tile, float]:
        rounds.append((repeats, by_clock))
        found = original(self, tried, rows, repeats, by_clock)
        return {tile: 0.0 if by_clock and repeats < believed else seconds for tile, seconds in found.items()}

    monkeypatch.setattr(Bench, "_round", coarse)
    bench = Bench(gpu, SMALL)
    found = bench.measure(9)
    assert [*dict.fromkeys(rounds)] == expected
    assert [*found] == [t for t in bench.kernels if tiles.suits_rows(t, 9)] and all(
        0 < seconds < math.inf for seconds in found.values()
    )


def test_no_kernel_takes_the_entry_of_another(device: Device, cache: Path, quick: None):
    """A device may be opened with matrix units or without, and a driver as a GPU."""
    mine, gpu = fresh(device, "CPU"), fresh(device, "DiscreteGPU")
    for opened in (mine, gpu, mine):
        tune_matmuls(opened, [SMALL])
    [entries] = json.loads(cache.read_text())["adapters"].values()
    assert {name.split()[2] for name in entries} == {mine.matmul("f32"), "matmul_workgroup"}
    for opened in (mine, gpu):
        known = tiles.chosen_tiles(dataclasses.replace(opened, tuned={}))
        assert set(known[SMALL]) <= set(tiles.tile_candidates(opened, "f32"))


def test_a_device_without_a_clock_is_measured_by_wall_time(device: Device, quick: None):
    adapter = dataclasses.replace(device.adapter, features=device.adapter.features - {"timestamp-query"})
    opened = open_device(adapter)
    assert not opened.clock
    found = tune_matmuls(opened, [SMALL])
    assert len(found) == sum(tiles.suits_rows(t, rows) for rows in QUICK for t in tiles.tile_candidates(opened, "f32"))
    assert all(f.seconds > 0 for f in found)


def test_a_tile_that_computes_something_else_is_left_out(either: Device, monkeypatch: pytest.MonkeyPatch, quick: None):
    """Or that the driver cannot compile."""
    first, second, *rest = tiles.tile_candidates(either, "f32")
    right = kernels.specialise_source

    def change(device: Device, t: Tensor, tile: Tile | None = None) -> str:
        source = right(device, t, tile)
        if tile == first:
            return source
        return source.replace("k4 = 0u;", "k4 = 1u;") if tile == second else source.replace("fn main(", "fn main(nonsense ", 1)

    monkeypatch.setattr(kernels, "specialise_source", change)
    with pytest.raises(wgpu.GPUError):
        kernels.find_kernel(either, ops.linear(Tensor(("T", 4)), Tensor((4, 4)), Tensor((4,))), rest[0]).compile(either)
    assert [*Bench(either, SMALL, math.inf).kernels] == [first]
    assert {f.tile for f in tune_matmuls(either, [SMALL])} == {first}
