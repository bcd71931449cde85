"""Rows of named columns into Parquet, JSON lines or a .tsv with a header."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from ..files.source import import_arrow
from ..files.vectors import escape_tsv

Columns = Mapping[str, Sequence[Any]]  # all of one length


def write_record_lines(file: BinaryIO, columns: Columns) -> None:
    """NaN and infinities become null: JSON has no such numbers."""
    for row in zip(*columns.values(), strict=True):
        values = (None if isinstance(value, float) and not math.isfinite(value) else value for value in row)
        line = json.dumps(dict(zip(columns, values, strict=True)), ensure_ascii=False, allow_nan=False)
        file.write(f"{line}\n".encode("utf-8", "replace"))


def write_record_table(file: BinaryIO, columns: Columns) -> None:
    """Texts are escaped as in `embed`'s .tsv; an empty cell is nothing."""
    file.write("\t".join(map(escape_tsv, columns)).encode() + b"\n")
    for row in zip(*columns.values(), strict=True):
        cells = (escape_tsv("" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)) for value in row)
        file.write("\t".join(cells).encode("utf-8", "replace") + b"\n")


def write_record_parquet(file: BinaryIO, columns: Columns) -> None:
    pyarrow = import_arrow("the output", ".parquet")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({name: pyarrow.array([*values]) for name, values in columns.items()}), file)


RECORD_FORMATS: Mapping[str, Callable[[BinaryIO, Columns], None]] = {
    ".parquet": write_record_parquet,
    ".jsonl": write_record_lines,
    ".tsv": write_record_table,
}
