"""Writers of vectors for every file format. They write row by row and keep no row in memory."""

import gzip
import io
import json
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ..errors import UserError
from ..graph.tensor import Array
from .arrow import write_arrow, write_parquet
from .rows import NOTHING, OutputFacts, Rows

NPZ_TEXT_BYTES = 1 << 32  # 4 GiB: numpy pads every text to the longest one, and readers load them all
Writer = Callable[[BinaryIO, Rows, OutputFacts], None]


def format_numbers(vector: Array) -> list[str]:
    """For a vector (C,) the shortest decimals that give the same float32 again, or its integers."""
    return vector.astype("U").tolist()


def json_record(text: str, vector: Array) -> str:
    values = ", ".join(format_numbers(vector))
    return f'{{"sentence": {json.dumps(text, ensure_ascii=False)}, "embedding": [{values}], "dimensions": {len(vector)}}}'


def write_jsonl(file: BinaryIO, rows: Rows, about: OutputFacts = NOTHING) -> None:
    """One object a line: sentence, embedding, dimensions. For a single text this is the JSON that `embed` prints."""
    for row in rows:
        file.write(f"{json_record(*row)}\n".encode())


def write_json(file: BinaryIO, rows: Rows, about: OutputFacts = NOTHING) -> None:
    """An array of the same objects."""
    before = "[\n"
    for row in rows:
        file.write(f"{before}{json_record(*row)}".encode())
        before = ",\n"
    file.write(b"\n]\n")


def escape_tsv(text: str) -> str:
    """A text for one cell of a .tsv: \\t, \\n and \\r stand for a tab and line ends, \\\\ for a backslash."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def write_tsv(file: BinaryIO, rows: Rows, about: OutputFacts = NOTHING) -> None:
    """A line is the text, escaped, and C numbers, all separated by tabs; no header."""
    for text, vector in rows:
        file.write("\t".join([escape_tsv(text), *format_numbers(vector)]).encode() + b"\n")


def write_jsonl_gz(file: BinaryIO, rows: Rows, about: OutputFacts = NOTHING) -> None:
    """.jsonl, packed. The same rows give the same bytes."""
    with gzip.GzipFile("", "wb", compresslevel=4, fileobj=file, mtime=0) as packed:
        write_jsonl(cast(BinaryIO, packed), rows)


def npy_header(dtype: str, *shape: int) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue()


def safetensors_header(dtype: str, *shape: int) -> bytes:
    """One tensor, "embeddings"."""
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    kind = {"<f4": "F32", "|i1": "I8", "|u1": "U8"}[dtype]
    text = json.dumps({"embeddings": {"dtype": kind, "shape": shape, "data_offsets": [0, size]}}).ljust(248)
    return struct.pack("<Q", len(text)) + text.encode()


def write_binary(file: BinaryIO, rows: Rows, header: Callable[..., bytes]) -> int:
    """Write header and values (n, C), little-endian; return n. It is known only at the end, so the header is written twice."""
    n, width, dtype = 0, 0, "<f4"
    for _, vector in rows:
        if n == 0:
            width, dtype = len(vector), vector.dtype.newbyteorder("<").str
            file.write(header(dtype, 0, width))
        file.write(little_endian(vector))
        n += 1
    final = header(dtype, n, width)
    assert len(final) == len(header(dtype, 0, width)), "a header's length must not depend on n"
    file.seek(0)
    file.write(final)
    file.seek(0, os.SEEK_END)
    return n


def write_npy(file: BinaryIO, rows: Rows, about: OutputFacts = NOTHING) -> None:
    """(n, C)"""
    write_binary(file, rows, npy_header)


def write_safetensors(file: BinaryIO, rows: Rows, about: OutputFacts = NOTHING) -> None:
    """A tensor "embeddings", (n, C)"""
    write_binary(file, rows, safetensors_header)


def write_npz(file: BinaryIO, rows: Rows, about: OutputFacts = NOTHING) -> None:
    """Arrays "embeddings", (n, C), and "texts", (n,). A zip takes one member at a time, so both wait in temporary files."""
    longest = 1
    folder = Path(file.name).parent
    with tempfile.TemporaryFile(dir=folder) as vectors, tempfile.TemporaryFile(dir=folder) as texts:

        def set_aside() -> Rows:
            nonlocal longest
            for i, (text, vector) in enumerate(rows, 1):
                longest = max(longest, len(text))
                if 4 * longest * i > NPZ_TEXT_BYTES:
                    raise UserError(f"{i} texts of up to {longest} characters do not fit in .npz: choose .jsonl or .safetensors")
                letters = text.encode("utf-32-le")
                texts.write(struct.pack("<I", len(letters)) + letters)
                yield text, vector

        n = write_binary(vectors, set_aside(), npy_header)
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


def write_sqlite(file: BinaryIO, rows: Rows, about: OutputFacts = NOTHING) -> None:
    """Tables embeddings (row from 0, sentence, embedding as little-endian bytes) and facts (name, value as JSON)."""
    import sqlite3  # Python can be built without it

    with closing(sqlite3.connect(file.name, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")  # after a crash the file is deleted anyway
        database.execute("PRAGMA synchronous = OFF")
        try:
            database.execute("BEGIN")
            database.execute("CREATE TABLE embeddings (row INTEGER PRIMARY KEY, sentence TEXT NOT NULL, embedding BLOB NOT NULL)")
            database.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            facts = ((name, json.dumps(value)) for name, value in about.facts.items())
            database.executemany("INSERT INTO facts VALUES (?, ?)", facts)
            values = ((i, text, little_endian(vector)) for i, (text, vector) in enumerate(rows, about.first))
            database.executemany("INSERT INTO embeddings VALUES (?, ?, ?)", values)
            database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise OSError(f"SQLite: {error}") from None  # a full disk


def little_endian(vector: Array) -> bytes:
    return vector.astype(vector.dtype.newbyteorder("<")).tobytes()


VECTOR_FORMATS: Mapping[str, Writer] = {
    ".json": write_json,
    ".jsonl": write_jsonl,
    ".jsonl.gz": write_jsonl_gz,
    ".npy": write_npy,
    ".npz": write_npz,
    ".parquet": write_parquet,
    ".arrow": write_arrow,
    ".feather": write_arrow,
    ".safetensors": write_safetensors,
    ".sqlite": write_sqlite,
    ".db": write_sqlite,
    ".tsv": write_tsv,
}
WITHOUT_TEXTS = (".npy", ".safetensors")
ARROW_FORMATS = (".parquet", ".arrow", ".feather")
HOLD_FACTS = (*ARROW_FORMATS, ".sqlite", ".db")
