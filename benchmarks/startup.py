"""Whole processes, for peers.py: one similarity from a cold start, and what an import costs. Medians, taken in turns."""

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from workers import environment

PAIR = ("The cat is sleeping", "A feline is resting")
SENTENCE_TRANSFORMERS = """
import sys
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
a, b = model.encode(sys.argv[2:])
print("Cosine similarity:", float(a @ b))
"""
ONNXRUNTIME = """
import sys
import numpy as np, onnxruntime
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
tokenizer.no_padding()
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx", providers=["CPUExecutionProvider"])
ids = [[e.ids] for e in tokenizer.encode_batch(sys.argv[2:])]
a, b = (session.run(["vectors"], {"input_ids": i, "attention_mask": np.ones_like(i)})[0][0] for i in ids)
print("Cosine similarity:", float(a @ b))
"""


def commands(pythons: dict[str, str], minilm: Path | None) -> list[tuple[str, list[str], bool]]:
    """(name, command, whether it is ours)"""
    ours = pythons["gpt2wgpu"]
    pair = ["--sentence1", PAIR[0], "--sentence2", PAIR[1]]
    found = [("gpt2wgpu similarity, built-in model", [ours, "-m", "gpt2wgpu", "similarity", *pair], True)]
    if minilm is not None:
        found += [
            ("gpt2wgpu similarity, all-MiniLM-L6-v2", [*found[0][1], "--model", str(minilm)], True),
            ("onnxruntime, all-MiniLM-L6-v2", [pythons["onnxruntime"], "-c", ONNXRUNTIME, str(minilm), *PAIR], False),
            (
                "sentence-transformers, all-MiniLM-L6-v2",
                [pythons["sentence-transformers"], "-c", SENTENCE_TRANSFORMERS, str(minilm), *PAIR],
                False,
            ),
        ]
    imports = ["import numpy", "import numpy, gpt2wgpu", "from gpt2wgpu import Encoder"]
    return found + [(code, [ours, "-c", code], True) for code in imports]


def run(command: list[str], ours: bool) -> tuple[float, str]:
    """Seconds, and what was printed."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(ours), timeout=120)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["failed"])[-1][:200])
    return seconds, done.stdout


def measure(pythons: dict[str, str], minilm: Path | None, rounds: int) -> list[dict[str, Any]]:
    times: dict[str, list[float]] = {}
    rows, wanted = [], []
    for name, command, ours in commands(pythons, minilm):
        row: dict[str, Any] = {"name": name}
        try:
            _, out = run(command, ours)  # warms the disk's cache
            if match := re.search(r"Cosine similarity: ?(-?[\d.]+)", out):
                row["cosine"] = float(match[1])
            wanted.append((name, command, ours))
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as e:
            row["error"] = str(e)
        rows.append(row)
    cosines = [r["cosine"] for r in rows if "cosine" in r and "MiniLM" in r["name"]]
    if cosines and max(cosines) - min(cosines) > 1e-3:
        print(f"the similarities differ: {cosines}", file=sys.stderr)
    for _ in range(rounds):
        for name, command, ours in wanted:
            times.setdefault(name, []).append(run(command, ours)[0])
    for row in rows:
        if row["name"] in times:
            row |= {"seconds": statistics.median(times[row["name"]]), "times": times[row["name"]]}
    known = {r["name"]: r.get("seconds") for r in rows}
    base = known.get("import numpy")
    for row in rows:
        if row["name"] != "import numpy" and "import" in row["name"] and base and "seconds" in row:
            row["beyond_numpy_s"] = row["seconds"] - base
    return rows
