"""Everything there is to know about a machine with a GPU, in one call of under eight minutes: correctness first, then speed.

    python benchmarks/on_a_gpu.py --output gpu.json           (or with the environment variable OUT naming a folder)
    python benchmarks/on_a_gpu.py --quick --device gpu        (smaller; also runs on a software adapter)
    WGPU_LIB_PATH=$(python benchmarks/experimental_wgpu.py /tmp) python benchmarks/on_a_gpu.py    (with matrix units)

In this order: the adapters and their features; what the device can do at most (ceilings.py, in a process of its own);
matrix units, each kind against numpy, and the matmul's tiles on them and without them; every kernel against numpy, with
wgpu's checks on and off; every model against numpy (as `gpt2wgpu doctor`); each op and each model timed in f32 and f16, by
the device's clock and by wall time; texts in to vectors out; PyTorch for comparison if there is one (--python PATH). The JSON
is written after every step, so that a run that is cut off leaves what it has. A step that fails is recorded, and the next
one runs. The exit code is 1 if anything computed wrongly.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import inputs
from peers import peers
from report import machine
from work import (
    Model,
    device_seconds,
    expected,
    folders,
    median,
    op_cases,
    pipelined_seconds,
    prepare,
    relative_error,
    seconds_by_op,
    traffic,
)
from workers import HERE, Gone, Worker, environment

from gpt2wgpu import Encoder, gpu
from gpt2wgpu.devices.choose import find_matmul
from gpt2wgpu.devices.matrix_units import with_matrix_units
from gpt2wgpu.devices.selftest import check_op, forward_cases
from gpt2wgpu.diagnose.doctor import check_model

TOLERANCE = {"float32": (2e-5, 1e-4), "float16": (2e-3, 2e-2)}  # of an op, of a model
SHAPES = [(1, 24), (32, 24), (8, 128), (128, 128), (32, 512), (384, 128)]


class Run:
    """The results so far, and the time that is left."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.start = options, time.perf_counter()
        self.result: dict[str, Any] = {"machine": machine(), "wrong": [], "failed": []}
        self.adapter = gpu.choose_adapter(options.device)
        if self.adapter is None:
            sys.exit("no GPU found; --device gpu takes a software adapter if there is one")
        self.device, self.matmul = find_matmul(gpu.open_device(self.adapter), "float16")
        self.result["matmul"] = self.matmul
        self.small = options.quick or self.adapter.software
        self.dtypes = ["float32", *(["float16"] if self.device.has_f16 else [])]
        skipped = "GPT-2" if self.adapter.software and not options.all else "nothing"  # seconds a call there
        self.folders = {name: folder for name, folder in folders(options.home).items() if not name.startswith(skipped)}

    @property
    def left(self) -> float:
        return self.options.seconds - (time.perf_counter() - self.start)

    def save(self) -> None:
        self.result["seconds"] = time.perf_counter() - self.start
        part = self.options.output.with_name(self.options.output.name + ".part")
        part.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")
        part.replace(self.options.output)

    def step(self, name: str, rows: Callable[["Run"], Iterator[dict[str, Any]]], share: float) -> None:
        """Take rows until they end or the step has had its share of what time is left."""
        print(f"\n{name} ({self.left:.0f} s left)", flush=True)
        found = self.result.setdefault(name, [])
        until = time.perf_counter() + share * max(0.0, self.left)
        try:
            for row in rows(self):
                found.append(row)
                if row.get("ok") is False:
                    self.result["wrong"].append({"step": name} | row)
                print("  " + "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()), flush=True)
                self.save()
                if time.perf_counter() > until:
                    self.result["failed"].append({"step": name, "why": "its time was over"})
                    print("  … its time was over", flush=True)
                    break
        except Exception as e:
            self.result["failed"].append({"step": name, "why": traceback.format_exc(limit=-3)})
            print(f"  FAILED: {type(e).__name__}: {e}", flush=True)
        self.save()


def environments(run: Run) -> Iterator[dict[str, Any]]:
    for a in gpu.list_adapters():
        yield {"adapter": str(a), "driver": a.driver, "features": sorted(a.features), "limits": a.limits}
    yield {"chosen": str(run.adapter), "f16 matmuls": run.matmul}
    if shutil.which("nvidia-smi"):
        query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit"
        done = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True)
        yield {"nvidia-smi": done.stdout.strip()}


