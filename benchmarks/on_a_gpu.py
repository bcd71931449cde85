"""Everything there is to know about a machine with a GPU, in one call of at most eight minutes: correctness first, then speed.

    python benchmarks/on_a_gpu.py --output gpu.json           (or with the environment variable OUT naming a folder)
    python benchmarks/on_a_gpu.py --quick --device gpu        (smaller; also runs on a software adapter)

Each step is a process of its own (gpu_correctness.py, gpu_rates.py): a driver that crashes or hangs ends one step, and the
next one runs. The JSON is written after every row, so a run that is cut off leaves what it has. With the extra
`dawn` installed the steps of correctness, matrix units and model times run on both WebGPU libraries, the second in brief.
PyTorch and onnxruntime are timed beside where the Python of --python has them. The exit code is 1 if anything computed wrongly.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import inputs
from gpu_table import print_table
from peers import peers
from report import machine
from workers import HERE, Gone, Worker, environment

ENDED = 20.0  # seconds that a step may take to end after its last row, or beyond its time

# (file, step, its weight, its weight on the second library, 0 if it does not run there). Of the time that is left a step gets
# its weight's share among the steps still to come. Weights are about the seconds of a run of 200.
STEPS = [
    ("gpu_correctness.py", "machine", 4, 6),
    ("gpu_correctness.py", "kernels", 14, 10),
    ("gpu_correctness.py", "tiles", 8, 0),
    ("gpu_correctness.py", "families", 18, 8),
    ("gpu_correctness.py", "invariance", 8, 0),
    ("gpu_rates.py", "ceilings", 4, 4),
    ("gpu_rates.py", "matrix units", 10, 10),
    ("gpu_rates.py", "latency", 14, 12),
    ("gpu_rates.py", "models", 18, 16),
    ("gpu_rates.py", "attention", 8, 8),
    ("gpu_rates.py", "encoders", 12, 0),
    ("gpu_rates.py", "training", 8, 0),
    ("gpu_rates.py", "ops", 8, 0),
    ("gpu_rates.py", "registers", 2, 0),
]
PEERS = 12  # the weight of the last step


class Run:
    """The results so far, and the time that is left."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.start = options, time.perf_counter()
        self.result: dict[str, Any] = {"machine": machine(), "wrong": [], "failed": [], "steps": {}}
        self.libraries = [options.device]
        if find_spec("wgpudawn") and not options.device.startswith("dawn:"):
            self.libraries.append(f"dawn:{options.device}")

    @property
    def left(self) -> float:
        return self.options.seconds - (time.perf_counter() - self.start)

    def save(self) -> None:
        self.result["seconds"] = time.perf_counter() - self.start
        part = self.options.output.with_name(self.options.output.name + ".part")
        part.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")
        part.replace(self.options.output)

    def fail(self, step: str, why: str) -> None:
        self.result["failed"].append({"step": step, "why": why})
        print(f"  FAILED: {why}", flush=True)

    def step(self, name: str, rows: Callable[[float], Iterator[dict[str, Any]]], share: float) -> None:
        """Take the rows of a step; `rows` gets the seconds that it may take and raises Gone if it ends early."""
        seconds = share * max(0.0, self.left)
        print(f"\n{name} ({self.left:.0f} s left)", flush=True)
        found = self.result["steps"].setdefault(name, [])
        try:
            for row in rows(seconds):
                if "cut" in row:
                    self.result["failed"].append({"step": name, "why": row["cut"]})
                found.append(row)
                if row.get("ok") is False:
                    self.result["wrong"].append({"step": name} | row)
                print(
                    "  " + "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True
                )
                self.save()
        except Gone as e:
            self.fail(name, str(e))
        except Exception as e:
            self.fail(name, f"{type(e).__name__}: {e}")
        self.save()


