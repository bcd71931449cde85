"""Texts from files, row by row, so that memory does not grow with the file.

Files of text are UTF-8, with or without a byte order mark, with \\n or \\r\\n at the end of lines. One text is one row: blank
lines are empty texts, and a row that cannot be read is an error with its number, so that row i of the output is always text i.

    .jsonl         one JSON value a line: an object of which a field is the text, or the text itself (blank lines are skipped)
    .csv           comma-separated, cells in double quotes may hold commas and line ends
    .tsv           tab-separated; cells are taken unchanged; quotes and backslashes have no special meaning
    .parquet, .arrow, .feather, .arrows    a column of texts (needs pyarrow)
    other names    one text a line

Each may be packed with gzip (.gz) or zstd (.zst), except Parquet, which is packed inside. A folder is one data set in
several files of one kind, read in the order of their names.

In .csv and .tsv the first row is a header, unless the column is chosen by its number (from 1).

The column of texts is the one asked for, else one called text or sentence. A null or a missing text in it is an error. If no
column has such a name, .jsonl, .parquet and .arrow use the only one that can hold texts: all others are numbers, truth values
or times, in every row and file, and it is not called id.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from importlib.util import find_spec, module_from_spec
from itertools import chain
from types import ModuleType
from typing import Any

from ..errors import UserError, show
from .arrow import ARROW, arrow_texts, parquet_texts
from .columns import ColumnChoice
from .lines import TEXT_BYTES, read_lines, without_end
from .source import Source, list_sources

JSON_LINES = (".jsonl", ".ndjson")


class Texts:
    """The texts of a file, of a folder of files, or of standard input ("-", one a line), in order. They can be read once.

    The constructor reads the first text, so most of what can be wrong with a file is found before any work.
    Raises UserError if there are no texts, no such column, a broken row or another encoding than UTF-8; OSError if a file
    cannot be read.
    """

    def __init__(self, path: str, column: str | None = None) -> None:
        self._sources = list_sources(path)
        self.size = sum(s.size for s in self._sources)  # bytes on disk
        self._rest = self._read(ColumnChoice(column))
        first = next(self._rest, None)
        if first is None:
            raise UserError(f"{path if len(self._sources) > 1 else self._sources[0].name}: there are no texts in it")
        self._texts = chain([first], self._rest)

    def _read(self, column: ColumnChoice) -> Generator[str, None, None]:
        for source in self._sources:
            with closing(source):
                yield from READERS.get(source.kind, line_texts)(source, column)

    def __iter__(self) -> Iterator[str]:
        return self._texts

    def close(self) -> None:
        """Close the open file."""
        with suppress(ValueError):  # another thread is waiting for the next text and cannot be stopped
            self._rest.close()

    @property
    def position(self) -> int:
        """How many of the `size` bytes have been read."""
        return sum(s.position for s in self._sources)


def read_texts(path: str, column: str | None = None) -> Iterator[str]:
    """The texts of a file or a folder; see `Texts`."""
    return iter(Texts(path, column))


def numbered_texts(source: Source, column: str | None = None) -> Iterator[tuple[int, str]]:
    """The texts of one table, each after the number of its line or, in Parquet and Arrow, of its row; see `Texts`."""
    for row, text in enumerate(READERS[source.kind](source, ColumnChoice(column)), 1):
        yield source.line or row, text


def line_texts(source: Source, column: ColumnChoice) -> Iterator[str]:
    """Each line as a text. Raises UserError if a column was asked for."""
    if column.asked is not None:
        kinds = "a column can be chosen in .jsonl, .tsv, .csv, .parquet and .arrow files"
        raise UserError(f"{source.name}: {kinds}; this one is read as one text a line")
    yield from map(without_end, read_lines(source))


def refuse_json(source: Source, column: ColumnChoice) -> Iterator[str]:
    raise UserError(f"{source.name}: .json input is not supported; use .jsonl, .tsv, .csv, or one text a line")


def json_values(source: Source) -> Iterator[tuple[int, Any]]:
    """The values of a .jsonl file, each after the number of its line."""
    for number, line in enumerate(read_lines(source), 1):
        if not line.strip():
            continue
        source.line = number
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{source.name}: line {number} is not JSON: {error}") from None


def json_texts(source: Source, column: ColumnChoice) -> Iterator[str]:
    """One field of the objects, or the values themselves. A guessed field must be the only text of every object."""
    for number, value in json_values(source):
        where = f"{source.name}: line {number}"
        if isinstance(value, dict):
            if column.found is not None and column.found not in value:
                raise UserError(f"{where} has no {show(column.found)}, expected a text in it")
            if column.found is None or column.guessed:
                holds_texts = {key: is_text_field(field) for key, field in value.items()}
                column.find(where if column.found else source.name, holds_texts, "--column NAME")
            value = value[column.found]
            where += f": {show(column.found)}"
        elif column.asked is not None or column.found is not None:
            raise UserError(f"{where} is {show_json(value)}, expected an object with a text {show(column.found or column.asked)}")
        if not isinstance(value, str):
            raise UserError(f"{where} is {show_json(value)}, expected a text")
        yield value


def is_text_field(value: object) -> bool | None:
    """Whether a field of a record is a text; None if it might be one in another record."""
    return True if isinstance(value, str) else False if isinstance(value, int | float) else None


def show_json(value: object) -> str:
    """A value of a .jsonl file, for a message. Arrays and objects are only named: one nested deeply enough has no repr."""
    return {type(None): "null", list: "an array", dict: "an object"}.get(type(value)) or show(value, 40)


def load_csv() -> ModuleType:
    """A private copy of Python's CSV parser, because its limit of 128 KiB per cell is a setting of the whole process."""
    spec = find_spec("_csv")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.field_size_limit(TEXT_BYTES)
    return module


