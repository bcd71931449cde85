"""Texts from files of every kind, vectors into files of every kind, and nothing left behind after a failure."""

import csv
import gzip
import io
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from gpt2wgpu import files
from gpt2wgpu.errors import UserError
from gpt2wgpu.files import output

ARROW = (".arrow", ".feather")
TEXTS = ["plain", "", "tab\tand\\slash", "two\nlines\r\n", 'a "quote", a comma', "日本語 🙂 \u2028 é"]


def read(path: Path, data: bytes, column: str | None = None) -> list[str]:
    path.write_bytes(data)
    return [*files.read_texts(str(path), column)]


# --- reading


def test_one_text_a_line(tmp_path: Path):
    path = tmp_path / "a.txt"
    assert read(path, b"one\ntwo\n") == read(path, b"one\ntwo") == read(path, b"one\r\ntwo\r\n") == ["one", "two"]
    assert read(path, "\ufeffone\n".encode()) == ["one"]
    assert read(path, b"\none\n\n  two \n\n") == ["", "one", "", "  two ", ""]  # a row for every line, as it is
    assert read(path, b"\n") == [""]
    assert read(path, "a\u2028b\x0cc\x00d\re\n".encode()) == ["a\u2028b\x0cc\x00d\re"]  # only \n ends a line
    assert read(tmp_path / "no suffix", b"one") == ["one"]


def test_a_line_of_ten_megabytes(tmp_path: Path):
    long = "word " * 2_000_000
    assert read(tmp_path / "a.txt", f"{long}\nb\n".encode()) == [long, "b"]
    assert read(tmp_path / "a.csv", f'text\n"{long}"\n'.encode()) == [long]


