"""Texts from Parquet and Arrow files, vectors into them. pyarrow is imported only for such a file.

Vectors are written as columns row (int64, from 0), sentence (string) and embedding (fixed-size list of float32, int8 or
uint8). The schema's metadata holds facts about them, as JSON under the key "gpt2wgpu".
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

from ..errors import UserError
from .columns import ColumnChoice
from .lines import TEXT_BYTES
from .rows import NOTHING, OutputFacts, Rows, stack_rows
from .source import Source, import_arrow

ARROW = (".arrow", ".feather", ".arrows", ".ipc")  # files and streams
MAGIC = b"ARROW1"
READ_BYTES = 1 << 20  # of a Parquet file, read at a time
DECODED_ROWS = 4096  # of a Parquet file, decoded at a time; fewer if they are long
DELTA_ROWS = 16  # the same, for encodings in which a few bytes may stand for a long text
GROUP_BYTES = 1 << 24  # in a row group that is written, or in rows decoded at a time: bounds memory


@contextmanager
def arrow_errors(source: Source) -> Iterator[Any]:
    """pyarrow; what it cannot read becomes a UserError. A broken file can raise far more than Arrow's own exceptions."""
    pyarrow = import_arrow(source.name, source.kind)
    try:
        yield pyarrow
    except (pyarrow.ArrowException, MemoryError, OverflowError, SystemError, UnicodeDecodeError) as error:
        raise source.damaged(error) from None


def parquet_texts(source: Source, column: ColumnChoice) -> Iterator[str]:
    """One column, page by page."""
    if source.packed:
        raise UserError(f"{source.name}: Parquet is packed inside: unpack the {source.packed}")
    with arrow_errors(source) as pyarrow, source.open() as raw:
        from pyarrow.parquet import ParquetFile

        file = ParquetFile(raw, buffer_size=READ_BYTES, pre_buffer=False)
        name, total = text_column(source, pyarrow, file.schema_arrow, column), file.metadata.num_rows
        row = 0
        source.tell = lambda: source.size * min(row, total) // max(1, total)  # the position in the file jumps back and forth
        for batch in parquet_batches(raw, file.metadata, name):
            at = batch.schema.get_field_index(name)  # Parquet also gives the field b of a column a where a column is called a.b
            yield from column_texts(source, pyarrow, batch.column(at), name, row)
            row += batch.num_rows


def parquet_batches(raw: BinaryIO, metadata: Any, name: str) -> Iterator[Any]:
    """Record batches of one column, as a dictionary and indices: a few bytes of a file may repeat a long text a million times.

    pyarrow cannot do that with delta encodings, which share the beginnings of texts; of these it decodes a few rows at a time.
    """
    from pyarrow.parquet import ParquetFile

    def batches(rows: int, dictionaries: list[str]) -> Iterator[Any]:
        file = ParquetFile(raw, metadata=metadata, buffer_size=READ_BYTES, pre_buffer=False, read_dictionary=dictionaries)
        return iter(file.iter_batches(batch_size=rows, columns=[name]))

    rows, done = rows_at_a_time(metadata), 0
    try:
        for batch in batches(rows, [name]):
            done += batch.num_rows
            yield batch
        return
    except OSError as error:  # not implemented, or damaged; then the second attempt fails too
        if error.errno is not None:
            raise
    for batch in batches(min(rows, DELTA_ROWS), []):
        first, done = done, max(0, done - batch.num_rows)
        if first < batch.num_rows:
            yield batch.slice(first)


