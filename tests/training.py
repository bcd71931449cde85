"""Data for training, and what a run leaves, for the tests of `gpt2wgpu train`."""

import json
import random
import re
from pathlib import Path
from typing import Any

import tiny

from gpt2wgpu.train.vocabulary import make_byte_tokenizer, save_tokenizer

WORDS = ("sun", "moon", "river", "stone", "bread", "apple", "horse", "tiger", "violin", "drum", "paper", "silver")
SCRATCH = ("--layers", 1, "--heads", 2, "--width", 16, "--context", 24, "--vocab", 300)


def pairs(count: int) -> list[tuple[str, str, int]]:
    """Sentences about words that belong together, such as sun and moon, and about others: nothing that shows in their letters."""
    rng = random.Random(0)
    found = []
    for i in range(count):
        a, b = rng.sample(range(len(WORDS) // 2), 2)
        other = 2 * (a if i % 2 else b) + 1
        found.append((f"look at the {WORDS[2 * a]}", f"here is a {WORDS[other]}", i % 2))
    return found


def write_data(folder: Path) -> Path:
    """labels.tsv, scores.tsv, bare.tsv and texts.txt of the same sentences."""
    folder.mkdir()
    found = pairs(60)
    lines = [f"{a}\t{b}\t{label}" for a, b, label in found]
    (folder / "labels.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *lines]))
    (folder / "scores.tsv").write_text("".join(f"{1 + 4 * label}\t{a}\t{b}\n" for a, b, label in found))
    (folder / "bare.tsv").write_text("".join(f"{a}\t{b}\n" for a, b, label in found if label))
    (folder / "texts.txt").write_text("".join(f"{a}\n{b}\n" for a, b, _ in found))
    return folder


def metrics(run_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def losses(run_folder: Path) -> list[float]:
    return [line["loss"] for line in metrics(run_folder) if "loss" in line]


def model_files(run_folder: Path) -> dict[str, bytes]:
    """All that a run leaves, but for the times in its metrics, its picture, and where its data lie as seen from it."""
    files = [p for p in run_folder.rglob("*") if p.is_file() and p.name not in ("metrics.jsonl", "loss.png")]
    found = {p.relative_to(run_folder).as_posix(): p.read_bytes() for p in files}
    if state := found.get("model/training/state.json"):
        found["model/training/state.json"] = re.sub(rb'"\.\.?/[^"]*/([^"/]*)"', rb'"\1"', state)
    return found


def without_times(run_folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in metrics(run_folder)]


def gpt2_teacher(folder: Path) -> Path:
    tiny.sentence_model(folder, tiny.gpt2_config(vocab_size=257, n_positions=60))
    save_characters(folder)
    return folder


def save_characters(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    save_tokenizer(make_byte_tokenizer(lower_case=False), folder)
    (folder / "model.safetensors").write_bytes(weights)