def test_standard_input(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é\r\n\nb".encode()), "ascii"))
    assert [*files.read_texts("-")] == ["é", "", "b"]


def test_json_lines(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    assert read(path, b'{"id": 1, "text": "a"}\n\n{"text": "b\\nc", "id": 2}\n') == ["a", "b\nc"]
    assert read(path, b'{"id": "x", "text": "t", "sentence": "s"}', "sentence") == ["s"]
    assert read(path, b'{"id": 1, "title": "a"}\n{"id": 2, "title": "b"}') == ["a", "b"]  # the only text there is
    assert read(path, '"a"\n"é"'.encode()) == ["a", "é"]


def test_tables(tmp_path: Path):
    assert read(tmp_path / "a.csv", b'id,text\n1,"a, ""b""\nc"\r\n2,d\n') == ['a, "b"\nc', "d"]
    assert read(tmp_path / "a.csv", b"text\na\n\nb\n") == ["a", "", "b"]
    assert read(tmp_path / "a.tsv", b'id\tsentence\n1\t"a" \\n b\r\n2\t"c\n') == ['"a" \\n b', '"c']  # as it is
    assert read(tmp_path / "a.tsv", b"1\ta\n2\tb\n", "2") == ["a", "b"]  # by number: no header
    assert read(tmp_path / "a.tsv", b"x\ty\n1\tb\n", "y") == ["b"]


@pytest.mark.parametrize(
    "name, data, column, message",
    [
        ("a.txt", b"", None, "no texts"),
        ("a.csv", b"text\n", None, "no texts"),
        ("a.csv", b"", None, "no texts"),
        ("a.jsonl", b"\n\n", None, "no texts"),
        ("a.txt", b"good\nb\xff\n", None, r"line 2 is not UTF-8 \(byte 2 is 0xff\)"),
        ("a.txt", "text".encode("utf-16"), None, "line 1 is UTF-16"),
        ("a.tsv", b"text\n\xe9\n", None, "line 2 is not UTF-8"),
        ("a.txt", b"a\n", "text", "column"),
        ("a.json", b'["a"]', None, "use .jsonl"),
        ("a.csv", b"id,title\n1,a\n", None, "no column 'text' or 'sentence', the columns are 'id', 'title'"),
        ("a.csv", b"The cat sleeps.\nThe dog barks.\n", None, "--column NAME, or a number"),
        ("a.csv", b"id,title\n1,a\n", "name", "no column 'name'"),
        ("a.csv", b"id,title\n1,a\n", "3", "no column 3"),
        ("a.csv", b"id,title\n1,a\n", "0", "no column 0"),
        ("a.csv", b"text,id,text\na,1,b\n", None, "2 columns are called 'text': rename all but one"),
        ("a.tsv", b"id\tb\tb\n1\ta\tc\n", "b", "2 columns are called 'b'"),
        ("a.csv", b"id,text\n1,a\n2,b,c\n", None, "row 3 has 3 columns, the first has 2"),
        ("a.csv", b"id,text\n1,a\n\n", None, "row 3 has 1 columns"),
        ("a.csv", b'id,text\n1,"a\n', None, "line 2 begins a row with a quote that is not closed"),
        ("a.csv", b'id,text\n1,"a" b\n', None, "line 2"),
        ("a.tsv", b"id\ttext\n1\ta\tb\n", None, "row 2 has 3 columns"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', None, "line 2 is not JSON"),
        ("a.jsonl", b"[" * 100_000, None, "line 1 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"other": "b"}\n', None, "line 2 has no 'text', expected a text in it"),
        ("a.jsonl", b'{"text": 5}\n', "text", "line 1: 'text' is 5, expected a text"),
        ("a.jsonl", b'{"a": "x", "b": "y"}\n', None, "the columns are 'a', 'b'"),
        ("a.jsonl", b"5\n", None, "line 1 is 5, expected a text"),
        ("a.jsonl", b'{"a": "x"}\n"y"\n', None, "line 2 is 'y', expected an object with a text 'a'"),
        ("a.jsonl", b'"y"\n', "a", "line 1 is 'y', expected an object with a text 'a'"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, name: str, data: bytes, column: str | None, message: str):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / name, data, column)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_what_is_wrong_with_the_beginning_is_found_at_once(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        files.read_texts(str(tmp_path / "nope.txt"))
    with pytest.raises(UserError, match="no files in this folder"):
        files.read_texts(str(tmp_path))
    (tmp_path / "a.csv").write_bytes(b"x,y\n1,2\n")
    with pytest.raises(UserError):
        files.read_texts(str(tmp_path / "a.csv"))


# --- writing


def vectors(n: int, width: int = 7) -> np.ndarray:
    """Random ones among the awkward: subnormal, huge, minus zero."""
    found = np.random.default_rng(n).standard_normal((n, width), dtype=np.float32)
    found[0, :6] = [1e-45, -3.4028235e38, -0.0, 0.1, 16777217, 1e-7]
    return found


def write(path: Path, texts: list[str], rows: np.ndarray) -> None:
    with files.open_output(str(path), files.VECTOR_FORMATS) as (file, save):
        save(file, zip(texts, rows, strict=True))


def same(found: object, expected: np.ndarray) -> bool:
    array = np.asarray(found, np.float64).astype(np.float32)
    return array.shape == expected.shape and array.tobytes() == expected.tobytes()  # bits: -0.0 is not 0.0


@pytest.mark.parametrize("n", [1, len(TEXTS)])
def test_every_format_gives_back_the_same_texts_and_bits(tmp_path: Path, n: int):
    texts, rows = TEXTS[:n], vectors(n)
    for suffix in files.VECTOR_FORMATS:
        write(tmp_path / f"a{suffix}", texts, rows)
    for records in (
        json.loads((tmp_path / "a.json").read_bytes()),
        [json.loads(line) for line in (tmp_path / "a.jsonl").read_bytes().split(b"\n")[:-1]],
    ):
        assert [r["sentence"] for r in records] == texts
        assert [list(r) for r in records] == [["sentence", "embedding", "dimensions"]] * n
        assert same([r["embedding"] for r in records], rows) and {r["dimensions"] for r in records} == {7}
    table = [line.split("\t") for line in (tmp_path / "a.tsv").read_bytes().decode().split("\n")[:-1]]
    assert [unescaped(cell) for cell, *_ in table] == texts
    assert same([[float(x) for x in numbers] for _, *numbers in table], rows)
    assert same(np.load(tmp_path / "a.npy"), rows) and np.load(tmp_path / "a.npy").dtype == np.float32
    assert same(load_file(tmp_path / "a.safetensors")["embeddings"], rows)
    with np.load(tmp_path / "a.npz") as archive:
        assert same(archive["embeddings"], rows) and archive["texts"].tolist() == texts
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == (tmp_path / "a.jsonl").read_bytes()
    for table in (pq.read_table(tmp_path / "a.parquet"), *(pa.ipc.open_file(tmp_path / f"a{s}").read_all() for s in ARROW)):
        assert table["row"].to_pylist() == [*range(n)] and table["sentence"].to_pylist() == texts
        assert table.schema.field("embedding").type == pa.list_(pa.field("element", pa.float32(), nullable=False), 7)
        assert same(table["embedding"].to_pylist(), rows)
    for suffix in (".sqlite", ".db"):
        with closing(sqlite3.connect(tmp_path / f"a{suffix}")) as database:
            found = database.execute("SELECT row, sentence, embedding FROM embeddings ORDER BY row").fetchall()
        assert [(row, text) for row, text, _ in found] == [*enumerate(texts)]
        assert b"".join(blob for *_, blob in found) == rows.astype("<f4").tobytes()


def test_quantised_vectors_and_facts(tmp_path: Path):
    """Integers stay integers, rows are numbered from the first of a shard, and what is known of the vectors goes along."""
    about = files.OutputFacts(5, {"model": "a", "ranges": [[0.5], [1.0]]})
    for kind in (np.int8, np.uint8):
        rows = np.array([[1, 120, 0], [7, 100, 3]], kind)
        for suffix, save in files.VECTOR_FORMATS.items():
            with (tmp_path / f"a{suffix}").open("w+b") as file:
                save(file, zip("ab", rows, strict=True), about)
        assert [json.loads(line)["embedding"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == rows.tolist()
        for found in (np.load(tmp_path / "a.npy"), load_file(tmp_path / "a.safetensors")["embeddings"]):
            assert found.dtype == kind and np.array_equal(found, rows)
        table = pq.read_table(tmp_path / "a.parquet")
        assert table["row"].to_pylist() == [5, 6] and table["embedding"].to_pylist() == rows.tolist()
        assert table.schema.field("embedding").type.value_type == pa.from_numpy_dtype(kind)
        assert json.loads(table.schema.metadata[b"gpt2wgpu"]) == about.facts
        with closing(sqlite3.connect(tmp_path / "a.sqlite")) as database:
            found = database.execute("SELECT row, embedding FROM embeddings").fetchall()
            assert found == [(5 + i, row.tobytes()) for i, row in enumerate(rows)]
            facts = dict(database.execute("SELECT name, value FROM facts"))
            assert {name: json.loads(value) for name, value in facts.items()} == about.facts
        for path in tmp_path.iterdir():
            path.unlink()


def test_parquet_in_several_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.files.arrow.GROUP_BYTES", 100)
    texts, rows = [f"text {i}" for i in range(20)], vectors(20)
    write(tmp_path / "a.parquet", texts, rows)
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert file.metadata.num_row_groups == 7 and file.read()["row"].to_pylist() == [*range(20)]
    assert same(file.read()["embedding"].to_pylist(), rows)


def unescaped(cell: str) -> str:
    return json.loads('"' + cell.replace('"', '\\"') + '"')


def test_rows_are_written_as_they_come(tmp_path: Path):
    """A file too large for memory: when row i is asked for, row i - 10,000 has left for the disk."""
    sizes: list[int] = []

    def rows() -> files.Rows:
        for _ in range(40_000):
            sizes.append(sum(f.stat().st_size for f in tmp_path.iterdir()))
            yield "text", row

    row = np.zeros(100, np.float32)
    with files.open_output(str(tmp_path / "a.npy"), files.VECTOR_FORMATS) as (file, save):
        save(file, rows())
    assert all(size >= 400 * (i - 10_000) for i, size in enumerate(sizes))
    assert np.load(tmp_path / "a.npy").shape == (40_000, 100)


def test_a_text_too_long_for_npz_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.files.vectors.NPZ_TEXT_BYTES", 1000)
    with pytest.raises(UserError, match="do not fit in"):
        write(tmp_path / "a.npz", ["a" * 100, "b", "c"], vectors(3))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("suffix", files.MATRIX_FORMATS)
def test_matrix(tmp_path: Path, suffix: str):
    matrix = vectors(len(TEXTS), len(TEXTS))
    path = tmp_path / f"m{suffix}"
    with files.open_output(str(path), files.MATRIX_FORMATS) as (file, save):
        save(file, TEXTS, matrix)
    if suffix == ".npy":
        found = np.load(path)
    elif suffix == ".json":
        value = json.loads(path.read_bytes())
        assert value["sentences"] == TEXTS
        found = value["similarity"]
    else:
        if suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                (_, *header), *body = csv.reader(file)
        else:
            (_, *header), *body = (
                [unescaped(c) for c in line.split("\t")] for line in path.read_bytes().decode().split("\n")[:-1]
            )
        assert header == [name for name, *_ in body] == TEXTS
        found = [[float(x) for x in row] for _, *row in body]
    assert same(found, matrix)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, OSError(28, "No space left on device")])
@pytest.mark.parametrize("suffix", files.VECTOR_FORMATS)
def test_failure_keeps_what_was_there_and_leaves_nothing(tmp_path: Path, error: BaseException, suffix: str):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"before")

    def rows() -> files.Rows:
        yield "a", vectors(1)[0]
        raise error

    kind = type(error) if isinstance(error, OSError) else error
    with pytest.raises(kind) as caught, files.open_output(str(path), files.VECTOR_FORMATS) as (file, save):
        save(file, rows())
    assert path.read_bytes() == b"before" and [*tmp_path.iterdir()] == [path]
    assert not isinstance(error, OSError) or caught.value.filename == str(path)  # type: ignore[attr-defined]


def test_a_signal_just_after_the_file_was_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(path: Path, *_: object, **__: object) -> None:
        path.touch()
        raise SystemExit(143)

    monkeypatch.setattr("gpt2wgpu.files.output.open_file", interrupted)
    with pytest.raises(SystemExit), files.open_output(str(tmp_path / "a.npy"), files.VECTOR_FORMATS):
        pass
    assert [*tmp_path.iterdir()] == [] and not output.unfinished


def test_success_replaces_also_through_a_link(tmp_path: Path):
    real = tmp_path / "real.npy"
    real.write_bytes(b"before")
    link = tmp_path / "link.npy"
    try:
        link.symlink_to(real)
    except OSError:
        pytest.skip("this system makes no links")
    write(link, ["a"], vectors(1))
    assert link.is_symlink() and same(np.load(real), vectors(1))


@pytest.mark.parametrize(
    "name, message",
    [
        ("a.txt", "must end in one of .json .jsonl"),
        ("a", "must end in"),
        ("a.NPY.gz", "must end in"),
        (".npy", "must end in"),
        ("folder.npy", "is not a file"),
        ("nowhere/a.npy", "no folder"),
        ("file/a.npy", "file"),
        ("a" * 300 + ".npy", "name too long"),
    ],
)
def test_an_impossible_output_is_refused_before_any_work(tmp_path: Path, name: str, message: str):
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "file").write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    refused = pytest.raises((UserError, OSError), match=f"(?i){message}")
    with refused, files.open_output(str(tmp_path / name), files.VECTOR_FORMATS):
        pytest.fail("the work was begun")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(sys.platform != "linux", reason="others have no names that are not text")
@pytest.mark.parametrize("name", ["caf\udce9", "two\nlines", "a\x1b[31mb"])
def test_names_that_are_not_printable(tmp_path: Path, name: str):
    """Files of such names are read and written, and a message about one is a line."""
    (tmp_path / f"{name}.txt").write_bytes(b"one\n")
    assert [*files.read_texts(str(tmp_path / f"{name}.txt"))] == ["one"]
    for suffix in files.VECTOR_FORMATS:
        write(tmp_path / f"{name}{suffix}", ["one"], vectors(1))
    (tmp_path / f"{name}.csv").write_bytes(b"a,b\n1,2\n")
    for call in (
        lambda: files.read_texts(str(tmp_path / f"{name}.csv")),
        lambda: files.resolve_output(str(tmp_path / f"{name}.xls"), files.VECTOR_FORMATS),
        lambda: files.resolve_output(str(tmp_path / name / "a.npy"), files.VECTOR_FORMATS),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert str(caught.value).isprintable()


def test_a_name_of_five_thousand_letters():
    for call in (
        lambda: files.resolve_output("a" * 5000, files.VECTOR_FORMATS),
        lambda: [*files.table_rows(files.Source(f"{'a' * 5000}.csv"))],
        lambda: files.read_texts(f"{'a' * 5000}.json"),
    ):
        with pytest.raises((UserError, OSError)) as caught:
            call()
        assert isinstance(caught.value, OSError) or len(str(caught.value)) < 500
