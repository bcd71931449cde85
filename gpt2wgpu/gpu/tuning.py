"""Measures the tile shapes of a model's matmuls: on a GPU's first use, for up to two seconds; then from the cache."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import wgpu

from ..graph.ops import linear, linear_int8
from ..graph.ops.quantized import quantize_matrix
from ..graph.tensor import DTYPES, Array, Tensor
from ..progress import notice
from .clock import Clock
from .device import Device
from .kernels import Kernel, Tile, bind_group_layout, find_kernel, is_tiled
from .tiles import BUCKETS, Matmul, chosen_tiles, matmul_key, save_tiles, suits_rows, tile_candidates, tried_tiles

ROWS = (8, 24, 64, 96, 384, 2048)  # the number of rows measured for each of BUCKETS
CHECKED_ROWS = 203  # not a multiple of any tile
SMALLEST = 1 << 17  # K x N; measuring smaller matmuls is not worth the time
TUNING_SECONDS = 2.0  # per start; matmuls not measured by then use the default tile until the next start
COMPILING = 0.7  # the share of this time after which no other tile is compiled, so that those there are can be measured


@dataclass(frozen=True)
class Measurement:
    """One tile shape of one matmul at one number of rows."""

    matmul: Matmul
    rows: int
    tile: Tile
    seconds: float

    @property
    def gflops(self) -> float:
        k, n, _ = self.matmul
        return 2 * self.rows * k * n / self.seconds / 1e9


def prepare_tiles(device: Device, tensors: Sequence[Tensor]) -> None:
    """Measure the matmuls of a graph that are new on this GPU, before it is compiled. Software drivers keep the defaults."""
    if device.adapter.software:
        return
    wanted = [m for m in graph_matmuls(tensors) if not is_measured(device, m)]
    if not wanted:
        return
    notice(f"measuring {device.adapter} once, {TUNING_SECONDS:.0f} seconds at most, for faster matrix products")
    tune_matmuls(device, wanted, TUNING_SECONDS, anew=False)
    left = sum(not is_measured(device, m) for m in wanted)
    if left:
        notice(
            f"{left} of {len(wanted)} took longer: the next start tries them again; `gpt2wgpu tune` measures all without a limit"
        )


def is_measured(device: Device, m: Matmul) -> bool:
    """Whether every bucket has a tile that was measured among all others."""
    return all(chosen_tiles(device).get(m, (None,))) and not tried_tiles(device).get(m)


def graph_matmuls(tensors: Iterable[Tensor]) -> list[Matmul]:
    """The distinct matmuls of a graph that are large enough to measure, the largest first."""
    found = {matmul_key(t) for t in tensors if is_tiled(t)}
    return sorted((m for m in found if m[0] * m[1] >= SMALLEST), key=lambda m: (-m[0] * m[1], m))


def tune_matmuls(device: Device, wanted: Sequence[Matmul], seconds: float = math.inf, *, anew: bool = True) -> list[Measurement]:
    """Measure the matmuls in this order, each from the largest batch to the smallest, and remember the fastest tiles.

    seconds: the time limit; what was not measured by then is not remembered. anew: measure known ones again.
    """
    start = time.perf_counter()
    end, compiled_by = start + seconds, start + COMPILING * seconds
    found: list[Measurement] = []
    for m in wanted:
        if time.perf_counter() >= compiled_by:  # before buffers as large as the matrix are filled
            break
        if anew:
            chosen_tiles(device).pop(m, None)
            tried_tiles(device).pop(m, None)
        found += tune_matmul(device, m, end, compiled_by)
    if found:
        save_tiles(device)
    return found


def tune_matmul(device: Device, m: Matmul, end: float, compiled_by: float) -> list[Measurement]:
    """Measure one matmul. Shapes that cannot be compiled in time are left for the next start, which measures them beside the
    fastest of this one; if it has no time for a single one of them either, the choice is final."""
    choice = [*chosen_tiles(device).get(m, (None,) * len(BUCKETS))]
    tried = tried_tiles(device).get(m, ())
    first, *others = tile_candidates(device, m[2])
    untried = [tile for tile in others if tile not in choice and tile not in tried]
    bench = Bench(device, m, compiled_by, end, [first, *(tile for tile in others if tile in choice), *untried])
    found: list[Measurement] = []
    measured = True
    for i in reversed(range(len(BUCKETS))):
        if choice[i] is None or tried or bench.left:
            taken = bench.measure(ROWS[i])
            found += [Measurement(m, ROWS[i], tile, t) for tile, t in taken.items()]
            if taken and (choice[i] is None or choice[i] in taken):
                choice[i] = min(taken, key=lambda tile: taken[tile])
            else:
                measured = False
    chosen_tiles(device)[m] = tuple(choice)
    new = [tile for tile in (first, *others) if tile not in (*tried, *bench.left)]
    if bench.left and (new or not tried):
        tried_tiles(device)[m] = (*tried, *new) if measured else tried or (first,)
    elif measured:
        tried_tiles(device)[m] = ()
    return found


class Bench:
    """One matmul with random operands on a device, and its kernel in several tile shapes.

    A shape is dropped if the driver cannot compile it or if its bits differ from those of the first one, the default, which
    the self-test compared with numpy. compiled_by, end: when the time for compiling and for measuring is over. left: shapes
    that there was no time to compile.
    """

    def __init__(
        self,
        device: Device,
        m: Matmul,
        compiled_by: float = math.inf,
        end: float = math.inf,
        tiles: Sequence[Tile] | None = None,
    ) -> None:
        self.device, self.end = device, end
        k, n, dtype = m
        self.tensor, arrays = matmul_operands(m)
        size = DTYPES[self.tensor.dtype].itemsize
        most = max(*ROWS, CHECKED_ROWS)
        arrays = [random_operand(most * k).astype(DTYPES[self.tensor.inputs[0].dtype]), *arrays]
        sizes = [self.tensor.dims.get(name, 0) for name in "TKNJ"]
        self.uniform = self._buffer(np.array([0, *sizes[1:]], np.uint32), wgpu.BufferUsage.UNIFORM)
        self.out = self._buffer(np.zeros(most * n * size, np.uint8))
        self.buffers = [self.uniform, *map(self._buffer, arrays), self.out]
        self.bind_group = device.raw.create_bind_group(
            layout=bind_group_layout(device, len(self.buffers)),
            entries=[{"binding": i, "resource": {"buffer": b}} for i, b in enumerate(self.buffers)],
        )
        self.kernels: dict[Tile, Kernel] = {}
        self.slowest = 0.0  # wall time in seconds of the slowest shape at CHECKED_ROWS, waiting included
        self.left = [*(tile_candidates(device, dtype) if tiles is None else tiles)]
        self._compile(compiled_by, CHECKED_ROWS * n * size)

    def _compile(self, compiled_by: float, size: int) -> None:
        expected = None
        while self.left and time.perf_counter() < compiled_by:
            tile = self.left.pop(0)
            try:
                find_kernel(self.device, self.tensor, tile).compile(self.device)
            except wgpu.GPUError:
                continue
            self.kernels[tile] = find_kernel(self.device, self.tensor, tile)
            start = time.perf_counter()
            bits = self._result(tile, CHECKED_ROWS, size)
            self.slowest = max(self.slowest, time.perf_counter() - start)
            expected = bits if expected is None else expected
            if bits != expected:
                del self.kernels[tile]

    def measure(self, rows: int) -> dict[Tile, float]:
        """Seconds per matmul of each shape that suits the rows; empty if there is no time left for it.

        A coarse clock may show zero: then more repeats are timed, and if that is not enough, wall time is used.
        """
        repeats = max(1, min(8, 1024 // rows))
        tiles = [tile for tile in self.kernels if suits_rows(tile, rows)] or [*self.kernels]
        for count, clock in ((repeats, self.device.clock), (64 * repeats, self.device.clock), (repeats, False)):
            if time.perf_counter() + self.slowest * rows / CHECKED_ROWS * repeats * len(tiles) >= self.end:
                return {}
            found = self._best(tiles, rows, count, clock)
            if all(seconds > 0 for seconds in found.values()):
                return found
        return {}

    def _best(self, tiles: Sequence[Tile], rows: int, repeats: int, by_clock: bool) -> dict[Tile, float]:
        """The best of three rounds in which the shapes take turns; fewer rounds if one is long."""
        found = dict.fromkeys(tiles, math.inf)
        start = time.perf_counter()
        for _ in range(3):
            for tile, seconds in self._round(tiles, rows, repeats, by_clock).items():
                found[tile] = min(found[tile], seconds / repeats)
            now = time.perf_counter()
            if now - start > 1 or now + (now - start) >= self.end:
                break
        return found

    def _round(self, tiles: Sequence[Tile], rows: int, repeats: int, by_clock: bool) -> dict[Tile, float]:
        if by_clock:
            clock = Clock(self.device, len(tiles))
            self._run(tiles, rows, repeats, clock)
            return dict(zip(tiles, clock.seconds().tolist(), strict=True))
        found = {}
        for tile in tiles:
            start = time.perf_counter()
            self._run([tile], rows, repeats)
            self.device.library.read_buffer(self.device.raw, self.uniform, 4)  # waits
            found[tile] = time.perf_counter() - start
        return found

    def _run(self, tiles: Sequence[Tile], rows: int, repeats: int, clock: Clock | None = None) -> None:
        """Run each shape `repeats` times, each shape in its own pass."""
        self.device.raw.queue.write_buffer(self.uniform, 0, np.array([rows], np.uint32))
        encoder = self.device.raw.create_command_encoder()
        for i, tile in enumerate(tiles):
            chosen_kernel = self.kernels[tile]
            grid = chosen_kernel.grid(self.tensor, {**self.tensor.dims, "T": rows})
            compute = encoder.begin_compute_pass(timestamp_writes=clock and clock.around(i))
            self.device.library.record_dispatches(
                compute, [(chosen_kernel.compile(self.device)._internal, self.bind_group._internal, grid)] * repeats
            )
            compute.end()
        self.device.raw.queue.submit([encoder.finish()])

    def _result(self, tile: Tile, rows: int, size: int) -> bytes:
        self.device.raw.queue.write_buffer(self.out, 0, np.full(size, 0xFF, np.uint8))
        self._run([tile], rows, 1)
        return bytes(self.device.library.read_buffer(self.device.raw, self.out, size))

    def _buffer(self, array: Array, usage: int = 0) -> Any:
        data = array.view(np.uint8)
        usage |= wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_DST | wgpu.BufferUsage.COPY_SRC
        buffer = self.device.raw.create_buffer(size=data.nbytes + 256, usage=usage)  # kernels may load past the last column
        self.device.raw.queue.write_buffer(buffer, 0, data)
        return buffer


def matmul_operands(m: Matmul) -> tuple[Tensor, list[Array]]:
    """A matmul as a tensor, and random values for all its inputs except the first."""
    k, n, dtype = m
    half = "f16" if dtype.endswith("f16") else "f32"
    x, bias, weights = Tensor(("T", k), half), Tensor((n,)), random_operand(k * n).reshape(k, n)
    if dtype.startswith("i8"):
        q, scale = quantize_matrix(weights)
        return linear_int8(x, Tensor(q.shape, "i8"), Tensor(scale.shape), bias, out=half), [q, scale, random_operand(n)]
    return linear(x, Tensor((k, n), half), bias, out=half), [weights.astype(DTYPES[half]), random_operand(n)]


def random_operand(count: int) -> Array:
    """Random numbers, the same again after 65,521, a prime: generating megabytes would take longer than measuring."""
    return np.resize(np.random.default_rng(0).standard_normal(65521, dtype=np.float32), count)
