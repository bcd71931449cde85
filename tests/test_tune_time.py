"""Measuring tile shapes keeps to its time, and goes on at the next start."""

import dataclasses
from pathlib import Path

import pytest

from gpt2wgpu.gpu import Device, Tile, device_cache, kernels, tiles, tuning
from gpt2wgpu.gpu.tuning import Bench, graph_matmuls, matmul_operands, prepare_tiles, tune_matmuls
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Tensor

SMALL = (64, 132, "f32")  # K, N
QUICK = (2, 3, 5, 7, 8, 9)  # rows of each bucket


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache other than the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows, so that a software driver is done soon."""
    monkeypatch.setattr("gpt2wgpu.gpu.tuning.ROWS", QUICK)


def fresh(device: Device, kind: str) -> Device:
    """The same device as a process finds it that starts now, said to be of another kind."""
    return dataclasses.replace(device, adapter=dataclasses.replace(device.adapter, kind=kind), tuned={})


class Timer:
    """A clock that a test sets: it advances only with what `costs` says."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> Timer:
    """A round takes no time, a compilation 0.1 s."""
    found = Timer()
    monkeypatch.setattr(tuning, "time", found)
    monkeypatch.setattr(tuning, "TUNING_SECONDS", 1.0)
    monkeypatch.setattr(tuning, "SMALLEST", 1)

    def slow(device: Device, t: Tensor, tile: Tile) -> kernels.Kernel:
        found.now += 0.05  # it is called twice for each tile
        return kernels.find_kernel(device, t, tile)

    monkeypatch.setattr(tuning, "find_kernel", slow)
    return found


def two_matmuls() -> list[Tensor]:
    return [
        ops.linear(Tensor(("T", k), name="x"), Tensor((k, n), name="w"), Tensor((n,), name="b")) for k, n in ((32, 36), (36, 68))
    ]


LARGE_ONE, SMALL_ONE = (36, 68, "f32"), (32, 36, "f32")


def test_the_next_start_goes_on_where_time_ran_out(device: Device, timer: Timer, quick: None, monkeypatch, capsys):
    """Each start keeps to its time, takes the largest product first, and remembers what it has measured: if there is no time
    for all shapes, the next start measures the others beside the fastest so far."""
    assert graph_matmuls(two_matmuls()) == [LARGE_ONE, SMALL_ONE]
    measured: list[tuple[tuple[int, int, str], set[Tile]]] = []
    measure = Bench.measure
    order = [*tiles.tile_candidates(fresh(device, "DiscreteGPU"), "f32")]

    def note(self: Bench, rows: int) -> dict[Tile, float]:
        """Whatever this machine is busy with, a later tile is faster."""
        measured.append((tiles.matmul_key(self.tensor), {*self.kernels}))
        return {tile: 1 / (1 + order.index(tile)) for tile in measure(self, rows)}

    monkeypatch.setattr(Bench, "measure", note)
    said, spent = [], []
    for _ in range(8):
        gpu = fresh(device, "DiscreteGPU")
        start = timer.now
        prepare_tiles(gpu, two_matmuls())
        spent.append(timer.now - start)
        said.append(capsys.readouterr().err.splitlines())
        if not spent[-1]:
            break
        timer.now += 5
    assert 2 < len(spent) < 8 and all(seconds <= 0.8 for seconds in spent)
    assert said[0] == [
        f"measuring {gpu.adapter} once, 1 seconds at most, for faster matrix products",
        "2 of 2 took longer: the next start tries them again; `gpt2wgpu tune` measures all without a limit",
    ]
    assert said[-2] == said[0][:1] and said[-1] == []
    assert [m for m, _ in measured] == sorted((m for m, _ in measured), key=lambda m: -m[0])
    candidates = {*tiles.tile_candidates(gpu, "f32")}
    for m in (LARGE_ONE, SMALL_ONE):
        assert set().union(*(among for name, among in measured if name == m)) == candidates
        assert None not in tiles.chosen_tiles(gpu)[m] and not tiles.tried_tiles(gpu).get(m)


def test_shapes_of_an_earlier_start_meet_the_others(device: Device, timer: Timer, quick: None, monkeypatch):
    """The fastest of all wins, in whichever start it was compiled."""
    first, *_, best = tiles.tile_candidates(fresh(device, "DiscreteGPU"), "f32")
    order = {tile: i for i, tile in enumerate(tiles.tile_candidates(fresh(device, "DiscreteGPU"), "f32"))}
    for fastest in (first, best, [*order][2]):
        tiles_file = device_cache.cache_file("tiles")
        tiles_file.unlink(missing_ok=True)
        monkeypatch.setattr(
            Bench, "measure", lambda self, rows, f=fastest: {t: 1.0 + (t != f) + order[t] / 99 for t in self.kernels}
        )
        for _ in range(6):
            gpu = fresh(device, "DiscreteGPU")
            prepare_tiles(gpu, two_matmuls()[1:])
            timer.now += 5
        assert set(tiles.chosen_tiles(gpu)[LARGE_ONE]) == {fastest}
        assert not tiles.tried_tiles(gpu).get(LARGE_ONE)


def test_rows_that_were_measured_stay(device: Device, quick: None, monkeypatch: pytest.MonkeyPatch):
    """If only a matmul's large batches were measured in time, the next start measures the small ones."""
    gpu = fresh(device, "DiscreteGPU")
    measure = Bench.measure
    monkeypatch.setattr(Bench, "measure", lambda self, rows: measure(self, rows) if rows > 4 else {})
    tune_matmuls(gpu, [SMALL], anew=False)
    first = tiles.chosen_tiles(fresh(device, "DiscreteGPU"))[SMALL]
    assert first[:2] == (None, None) and None not in first[2:]
    assert [tile for _, tile in tiles.tile_ladder(gpu, matmul_operands(SMALL)[0])][:2] == [*tiles.UNMEASURED[:2]]
    asked: list[int] = []
    monkeypatch.setattr(Bench, "measure", lambda self, rows: asked.append(rows) or measure(self, rows))
    again = fresh(device, "DiscreteGPU")
    tune_matmuls(again, [SMALL], anew=False)
    assert asked == [3, 2]
    assert tiles.chosen_tiles(again)[SMALL][2:] == first[2:] and None not in tiles.chosen_tiles(again)[SMALL]
    asked.clear()
    tune_matmuls(again, [SMALL])
    assert asked == [*reversed(QUICK)]


def test_a_round_that_would_take_too_long_is_not_begun(device: Device, timer: Timer):
    bench = Bench(fresh(device, "DiscreteGPU"), SMALL)
    bench.slowest, bench.end = 1.0, timer.now + 10
    assert bench.measure(2048) == {}
