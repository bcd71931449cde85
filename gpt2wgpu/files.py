"""Texts from files, vectors into files: row by row, so that memory does not grow with the file.

Input is UTF-8, with or without a byte order mark, with \\n or \\r\\n at the end of lines. One text is one row: blank lines are
empty texts, and a row that cannot be read is an error with its number, so that row i of the output is always text i.

    .jsonl         one JSON value a line: an object of which a field is the text, or the text itself (blank lines are skipped)
    .csv           comma-separated, cells in double quotes may hold commas and line ends
    .tsv           tab-separated; cells are taken as they are, quotes and backslashes mean nothing
    other names    one text a line

In .csv and .tsv a column chosen by name, or by default, makes the first row a header; chosen by number (from 1) there is none.

Output appears under its name only when it is complete; what was there before stays until then.
"""

import csv
import io
import json
import os
import shutil
import stat
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from uuid import uuid4

import numpy as np

from .errors import UserError
from .ops import Array

JSON_LINES = (".jsonl", ".ndjson")
USUAL_COLUMNS = ("text", "sentence")
NPZ_TEXT_BYTES = 1 << 32  # numpy gives every text the room of the longest one


# --- reading


def read_texts(path: str, column: str | None = None) -> Iterator[str]:
    """The texts of a file, or of standard input ("-", one a line), in order.

    The file is opened and its first text read at once, so most of what can be wrong with it is found before any work.
    Raises UserError: no texts, not UTF-8, no such column, a broken row. OSError: the file cannot be read.
    """
    name = "standard input" if path == "-" else path
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        raise UserError(f"{name}: .json input is not supported; use .jsonl, .tsv, .csv, or one text a line")
    read = READERS.get(suffix, plain) if path != "-" else plain
    texts = read(path, name, column)
    first = next(texts, None)
    if first is None:
        raise UserError(f"{name}: there are no texts in it")
    return chain([first], texts)


def lines(path: str, name: str) -> Iterator[str]:
    """Decoded lines, each with its end. Only \\n ends a line: str.splitlines knows ten others, which may stand in a text."""
    with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                wide = number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff"))
                found = "UTF-16" if wide else f"not UTF-8 (byte {error.start + 1} is 0x{line[error.start]:02x})"
                raise UserError(f"{name}: line {number} is {found}; save it as UTF-8") from None
            yield text.removeprefix("\ufeff") if number == 1 else text


def without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def plain(path: str, name: str, column: str | None) -> Iterator[str]:
    if column is not None:
        raise UserError(f"{name}: a column can be chosen in .jsonl, .tsv and .csv files; this one is read as one text a line")
    yield from map(without_end, lines(path, name))


def json_values(path: str, name: str) -> Iterator[tuple[int, Any]]:
    """The values of a .jsonl file with the numbers of their lines."""
    for number, line in enumerate(lines(path, name), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name}: line {number} is not JSON: {error}") from None


def json_lines(path: str, name: str, column: str | None) -> Iterator[str]:
    for number, value in json_values(path, name):
        if isinstance(value, dict):
            if column is None:
                strings = [key for key, field in value.items() if isinstance(field, str)]
                column = strings[0] if len(strings) == 1 else choose_column(name, list(value), None, "--column NAME")
            value = value.get(column)
        elif column is not None:
            value = None
        if not isinstance(value, str):
            wanted = "a text" if column is None else f"an object with a text {column!r}"
            raise UserError(f"{name}: line {number} is not {wanted}")
        yield value


def comma_separated(path: str, name: str) -> Iterator[list[str]]:
    csv.field_size_limit(1 << 30)  # the default refuses texts over 128 KiB
    rows = csv.reader(lines(path, name), strict=True)
    try:
        for row in rows:
            yield row or [""]  # how csv reads a blank line
    except csv.Error as error:
        raise UserError(f"{name}: line {rows.line_num}: {error}") from None


def tab_separated(path: str, name: str) -> Iterator[list[str]]:
    return (without_end(line).split("\t") for line in lines(path, name))


TABLES: Mapping[str, Callable[[str, str], Iterator[list[str]]]] = {".csv": comma_separated, ".tsv": tab_separated}


def table_rows(path: str, name: str) -> Iterator[list[str]]:
    """The rows of a .csv or .tsv file. One of another length than the first is refused: a stray separator shifts columns."""
    width = None
    for number, row in enumerate(TABLES[Path(path).suffix.lower()](path, name), 1):
        width = width or len(row)
        if len(row) != width:
            raise UserError(f"{name}: row {number} has {len(row)} columns, the first has {width}")
        yield row


