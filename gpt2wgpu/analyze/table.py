"""What is analysed: texts, their vectors where a file has them, and its other columns.

Read are files of texts in every form that `embed` reads, files of vectors in every form that it writes, and indexes of `search`.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, is_text, show, utf8_name, warn_caller
from ..files.arrow import ARROW, arrow_errors
from ..files.columns import ColumnChoice
from ..files.source import Source, list_sources
from ..files.texts import JSON_LINES, READERS, TABLES, json_values, line_texts, table_rows
from ..graph.tensor import Array

VECTOR_COLUMNS = ("embedding", "vector", "embeddings", "vectors")
OWN_COLUMNS = ("row", "dimensions", *VECTOR_COLUMNS)  # of the files that `embed` writes
NO_TEXTS = "without texts"


@dataclass(frozen=True)
class TextTable:
    """n texts. vectors: float32 (n, C), None where the file has none. columns: its other columns. facts: about the vectors."""

    texts: list[str]
    vectors: Array | None = None
    columns: Mapping[str, list[Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_table(path: str, column: str | None = None) -> TextTable:
    """The texts, vectors and columns of a file, a folder or an index. A file of vectors without texts gives "row 0", "row 1", ...

    column: of the texts, as in `Texts`. Raises UserError for what cannot be read, for quantised vectors, and where there are no
    rows; OSError.
    """
    folder = Path(path)
    if path != "-" and folder.is_dir() and (folder / "state.json").exists():
        found = read_index_table(folder)
    else:
        parts = [read_source(source, ColumnChoice(column)) for source in list_sources(path)]
        found = join_tables(path, parts)
    if not found.texts:
        raise UserError(f"{show(folder) if path != '-' else 'standard input'}: there are no texts in it")
    return found


def join_tables(path: str, parts: list[TextTable]) -> TextTable:
    if len(parts) == 1:
        return parts[0]
    with_vectors = [part.vectors for part in parts if part.vectors is not None]
    if with_vectors and (len(with_vectors) < len(parts) or len({v.shape[1] for v in with_vectors}) > 1):
        raise UserError(f"{path}: the files of a folder must all have vectors of one length, or none")
    names = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    return TextTable(
        [text for part in parts for text in part.texts],
        np.concatenate(with_vectors) if with_vectors else None,
        {name: [value for part in parts for value in part.columns[name]] for name in names},
        parts[0].facts,
    )


def read_index_table(folder: Path) -> TextTable:
    """The passages of an index that belong to files, with the first file of each and its line."""
    from ..search.reader import open_index

    index = open_index(folder)
    rows: list[int] = []
    paths: list[str] = []
    for content, names in index.used:
        rows += range(content.first, content.first + content.rows)
        paths += [utf8_name(names[0])] * content.rows
    lines = index.rows["first"][rows].tolist()
    vectors = np.array(index.vectors[rows], np.float32).reshape(len(rows), -1)
    columns = {"file": paths, "line": lines}
    return TextTable([index.text(row) for row in rows], vectors, columns)


def read_source(source: Source, choice: ColumnChoice) -> TextTable:
    readers: dict[str, Callable[[Source, ColumnChoice], TextTable]] = {
        ".npy": read_npy_table,
        ".npz": read_npz_table,
        ".safetensors": read_safetensors_table,
        ".json": read_json_table,
        **dict.fromkeys((".sqlite", ".db"), read_sqlite_table),
        **dict.fromkeys(JSON_LINES, read_json_table),
        **dict.fromkeys(TABLES, read_cells_table),
        **dict.fromkeys((".parquet", *ARROW), read_arrow_table),
    }
    if source.packed and source.kind in (".npy", ".npz", ".safetensors", ".sqlite", ".db", ".json"):
        raise UserError(f"{source.name}: unpack the {source.packed}")
    return readers.get(source.kind, read_lines_table)(source, choice)


def read_lines_table(source: Source, choice: ColumnChoice) -> TextTable:
    return TextTable([*line_texts(source, choice)])


def checked_matrix(source: Source, vectors: Array, facts: Mapping[str, Any] | None = None) -> Array:
    """Vectors of a file as float32 (n, C). Raises UserError for others."""
    precision = (facts or {}).get("precision", "float32")
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or precision != "float32":
        found = precision if precision != "float32" else f"{vectors.dtype} of shape {vectors.shape}"
        raise UserError(f"{source.name}: holds {found}, expected vectors as rows of float32: embed without --precision")
    return np.asarray(vectors, np.float32)


def row_names(n: int) -> list[str]:
    return [f"row {i}" for i in range(n)]


def refuse_column(source: Source, choice: ColumnChoice) -> None:
    if choice.asked is not None:
        raise UserError(f"{source.name}: has no columns to choose from, leave out --column")


def read_npy_table(source: Source, choice: ColumnChoice) -> TextTable:
    refuse_column(source, choice)
    try:
        vectors = np.load(source.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise source.damaged(error) from None
    return TextTable(row_names(len(vectors)), checked_matrix(source, vectors), {}, {NO_TEXTS: True})


def read_npz_table(source: Source, choice: ColumnChoice) -> TextTable:
    """embeddings (n, C) and texts (n,)"""
    refuse_column(source, choice)
    import zipfile

    try:
        with np.load(source.path, allow_pickle=False) as arrays:
            vectors, texts = arrays["embeddings"], arrays["texts"].tolist()
    except KeyError:
        raise UserError(f"{source.name}: expected the arrays embeddings and texts, as `embed` writes them") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise source.damaged(error) from None
    return TextTable(texts, checked_matrix(source, vectors))


def read_safetensors_table(source: Source, choice: ColumnChoice) -> TextTable:
    """A tensor "embeddings" (n, C)"""
    refuse_column(source, choice)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(source.path)
    except SafetensorError as error:
        raise source.damaged(error) from None
    if "embeddings" not in tensors:
        raise UserError(f"{source.name}: has no tensor 'embeddings', as `embed` writes it")
    vectors = checked_matrix(source, tensors["embeddings"])
    return TextTable(row_names(len(vectors)), vectors, {}, {NO_TEXTS: True})


def read_sqlite_table(source: Source, choice: ColumnChoice) -> TextTable:
    """The tables that `embed` writes: embeddings (row, sentence, embedding) and facts (name, value)."""
    refuse_column(source, choice)
    try:
        with closing(sqlite3.connect(f"{Path(source.path).absolute().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT sentence, embedding FROM embeddings ORDER BY row").fetchall()
            facts = {name: json.loads(value) for name, value in database.execute("SELECT name, value FROM facts")}
    except (sqlite3.Error, ValueError) as error:
        raise source.damaged(error) from None
    checked_matrix(source, np.empty((0, 1), np.float32), facts)
    vectors = same_length(source, [np.frombuffer(value, "<f4") for _, value in rows])
    return TextTable([text for text, _ in rows], vectors, {}, facts)


def same_length(source: Source, rows: list[Any]) -> Array:
    try:
        return checked_matrix(source, np.array(rows, np.float32).reshape(len(rows), -1))
    except (ValueError, TypeError):
        raise UserError(f"{source.name}: its vectors must be lists of numbers, all of one length") from None


def json_records(source: Source) -> Iterator[Any]:
    if source.kind != ".json":
        yield from (value for _, value in json_values(source))
        return
    try:
        with source.open() as file:
            values = json.load(file)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source.name}: is not JSON: {error}") from None
    if not isinstance(values, list) or not all(isinstance(v, dict) and is_text(v.get("sentence")) for v in values):
        raise UserError(
            f"{source.name}: expected an array of objects with a sentence, as `embed` writes it; for others use .jsonl"
        )
    yield from values


def read_json_table(source: Source, choice: ColumnChoice) -> TextTable:
    if source.path == "-" or source.kind == ".json":
        records = [*json_records(source)]
        texts = [record["sentence"] for record in records]
        choice.found = "sentence"
    else:
        texts = [*READERS[source.kind](source, choice)]
        records = [*json_records(source)]
    objects = [record for record in records if isinstance(record, dict)]
    if len(objects) < len(texts) or not objects:
        return TextTable(texts)
    vectors = next(([o.get(name) for o in objects] for name in VECTOR_COLUMNS if isinstance(objects[0].get(name), list)), None)
    names = dict.fromkeys(key for o in objects for key, value in o.items() if is_cell(value) and key not in OWN_COLUMNS)
    columns = {name: [one_cell(o.get(name)) for o in objects] for name in names if name != choice.found}
    return TextTable(texts, None if vectors is None else same_length(source, vectors), columns)


def is_cell(value: object) -> bool:
    """Whether this is one value: a text, a number, a truth value or nothing."""
    return value is None or isinstance(value, str | int | float)


def one_cell(value: object) -> Any:
    """A value as a cell: None for NaN, with which pandas and numpy mean that there is none, and for what is not one value."""
    return value if is_cell(value) and value == value else None


def single_columns(source: Source, names: list[str]) -> list[str]:
    """The names that one column has. Warns of others, but for columns without a name, as spreadsheets leave them."""
    for name in dict.fromkeys(names):
        if name and names.count(name) > 1:
            what = f"{names.count(name)} columns are called {name!r}"
            warn_caller(f"{source.name}: {what} and are left out: rename all but one")
    return [name for name in names if names.count(name) == 1]


def read_cells_table(source: Source, choice: ColumnChoice) -> TextTable:
    """A table with a header; or, in the form that `embed` writes, lines of a text and its numbers."""
    rows = [*table_rows(source)]
    if source.kind == ".tsv" and choice.asked is None and rows and (vectors := numbers_after_text(rows)) is not None:
        return TextTable([row[0] for row in rows], checked_matrix(source, vectors))
    texts = [*READERS[source.kind](source, choice)]
    if choice.asked is not None and choice.asked.isdecimal():
        return TextTable(texts)
    header = rows[0] if rows else []
    places = {name: header.index(name) for name in single_columns(source, header) if name != choice.found}
    return TextTable(texts, None, {name: [row[i] for row in rows[1:]] for name, i in places.items()})


def numbers_after_text(rows: list[list[str]]) -> Array | None:
    if len(rows[0]) < 3:
        return None
    try:
        return np.array([row[1:] for row in rows], np.float32)
    except ValueError:
        return None


def read_arrow_table(source: Source, choice: ColumnChoice) -> TextTable:
    texts = [*READERS[source.kind](source, choice)]
    with arrow_errors(source) as pyarrow, source.open() as file:
        if source.kind == ".parquet":
            from pyarrow import parquet

            table = parquet.ParquetFile(file).read()  # read_table refuses columns of one name
        elif file.peek(6).startswith(b"ARROW1"):  # type: ignore[attr-defined]
            table = pyarrow.ipc.open_file(file).read_all()
        else:
            table = pyarrow.ipc.open_stream(file).read_all()
        facts = json.loads((table.schema.metadata or {}).get(b"gpt2wgpu", b"{}"))
        name = next((name for name in VECTOR_COLUMNS if name in table.column_names), None)
        vectors = None
        if name is not None:
            checked_matrix(source, np.empty((0, 1), np.float32), facts)
            vectors = same_length(source, table.column(name).to_pylist())
        columns = {}
        single = single_columns(source, table.column_names)
        for column in table.schema:
            kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
            if column.name in (choice.found, *OWN_COLUMNS) or column.name not in single:
                continue
            if pyarrow.types.is_primitive(kind) or pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
                columns[column.name] = [one_cell(v if is_cell(v) else str(v)) for v in table.column(column.name).to_pylist()]
    return TextTable(texts, vectors, columns, facts)
