"""Texts from files, row by row, so that memory does not grow with the file.

Files of text are UTF-8, with or without a byte order mark, with \\n or \\r\\n at the end of lines. One text is one row: blank
lines are empty texts, and a row that cannot be read is an error with its number, so that row i of the output is always text i.

    .jsonl         one JSON value a line: an object of which a field is the text, or the text itself (blank lines are skipped)
    .csv           comma-separated, cells in double quotes may hold commas and line ends
    .tsv           tab-separated; cells are taken as they are, quotes and backslashes mean nothing
    .parquet, .arrow, .feather, .arrows    a column of texts (needs pyarrow)
    other names    one text a line

Each may be packed with gzip (.gz) or zstd (.zst), but for Parquet, which is packed inside. A folder is one data set in
several files of one kind, read in the order of their names.

In .csv and .tsv a column chosen by name, or by default, makes the first row a header; chosen by number (from 1) there is none.
"""

import csv
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import chain
from typing import Any

from ..errors import UserError
from .arrow import ARROW, arrow_texts, parquet_texts
from .columns import choose_column
from .source import Source, sources

JSON_LINES = (".jsonl", ".ndjson")


class Texts:
    """The texts of a file, of a folder of files, or of standard input ("-", one a line), in order, once.

    The first text is read at once, so most of what can be wrong with a file is found before any work.
    Raises UserError: no texts, not UTF-8, no such column, a broken row. OSError: a file cannot be read.
    """

    def __init__(self, path: str, column: str | None = None) -> None:
        self._sources = sources(path)
        self.size = sum(s.size for s in self._sources)  # bytes on disk
        self._rest = self._read(column)
        first = next(self._rest, None)
        if first is None:
            raise UserError(f"{path if len(self._sources) > 1 else self._sources[0].name}: there are no texts in it")
        self._texts = chain([first], self._rest)

    def _read(self, column: str | None) -> Generator[str, None, None]:
        for source in self._sources:
            yield from READERS.get(source.kind, plain)(source, column)

    def __iter__(self) -> Iterator[str]:
        return self._texts

    def close(self) -> None:
        """Close the file that is open, which otherwise happens when nobody holds the texts any more."""
        self._rest.close()

    @property
    def position(self) -> int:
        """How many of the `size` bytes have been read."""
        return sum(s.position for s in self._sources)


def read_texts(path: str, column: str | None = None) -> Iterator[str]:
    """The texts of `Texts`."""
    return iter(Texts(path, column))


def read_lines(source: Source) -> Iterator[str]:
    """Decoded lines, each with its end. Only \\n ends a line: str.splitlines knows ten others, which may stand in a text."""
    with source.open() as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                wide = number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff"))
                found = "UTF-16" if wide else f"not UTF-8 (byte {error.start + 1} is 0x{line[error.start]:02x})"
                raise UserError(f"{source.name}: line {number} is {found}; save it as UTF-8") from None
            yield text.removeprefix("\ufeff") if number == 1 else text


def without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def plain(source: Source, column: str | None) -> Iterator[str]:
    if column is not None:
        kinds = "a column can be chosen in .jsonl, .tsv, .csv, .parquet and .arrow files"
        raise UserError(f"{source.name}: {kinds}; this one is read as one text a line")
    yield from map(without_end, read_lines(source))


def json_array(source: Source, column: str | None) -> Iterator[str]:
    raise UserError(f"{source.name}: .json input is not supported; use .jsonl, .tsv, .csv, or one text a line")


def json_values(source: Source) -> Iterator[tuple[int, Any]]:
    """The values of a .jsonl file with the numbers of their lines."""
    for number, line in enumerate(read_lines(source), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{source.name}: line {number} is not JSON: {error}") from None


def json_lines(source: Source, column: str | None) -> Iterator[str]:
    name = source.name
    for number, value in json_values(source):
        if isinstance(value, dict):
            if column is None:
                strings = [key for key, field in value.items() if isinstance(field, str)]
                column = choose_column(name, list(value), strings, None, "--column NAME")
            value = value.get(column)
        elif column is not None:
            value = None
        if not isinstance(value, str):
            wanted = "a text" if column is None else f"an object with a text {column!r}"
            raise UserError(f"{name}: line {number} is not {wanted}")
        yield value


def comma_separated(source: Source) -> Iterator[list[str]]:
    csv.field_size_limit(1 << 30)  # the default refuses texts over 128 KiB
    rows = csv.reader(read_lines(source), strict=True)
    try:
        for row in rows:
            yield row or [""]  # how csv reads a blank line
    except csv.Error as error:
        raise UserError(f"{source.name}: line {rows.line_num}: {error}") from None


def tab_separated(source: Source) -> Iterator[list[str]]:
    return (without_end(line).split("\t") for line in read_lines(source))


TABLES: Mapping[str, Callable[[Source], Iterator[list[str]]]] = {".csv": comma_separated, ".tsv": tab_separated}


def table_rows(source: Source) -> Iterator[list[str]]:
    """The rows of a .csv or .tsv file. One of another length than the first is refused: a stray separator shifts columns."""
    width = None
    for number, row in enumerate(TABLES[source.kind](source), 1):
        width = width or len(row)
        if len(row) != width:
            raise UserError(f"{source.name}: row {number} has {len(row)} columns, the first has {width}")
        yield row


def cells(source: Source, column: str | None) -> Iterator[str]:
    """One column of a table."""
    rows = table_rows(source)
    first = next(rows, None)
    if first is None:
        return
    if column is not None and column.isdecimal():
        at = int(column) - 1
        if not 0 <= at < len(first):
            raise UserError(f"{source.name}: there is no column {column}, the first row has {len(first)}")
        yield first[at]
    else:
        how = "--column NAME, or a number if the first row is no header"
        name = choose_column(source.name, first, [], column, how)
        if first.count(name) > 1:
            raise UserError(f"{source.name}: {first.count(name)} columns are called {name!r}: rename all but one")
        at = first.index(name)
    for row in rows:
        yield row[at]


READERS: Mapping[str, Callable[[Source, str | None], Iterator[str]]] = {
    ".json": json_array,
    **dict.fromkeys(JSON_LINES, json_lines),
    **dict.fromkeys(TABLES, cells),
    ".parquet": parquet_texts,
    **dict.fromkeys(ARROW, arrow_texts),
}