def ceilings(run: Run) -> Iterator[dict[str, Any]]:
    command = [sys.executable, str(HERE / "ceilings.py"), str(run.adapter.index)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(True))
        timer = threading.Timer(90, process.kill)
        timer.start()
        for line in process.stdout or ():
            yield json.loads(line)
        code = process.wait()
        timer.cancel()
        errors.seek(0)
        if code:
            yield {"ended": code, "why": errors.read().strip()[-1500:]}


def matrix_units(run: Run) -> Iterator[dict[str, Any]]:
    """Which fragments and subgroups are right, then TFLOP/s of every tile of GPT-2's matmuls, with matrix units and without."""
    device = gpu.open_device(run.adapter)
    yield {"granted": sorted(device.granted), "refused": device.refused}
    right = None
    if device.grants_matrices:
        for units in device.library.matrix_shapes(run.adapter.raw):
            if run.small and units.size > 8:  # a software driver compiles large fragments for minutes
                continue
            found, why = with_matrix_units(device, [units])
            if found.matrix_units and right is None:
                right = found
            yield {"fragments": units.size, "lanes": units.lanes, "right": found.matrix_units is not None, "why": why}
    if run.small or not device.has_f16:
        return
    for used in (right, device) if right else (device,):
        top = gpu.measure_ceilings(used) if used.clock else None
        if top:
            yield {"matmul": used.matmul("f16"), "ceiling_tflops": (top.matrix_gflops or top.gflops) / 1e3}
        for k, n in ((768, 2304), (768, 3072), (3072, 768), (768, 768)):
            for f in gpu.tune_matmuls(used, [(k, n, "f16")], 10.0):
                row = {"matmul": used.matmul("f16"), "k": k, "n": n, "rows": f.rows, "tile": str(f.tile)}
                yield row | {"tflops": f.gflops / 1e3}


def kernels(run: Run) -> Iterator[dict[str, Any]]:
    """With wgpu's bounds checks on, and as it is used."""
    for checked in (True, False):
        device, _ = find_matmul(gpu.open_device(run.adapter, checked=checked), "float16")
        for case in forward_cases(device.has_f16):
            c = check_op(device, case)
            yield {"op": c.name, "shape": c.shape, "checked": checked, "error": c.error, "tolerance": c.tolerance, "ok": c.ok}


def whole_models(run: Run) -> Iterator[dict[str, Any]]:
    for name, folder in run.folders.items():
        for dtype in run.dtypes:
            encoder = Encoder(folder, device=run.adapter.index, dtype=dtype)
            for c in check_model(encoder, Encoder(folder, device="numpy")):
                check = c.name.replace(encoder.model, "").strip()
                yield {"model": name, "dtype": dtype, "check": check, "error": c.error, "tolerance": c.tolerance, "ok": c.ok}


def time_ops(run: Run) -> Iterator[dict[str, Any]]:
    for tokens in (512,) if run.small else (512, 16384, 4096):
        for dtype in run.dtypes:
            for case, work in op_cases(dtype == "float16", tokens):
                program, values, output = prepare(run.device, case)
                _, wanted = expected(output, values)
                found = program.run(values)
                error = relative_error(wanted, found)
                row = {"op": case.op.name, "shape": str(case), "dtype": dtype, "error": error}
                if not error < TOLERANCE[dtype][0]:
                    yield row | {"ok": False}
                    continue
                s = device_seconds(program, values)
                clock = s is not None
                s = s or median(lambda p=program, v=values: p.run(v), 0.2)
                row |= {"ms": s * 1e3, "by_device_clock": clock}
                yield row | {"tflops": work / s / 1e12, "gb_per_s": traffic(values, found) / s / 1e9}


def time_models(run: Run) -> Iterator[dict[str, Any]]:
    """Token ids to vectors."""
    for name, folder in run.folders.items():
        model = Model(folder)
        numpy_program = model.reference()
        for dtype in run.dtypes:
            program = model.program(run.device, dtype == "float16", 2048 if run.small else 49152, 1024)
            for texts, tokens in SHAPES[:2] if run.small else SHAPES:
                if not model.fits(tokens) or texts * tokens > program.capacity["T"]:
                    continue
                batch = model.batch(texts, tokens)
                first = min(texts, 4)  # numpy computes these alone
                error = relative_error(numpy_program.submit(model.batch(texts, tokens, first))(), program.run(batch)[:first])
                row = {"model": name, "dtype": dtype, "texts": texts, "tokens": tokens, "error": error}
                if not error < TOLERANCE[dtype][1]:
                    yield row | {"ok": False}
                    continue
                device_s = device_seconds(program, batch, 3 if run.small else 9)
                alone = median(lambda p=program, b=batch: p.run(b), 0.5)
                row |= {"device_ms": device_s and device_s * 1e3, "call_ms": alone * 1e3}
                s = pipelined_seconds(program, batch, 0.5)
                row |= {"pipelined_ms": s * 1e3, "tokens_per_s": texts * tokens / s}
                row |= {"tflops": model.flops(texts, tokens) / s / 1e12}
                row |= {"device_busy": device_s and min(1.0, device_s / s)}
                yield row | {"ms_by_op": {op: t * 1e3 for op, t in seconds_by_op(program, batch).items()}}


