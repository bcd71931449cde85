"""Which column of a file holds the texts: what is chosen, and what is not guessed."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from encoders import refusal

from gpt2wgpu import files
from gpt2wgpu.files.pairs import read_pairs

ONE, TWO = {"id": "a1", "text": "one"}, {"id": "a2", "text": "two"}


def write_lines(path: Path, *records: object) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def write_arrow(path: Path, columns: dict[str, object]) -> str:
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as out:
            out.write_table(table)
    return str(path)


@pytest.mark.parametrize(
    "records, message",
    [
        ([{"id": "a1", "text": None}, TWO], "line 1: 'text' is null, expected a text"),
        ([{"id": "a1", "sentence": None}], "line 1: 'sentence' is null, expected a text"),
        ([{"id": "a1", "text": 5}, TWO], "line 1: 'text' is 5, expected a text"),
        ([{"id": "a1", "text": ["a"]}], "line 1: 'text' is an array, expected a text"),
        ([{"text": None, "sentence": "a"}], "line 1: 'text' is null, expected a text"),
        ([ONE, {"id": "a2", "text": None}], "line 2: 'text' is null, expected a text"),
        ([ONE, {"id": "a2"}], "line 2 has no 'text', expected a text in it"),
        ([{"id": "a1"}, TWO], "no column 'text' or 'sentence', the columns are 'id'; choose one with --column NAME"),
        ([{"_id": "a1", "score": 0.5}], "choose one with --column NAME"),
        ([{"uuid": "a1"}], "choose one with --column NAME"),
        ([{"docId": "a1", "body": None}], "choose one with --column NAME"),
        ([{"url": "a", "body": None}], "choose one with --column NAME"),
        ([{"url": "a", "messages": [{"content": "hello"}]}], "choose one with --column NAME"),
        ([{"url": "a", "body": {"en": "hello"}}], "choose one with --column NAME"),
        (
            [{"url": "a"}, {"url": "b", "text": "two"}],
            "line 2 has texts in 'text' too, and before only in 'url': choose one",
        ),
        ([{"n": 1, "title": "a"}, {"n": 2}], "line 2 has no 'title', expected a text in it"),
        ([{"title": "a"}, {"title": None}], "line 2: 'title' is null, expected a text"),
        ([{"title": "a"}, "b"], "line 2 is 'b', expected an object with a text 'title'"),
    ],
)
def test_a_field_without_a_text_is_an_error(tmp_path: Path, records: list[object], message: str):
    path = write_lines(tmp_path / "a.jsonl", *records)
    found = refusal(lambda: [*files.read_texts(path)])
    assert message in found and path in found and "\n" not in found


def test_what_is_still_guessed(tmp_path: Path):
    """The only column of texts, if all others are numbers or truth values."""
    records = [{"n": 1, "ok": True, "title": "a"}, {"n": None, "ok": False, "title": "b", "tags": [1]}]
    assert [*files.read_texts(write_lines(tmp_path / "a.jsonl", *records))] == ["a", "b"]
    columns = {"n": [1, 2], "ok": [True, False], "x": [0.5, None], "title": ["a", "b"]}
    for name in ("a.parquet", "a.arrow"):
        assert [*files.read_texts(write_arrow(tmp_path / name, columns))] == ["a", "b"]
    for name in ("idea", "paid", "valid", "Centroid"):
        assert [*files.read_texts(write_lines(tmp_path / "a.jsonl", {"n": 1, name: "a"}))] == ["a"]


def test_a_column_that_is_asked_for_is_not_replaced_by_another(tmp_path: Path):
    paths = write_lines(tmp_path / "a.jsonl", {"n": 1, "title": "a"}), write_arrow(tmp_path / "a.parquet", {"title": ["a"]})
    for path in paths:
        found = refusal(lambda path=path: files.read_texts(path, "body"))
        assert f"{path}: no column 'body', the columns are " in found


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize(
    "columns, message",
    [
        ({"id": ["a1"], "text": pa.nulls(1)}, "column 'text' holds null, expected texts (string)"),
        ({"id": ["a1"], "text": pa.array([1.5])}, "column 'text' holds double, expected texts (string)"),
        ({"id": ["a1"], "text": pa.array([b"a"])}, "column 'text' holds binary, expected texts (string)"),
        ({"id": ["a1"], "text": pa.array([None], pa.string())}, "row 1 of column 'text' is null"),
        ({"name": ["a1"], "body": pa.nulls(1)}, "choose one with --column NAME"),
        ({"name": ["a1"], "body": pa.array([b"a"])}, "choose one with --column NAME"),
        ({"name": ["a1"], "turns": pa.array([["a"]])}, "choose one with --column NAME"),
        ({"id": ["a1"], "score": [0.5]}, "choose one with --column NAME"),
    ],
)
def test_a_column_without_texts_is_an_error(tmp_path: Path, name: str, columns: dict[str, object], message: str):
    path = write_arrow(tmp_path / name, columns)
    found = refusal(lambda: [*files.read_texts(path)])
    assert message in found and path in found and "\n" not in found


def test_the_files_of_a_folder_have_the_same_column(tmp_path: Path):
    """What was chosen in the first file is not chosen anew in the next, where a writer may have left out what is null."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_lines(folder / "0.jsonl", {"title": "a", "text": "one"})
    write_lines(folder / "1.jsonl", {"title": "b"})
    assert "1.jsonl: line 1 has no 'text'" in refusal(lambda: [*files.read_texts(str(folder))])
    write_lines(folder / "0.jsonl", {"title": "a"})
    write_lines(folder / "1.jsonl", {"title": "b", "text": "two"})
    assert "1.jsonl: line 1 has texts in 'text' too" in refusal(lambda: [*files.read_texts(str(folder))])
    for path in folder.iterdir():
        path.unlink()
    write_arrow(folder / "0.parquet", {"title": ["a"]})
    write_arrow(folder / "1.parquet", {"title": ["b"], "text": ["two"]})
    assert "1.parquet has texts in 'text' too" in refusal(lambda: [*files.read_texts(str(folder))])
    write_arrow(folder / "1.parquet", {"name": ["b"]})
    assert "1.parquet: no column 'title', the columns are 'name'" in refusal(lambda: [*files.read_texts(str(folder))])
    for path in folder.iterdir():
        path.unlink()
    (folder / "0.csv").write_text("id,text\n1,a\n")
    (folder / "1.csv").write_text("text,id\nb,2\n")
    assert [*files.read_texts(str(folder))] == ["a", "b"]
    (folder / "2.csv").write_text("sentence,id\nc,3\n")
    assert "2.csv: no column 'text', the columns are 'sentence', 'id'" in refusal(lambda: [*files.read_texts(str(folder))])


def test_a_number_of_a_column_with_thousands_of_digits(tmp_path: Path):
    (tmp_path / "a.csv").write_text("a,b\n")
    for column in ("9" * 5000, "٣" * 5000):
        found = refusal(lambda column=column: files.read_texts(str(tmp_path / "a.csv"), column))
        assert "there is no column" in found and len(found) < 300


@pytest.mark.parametrize("start, end", [("[", "]"), ('{"a":', "}")])
def test_json_nested_to_the_limit(tmp_path: Path, start: str, end: str):
    """Where json.loads just succeeds, repr may not."""
    for depth in range(800, 1010):
        nested = f"{start * depth}1{end * depth}"
        (tmp_path / "a.jsonl").write_text(f'{{"text": {nested}, "sentence1": {nested}, "sentence2": "b"}}\n')
        for read in (files.read_texts, read_pairs):
            found = refusal(lambda read=read: read(str(tmp_path / "a.jsonl")))
            assert "is not JSON" in found or "is an array" in found or "is an object" in found
