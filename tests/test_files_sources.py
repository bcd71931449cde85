"""Texts from packed files, from columns of Parquet and Arrow, and from folders of files."""

import gzip
import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from gpt2wgpu import files
from gpt2wgpu.errors import UserError
from gpt2wgpu.files import arrow

TEXTS = ["plain", "", "tab\tand\\slash", "two\nlines\r\n", 'a "quote", a comma', "日本語 🙂 \u2028 é"]


def pack(data: bytes, suffix: str) -> bytes:
    return gzip.compress(data) if suffix == ".gz" else pa.compress(data, codec="zstd", asbytes=True)


def table(texts: list[str | None], kind: pa.DataType | None = None) -> pa.Table:
    column = pa.chunked_array([pa.array(texts[:2], kind or pa.string()), pa.array(texts[2:], kind or pa.string())])
    return pa.table({"id": range(len(texts)), "text": column})


def write(path: Path, rows: pa.Table) -> Path:
    """Several row groups or batches."""
    if path.suffix == ".parquet":
        pq.write_table(rows, path, row_group_size=4)
    elif path.suffix == ".feather":
        pyarrow.feather.write_feather(rows, str(path), compression="lz4", chunksize=4)
    else:
        new = pa.ipc.new_file if path.suffix == ".arrow" else pa.ipc.new_stream
        with new(str(path), rows.schema) as writer:
            writer.write_table(rows, 4)
    return path


