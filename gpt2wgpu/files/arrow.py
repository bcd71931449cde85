"""Texts from Parquet and Arrow files, vectors into them. pyarrow is imported here only, when such a file is met.

Vectors are written as columns row (int64, from 0), sentence (string) and embedding (fixed-size list of float32, int8 or
uint8); the schema's metadata holds, as JSON under the key "gpt2wgpu", what is known of the vectors.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

from ..errors import UserError
from .columns import choose_column
from .rows import NOTHING, About, Rows, blocks
from .source import Source, import_arrow

ARROW = (".arrow", ".feather", ".arrows", ".ipc")  # files and streams
MAGIC = b"ARROW1"
TEXTS = 4096  # taken out of Arrow's memory at a time, fewer if they are long
BLOCK = 1 << 24  # bytes of a row group, or read at a time


@contextmanager
def refusing(source: Source) -> Iterator[Any]:
    """pyarrow; what it cannot read becomes a UserError."""
    pyarrow = import_arrow(source.name, source.kind)
    try:
        yield pyarrow
    except pyarrow.ArrowException as error:
        raise source.damaged(error) from None


def parquet_texts(source: Source, column: str | None) -> Iterator[str]:
    """One column, page by page."""
    if source.packed:
        raise UserError(f"{source.name}: Parquet is packed inside: unpack the {source.packed}")
    with refusing(source) as pyarrow, source.open() as raw:
        from pyarrow.parquet import ParquetFile

        file = ParquetFile(raw, buffer_size=1 << 20, pre_buffer=False)
        name, total = text_column(source, pyarrow, file.schema_arrow, column), file.metadata.num_rows
        row = 0
        source.tell = lambda: source.size * row // total  # the file itself is read back and forth
        for batch in file.iter_batches(batch_size=rows_at_a_time(file.metadata), columns=[name]):
            at = batch.schema.get_field_index(name)  # Parquet also gives the field b of a column a where a column is called a.b
            yield from texts_of(source, name, batch.column(at), row)
            row += batch.num_rows


def rows_at_a_time(metadata: Any) -> int:
    """As many as take about a block of memory."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    largest = max((group.total_byte_size // group.num_rows for group in groups if group.num_rows), default=0)
    return max(1, min(TEXTS, BLOCK // max(1, largest)))


def arrow_texts(source: Source, column: str | None) -> Iterator[str]:
    """One column of an IPC stream. An IPC file is one too, after its first eight bytes."""
    with refusing(source) as pyarrow, source.open() as file:
        if file.peek(8).startswith(MAGIC):  # type: ignore[attr-defined]  # what unpacks may not be able to seek
            file.read(8)
            if not source.packed and not ends_with_magic(file):
                raise source.damaged(EOFError())
        reader = pyarrow.ipc.open_stream(file)
        name = text_column(source, pyarrow, reader.schema, column)
        at, row = reader.schema.get_field_index(name), 0
        for batch in reader:
            for first in range(0, batch.num_rows, TEXTS):
                part = batch.column(at).slice(first, TEXTS)
                yield from texts_of(source, name, part, row)
                row += len(part)


def ends_with_magic(file: BinaryIO) -> bool:
    """Whether the end of an IPC file is there. Its position is left after the first eight bytes."""
    file.seek(-len(MAGIC), os.SEEK_END)
    end = file.read()
    file.seek(8)
    return end == MAGIC


def text_column(source: Source, pyarrow: Any, schema: Any, column: str | None) -> str:
    types = pyarrow.types

    def is_text(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)

    texts = [field.name for field in schema if is_text(field.type)]
    name = choose_column(source.name, schema.names, texts, column, "--column NAME")
    if schema.names.count(name) > 1:
        raise UserError(f"{source.name}: {schema.names.count(name)} columns are called {name!r}: rename all but one")
    if name not in texts:
        raise UserError(f"{source.name}: column {name!r} holds {schema.field(name).type}, expected texts (string)")
    return name


def texts_of(source: Source, name: str, column: Any, before: int) -> list[str]:
    """A piece of a column, which `before` rows precede. A null is no text, and taking it for an empty one would be a guess."""
    try:
        texts = column.to_pylist()
    except UnicodeDecodeError:
        row = before + next(i for i, text in enumerate(column, 1) if not is_utf8(text))
        raise UserError(f"{source.name}: row {row} of column {name!r} is not UTF-8; write it as a text (string)") from None
    if None in texts:
        row = before + texts.index(None) + 1
        raise UserError(f"{source.name}: row {row} of column {name!r} is null, expected a text: fill it or leave the row out")
    return texts


def is_utf8(text: Any) -> bool:
    try:
        text.as_py()
    except UnicodeDecodeError:
        return False
    return True


# --- writing


def tables(rows: Rows, about: About) -> Iterator[tuple[Any, Any]]:
    """Schema and record batch, block by block."""
    pyarrow = import_arrow("the output", ".parquet and .arrow")
    row = about.first
    for texts, vectors in blocks(rows, BLOCK):
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


def write_parquet(file: BinaryIO, rows: Rows, about: About = NOTHING) -> None:
    """Row groups of about 16 MB. Texts are packed with zstd; numbers would not get smaller."""
    found = tables(rows, about)
    schema, first = next(found)
    from pyarrow.parquet import ParquetWriter

    packing = {"row": "zstd", "sentence": "zstd", "embedding.list.element": "none"}
    with ParquetWriter(file, schema, compression=packing, use_dictionary=False, write_statistics=["row"]) as writer:
        for batch in chain([first], (batch for _, batch in found)):
            writer.write_batch(batch)


def write_arrow(file: BinaryIO, rows: Rows, about: About = NOTHING) -> None:
    """An IPC file, as Feather version 2 is."""
    found = tables(rows, about)
    schema, first = next(found)
    with import_arrow("the output", ".arrow").ipc.new_file(file, schema) as writer:
        for batch in chain([first], (batch for _, batch in found)):
            writer.write_batch(batch)
