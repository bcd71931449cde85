"""The rows of an unfinished output, kept on disk next to it, so that a crash at any moment loses only seconds of work.

    vectors.npy    float32 (n, C)
    texts.jsonl    the texts, one JSON string a line, where the output holds texts
    state.json     what is certainly on disk, and what the rows were made with; always replaced as a whole
    lock           held by the process that works here

Rows are appended; `commit` flushes them to disk and then replaces state.json. Bytes after the rows that state.json counts were
being written when a process ended, and are cut off. Only state.json decides, so no row is torn, duplicated or lost. It holds
checksums of the rows and of itself, so damage on disk is noticed when the work is resumed.
"""

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice, repeat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import UserError, show
from ..files import keep_permissions, npy_header, open_file, sync_to_disk
from ..graph.tensor import Array
from .fingerprint import FileDigests

VERSION = 3
VECTORS, TEXTS, STATE, NEW_STATE, LOCK = "vectors.npy", "texts.jsonl", "state.json", "state.json.new", "lock"
TEMPORARY = ".gpt2wgpu-*.tmp"  # temporary files of files.open_output
ROWS_AT_ONCE = 4096  # read from the journal: 16 MiB of vectors of 1,024 dimensions
BYTES_AT_ONCE = 1 << 20  # read for a checksum
START_AGAIN = "delete the folder to start again"


@dataclass
class State:
    """What state.json holds. Rows are counted from the first of the corpus."""

    made_with: dict[str, Any]  # fingerprint of the model and the options, the same for all rows of an output
    window: list[int]  # most texts and characters of a window; rows are committed by whole windows
    device: str
    input_size: int  # bytes
    model_files: FileDigests = field(default_factory=dict)  # so that a resume need not read them again
    rows: int = 0  # done
    first: int = 0  # the first row in the journal; those before it are in finished shards
    shards: int = 0  # finished
    vectors_crc: int = 0  # CRC-32 of the vectors in the journal
    text_bytes: int = 0  # length of texts.jsonl
    texts_crc: int = 0
    cut: int = 0  # texts that were longer than the model reads
    digest: str = ""  # of all finished texts
    lowest: list[float] = field(default_factory=list)  # for each dimension, over the first shard
    highest: list[float] = field(default_factory=list)
    handed_over: bool = False  # vectors.npy is being renamed to the output; if it is gone, that is done