CSV = load_csv()


def csv_rows(source: Source) -> Iterator[list[str]]:
    """The cells of each row. Raises UserError for broken quotes, or a row longer than TEXT_BYTES."""
    taken, first = 0, 1  # characters of the row that is being read, and its first line

    def lines() -> Iterator[str]:
        nonlocal taken
        for line in read_lines(source):
            taken += len(line)
            if taken > TEXT_BYTES:
                what = f"line {first} begins a row that is longer than {TEXT_BYTES >> 20} MiB"
                raise UserError(f"{source.name}: {what}: close its quote, or split it into texts")
            yield line

    rows = CSV.reader(lines(), strict=True)
    try:
        for row in rows:
            source.line = first
            taken, first = 0, rows.line_num + 1
            yield row or [""]  # how csv reads a blank line
    except CSV.Error as error:
        if "end of data" in str(error):
            raise UserError(f"{source.name}: line {first} begins a row with a quote that is not closed: close it") from None
        raise UserError(f"{source.name}: line {rows.line_num}: {error}") from None


def tsv_rows(source: Source) -> Iterator[list[str]]:
    for source.line, line in enumerate(read_lines(source), 1):  # noqa: B020
        yield without_end(line).split("\t")


TABLES: Mapping[str, Callable[[Source], Iterator[list[str]]]] = {".csv": csv_rows, ".tsv": tsv_rows}


def table_rows(source: Source) -> Iterator[list[str]]:
    """The rows of a .csv or .tsv file. Raises UserError if a row has another length than the first."""
    width = None
    for number, row in enumerate(TABLES[source.kind](source), 1):
        width = width or len(row)
        if len(row) != width:
            raise UserError(f"{source.name}: row {number} has {len(row)} columns, the first has {width}")
        yield row


def table_texts(source: Source, column: ColumnChoice) -> Iterator[str]:
    """One column of a table."""
    rows = table_rows(source)
    first = next(rows, None)
    if first is None:
        return
    if column.asked is not None and column.asked.isdecimal():
        number = column.asked[:9]  # int() refuses thousands of digits
        at = int(number) - 1
        if not 0 <= at < len(first):
            raise UserError(f"{source.name}: there is no column {number}, the first row has {len(first)}")
        yield first[at]
    else:
        name = column.find(source.name, dict.fromkeys(first), "--column NAME, or a number if the first row is no header")
        if first.count(name) > 1:
            raise UserError(f"{source.name}: {first.count(name)} columns are called {name!r}: rename all but one")
        at = first.index(name)
    for row in rows:
        yield row[at]


READERS: Mapping[str, Callable[[Source, ColumnChoice], Iterator[str]]] = {
    ".json": refuse_json,
    **dict.fromkeys(JSON_LINES, json_texts),
    **dict.fromkeys(TABLES, table_texts),
    ".parquet": parquet_texts,
    **dict.fromkeys(ARROW, arrow_texts),
}