def cells(path: str, name: str, column: str | None) -> Iterator[str]:
    """One column of a table."""
    rows = table_rows(path, name)
    first = next(rows, None)
    if first is None:
        return
    if column is not None and column.isdecimal():
        at = int(column) - 1
        if not 0 <= at < len(first):
            raise UserError(f"{name}: there is no column {column}, the first row has {len(first)}")
        yield first[at]
    else:
        at = first.index(choose_column(name, first, column, "--column NAME, or a number if the first row is no header"))
    for row in rows:
        yield row[at]


def choose_column(name: str, names: list[str], column: str | None, how: str) -> str:
    """The column asked for, else one with a usual name. Another one is not guessed: the first row may be no header at all."""
    for choice in USUAL_COLUMNS if column is None else (column,):
        if choice in names:
            return choice
    found = ", ".join(repr(n if len(n) <= 40 else n[:40] + "...") for n in names[:20])
    wanted = " or ".join(map(repr, USUAL_COLUMNS if column is None else (column,)))
    raise UserError(f"{name}: no column {wanted}, the columns are {found}; choose one with {how}")


READERS: Mapping[str, Callable[[str, str, str | None], Iterator[str]]] = {
    **dict.fromkeys(JSON_LINES, json_lines),
    **dict.fromkeys(TABLES, cells),
}


# --- writing

Rows = Iterable[tuple[str, Array]]  # a text and its vector, float32 (C,)
Format = TypeVar("Format")


@contextmanager
def output(path: str, formats: Mapping[str, Format]) -> Iterator[tuple[BinaryIO, Format]]:
    """A file to write to, which takes the place of `path` if the block succeeds and vanishes if it fails; and its format.

    Whether it can be written is found on entry, before any work. Raises UserError or OSError.
    """
    target = Path(os.path.realpath(path))  # through a link: the file it points to is replaced, not the link
    if target.suffix.lower() not in formats or not target.stem:
        raise UserError(f"{path}: the name must end in one of {' '.join(formats)}")
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(target.stat().st_mode):
            raise UserError(f"{path}: is not a file")
    if not target.parent.is_dir():
        raise UserError(f"{path}: there is no folder {target.parent}")
    temporary = target.with_name(f".gpt2wgpu-{uuid4().hex}.tmp")  # in the same folder: os.replace does not cross disks
    try:
        file = temporary.open("xb", buffering=1 << 20)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    try:
        with file:
            yield file, formats[target.suffix.lower()]
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:  # Ctrl-C too
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, path) from None  # a full disk does not say which file
        raise


def numbers(vector: Array) -> list[str]:
    """The shortest decimals that give the same float32 again, (C,)."""
    return vector.astype(np.float32).astype("U").tolist()


def json_record(text: str, vector: Array) -> str:
    values = ", ".join(numbers(vector))
    return f'{{"sentence": {json.dumps(text, ensure_ascii=False)}, "embedding": [{values}], "dimensions": {len(vector)}}}'


def write_jsonl(file: BinaryIO, rows: Rows) -> None:
    """One object a line: sentence, embedding, dimensions. Of a single text it is the JSON that `embed` prints."""
    for row in rows:
        file.write(f"{json_record(*row)}\n".encode())


def write_json(file: BinaryIO, rows: Rows) -> None:
    """An array of the same objects."""
    before = "[\n"
    for row in rows:
        file.write(f"{before}{json_record(*row)}".encode())
        before = ",\n"
    file.write(b"\n]\n")


