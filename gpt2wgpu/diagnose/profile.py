"""Where a batch's time goes on a device, step by step; and the fastest tiles of a model's matmuls."""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import checkpoint, hub
from ..checkpoint.graph import build_graph, choose_modules, default_layer
from ..devices.choose import find_device, find_dtype, find_matmul, find_operand_dtype
from ..encoder import Encoder
from ..errors import UserError, between
from ..gpu import Ceilings, Clock, Device, GPUProgram, Measurement, graph_matmuls, measure_ceilings, tune_matmuls
from ..graph import packing
from ..graph.packing import position_ids
from ..graph.tensor import DTYPES, Array, Tensor, schedule

MEASURED_SECONDS = 1.0  # approximate duration of each measurement
ROWS_OF = {"wte": "ids", "scale": "ids", "wpe": "positions", "table": "positions"}  # a table -> the input that says which rows


@dataclass(frozen=True)
class ProfileLine:
    """All steps of one op, shape and tile together: calls, seconds, floating-point operations and bytes moved."""

    op: str
    shape: str
    tile: str  # for a matmul, rows x columns
    matrix: bool  # whether it runs on matrix units
    calls: int
    seconds: float
    flops: float
    bytes: float

    @property
    def gflops(self) -> float | None:
        """1e9 operations per second; None where the device's clock is too coarse to tell."""
        return self.flops / self.seconds / 1e9 if self.seconds else None

    @property
    def gbps(self) -> float | None:
        return self.bytes / self.seconds / 1e9 if self.seconds else None


@dataclass(frozen=True)
class Profile:
    """One batch on a device, in seconds: `wall` with two batches under way, `busy` while the device computes."""

    lines: list[ProfileLine]
    wall: float
    busy: float
    ceilings: Ceilings

    @property
    def idle(self) -> float:
        """The share of wall time in which the device had nothing to compute."""
        return max(0.0, 1 - self.busy / self.wall)