def refused(path: Path, column: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        [*files.read_texts(str(path), column)]
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_packed_files(tmp_path: Path, packed: str):
    contents = {
        "a.txt": b"one\ntwo",
        "a.jsonl": b'{"text": "one"}\n{"text": "two"}',
        "a.csv": b'id,text\n1,one\n2,"two"\n',
        "A.TSV": b"text\tid\none\t1\ntwo\t2\n",
        "no suffix": b"one\ntwo\n",
    }
    for name, data in contents.items():
        path = tmp_path / f"{name}{packed}"
        path.write_bytes(pack(data, packed))
        assert [*files.read_texts(str(path))] == ["one", "two"]
    path = tmp_path / f"a.txt{packed}"
    path.write_bytes(pack(b"one\n", packed) + pack(b"two\n", packed))  # as `cat` joins them
    assert [*files.read_texts(str(path))] == ["one", "two"]


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_packed_file_that_is_damaged(tmp_path: Path, packed: str):
    path = tmp_path / f"a.txt{packed}"
    whole = pack(b"".join(b"line %d\n" % i for i in range(100_000)), packed)
    damaged = [whole[: len(whole) // 2], whole[:-3], b"not packed", whole + b"more"]
    if packed == ".gz":  # it has a checksum; zstd may have one
        damaged.append(whole[:100] + b"x" * 100 + whole[200:])
    for data in damaged:
        path.write_bytes(data)
        assert f"cannot be read as {packed}" in refused(path)
    path.write_bytes(pack(b"", packed))
    assert "no texts" in refused(path)
    path.write_bytes(pack(b"a\n\xff\n", packed))
    assert "line 2 is not UTF-8" in refused(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather", "a.arrows"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), "dictionary"])
def test_columns_of_arrow(tmp_path: Path, name: str, kind: pa.DataType | str):
    rows = table(TEXTS * 3, None if kind == "dictionary" else kind)
    if kind == "dictionary":
        rows = rows.set_column(1, "text", rows["text"].combine_chunks().dictionary_encode())
    if name == "a.feather" and kind == pa.string_view():
        name = "a.arrow"  # Feather writers know no views
    path = write(tmp_path / name, rows)
    assert [*files.read_texts(str(path))] == [*files.read_texts(str(path), "text")] == TEXTS * 3
    if path.suffix != ".parquet":
        for packed in (".gz", ".zst"):
            (tmp_path / f"{name}{packed}").write_bytes(pack(path.read_bytes(), packed))
            assert [*files.read_texts(str(tmp_path / f"{name}{packed}"))] == TEXTS * 3


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.arrows"])
def test_what_a_column_must_be(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / name
    assert "row 6 of column 'text' is null" in refused(write(path, table(["a"] * 5 + [None, "b"])))
    monkeypatch.setattr("gpt2wgpu.files.arrow.DECODED_ROWS", 2)
    assert "row 6 of column 'text' is null" in refused(write(path, table(["a"] * 5 + [None, "b"])))
    if path.suffix != ".parquet":  # which cannot hold this
        encoded = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1, 0]), pa.array(["a", None]))
        assert "row 2 of column 'x' is null" in refused(write(path, pa.table({"x": encoded})))
    assert "no column 'body', the columns are 'id', 'text'" in refused(write(path, table(["a"] * 5)), "body")
    assert "column 'id' holds int64, expected texts" in refused(path, "id")
    assert "no column 'text' or 'sentence', the columns are 'a', 'b'" in refused(write(path, pa.table({"a": ["x"], "b": ["y"]})))
    assert "2 columns are called 'a'" in refused(write(path, pa.table([["x"], ["y"]], names=["a", "a"])), "a")
    assert [*files.read_texts(str(write(path, pa.table({"n": [1], "body": ["x"]}))))] == ["x"]  # the only texts there are
    assert "no texts" in refused(write(path, table([])))
    bad = pa.StringArray.from_buffers(3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ab\xff\xfe"))
    assert "row 3 of column 'text' is not UTF-8" in refused(write(path, pa.table({"text": bad})))


def test_a_column_with_the_path_of_a_field(tmp_path: Path):
    """Parquet reads by paths: a.b is a column of this name, and the field b of a column a."""
    rows = pa.table({"a": [{"b": "no", "c": 1}], "a.b": ["yes"]})
    for name in ("a.parquet", "a.arrow"):
        assert [*files.read_texts(str(write(tmp_path / name, rows)), "a.b")] == ["yes"]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("encoding", [None, "PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "two"])
def test_encodings_of_parquet(tmp_path: Path, version: str, kind: pa.DataType, encoding: str | None):
    """ "two": a dictionary that became too large, so that the last texts are written in another way."""
    rows = table([*TEXTS, *(f"a text with the number {i}" for i in range(3000))], kind)
    options: dict[str, Any] = {"use_dictionary": False, "column_encoding": {"text": encoding}}
    if encoding is None or encoding == "two":
        options = {"use_dictionary": True, **({"dictionary_pagesize_limit": 1000} if encoding else {})}
    pq.write_table(rows, tmp_path / "a.parquet", data_page_version=version, row_group_size=1000, data_page_size=2000, **options)
    assert [*files.read_texts(str(tmp_path / "a.parquet"))] == rows["text"].to_pylist()


def test_an_encoding_that_changes_within_a_parquet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What was read as a dictionary before the first page that cannot be is not read again."""

    class Mixed(pq.ParquetFile):  # type: ignore[misc]
        def __init__(self, *args: object, read_dictionary: list[str] | None = None, **options: object) -> None:
            self.fails = bool(read_dictionary)
            super().__init__(*args, read_dictionary=read_dictionary, **options)

        def iter_batches(self, **options: object) -> Iterator[pa.RecordBatch]:
            for batch in super().iter_batches(**options):
                yield batch
                if self.fails:
                    raise OSError("Not yet implemented: a dictionary of DELTA_BYTE_ARRAY")

    texts = [f"text {i}" for i in range(50)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    monkeypatch.setattr("gpt2wgpu.files.arrow.DECODED_ROWS", 20)
    monkeypatch.setattr(pq, "ParquetFile", Mixed)
    assert [*files.read_texts(str(tmp_path / "a.parquet"))] == texts


def test_long_texts_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    taken = []
    column_texts = arrow.column_texts

    def counted(source: object, pyarrow: object, column: Any, *args: Any) -> Iterator[str]:
        taken.append(len(column))
        return column_texts(source, pyarrow, column, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(arrow, "column_texts", counted)
    monkeypatch.setattr(arrow, "GROUP_BYTES", 100_000)
    texts = [f"{i} " * 5000 for i in range(20)]
    pq.write_table(table(texts), tmp_path / "a.parquet", use_dictionary=False)
    assert [*files.read_texts(str(tmp_path / "a.parquet"))] == texts and max(taken) <= 10
    taken.clear()
    pq.write_table(table(["short"] * 5000), tmp_path / "a.parquet")
    assert len([*files.read_texts(str(tmp_path / "a.parquet"))]) == 5000 and max(taken) == arrow.DECODED_ROWS


def test_a_file_that_cannot_be_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Reading does not say of which file; an output is named by others where nobody is."""

    class Broken(io.BytesIO):
        def readline(self, *_: object) -> bytes:
            raise OSError(5, "Input/output error")

        __next__ = readline  # type: ignore[assignment]

    (tmp_path / "a.txt").write_bytes(b"one\n")
    monkeypatch.setattr("gpt2wgpu.files.source.unpack_source", lambda raw, source: Broken())
    with pytest.raises(OSError) as caught:
        files.read_texts(str(tmp_path / "a.txt"))
    assert caught.value.filename == str(tmp_path / "a.txt")


def test_files_are_closed_when_reading_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Even while somebody holds the error, whose traceback holds the readers."""
    opened = []
    original = Path.open

    def remembering(self: Path, *args: Any, **options: Any) -> Any:
        opened.append(original(self, *args, **options))
        return opened[-1]

    for name, data in {"a.csv": b"id,title\n1,a\n", "b.csv": b"id,text\n1,a\n2\n", "c.jsonl": b'{"a": 1}\n'}.items():
        (tmp_path / name).write_bytes(data)
        monkeypatch.setattr(Path, "open", remembering)
        with pytest.raises(UserError) as caught:
            [*files.read_texts(str(tmp_path / name))]
        monkeypatch.undo()
        assert opened.pop().closed and caught


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.arrows"])
def test_an_arrow_file_that_is_damaged(tmp_path: Path, name: str):
    path = write(tmp_path / name, table(TEXTS * 100))
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], data[:100], data[:4], b"", b"not a table at all"):
        path.write_bytes(damaged)
        assert f"cannot be read as {path.suffix}" in refused(path)
    if name == "a.arrow":
        path.write_bytes(data[:-1])
        assert "cannot be read" in refused(path)


def test_what_goes_without_pyarrow_and_what_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "a.parquet", table(["a", "b", "c"]))
    for name, data in {"a.txt.zst": pack(b"a\n", ".zst"), "a.txt.gz": pack(b"a\n", ".gz")}.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "needs pyarrow: pip install pyarrow" in refused(tmp_path / "a.parquet")
    assert "needs pyarrow: pip install pyarrow" in refused(tmp_path / "a.txt.zst")
    assert [*files.read_texts(str(tmp_path / "a.txt.gz"))] == ["a"]


def test_parquet_is_packed_inside(tmp_path: Path):
    data = write(tmp_path / "a.parquet", table(["a", "b", "c"])).read_bytes()
    (tmp_path / "a.parquet.gz").write_bytes(pack(data, ".gz"))
    assert "Parquet is packed inside: unpack the .gz" in refused(tmp_path / "a.parquet.gz")


def test_a_folder_is_one_data_set(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "part-1.parquet", table(["c", "d", "e"]))
    write(folder / "part-0.parquet", table(["a", "b", ""]))
    write(folder / "part-2.parquet", table([]))
    for other in ("_SUCCESS", ".part-0.parquet.crc"):
        (folder / other).write_bytes(b"")
    (folder / "folder").mkdir()
    found = files.Texts(str(folder))
    assert found.size == sum(p.stat().st_size for p in folder.glob("part*"))
    assert [*found] == ["a", "b", "", "c", "d", "e"] and found.position == found.size
    (folder / "part-1.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"part-1\.parquet: cannot be read"):
        [*files.read_texts(str(folder))]
    (folder / "a.jsonl").write_bytes(b"")
    assert "must be of one kind to be one data set, these have .jsonl, .parquet" in refused(folder)


def test_how_much_has_been_read(tmp_path: Path):
    """By bytes on the disk, whatever they are packed with; never ahead of what has been asked for by more than a buffer."""

    def positions(path: Path) -> Iterator[float]:
        texts = files.Texts(str(path))
        assert texts.size == path.stat().st_size and texts.position < texts.size / 2
        for i, _ in enumerate(texts):
            if i in (50_000, 99_999):
                yield texts.position / texts.size
        assert texts.position == texts.size

    lines = b"".join(b"a line with the number %d in it\n" % (i * 7919 % 100_003) for i in range(100_000))
    rows = pa.table({"text": lines.decode().splitlines()})
    (tmp_path / "a.txt").write_bytes(lines)
    (tmp_path / "a.txt.gz").write_bytes(pack(lines, ".gz"))
    (tmp_path / "a.txt.zst").write_bytes(pack(lines, ".zst"))
    pq.write_table(rows, tmp_path / "a.parquet")
    for path in tmp_path.iterdir():
        half, end = positions(path)
        assert 0.4 < half < 0.95 and end > 0.95, path


@pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes")
def test_a_pipe_with_a_name(tmp_path: Path):
    """As `--input <(...)` gives it: nobody knows how long it is."""
    os.mkfifo(tmp_path / "a.txt.gz")
    writer = threading.Thread(target=(tmp_path / "a.txt.gz").write_bytes, args=[pack(b"one\ntwo\n", ".gz")])
    writer.start()
    texts = files.Texts(str(tmp_path / "a.txt.gz"))
    assert (texts.size, texts.position, [*texts]) == (0, 0, ["one", "two"])
    writer.join()
