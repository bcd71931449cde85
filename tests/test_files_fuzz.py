"""Broken files of every kind: read, or refused in one line; no traceback, no crash, no hang."""

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from fuzzing import run_cases, write_cases

from gpt2wgpu import files

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits and signals")
TEXTS = ["plain", "", "two\nlines", 'a "quote", a comma', "日本語 🙂 é", "word " * 40] * 7
READ = "for text in files.read_texts(str(path)): assert isinstance(text, str)"


def text_seeds() -> dict[str, bytes]:
    jsonl = "".join(f'{{"id": {i}, "text": "a {i} é", "more": [1, {{"x": null}}]}}\n' for i in range(20)).encode()
    csv = b"id,text\r\n" + b"".join(b'%d,"a, ""b""\nc \xc3\xa9"\r\n' % i for i in range(20))
    seeds = {
        "a.jsonl": jsonl,
        "a.csv": csv,
        "a.tsv": b"".join(b"%d\ttext %d\tx\n" % (i, i) for i in range(20)).replace(b"0\ttext 0\tx", b"id\ttext\tx", 1),
        "a.txt": "".join(f"line {i} é\n" for i in range(20)).encode(),
    }
    return seeds | {"a.csv.gz": gzip.compress(csv, mtime=0), "a.jsonl.zst": pa.compress(jsonl, "zstd", asbytes=True)}


def arrow_seeds() -> dict[str, bytes]:
    seeds = {}
    plain = pa.array(TEXTS)
    columns = {
        "string": plain,
        "large": plain.cast(pa.large_string()),
        "view": plain.cast(pa.string_view()),
        "dictionary": plain.dictionary_encode(),
    }
    for name, column in columns.items():
        table = pa.table({"id": range(len(TEXTS)), "text": column, "other": [f"neighbour {i}" for i in range(len(TEXTS))]})
        for packing in (None, "zstd", "lz4"):
            options = pa.ipc.IpcWriteOptions(compression=packing)
            for suffix, new in ((".arrow", pa.ipc.new_file), (".arrows", pa.ipc.new_stream)):
                out = io.BytesIO()
                with new(out, table.schema, options=options) as writer:
                    writer.write_table(table, max_chunksize=20)
                seeds[f"{name}-{packing}{suffix}"] = out.getvalue()
        if name == "string":
            out = io.BytesIO()
            pyarrow.feather.write_feather(table, out)
            seeds["a.feather"] = out.getvalue()
    return seeds


def parquet_seeds() -> dict[str, bytes]:
    seeds = {}
    table = pa.table({"id": range(len(TEXTS)), "text": TEXTS})
    options = {"plain": {"use_dictionary": False}, "packed": {"compression": "zstd"}, "bare": {"compression": "none"}}
    for name, chosen in {**options, "delta": {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}}.items():
        out = io.BytesIO()
        pq.write_table(table, out, row_group_size=20, **chosen)
        seeds[f"{name}.parquet"] = out.getvalue()
    return seeds


SEEDS = pytest.mark.parametrize("seeds", [text_seeds, arrow_seeds, parquet_seeds], ids=["text", "arrow", "parquet"])


@SEEDS
def test_whole_files(tmp_path: Path, seeds: Callable[[], dict[str, bytes]]):
    for name, data in seeds().items():
        (tmp_path / name).write_bytes(data)
        assert len([*files.read_texts(str(tmp_path / name))]) in (len(TEXTS), 20, 19), name


@SEEDS
def test_broken_files(tmp_path: Path, seeds: Callable[[], dict[str, bytes]]):
    paths = write_cases(tmp_path, seeds())
    assert run_cases(paths, "from gpt2wgpu import files", READ) == {}


def test_broken_pairs(tmp_path: Path):
    seeds = {
        "a.tsv": b"".join(b"%d.5\ttext %d\tother %d\n" % (i % 5, i, i) for i in range(20)),
        "a.csv": b"sentence1,id,sentence2,label\r\n"
        + b"".join(b'"a, %d",%d,"b\n""c""",%d\r\n' % (i, i, i % 2) for i in range(20)),
        "a.jsonl": b"".join(b'{"sentence1": "a %d", "sentence2": "b \\u00e9", "score": %d.25}\n' % (i, i) for i in range(20)),
    }
    setup = "from gpt2wgpu.files.pairs import read_pairs, read_sentences"
    assert run_cases(write_cases(tmp_path, seeds), setup, "read_pairs(str(path)); list(read_sentences(str(path)))") == {}
