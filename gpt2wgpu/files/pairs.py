"""Labelled pairs of sentences from files, for `evaluate` and for training.

A .tsv or .csv file has a header with sentence1, sentence2 and a target, label or score; other columns are ignored. Without a
header the columns are score, sentence1, sentence2, as in STS data, or, if no target is needed, two sentences. A .jsonl file has
one object per line with these names.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from ..errors import UserError, show
from ..vectors.measures import Vector
from .columns import USUAL_COLUMNS, is_identifier
from .source import Source
from .texts import JSON_LINES, TABLES, json_values, read_texts, show_json, table_rows

SENTENCES = ("sentence1", "sentence2")
TARGETS = ("label", "score")
STEPS = 6  # values of STS data's scale, 0 to 5


@dataclass(frozen=True)
class Pairs:
    """n pairs; `targets`, float64 (n,), are labels 0 and 1 or scores on any scale, or None where the file has none."""

    sentences1: list[str]
    sentences2: list[str]
    targets: Vector | None

    def __len__(self) -> int:
        return len(self.sentences1)

    @property
    def labelled(self) -> bool:
        """Whether the targets are labels: all of them 0 or 1."""
        return self.targets is not None and bool(np.isin(self.targets, (0, 1)).all())


def read_pairs(path: str, *, target: bool = True) -> Pairs:
    """All pairs of a file. target: whether each needs a label or score. Raises UserError naming file and row."""
    first: list[str] = []
    second: list[str] = []
    values: list[float] = []
    key: str | None = None
    for where, record in read_records(path):
        for name, column in zip(SENTENCES, (first, second), strict=True):
            column.append(text := sentence_of(record, name, f"{path}: {where}"))
            if not text.strip():
                raise UserError(f"{path}: {where}: {name} is {show(text) if text else 'empty'}, expected a sentence")
        there = [name for name in TARGETS if name in record]
        if len(there) > 1:
            raise UserError(f"{path}: {where} has both a label and a score: keep only the one that is meant")
        if target and not there:
            raise UserError(f"{path}: {where} has neither a label nor a score")
        if len(first) > 1 and key != (there[0] if there else None):
            raise UserError(f"{path}: {where} has {there[0] if there else 'no target'}, the first has {key or 'none'}")
        key = there[0] if there else None
        if key is not None:
            if (value := read_number(record[key])) is None:
                raise UserError(f"{path}: {where}: {key} is {show_json(record[key])}, expected a number")
            values.append(value)
    if not first:
        raise UserError(f"{path}: there are no pairs in it")
    counts_rows = len(values) > STEPS and values in ([*range(len(values))], [*range(1, len(values) + 1)])
    if counts_rows and not names_sentences(first_record(Source(path))):
        raise UserError(f"{path}: the first column counts the rows, expected scores: name them in a header if they are scores")
    return Pairs(first, second, np.array(values) if key is not None else None)


def read_sentences(path: str, column: str | None = None) -> Iterator[str]:
    """All texts of a file: both sentences of each pair in a file of pairs, unless a column is named; else as `read_texts`."""
    source = Source(path)
    if column is None and source.kind in (*TABLES, *JSON_LINES) and holds_pairs(source):
        return pair_sentences(path)
    return read_texts(path, column)


def pair_sentences(path: str) -> Iterator[str]:
    for where, record in read_records(path):
        for name in SENTENCES:
            yield sentence_of(record, name, f"{path}: {where}")


def sentence_of(record: dict[str, Any], name: str, where: str) -> str:
    """A sentence of a record. where: file and row, for messages. Raises UserError if it is missing or not a text."""
    if name not in record:
        raise UserError(f"{where} has no {name}, expected a sentence")
    if not isinstance(text := record[name], str):
        raise UserError(f"{where}: {name} is {show_json(text)}, expected a sentence")
    return text


def read_records(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields of every pair by name, and where in the file it stands."""
    with closing(Source(path)) as source:
        if source.kind in JSON_LINES:
            for line, value in json_values(source):
                if not isinstance(value, dict):
                    expected = "an object with sentence1 and sentence2"
                    raise UserError(f"{path}: line {line} is {show_json(value)}, expected {expected}")
                yield f"line {line}", value
            return
        if source.kind not in TABLES:
            raise UserError(f"{path}: pairs are read from .tsv, .csv and .jsonl files")
        rows = table_rows(source)
        first = next(rows, None)
        if first is None:
            return
        names, start = pair_columns(first), 2
        if names is None:
            found = f"row 1 holds {', '.join(show(cell, 40) for cell in first[:6])}"
            expected = "a header with sentence1, sentence2 and label or score, or score, sentence1, sentence2"
            raise UserError(f"{path}: {found}; expected {expected}")
        if names is not first:
            rows, start = chain([first], rows), 1
        for row, cells in enumerate(rows, start):
            yield f"row {row}", dict(zip(names, cells, strict=True))


def pair_columns(first: list[str]) -> list[str] | None:
    """The names of a table's columns from its first row: the row itself if it is a header; None if that is not clear."""
    known = [name for name in first if name in (*SENTENCES, *TARGETS)]
    if len(set(known)) == len(known) and set(SENTENCES) <= set(known):
        return first
    if len(first) == 3 and read_number(first[0]) is not None:
        return ["score", *SENTENCES]
    if len(first) != 2 or known or any(cell in USUAL_COLUMNS or names_row(cell) for cell in first):
        return None
    return [*SENTENCES]


def names_row(cell: str) -> bool:
    """Whether a cell of the first row shows that its column holds the names or numbers of rows."""
    return is_identifier(cell) or read_number(cell) is not None


def first_record(source: Source) -> Any:
    """The first value of a .jsonl file, or the first row of a table; None if there is none."""
    with closing(source):
        return next(json_values(source), (0, None))[1] if source.kind in JSON_LINES else next(table_rows(source), None)


def names_sentences(first: Any) -> bool:
    return isinstance(first, dict | list) and all(name in first for name in SENTENCES)


def holds_pairs(source: Source) -> bool:
    """Whether a file certainly holds pairs: two columns without a header may also be a name and a text."""
    first = first_record(source)
    return names_sentences(first) or (source.kind in TABLES and bool(first) and pair_columns(first) == ["score", *SENTENCES])


def read_number(value: Any) -> float | None:
    """A finite number, given as a number or as text; None for anything else."""
    if isinstance(value, str) and "_" not in value:  # float() accepts 1_000
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None