class Journal:
    """The files in `folder`, open. Raises UserError if they do not hold what the state says."""

    def __init__(self, folder: Path, state: State, *, texts: bool) -> None:
        self.folder, self.state = folder, state
        self.width = int(state.made_with["dimensions"])
        self.header = len(npy_header("<f4", 0, self.width))
        self.saved = state.rows  # what the state on the disk counts
        state.handed_over = False  # the earlier process did not get that far
        self.texts: BinaryIO | None = None
        self.vectors = open_at(folder / VECTORS, self._end(), empty=not self.count)
        try:
            check_crc(folder / VECTORS, self.vectors, self.header, state.vectors_crc)
            if texts:
                self.texts = open_at(folder / TEXTS, state.text_bytes, empty=not self.count)
                check_crc(folder / TEXTS, self.texts, 0, state.texts_crc)
            if not self.count:
                sync_to_disk(folder)  # their names are on disk before a state counts rows in them
        except BaseException:
            self.close()
            raise

    @property
    def count(self) -> int:
        """Rows in it."""
        return self.state.rows - self.state.first

    @property
    def bytes(self) -> int:
        """Length of its vectors."""
        return 4 * self.width * self.count

    def _end(self) -> int:
        return self.header + self.bytes

    def append(self, texts: Sequence[str], vectors: Array, *, row: int, cut: int, digest: str, ranges: bool) -> None:
        """Append a window whose first row is `row`. The state counts it once all of it is written."""
        state = self.state
        if row != state.rows:
            return  # an earlier window could not be written, and that error was raised
        numbers = vectors.astype("<f4").tobytes()
        write_at(self.vectors, self._end(), numbers)
        data = b""
        if self.texts is not None:
            data = "".join(f"{json.dumps(text, ensure_ascii=False)}\n" for text in texts).encode()
            write_at(self.texts, state.text_bytes, data)
        if ranges and state.shards == 0:
            known = [np.array(values, np.float32).reshape(-1, self.width) for values in (state.lowest, state.highest)]
            state.lowest = np.vstack([known[0], vectors]).min(axis=0).tolist()
            state.highest = np.vstack([known[1], vectors]).max(axis=0).tolist()
        state.vectors_crc = zlib.crc32(numbers, state.vectors_crc)
        state.texts_crc = zlib.crc32(data, state.texts_crc)
        state.text_bytes += len(data)
        state.cut += cut
        state.digest = digest
        state.rows += len(vectors)

    def commit(self) -> None:
        """When this returns, appended rows are on disk and state.json counts them. vectors.npy is a valid .npy file."""
        write_at(self.vectors, 0, npy_header("<f4", self.count, self.width))
        for file in (self.vectors, self.texts):
            if file is not None:
                os.fsync(file.fileno())
        self._save()

    def _save(self) -> None:
        new = self.folder / NEW_STATE
        with open_file(new, "wb") as out:
            out.write(format_state(self.state))
            out.flush()
            os.fsync(out.fileno())
        new.replace(self.folder / STATE)
        sync_to_disk(self.folder)
        self.saved = self.state.rows

    def rows(self) -> Iterator[tuple[Iterator[str], Array]]:
        """Texts and vectors (n, C), one block at a time; the texts are empty if the output holds none.

        Each text is read when it is taken: 4,096 long ones need not fit into memory together.
        """
        with (self.folder / VECTORS).open("rb") as vectors, ExitStack() as opened:
            texts = repeat("") if self.texts is None else map(json.loads, opened.enter_context((self.folder / TEXTS).open("rb")))
            vectors.seek(self.header)
            for start in range(0, self.count, ROWS_AT_ONCE):
                n = min(ROWS_AT_ONCE, self.count - start)
                block = np.frombuffer(vectors.read(4 * self.width * n), "<f4").reshape(n, self.width)
                yield islice(texts, n), block

    def hand_over(self, target: Path) -> None:
        """Rename vectors.npy to the output."""
        self.state.handed_over = True
        keep_permissions(self.vectors, target)
        self.commit()
        self.close()
        (self.folder / VECTORS).replace(target)
        sync_to_disk(target.parent)

    def advance(self) -> None:
        """Empty and close the journal, whose rows are in a finished file now."""
        self.close()
        state = self.state
        state.first, state.handed_over = state.rows, False
        state.vectors_crc = state.texts_crc = state.text_bytes = 0
        state.shards += 1
        self._save()
        for name in (VECTORS, TEXTS):
            (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        for file in (self.vectors, self.texts):
            if file is not None:
                file.close()


def open_at(path: Path, size: int, *, empty: bool) -> BinaryIO:
    """A file to append to, cut to `size` bytes. empty: start a new one. Raises UserError if it is shorter."""
    if empty:
        path.unlink(missing_ok=True)
    elif (found := path.stat().st_size if path.exists() else 0) < size:
        raise UserError(f"{show(path)} is damaged, it has {found:,} bytes of {size:,}: {START_AGAIN}")
    file = open_file(path, "x+b" if empty else "r+b", buffering=0)
    file.truncate(size)
    return file


def check_crc(path: Path, file: BinaryIO, position: int, expected: int) -> None:
    """Raises UserError unless the bytes from `position` to the end of the file have this CRC-32."""
    file.seek(position)
    found = 0
    while data := file.read(BYTES_AT_ONCE):
        found = zlib.crc32(data, found)
    if found != expected:
        raise UserError(f"{show(path)} is damaged, its checksum is wrong: {START_AGAIN}")


def write_at(file: BinaryIO, position: int, data: bytes) -> None:
    """Write all of it: an unbuffered file may write less at a time, and a full disk writes a part before it raises."""
    file.seek(position)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def format_state(state: State) -> bytes:
    """state.json, with a checksum of its values."""
    values = asdict(state)
    return json.dumps({"version": VERSION, "checksum": checksum(values), **values}, indent=2).encode()


def checksum(values: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def read_journal(folder: Path) -> State | None:
    """The state in a folder, None if there is none. Raises UserError if it is damaged or of another version."""
    path = folder / STATE
    damaged = UserError(f"{show(path)} is damaged: {START_AGAIN}")
    try:
        with open_file(path, "rb") as file:
            values = json.loads(file.read())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        raise damaged from None
    if not isinstance(values, dict):
        raise damaged
    if values.pop("version", None) != VERSION:
        raise UserError(f"{show(path)} was written by another version of gpt2wgpu: {START_AGAIN}")
    if values.pop("checksum", None) != checksum(values):
        raise damaged
    try:
        return State(**values)
    except TypeError:
        raise damaged from None


def is_finished(folder: Path, state: State) -> bool:
    """Whether an output of one file is complete under its name, and only the journal is left to remove."""
    return state.shards > 0 or (state.handed_over and not (folder / VECTORS).exists())


def remove_journal(folder: Path) -> None:
    """Remove the journal's files, and the folder if nothing else is in it. Windows removes a lock only when nobody holds it."""
    for path in (*folder.glob(TEMPORARY), *(folder / name for name in (VECTORS, TEXTS, NEW_STATE, STATE, LOCK))):
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        folder.rmdir()
