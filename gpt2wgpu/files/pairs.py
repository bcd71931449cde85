"""Pairs of sentences from files: what `evaluate` measures with and training learns from.

A .tsv or .csv file has a header with sentence1, sentence2 and a target, label or score; other columns are left alone. Without
a header it is score, sentence1, sentence2, as STS data come, or just two sentences where no target is needed. A .jsonl file has
an object a line with these names.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from .. import files
from ..errors import UserError, show
from ..vectors.measures import Vector

SENTENCES = ("sentence1", "sentence2")
TARGETS = ("label", "score")


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
    """All pairs of a file. Raises UserError naming file and row where anything is unclear, or no `target` found though needed."""
    first: list[str] = []
    second: list[str] = []
    values: list[float] = []
    key: str | None = None
    for where, record in read_records(path):
        for name, column in zip(SENTENCES, (first, second), strict=True):
            text = record.get(name)
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{path}: {where}: {name} is {show(text) if text else 'empty'}, expected a sentence")
            column.append(text)
        there = [name for name in TARGETS if name in record]
        if len(there) > 1:
            raise UserError(f"{path}: {where} has both a label and a score: leave only the one that is meant")
        if target and not there:
            raise UserError(f"{path}: {where} has neither a label nor a score")
        if len(first) > 1 and key != (there[0] if there else None):
            raise UserError(f"{path}: {where} has {there[0] if there else 'no target'}, the first has {key or 'none'}")
        key = there[0] if there else None
        if key is not None:
            if (value := read_number(record[key])) is None:
                raise UserError(f"{path}: {where}: {key} is {show(record[key], 40)}, expected a number")
            values.append(value)
    if not first:
        raise UserError(f"{path}: there are no pairs in it")
    return Pairs(first, second, np.array(values) if key is not None else None)


def read_sentences(path: str, column: str | None = None) -> Iterator[str]:
    """All texts of a file: of pairs both sentences, else, and where a column is named, what `files.read_texts` finds."""
    if column is None and files.Source(path).kind in (*files.TABLES, *files.JSON_LINES) and holds_pairs(path):
        return (record[name] for _, record in read_records(path) for name in SENTENCES if isinstance(record.get(name), str))
    return files.read_texts(path, column)


def read_records(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields of every pair by name, and where it stands in the file."""
    source = files.Source(path)
    if source.kind in files.JSON_LINES:
        for line, value in files.json_values(source):
            if not isinstance(value, dict):
                raise UserError(f"{path}: line {line} is {show(value, 40)}, expected an object with sentence1 and sentence2")
            yield f"line {line}", value
        return
    if source.kind not in files.TABLES:
        raise UserError(f"{path}: pairs are read from .tsv, .csv and .jsonl files")
    rows = files.table_rows(source)
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
    """The names of a table's columns from its first row: the row itself if it is a header; None if it does not say."""
    known = [name for name in first if name in (*SENTENCES, *TARGETS)]
    if len(set(known)) == len(known) and set(SENTENCES) <= set(known):
        return first
    if len(first) == 3 and read_number(first[0]) is not None:
        return ["score", *SENTENCES]
    return [*SENTENCES] if len(first) == 2 and not known and not set(first) & set(files.USUAL_COLUMNS) else None


def holds_pairs(path: str) -> bool:
    source = files.Source(path)
    if source.kind in files.JSON_LINES:
        value = next(files.json_values(source), (0, None))[1]
        return isinstance(value, dict) and set(SENTENCES) <= set(value)
    first = next(files.table_rows(source), None)
    return first is not None and pair_columns(first) is not None


def read_number(value: Any) -> float | None:
    """A finite number, or the text of one as a file may hold it."""
    if isinstance(value, str) and "_" not in value:  # float() takes 1_000
        try:
            value = float(value)
        except ValueError:
            return None
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None