def escaped(text: str) -> str:
    """A text that can stand in one cell of a .tsv: \\ before t, n, r for a tab and line ends, and for itself."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def write_tsv(file: BinaryIO, rows: Rows) -> None:
    """A line is the text, escaped, and C numbers, all separated by tabs; no header."""
    for text, vector in rows:
        file.write("\t".join([escaped(text), *numbers(vector)]).encode() + b"\n")


def npy_header(dtype: str, *shape: int) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue()


def safetensors_header(_: str, *shape: int) -> bytes:
    """One tensor, "embeddings"."""
    size = 4 * int(np.prod(shape))
    text = json.dumps({"embeddings": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).ljust(248)
    return struct.pack("<Q", len(text)) + text.encode()


def write_binary(file: BinaryIO, rows: Rows, header: Callable[..., bytes]) -> int:
    """Header and float32 (n, C), little-endian. n is known at the end, so the header is written twice. Returns n."""
    n = width = 0
    for _, vector in rows:
        if n == 0:
            width = len(vector)
            file.write(header("<f4", 0, width))
        file.write(vector.astype("<f4").tobytes())
        n += 1
    final = header("<f4", n, width)
    assert len(final) == len(header("<f4", 0, width)), "a header's length must not depend on n"
    file.seek(0)
    file.write(final)
    file.seek(0, os.SEEK_END)
    return n


def write_npy(file: BinaryIO, rows: Rows) -> None:
    """float32 (n, C)"""
    write_binary(file, rows, npy_header)


def write_safetensors(file: BinaryIO, rows: Rows) -> None:
    """A tensor "embeddings", float32 (n, C)"""
    write_binary(file, rows, safetensors_header)


def write_npz(file: BinaryIO, rows: Rows) -> None:
    """Arrays "embeddings", float32 (n, C), and "texts", (n,). A zip's members must be written one by one: both wait in files."""
    longest = 1
    folder = Path(file.name).parent
    with tempfile.TemporaryFile(dir=folder) as vectors, tempfile.TemporaryFile(dir=folder) as texts:

        def aside() -> Rows:
            nonlocal longest
            for i, (text, vector) in enumerate(rows, 1):
                longest = max(longest, len(text))
                if 4 * longest * i > NPZ_TEXT_BYTES:
                    raise UserError(f"{i} texts of up to {longest} characters do not fit in .npz: choose .jsonl or .safetensors")
                letters = text.encode("utf-32-le")
                texts.write(struct.pack("<I", len(letters)) + letters)
                yield text, vector

        n = write_binary(vectors, aside(), npy_header)
        vectors.seek(0)
        texts.seek(0)
        with zipfile.ZipFile(file, "w") as archive:
            with archive.open("embeddings.npy", "w", force_zip64=True) as member:
                shutil.copyfileobj(vectors, member, 1 << 20)
            info = zipfile.ZipInfo("texts.npy")
            info.compress_type = zipfile.ZIP_DEFLATED  # mostly padding
            with archive.open(info, "w", force_zip64=True) as member:
                member.write(npy_header(f"<U{longest}", n))
                for _ in range(n):
                    (size,) = struct.unpack("<I", texts.read(4))
                    member.write(texts.read(size).ljust(4 * longest, b"\0"))


VECTOR_FORMATS: Mapping[str, Callable[[BinaryIO, Rows], None]] = {
    ".json": write_json,
    ".jsonl": write_jsonl,
    ".npy": write_npy,
    ".npz": write_npz,
    ".safetensors": write_safetensors,
    ".tsv": write_tsv,
}


# --- a matrix of all pairs, float32 (n, n)


def write_matrix_json(file: BinaryIO, sentences: Sequence[str], matrix: Array) -> None:
    names = json.dumps(sentences, ensure_ascii=False)
    body = ",\n".join(f"[{', '.join(numbers(row))}]" for row in matrix)
    file.write(f'{{"sentences": {names}, "similarity": [\n{body}\n]}}\n'.encode())


def write_matrix_npy(file: BinaryIO, sentences: Sequence[str], matrix: Array) -> None:
    write_npy(file, zip(sentences, matrix, strict=True))


def write_matrix_tsv(file: BinaryIO, sentences: Sequence[str], matrix: Array) -> None:
    """Header and first column are the sentences, escaped."""
    names = [escaped(s) for s in sentences]
    file.write("\t".join(["", *names]).encode() + b"\n")
    for name, row in zip(names, matrix, strict=True):
        file.write("\t".join([name, *numbers(row)]).encode() + b"\n")


def write_matrix_csv(file: BinaryIO, sentences: Sequence[str], matrix: Array) -> None:
    """Header and first column are the sentences."""
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    try:
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["", *sentences])
        table.writerows([name, *numbers(row)] for name, row in zip(sentences, matrix, strict=True))
    finally:
        text.detach()  # the file is not ours to close


MATRIX_FORMATS: Mapping[str, Callable[[BinaryIO, Sequence[str], Array], None]] = {
    ".json": write_matrix_json,
    ".npy": write_matrix_npy,
    ".tsv": write_matrix_tsv,
    ".csv": write_matrix_csv,
}