def step_rows(run: Run, file: str, step: str, device: str, seconds: float) -> Iterator[dict[str, Any]]:
    """The rows of a step in a process of its own, which is ended when its time is over."""
    options = {"device": device, "quick": run.options.quick, "all": run.options.all, "home": str(run.options.home)}
    options |= {"seconds": seconds, "spirv": run.options.spirv and str(run.options.spirv), "brief": device != run.libraries[0]}
    lines: queue.Queue[str | None] = queue.Queue()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        command = [sys.executable, str(HERE / file), step, json.dumps(options)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(True))

        def read_lines() -> None:
            for line in process.stdout or ():
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read_lines, daemon=True).start()
        until = time.perf_counter() + seconds + ENDED
        try:
            while True:
                try:
                    line = lines.get(timeout=max(0.0, until - time.perf_counter()))
                except queue.Empty:
                    raise Gone(f"ended after {seconds + ENDED:.0f} s: no answer") from None
                if line is None:
                    break
                with suppress(ValueError):  # what a driver prints is no row
                    yield json.loads(line)
            code = process.wait(ENDED)
        finally:
            process.kill()
            process.wait()
        if code:
            errors.seek(0)
            said = errors.read().strip().splitlines() or ["no message"]
            raise Gone(f"the process ended with code {code}: {said[-1][:300]}")


def peers_beside(run: Run, seconds: float) -> Iterator[dict[str, Any]]:
    """PyTorch and onnxruntime on the texts of the step "encoders", a process each, as peers.py runs them."""
    until = time.perf_counter() + seconds
    found = next((rows for name, rows in run.result["steps"].items() if name.startswith("encoders")), [])
    rows = [row for row in found if "workload" in row]
    on_gpu = [p for p in peers([], False) if p.gpu and p.engine in ("torch", "onnxruntime")]
    wanted = on_gpu or [p for p in peers([], False) if p.name in ("PyTorch eager CPU", "onnxruntime CPU")]
    for folder in {r["folder"] for r in rows}:
        words = inputs.Words(Path(folder))
        shapes = {r["workload"]: r["shape"] for r in rows if r["folder"] == folder and r["shape"]}
        for peer in wanted:
            worker = Worker(peer, run.options.python, Path(folder), run.options.output.with_name("peer.log"))
            try:
                worker.receive(max(1.0, min(120.0, until - time.perf_counter())))
                for workload, (texts, tokens) in shapes.items():
                    if time.perf_counter() > until:
                        return
                    asked = {"texts": words.texts(texts, tokens), "batch": min(texts, 256), "sample": [0], "warm_up_s": 5}
                    worker.ask(asked, 120)
                    times = sorted(worker.ask({"run": 0.5}, 60)["times"])
                    s = times[len(times) // 2]
                    row = {"model": Path(folder).name, "engine": peer.name, "workload": workload, "ms": s * 1e3}
                    yield row | {"texts_per_s": texts / s}
            except Gone as e:
                yield {"model": Path(folder).name, "engine": peer.name, "why": str(e)}
            finally:
                worker.stop()
                with suppress(OSError):
                    worker.log.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="an adapter, as for the encoder; auto: the best real GPU")
    parser.add_argument("--quick", action="store_true", help="the sizes of a software adapter")
    parser.add_argument("--all", action="store_true", help="GPT-2 on a software adapter too")
    parser.add_argument("--seconds", type=float, default=440, help="for everything")
    parser.add_argument("--python", default=sys.executable, help="the Python that has torch or onnxruntime")
    parser.add_argument("--spirv", type=Path, help="a folder of SPIR-V from compilers.py, to ask the driver for register counts")
    parser.add_argument("--steps", help="only these, with commas between")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "gpt2wgpu-benchmarks", help="keeps the models")
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT", ".")) / "on_a_gpu.json")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    run = Run(options)
    only = options.steps.split(",") if options.steps else None
    plan = [
        (f, step, library, weight)
        for f, step, *weights in STEPS
        for library, weight in zip(run.libraries, weights, strict=False)
        if weight and (only is None or step in only)
    ]
    with_peers = PEERS if only is None or "peers" in only else 0
    for i, (file, step, library, weight) in enumerate(plan):
        name, to_come = f"{step}, {library}", sum(weight for *_, weight in plan[i:]) + with_peers
        run.step(name, lambda s, f=file, n=step, d=library: step_rows(run, f, n, d, s), weight / to_come)
        if step == "machine" and not run.result["steps"][name] and library == options.device:
            sys.exit(f"no GPU for --device {options.device}; --device gpu takes a software adapter if there is one")
    if with_peers:
        run.step("peers", lambda s: peers_beside(run, s), 0.9)
    print_table(run.result)
    wrong, failed = len(run.result["wrong"]), len(run.result["failed"])
    print(f"\n{options.output}: {wrong} results wrong, {failed} steps failed or cut, {run.result['seconds']:.0f} s", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
