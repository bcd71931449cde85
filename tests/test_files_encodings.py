"""Text files in other encodings than UTF-8, and files whose texts never end: one line, and never wrong texts."""

import codecs
import csv
import gzip
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from encoders import refusal
from process import environment

from gpt2wgpu import files
from gpt2wgpu.files import lines, texts

SAMPLES = {
    "latin": ["text", "Grüße aus Köln", "ça va"],
    "cyrillic": ["text", "Съешь ещё этих мягких булок", "да"],
    "greek": ["text", "Ξεσκεπάζω την ψυχοφθόρα", "ναι"],
    "hebrew": ["text", "דג סקרן שט בים", "כן"],
    "hindi": ["text", "ऋषियों को सताने वाले", "हाँ"],
    "japanese": ["text", "いろはにほへと", "日本語"],
    "chinese": ["text", "大天好山中书", "也大天"],  # in UTF-16 these are ASCII letters
}
ENCODINGS = {
    "latin": ("latin-1", "cp1252", "mac_roman", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "cp037"),
    "cyrillic": ("cp1251", "koi8-r", "iso8859-5", "utf-16-le", "utf-16-be", "utf-32-be", "cp866"),
    "greek": ("cp1253", "iso8859-7", "utf-16-le", "utf-16-be"),
    "hebrew": ("cp1255", "utf-16-le", "utf-16-be"),
    "hindi": ("utf-16-le", "utf-16-be", "utf-32-le"),
    "japanese": ("shift_jis", "euc_jp", "iso2022_jp", "utf-16-le", "utf-16-be", "utf-32"),
    "chinese": ("gb18030", "utf-16-le", "utf-16-be"),
}


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl", "a.txt.gz", "a.csv.zst"])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("language, encoding", [(k, e) for k, found in ENCODINGS.items() for e in found])
def test_another_encoding_is_refused(tmp_path: Path, name: str, header: bool, language: str, encoding: str):
    words = SAMPLES[language][0 if header else 1 :]
    rows = [f'"{word}"' for word in words] if ".jsonl" in name else words
    if "csv" in name or "tsv" in name:
        rows = rows if header else ["text", *rows]
    data = "".join(f"{row}\n" for row in rows).encode(encoding)
    packed = pa.compress(data, "zstd", asbytes=True) if name.endswith(".zst") else gzip.compress(data)
    (tmp_path / name).write_bytes(packed if name.endswith((".gz", ".zst")) else data)
    found = refusal(lambda: [*files.read_texts(str(tmp_path / name))])
    assert "save it as UTF-8" in found and "line " in found and "\n" not in found
    if encoding in ("utf-16", "utf-32") or (encoding.startswith("utf") and language in ("latin", "cyrillic")):
        assert encoding[:6].upper() in found
    if encoding.startswith("iso2022"):
        assert "ISO-2022-JP" in found


