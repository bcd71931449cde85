"""The rows of an unfinished output on the disk, in a folder beside it, so that a process that ends at any moment loses seconds.

    vectors.npy    float32 (n, C)
    texts.jsonl    the texts, each as JSON on a line, where the output is to hold them
    state.json     what is known to be on the disk, and what the rows were made with; it is replaced as a whole
    lock           held by the process that works here

Rows are appended; `commit` brings them down to the disk and then replaces state.json. What lies behind the rows that state.json
counts was on its way when a process ended: it is cut off. state.json is the only truth, so no row is torn, doubled or lost.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice, repeat
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from ..errors import UserError, show
from ..files import npy_header, sync
from ..graph.tensor import Array

VERSION = 2
VECTORS, TEXTS, STATE, NEW_STATE, LOCK = "vectors.npy", "texts.jsonl", "state.json", "state.json.new", "lock"
TEMPORARY = ".gpt2wgpu-*.tmp"  # of files.output
BLOCK = 4096  # rows read at a time


@dataclass
class State:
    """What state.json holds. Rows are counted from the first of the corpus."""

    made_with: dict[str, Any]  # model and options, which all rows of an output have in common
    window: list[int]  # most texts and characters of a window; rows are committed by whole windows
    device: str
    input_size: int  # bytes
    rows: int = 0  # done
    first: int = 0  # of the rows in the journal; those before it are in finished shards
    shards: int = 0  # finished
    text_bytes: int = 0  # of texts.jsonl
    cut: int = 0  # texts that were longer than the model reads
    digest: str = ""  # of all texts done
    lowest: list[float] = field(default_factory=list)  # of each dimension, over the first shard
    highest: list[float] = field(default_factory=list)
    handed_over: bool = False  # vectors.npy is becoming the output: without it, it has become that
    version: int = VERSION


class Journal:
    """Files in `folder`, open. Raises UserError where they do not hold what the state says."""

    def __init__(self, folder: Path, state: State, *, texts: bool) -> None:
        self.folder, self.state = folder, state
        self.width = int(state.made_with["dimensions"])
        self.header = len(npy_header("<f4", 0, self.width))
        self.saved = state.rows  # what the state on the disk counts
        state.handed_over = False  # the process before did not come to it
        self.texts: BinaryIO | None = None
        self.vectors = open_at(folder / VECTORS, self._end(), empty=not self.count)
        try:
            if texts:
                self.texts = open_at(folder / TEXTS, state.text_bytes, empty=not self.count)
            if not self.count:
                sync(folder)  # their names are on the disk before a state counts rows in them
        except BaseException:
            self.close()
            raise

    @property
    def count(self) -> int:
        """Rows in it."""
        return self.state.rows - self.state.first

    @property
    def bytes(self) -> int:
        """Of its vectors."""
        return 4 * self.width * self.count

    def _end(self) -> int:
        return self.header + self.bytes

    def append(self, texts: Sequence[str], vectors: Array, *, row: int, cut: int, digest: str, ranges: bool) -> None:
        """A window; `row` is its first. The state does not count it before all of it is written."""
        state = self.state
        if row != state.rows:
            return  # an earlier window could not be written, which has been raised
        write_at(self.vectors, self._end(), vectors.astype("<f4").tobytes())
        data = b""
        if self.texts is not None:
            data = "".join(f"{json.dumps(text, ensure_ascii=False)}\n" for text in texts).encode()
            write_at(self.texts, state.text_bytes, data)
        if ranges and state.shards == 0:
            known = [np.array(values, np.float32).reshape(-1, self.width) for values in (state.lowest, state.highest)]
            state.lowest = np.vstack([known[0], vectors]).min(axis=0).tolist()
            state.highest = np.vstack([known[1], vectors]).max(axis=0).tolist()
        state.text_bytes += len(data)
        state.cut += cut
        state.digest = digest
        state.rows += len(vectors)

    def commit(self) -> None:
        """What has been appended is on the disk when this returns, and state.json counts it. vectors.npy is valid by itself."""
        write_at(self.vectors, 0, npy_header("<f4", self.count, self.width))
        for file in (self.vectors, self.texts):
            if file is not None:
                os.fsync(file.fileno())
        self._save()

    def _save(self) -> None:
        new = self.folder / NEW_STATE
        with new.open("w", encoding="utf-8") as out:
            json.dump(asdict(self.state), out, indent=2)
            out.flush()
            os.fsync(out.fileno())
        new.replace(self.folder / STATE)
        sync(self.folder)
        self.saved = self.state.rows

    def rows(self) -> Iterator[tuple[Iterator[str], Array]]:
        """Texts and vectors (n, C), a block at a time; empty texts where the output holds none.

        Texts are read as they are taken: 4,096 long ones need not fit into memory together.
        """
        with (self.folder / VECTORS).open("rb") as vectors, ExitStack() as opened:
            texts = repeat("") if self.texts is None else map(json.loads, opened.enter_context((self.folder / TEXTS).open("rb")))
            vectors.seek(self.header)
            for start in range(0, self.count, BLOCK):
                n = min(BLOCK, self.count - start)
                block = np.frombuffer(vectors.read(4 * self.width * n), "<f4").reshape(n, self.width)
                yield islice(texts, n), block

    def hand_over(self, target: Path) -> None:
        """vectors.npy becomes the output."""
        self.state.handed_over = True
        self.commit()
        self.close()
        (self.folder / VECTORS).replace(target)
        sync(target.parent)

    def advance(self) -> None:
        """The rows in it are in a finished file: it is empty, and closed."""
        self.close()
        self.state.first, self.state.text_bytes, self.state.handed_over = self.state.rows, 0, False
        self.state.shards += 1
        self._save()
        for name in (VECTORS, TEXTS):
            (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        for file in (self.vectors, self.texts):
            if file is not None:
                file.close()


def open_at(path: Path, size: int, *, empty: bool) -> BinaryIO:
    """A file to append to that has `size` bytes: what is behind them is cut off. `empty`: nothing in it counts."""
    if empty:
        path.unlink(missing_ok=True)
    elif (found := path.stat().st_size if path.exists() else 0) < size:
        again = "it is damaged; delete the folder to begin again"
        raise UserError(f"{show(path)} has {found:,} bytes, {size:,} were written: {again}")
    file = path.open("x+b" if empty else "r+b", buffering=0)
    file.truncate(size)
    return cast(BinaryIO, file)


def write_at(file: BinaryIO, position: int, data: bytes) -> None:
    """All of it: an unbuffered file may take less at a time, a full disk less before it complains."""
    file.seek(position)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def read_journal(folder: Path) -> State | None:
    """What a folder holds, None where nothing of it counts. Raises UserError where it cannot be told."""
    path = folder / STATE
    again = "delete the folder to begin again"
    try:
        values = json.loads(path.read_bytes())
        if isinstance(values, Mapping) and values.get("version") != VERSION:
            raise UserError(f"{show(path)} is of another version of gpt2wgpu: {again}")
        return State(**values)
    except FileNotFoundError:
        return None
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{show(path)} cannot be understood: {again}") from None


def finished(folder: Path, state: State) -> bool:
    """Whether an output of one file has its name already: only the journal was left to remove."""
    return state.shards > 0 or (state.handed_over and not (folder / VECTORS).exists())


def remove(folder: Path) -> None:
    """The journal's files, and the folder if nothing else is in it. Windows removes the lock only when nobody holds it."""
    for path in (*folder.glob(TEMPORARY), *(folder / name for name in (VECTORS, TEXTS, NEW_STATE, STATE, LOCK))):
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        folder.rmdir()
