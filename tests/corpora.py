"""What the tests of corpora share: a tiny model, texts, embedding them, and reading an output of any kind."""

import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from encoders import tiny_gpt2
from safetensors.numpy import load_file

from gpt2wgpu import Encoder, corpus, files
from gpt2wgpu.corpus import journal

OUTPUTS = ("o.parquet", "o.arrow", "o.npy", "o.jsonl", "o.jsonl.gz", "o.json", "o.tsv", "o.safetensors", "o.sqlite", "shards/")
WITHOUT_TEXTS = (".npy", ".safetensors")


class Silent:
    """A report that records what it receives."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.rows: list[int] = []
        self.kept = 0

    def say(self, line: str) -> None:
        self.said.append(line)

    def begin(self, rows: int, position: int, size: int) -> None:
        self.rows.append(rows)

    def step(self, rows: int, position: int) -> None:
        self.rows.append(rows)

    def writing(self, rows: int, total: int) -> None: ...

    def stopped(self, rows: int, folder: Path) -> None:
        self.kept = rows


def make_texts(n: int, words: int = 12) -> list[str]:
    """Different ones; a few are empty, or longer than the tiny model's 32 tokens."""
    rng = np.random.default_rng(n)
    lengths = rng.integers(0, words, n)
    return [" ".join(f"t{t}" for t in rng.integers(1, 16, length)) for length in lengths]


def tiny_model(folder: Path) -> Path:
    return tiny_gpt2(folder / "model")


def write_texts(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(f"{t}\n" for t in texts))
    return path


def embed(encoder: Encoder, source: Path, output: str, *, resume: bool = False, **options: object) -> Silent:
    report = Silent()
    precision = str(options.pop("precision", "float32"))
    with closing(files.Texts(str(source))) as texts, corpus.open_workspace(output, resume=resume) as work:
        corpus.embed_corpus(encoder, texts, work, report, encoder.options(**options), precision=precision)  # type: ignore[arg-type]
    return report


def read_output(path: Path) -> tuple[list[str] | None, np.ndarray]:
    """Texts, where the output holds them, and vectors; rows are numbered without a gap."""
    name = path.name
    if path.is_dir():
        parts = sorted(path.iterdir())
        assert [p.name for p in parts] == [f"part-{i:05}.parquet" for i in range(len(parts))]
        return from_table(pa.concat_tables([pq.read_table(p) for p in parts]))
    if name.endswith(".parquet"):
        return from_table(pq.read_table(path))
    if name.endswith(".arrow"):
        return from_table(pa.ipc.open_file(path.read_bytes()).read_all())
    if name.endswith(".npy"):
        return None, np.load(path)
    if name.endswith(".safetensors"):
        return None, load_file(path)["embeddings"]
    if name.endswith(".sqlite"):
        with closing(sqlite3.connect(path)) as database:
            found = database.execute("SELECT row, sentence, embedding FROM embeddings ORDER BY row").fetchall()
            (precision,) = database.execute("SELECT value FROM facts WHERE name = 'precision'").fetchone()
        assert [row for row, *_ in found] == [*range(len(found))]
        kind = {"float32": "<f4", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}[json.loads(precision)]
        return [text for _, text, _ in found], np.stack([np.frombuffer(blob, kind) for *_, blob in found])
    data = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    if name.endswith(".tsv"):
        rows = [line.split("\t") for line in data.decode().split("\n")[:-1]]
        return [text for text, *_ in rows], np.array([[float(x) for x in numbers] for _, *numbers in rows])
    records = json.loads(data) if name.endswith(".json") else [json.loads(line) for line in data.splitlines()]
    return [r["sentence"] for r in records], np.array([r["embedding"] for r in records])


def from_table(table: pa.Table) -> tuple[list[str], np.ndarray]:
    assert table["row"].to_pylist() == [*range(len(table))]
    return table["sentence"].to_pylist(), np.stack(table["embedding"].combine_chunks().to_numpy(zero_copy_only=False))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def stop_early(encoder: Encoder, folder: Path, name: str = "o.npy") -> tuple[Path, str]:
    """A source of eight texts and an output of which six are finished: then the disk is full."""
    source, output = write_texts(folder / "a.txt", make_texts(8)), f"{folder}/{name}"
    original = journal.Journal.append

    def append(self: journal.Journal, *args: object, row: int, **options: object) -> None:
        if row == 6:
            raise OSError(28, "No space left on device")
        original(self, *args, row=row, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError) as caught:
        patch.setattr(journal.Journal, "append", append)
        embed(encoder, source, output)
    assert caught.value.filename == output and not Path(output).exists()
    return source, output