def rows_at_a_time(metadata: Any) -> int:
    """How many rows take about GROUP_BYTES, according to the file's metadata."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    largest = max((group.total_byte_size // group.num_rows for group in groups if group.num_rows), default=0)
    return max(1, min(DECODED_ROWS, GROUP_BYTES // max(1, largest)))


def arrow_texts(source: Source, column: ColumnChoice) -> Iterator[str]:
    """One column of an IPC stream. An IPC file is a stream after its first eight bytes."""
    with arrow_errors(source) as pyarrow, source.open() as file:
        if file.peek(8).startswith(MAGIC):  # type: ignore[attr-defined]  # a packed file cannot seek
            file.read(8)
            if not source.packed and not ends_with_magic(file):
                raise source.damaged(EOFError())
        reader = pyarrow.ipc.open_stream(file)
        name = text_column(source, pyarrow, reader.schema, column)
        at, row = reader.schema.get_field_index(name), 0
        for batch in reader:
            yield from column_texts(source, pyarrow, batch.column(at), name, row)
            row += batch.num_rows


def ends_with_magic(file: BinaryIO) -> bool:
    """Whether an IPC file has its end. Leaves the position after the first eight bytes."""
    file.seek(-len(MAGIC), os.SEEK_END)
    end = file.read()
    file.seek(8)
    return end == MAGIC


def text_column(source: Source, pyarrow: Any, schema: Any, column: ColumnChoice) -> str:
    """The name of the column to read. Raises UserError."""
    types = pyarrow.types

    def holds_texts(kind: Any) -> bool | None:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
            return True
        return False if types.is_primitive(kind) or types.is_decimal(kind) else None  # numbers, truth values, times

    columns = {field.name: holds_texts(field.type) for field in schema}
    name = column.find(source.name, columns, "--column NAME")
    if schema.names.count(name) > 1:
        raise UserError(f"{source.name}: {schema.names.count(name)} columns are called {name!r}: rename all but one")
    if not columns[name]:
        raise UserError(f"{source.name}: column {name!r} holds {schema.field(name).type}, expected texts (string)")
    return name


def column_texts(source: Source, pyarrow: Any, column: Any, name: str, before: int) -> Iterator[str]:
    """The texts of a piece of a column, after `before` rows. One at a time: a small dictionary may repeat a large text often."""
    for row, value in enumerate(column_values(pyarrow, checked_binary(pyarrow, column)), before + 1):
        if value is None or not value.is_valid:
            wrong = "is null, expected a text: fill it or leave the row out"
        elif (data := value.as_buffer()).size > TEXT_BYTES:
            wrong = f"is longer than {TEXT_BYTES >> 20} MiB: split it into texts"
        else:
            try:
                yield str(data, "utf-8")
                continue
            except UnicodeDecodeError:
                wrong = "is not UTF-8; write it as a text (string)"
        raise UserError(f"{source.name}: row {row} of column {name!r} {wrong}")


def column_values(pyarrow: Any, column: Any) -> Iterator[Any]:
    """The scalars of a column, looked up in its dictionary if it has one; None for an index that is null."""
    if isinstance(column, pyarrow.DictionaryArray):
        values = column.dictionary
        return (None if i is None else values[i] for i in column.indices.to_pylist())
    return iter(column)


def checked_binary(pyarrow: Any, column: Any) -> Any:
    """The same column as binary, with offsets and indices checked: a wrong one would read memory outside the file."""
    column.validate()
    if isinstance(column, pyarrow.DictionaryArray):
        values = checked_binary(pyarrow, column.dictionary)
        column = pyarrow.DictionaryArray.from_arrays(column.indices, values, safe=False)
    else:
        types = {pyarrow.string(): pyarrow.binary(), pyarrow.large_string(): pyarrow.large_binary()}
        column = column.view(types.get(column.type, pyarrow.binary_view()))
    column.validate(full=True)
    return column


# --- writing


def record_batches(rows: Rows, about: OutputFacts) -> Iterator[tuple[Any, Any]]:
    """Record batches, each with its schema."""
    pyarrow = import_arrow("the output", ".parquet and .arrow")
    row = about.first
    for texts, vectors in stack_rows(rows, GROUP_BYTES):
        n, width = vectors.shape
        element = pyarrow.field("element", pyarrow.from_numpy_dtype(vectors.dtype), nullable=False)
        kind = pyarrow.list_(element, width)
        schema = pyarrow.schema(
            [
                pyarrow.field("row", pyarrow.int64(), nullable=False),
                pyarrow.field("sentence", pyarrow.string(), nullable=False),
                pyarrow.field("embedding", kind, nullable=False),
            ],
            metadata={"gpt2wgpu": json.dumps(about.facts)} if about.facts else None,
        )
        values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), type=kind)
        numbers = pyarrow.array(np.arange(row, row + n))
        yield schema, pyarrow.record_batch([numbers, pyarrow.array(texts, pyarrow.string()), values], schema=schema)
        row += n


def write_parquet(file: BinaryIO, rows: Rows, about: OutputFacts = NOTHING) -> None:
    """Row groups of about 16 MiB. Texts are compressed with zstd; the numbers are not, as they hardly shrink."""
    found = record_batches(rows, about)
    schema, first = next(found)
    from pyarrow.parquet import ParquetWriter

    packing = {"row": "zstd", "sentence": "zstd", "embedding.list.element": "none"}
    with ParquetWriter(file, schema, compression=packing, use_dictionary=False, write_statistics=["row"]) as writer:
        for batch in chain([first], (batch for _, batch in found)):
            writer.write_batch(batch)


def write_arrow(file: BinaryIO, rows: Rows, about: OutputFacts = NOTHING) -> None:
    """An IPC file, which is Feather version 2."""
    found = record_batches(rows, about)
    schema, first = next(found)
    with import_arrow("the output", ".arrow").ipc.new_file(file, schema) as writer:
        for batch in chain([first], (batch for _, batch in found)):
            writer.write_batch(batch)