def profile_model(encoder: Encoder, texts: int, tokens: int) -> Profile:
    """Profile a batch of `texts` texts with `tokens` random tokens each.

    Raises UserError if the batch does not fit, or if the device's clock is missing or too coarse.
    """
    device = encoder.engine.place.device
    if device is None or not device.clock:
        raise UserError(f"{encoder.device} has no timestamp-query: it cannot be profiled")
    between("tokens", tokens, 1, min(encoder.context, encoder.engine.longest_text))
    between("texts", texts, 1, max(1, encoder.engine.max_tokens // tokens))
    rng = np.random.default_rng(0)
    ids = rng.integers(encoder.checkpoint.config.vocab, size=(texts, tokens))
    pad = encoder.checkpoint.config.pad

    def pack() -> dict[str, Array]:
        return packing.pack_batch([*ids], [position_ids(s, pad) for s in ids], [0] * texts)

    program = encoder.engine.program
    assert isinstance(program, GPUProgram)
    batch = pack()
    for _ in range(2):
        program.run(batch)
    wall, busy = measure_throughput(program, device, pack)
    runs = []
    for _ in range(max(3, min(20, int(MEASURED_SECONDS / wall)))):
        clock = Clock(device, len(program.steps))
        program.submit(batch, clock)()
        runs.append(clock.seconds())
    lines = sum_by_op(program, batch, np.median(runs, axis=0))
    if not any(line.seconds for line in lines):
        raise UserError(f"the clock of {encoder.device} is too coarse for so small a batch: profile more texts or tokens")
    return Profile(lines, wall, busy, measure_ceilings(device))


def measure_throughput(program: GPUProgram, device: Device, pack: Callable[[], dict[str, Array]]) -> tuple[float, float]:
    """Seconds per batch: of wall time, and while the device computes. Two batches are under way, as in the engine."""
    start = time.perf_counter()
    program.run(pack())
    count = max(4, min(100, int(MEASURED_SECONDS / (time.perf_counter() - start))))
    clocks = [Clock(device, 1) for _ in range(count)]
    pending: deque[Callable[[], Array]] = deque()
    start = time.perf_counter()
    for clock in clocks:
        pending.append(program.submit(pack(), clock))
        if len(pending) > 1:
            pending.popleft()()
    while pending:
        pending.popleft()()
    wall = (time.perf_counter() - start) / count
    return wall, statistics.fmean(float(clock.seconds()[0]) for clock in clocks)


def sum_by_op(program: GPUProgram, batch: Mapping[str, Array], seconds: Array) -> list[ProfileLine]:
    """The steps' times by op, shape and tile, longest first."""
    sizes = {dim: n for t in program.inputs for dim, n in zip(t.shape, batch[t.name].shape, strict=True) if isinstance(dim, str)}
    lengths = batch["spans"][:, 1].astype(np.int64) - batch["spans"][:, 0]
    found: dict[tuple[str, str, str, bool], ProfileLine] = {}
    for step, taken in zip(program.steps, seconds.tolist(), strict=True):
        t = step.tensor
        kernel, _ = step.choose(sizes)
        tile = f"{kernel.constants['TILE_T']}x{kernel.constants['TILE_N']}" if "TILE_T" in kernel.constants else ""
        assert t.op is not None
        key = t.op.name, describe_step(t, sizes), tile, "coop_mat" in kernel.source
        old = found.get(key, ProfileLine(*key, 0, 0.0, 0.0, 0.0))
        flops, moved = count_flops(t, sizes, lengths), count_bytes(t, sizes, batch)
        found[key] = ProfileLine(*key, old.calls + 1, old.seconds + taken, old.flops + flops, old.bytes + moved)
    return sorted(found.values(), key=lambda line: -line.seconds)


def describe_step(t: Tensor, sizes: Mapping[str, int]) -> str:
    """ "T=768 K=768 N=3072 gelu_tanh f16" """
    dims = [f"{name}={sizes.get(str(size), size)}" for name, size in t.dims.items()]
    words = [value for value in t.attrs.values() if isinstance(value, str) and value != "none"]
    return " ".join([*dims, *words, *(["f16"] if "f16" in t.types.values() else [])])


def count_flops(t: Tensor, sizes: Mapping[str, int], lengths: Array) -> float:
    """Floating-point operations of a step; 0 if only memory matters."""
    dims = {name: sizes.get(str(size), size) for name, size in t.dims.items()}
    name = t.op.name if t.op else ""
    if name.startswith("linear"):
        return 2.0 * int(dims["T"]) * int(dims["K"]) * int(dims["N"])
    if name in ("attention", "attention_bias"):
        reach = np.minimum(lengths - 1, t.attrs.get("window") or lengths - 1)
        before = reach * (reach + 1) / 2 + (lengths - 1 - reach) * reach  # pairs of a query and a key before it
        pairs = lengths + before * (1 if t.attrs["causal"] else 2)
        return 4.0 * float(pairs.sum()) * int(dims["C"])
    return 0.0


def count_bytes(t: Tensor, sizes: Mapping[str, int], batch: Mapping[str, Array]) -> float:
    """The bytes that a step reads and writes: its inputs once, but of tables only the rows that the batch's tokens need, each
    once."""
    assert t.op is not None

    def row_bytes(x: Tensor) -> float:
        return math.prod(int(sizes.get(str(d), d)) for d in x.shape[1:]) * DTYPES[x.dtype].itemsize

    given = {argument.name: x for argument, x in zip(t.op.args, t.inputs, strict=False)}  # the last argument is the output
    looked_up = t.op.name.startswith("embed") or t.op.name.endswith("rotary")
    moved = int(sizes.get(str(t.shape[0]), t.shape[0])) * row_bytes(t)
    for name, x in given.items():
        if looked_up and name in ROWS_OF:
            moved += len(np.unique(batch[given[ROWS_OF[name]].name])) * row_bytes(x)
        else:
            moved += int(sizes.get(str(x.shape[0]), x.shape[0])) * row_bytes(x)
    return moved


def tune_model(
    model: str | Path | None, device: str, dtype: str, layer: int | None, revision: str | None = None
) -> tuple[Device, list[Measurement]]:
    """Measure the tiles of a model's matmuls again, with the kernel that an Encoder would use, and remember the fastest."""
    opened, reason = find_device(device)
    dtype = find_dtype(dtype, opened)
    opened, _ = find_matmul(opened, dtype)
    if opened is None:
        raise UserError(f"tune measures kernels of a GPU: {reason} (--device gpu takes a software driver)")
    c = checkpoint.load_checkpoint(hub.find_model(model, revision=revision))
    layer = default_layer(c) if layer is None else between("layer", layer, 0, c.config.layers)
    graph = build_graph(c, layer, find_operand_dtype(dtype, opened), choose_modules(c, None), int8=dtype == "int8")
    return opened, tune_matmuls(opened, graph_matmuls(schedule(graph)))
