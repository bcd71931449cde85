"""The similarities of all pairs of sentences, float32 (n, n), into files."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

from ..graph.tensor import Array
from .vectors import escape_tsv, format_numbers, write_npy


def write_matrix_json(file: BinaryIO, sentences: Sequence[str], matrix: Array) -> None:
    names = json.dumps(sentences, ensure_ascii=False)
    body = ",\n".join(f"[{', '.join(format_numbers(row))}]" for row in matrix)
    file.write(f'{{"sentences": {names}, "similarity": [\n{body}\n]}}\n'.encode())


def write_matrix_npy(file: BinaryIO, sentences: Sequence[str], matrix: Array) -> None:
    write_npy(file, zip(sentences, matrix, strict=True))


def write_matrix_tsv(file: BinaryIO, sentences: Sequence[str], matrix: Array) -> None:
    """Header and first column are the sentences, escaped."""
    names = [escape_tsv(s) for s in sentences]
    file.write("\t".join(["", *names]).encode() + b"\n")
    for name, row in zip(names, matrix, strict=True):
        file.write("\t".join([name, *format_numbers(row)]).encode() + b"\n")


def write_matrix_csv(file: BinaryIO, sentences: Sequence[str], matrix: Array) -> None:
    """Header and first column are the sentences."""
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    try:
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["", *sentences])
        table.writerows([name, *format_numbers(row)] for name, row in zip(sentences, matrix, strict=True))
    finally:
        text.detach()  # else it would close the caller's file


MATRIX_FORMATS: Mapping[str, Callable[[BinaryIO, Sequence[str], Array], None]] = {
    ".json": write_matrix_json,
    ".npy": write_matrix_npy,
    ".tsv": write_matrix_tsv,
    ".csv": write_matrix_csv,
}