def texts(run: Run) -> dict[str, dict[str, list[str]]]:
    """Workloads by model and name, for our encoder and for PyTorch alike."""
    found = {}
    for name, folder in run.folders.items():
        if name != "built-in":
            words = inputs.Words(folder)
            shapes = [(1, 24), (8, 24)] if run.small else [(1, 24), (128, 128), (32, 512), (2048, 128)]
            found[name] = {f"{n} × {t}": words.texts(n, t) for n, t in shapes}
            found[name]["mixed"] = words.mixed(32 if run.small else 20000)
    return found


def encoders(run: Run) -> Iterator[dict[str, Any]]:
    """Texts to vectors, and how much of it the tokenizer takes."""
    for name, workloads in texts(run).items():
        for dtype in run.dtypes:
            encoder = Encoder(run.folders[name], device=run.adapter.index, dtype=dtype, max_seq_length=inputs.MAX_TOKENS)
            for workload, texts_in in workloads.items():
                encoder.encode(texts_in)
                s = median(lambda e=encoder, t=texts_in: e.encode(t), 0.5)
                start = time.perf_counter()
                _, counts = encoder.tokenizer.encode(texts_in, inputs.MAX_TOKENS)
                tokenising = time.perf_counter() - start
                row = {"model": name, "dtype": dtype, "workload": workload, "ms": s * 1e3, "texts_per_s": len(texts_in) / s}
                yield row | {"tokens_per_s": sum(counts) / s, "tokeniser_ms": tokenising * 1e3}


def torch_beside(run: Run) -> Iterator[dict[str, Any]]:
    """PyTorch on the same texts, eager and compiled, a process each, as peers.py runs it; on the CPU if it has no CUDA."""
    cuda = bool(shutil.which("nvidia-smi"))
    wanted = [p for p in peers([], False) if p.engine == "torch" and p.gpu == cuda]
    for name, workloads in texts(run).items():
        for i, peer in enumerate(wanted[:1] if run.small else sorted(wanted, key=lambda p: "compile" in p.options)):
            worker = Worker(peer, run.options.python, run.folders[name], run.options.output.with_name(f"torch-{i}.log"))
            try:
                worker.receive(120)
                for workload, texts_in in workloads.items():
                    if "compile" in peer.options and workload == "mixed":
                        continue
                    batch = min(len(texts_in), 256)
                    worker.ask({"texts": texts_in, "batch": batch, "sample": [0], "warm_up_s": 10}, 180)
                    times = sorted(worker.ask({"run": 0.5}, 60)["times"])
                    s = times[len(times) // 2]
                    row = {"model": name, "engine": peer.name, "workload": workload, "ms": s * 1e3}
                    yield row | {"texts_per_s": len(texts_in) / s}
            except Gone as e:
                yield {"model": name, "engine": peer.name, "why": str(e)}
            finally:
                worker.stop()
                with suppress(OSError):
                    worker.log.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="gpu", help="an adapter, as for the encoder")
    parser.add_argument("--quick", action="store_true", help="the sizes of a software adapter")
    parser.add_argument("--all", action="store_true", help="GPT-2 on a software adapter too")
    parser.add_argument("--seconds", type=float, default=440, help="for everything")
    parser.add_argument("--python", default=sys.executable, help="the Python that has torch")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "gpt2wgpu-benchmarks", help="keeps the models")
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT", ".")) / "on_a_gpu.json")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    run = Run(options)
    for name, rows, share in (
        ("environment", environments, 0.2),
        ("ceilings", ceilings, 0.2),
        ("matrix units", matrix_units, 0.3),
        ("kernels", kernels, 0.3),
        ("models against numpy", whole_models, 0.3),
        ("model times", time_models, 0.5),
        ("texts to vectors", encoders, 0.5),
        ("op times", time_ops, 0.6),
        ("PyTorch", torch_beside, 1.0),
    ):
        run.step(name, rows, share)
    wrong, failed = len(run.result["wrong"]), len(run.result["failed"])
    print(f"\n{options.output}: {wrong} results wrong, {failed} steps failed or cut, {run.result['seconds']:.0f} s", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