@pytest.mark.parametrize("text", ["Köln", "…да… нет…", "日本語 и ё"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_lone_line_without_its_end(tmp_path: Path, text: str, encoding: str):
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert "line 1 is " in refusal(lambda: files.read_texts(str(tmp_path / "a.txt")))


def test_utf_8_is_read_whatever_it_holds(tmp_path: Path):
    path = tmp_path / "a.txt"
    for language, words in SAMPLES.items():
        for mark in (b"", codecs.BOM_UTF8):
            path.write_bytes(mark + "\n".join(words).encode())
            assert [*files.read_texts(str(path))] == words, language
    for words in (
        ["a\0b\0c and more", "b\0"],
        ["\0"],
        ["\x1b[31mred\x1b[0m", "\x01\x02"],
        ["\x1b[m", "a"],
        ["a", "b\0c"],
        ["a", "\ufeffb"],
        ["\t\t\t\t\ta", "\f\f\f\f"],
    ):
        path.write_bytes("\n".join(words).encode())
        assert [*files.read_texts(str(path))] == words
    write = pa.table({"text": ["\x01\x02\x03\x04", "\0\0\0\0\0"]})
    pq.write_table(write, tmp_path / "a.parquet")
    assert [*files.read_texts(str(tmp_path / "a.parquet"))] == ["\x01\x02\x03\x04", "\0\0\0\0\0"]


class Endless:
    """The same bytes again and again. Reading on and on is noticed before the memory is full."""

    def __init__(self, beginning: bytes, rest: bytes) -> None:
        self.data, self.rest, self.taken = beginning, rest, 0

    def readline(self, size: int) -> bytes:
        while b"\n" not in self.data and len(self.data) < size:
            self.data += self.rest * (size // len(self.rest) + 1) if b"\n" not in self.rest else self.rest
        end = min(size, self.data.find(b"\n") + 1 or size)
        line, self.data = self.data[:end], self.data[end:]
        self.taken += len(line)
        assert self.taken < 1 << 20
        return line


@pytest.mark.parametrize(
    "name, beginning, rest, message",
    [
        ("a.txt", b"one\n", b"word ", "line 2 is longer than 0 MiB: split it into texts"),
        ("a.jsonl", b'{"text": "one"}\n{"text": "', b"word ", "line 2 is longer"),
        ("a.jsonl", b"", b"[", "line 1 is longer"),
        ("a.tsv", b"text\n", b"\t", "line 2 is longer"),
        ("a.csv", b'text\n"', b"word ", "line 2 is longer"),
        ("a.csv", b'text\n"', b"word\n", "line 2 begins a row that is longer"),
        ("a.csv", b'text\none\n"a\n",', b'"a\n",', "line 3 begins a row that is longer"),
        ("a.txt.gz", b"one\n", b"word ", "line 2 is longer"),
    ],
)
def test_a_text_without_end(
    tmp_path: Path, name: str, beginning: bytes, rest: bytes, message: str, monkeypatch: pytest.MonkeyPatch
):
    for module in (lines, texts):
        monkeypatch.setattr(module, "TEXT_BYTES", 10_000)
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr("gpt2wgpu.files.source.unpack_source", lambda raw, source: Endless(beginning, rest))
    found = refusal(lambda: [*files.read_texts(str(tmp_path / name))])
    assert message in found and "\n" not in found


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.tsv", "a.csv"])
def test_the_limit_is_one_of_a_row_and_not_of_a_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    for module in (lines, texts):
        monkeypatch.setattr(module, "TEXT_BYTES", 100)
    rows = {"a.txt": ["a" * 99], "a.jsonl": [f'"{"a" * 97}"']}.get(name, ["text", "a" * 99])
    rows += rows[-1:] * 9
    if name == "a.csv":
        rows += [f'"{"a" * 47}\n{"b" * 49}"'] * 9
    (tmp_path / name).write_text("".join(f"{row}\n" for row in rows))
    found = [*files.read_texts(str(tmp_path / name))]
    assert len(found) == (19 if name == "a.csv" else 10) and min(map(len, found)) >= 97
    with (tmp_path / name).open("a") as out:
        out.write(f'"{"a" * 47}\n{"b" * 50}"\n' if name == "a.csv" else f'"{"a" * 98}"\n')
    assert "is longer than 0 MiB" in refusal(lambda: [*files.read_texts(str(tmp_path / name))])


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_text_of_a_column_that_is_too_long(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.files.arrow.TEXT_BYTES", 1000)
    table = pa.table({"text": ["a" * 1000, "a" * 1001]})
    if name == "a.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        with pa.ipc.new_file(tmp_path / name, table.schema) as out:
            out.write_table(table)
    assert "row 2 of column 'text' is longer than" in refusal(lambda: [*files.read_texts(str(tmp_path / name))])


READ = """
import re, sys
from pathlib import Path
import pyarrow, pyarrow.parquet
from gpt2wgpu import files
def peak():  # in kB; getrusage begins with what the parent process had
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
assert sum(len(t) for t in files.read_texts(sys.argv[1])) == 400 * 1_000_000
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others tell the memory of a process in other units")
@pytest.mark.parametrize(
    "name, kind", [("a.parquet", "dictionary"), ("a.parquet", "delta"), ("a.arrow", "dictionary"), ("a.arrow", "view")]
)
def test_a_small_file_that_repeats_a_large_text(tmp_path: Path, name: str, kind: str):
    """400 times 1 MB: they are read one at a time, or a few."""
    text = "word " * 200_000
    options: dict[str, Any] = {}
    if kind == "delta":
        column = pa.array([text] * 400)
        options = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    elif kind == "dictionary":
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array([text]))
    else:
        view = b"".join([len(text).to_bytes(4, "little"), text[:4].encode(), bytes(8)])
        buffers = [None, pa.py_buffer(view * 400), pa.py_buffer(text.encode())]
        column = pa.Array.from_buffers(pa.string_view(), 400, buffers)
    table = pa.table({"text": column})
    if name == "a.parquet":
        pq.write_table(table, tmp_path / name, store_schema=False, **options)
    else:
        with pa.ipc.new_file(tmp_path / name, table.schema) as out:
            out.write_table(table)
    assert (tmp_path / name).stat().st_size < 2_000_000
    args = [sys.executable, "-c", READ, str(tmp_path / name)]
    done = subprocess.run(args, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150


def test_the_csv_limit_of_the_process_stays_as_it_was(tmp_path: Path):
    """Others in the process, and in other threads, rely on their own."""
    long = "word " * 100_000
    (tmp_path / "a.csv").write_text(f"text\n{long}\n")
    original, before = csv.field_size_limit(1000), 1000
    seen = set()

    def read() -> None:
        for text in files.read_texts(str(tmp_path / "a.csv")):
            seen.add((text == long, csv.field_size_limit()))

    jobs: list[Callable[[], None]] = [read] * 4
    threads = [threading.Thread(target=job) for job in jobs]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == {(True, before)} and csv.field_size_limit() == before
    finally:
        csv.field_size_limit(original)
