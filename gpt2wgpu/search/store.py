"""An index on disk: append-only files, and a state that counts what is certainly in them.

    state.json           what is on disk, what it was made with; always replaced as a whole
    vectors.G.f32        float32 (n, C), little-endian, each of length 1
    coarse.G.i8 facts.G.f32    the same vectors in int8, and what they lost (vectors/coarse.py), scanned first if the others
                         are larger than memory
    rows.G.bin           PASSAGE_ROW for each passage
    texts.G.txt          the passages, UTF-8, one after the other
    words.G.u64 counts.G.u16    for each passage its distinct words and how often each occurs
    log.G.jsonl          which passages belong to which content, and which file has which content
    lock                 held by the process that writes

Bytes after those that the state counts were being written when a process ended; the next writer cuts them off. So no passage
is torn, doubled or lost, and a reader sees one state as a whole, whatever a writer does meanwhile. G is a generation: when most
passages belong to no file any more, the others are copied into the files of the next one.
"""

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..corpus.fingerprint import FileDigests
from ..corpus.journal import write_at
from ..corpus.lock import take_lock
from ..errors import UserError, show
from ..files import open_file, sync_to_disk
from ..graph.tensor import Array
from ..vectors.coarse import make_coarse

INDEX_VERSION = 2
INDEX_STATE, INDEX_LOCK = "state.json", "lock"
INDEX_PARTS = {
    "vectors": ".f32",
    "coarse": ".i8",
    "facts": ".f32",
    "rows": ".bin",
    "texts": ".txt",
    "words": ".u64",
    "counts": ".u16",
    "log": ".jsonl",
}
PASSAGE_ROW = np.dtype(
    [
        ("text", "<u8"),  # where its text begins
        ("word", "<u8"),  # where its words begin
        ("bytes", "<u4"),  # of its text
        ("words", "<u4"),  # distinct ones
        ("length", "<u4"),  # words, all of them
        ("first", "<u4"),  # its lines
        ("last", "<u4"),
    ]
)
LOCK_SECONDS = 0.1  # between two looks at a lock that another process holds


@dataclass
class IndexState:
    """What state.json holds. sizes: bytes of each part that count. unfinished: the content of which only the first `rows`
    passages are there, from row `first` on."""

    made_with: dict[str, Any]
    generation: int = 0
    rows: int = 0
    sizes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(INDEX_PARTS, 0))
    checksums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(INDEX_PARTS, 0))  # CRC-32
    model_files: FileDigests = field(default_factory=dict)  # so that they need not be read again
    unfinished: dict[str, Any] = field(default_factory=dict)

    def path(self, folder: Path, part: str) -> Path:
        return folder / f"{part}.{self.generation}{INDEX_PARTS[part]}"


def read_index_state(folder: Path) -> IndexState | None:
    """The state in a folder, None if there is none. Raises UserError if it is damaged or of another version."""
    path = folder / INDEX_STATE
    damaged = UserError(f"{show(path)} is damaged: delete the index to make it anew")
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise UserError(f"{show(folder)}: is not a folder, and an index is one") from None
    except (ValueError, RecursionError):
        raise damaged from None
    if not isinstance(values, dict):
        raise damaged
    if values.pop("version", None) != INDEX_VERSION:
        raise UserError(f"{show(path)} was written by another version of gpt2wgpu: delete the index to make it anew")
    if values.pop("checksum", None) != checksum_values(values):
        raise damaged
    try:
        return IndexState(**values)
    except TypeError:
        raise damaged from None


def checksum_values(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


@contextmanager
def lock_index(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the index's lock; wait for the process that holds it. Makes the folder. Raises UserError if it is none of ours."""
    check_index_folder(folder)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)  # texts may be private
    waiting = False
    while (held := take_lock(folder / INDEX_LOCK)) is None:
        if not waiting:
            say(f"{show(folder)}: another process is bringing it up to date: waiting for it")
        waiting = True
        time.sleep(LOCK_SECONDS)
    with held:
        yield


def check_index_folder(folder: Path) -> None:
    """Raises UserError unless the folder is an index, is empty, or can be made."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{show(folder)}: is not a folder: an index needs one of its own")
    if not folder.exists() and not folder.parent.is_dir():
        raise UserError(f"{show(folder)}: there is no folder {show(folder.parent)}")
    ours = (INDEX_STATE, INDEX_LOCK)
    if folder.is_dir() and not (folder / INDEX_STATE).exists():
        foreign = [p.name for p in folder.iterdir() if p.name not in ours and p.name.split(".")[0] not in INDEX_PARTS]
        if foreign:
            raise UserError(f"{show(folder)}: holds {show(foreign[0])} and is no index: give a new folder, or an empty one")


class Store:
    """The files of an index, open to append to. The caller holds the lock. durable=False: for a folder that is thrown away."""

    def __init__(self, folder: Path, state: IndexState, *, durable: bool = True) -> None:
        self.folder, self.state, self.durable = folder, state, durable
        self.files: dict[str, BinaryIO] = {}
        try:
            for part in INDEX_PARTS:
                self.files[part] = open_to_append(state.path(folder, part), state.sizes[part])
            if durable:
                sync_to_disk(folder)
        except BaseException:
            self.close()
            raise

    def append(self, **parts: bytes) -> None:
        """Write the same passages' bytes to these parts. The state counts all of them, or none if one cannot be written."""
        state = self.state
        for part, data in parts.items():
            write_at(self.files[part], state.sizes[part], data)
        for part, data in parts.items():
            state.sizes[part] += len(data)
            state.checksums[part] = zlib.crc32(data, state.checksums[part])

    def append_rows(self, rows: Array, vectors: Array, texts: bytes, words: Array, counts: Array) -> None:
        """rows: PASSAGE_ROW (n,), with places counted from the start of `texts` and `words`."""
        rows = rows.copy()
        rows["text"] += self.state.sizes["texts"]
        rows["word"] += self.state.sizes["words"] // 8
        numbers, facts = make_coarse(vectors)
        self.append(
            rows=rows.tobytes(),
            coarse=numbers.tobytes(),
            facts=facts.tobytes(),
            vectors=vectors.astype("<f4").tobytes(),
            texts=texts,
            words=words.astype("<u8").tobytes(),
            counts=counts.astype("<u2").tobytes(),
        )
        self.state.rows += len(rows)

    def log(self, **entry: Any) -> None:
        self.append(log=f"{json.dumps(entry)}\n".encode())

    def commit(self) -> None:
        """When this returns, everything appended is on disk, and the state counts it."""
        if self.durable:
            for file in self.files.values():
                os.fsync(file.fileno())
        values = asdict(self.state)
        new = self.folder / f"{INDEX_STATE}.new"
        with open_file(new, "wb") as out:
            out.write(json.dumps({"version": INDEX_VERSION, "checksum": checksum_values(values), **values}, indent=1).encode())
            out.flush()
            if self.durable:
                os.fsync(out.fileno())
        new.replace(self.folder / INDEX_STATE)
        if self.durable:
            sync_to_disk(self.folder)

    def close(self) -> None:
        for file in self.files.values():
            file.close()


def open_to_append(path: Path, size: int) -> BinaryIO:
    """A file cut to `size` bytes. Raises UserError if it is shorter."""
    found = path.stat().st_size if path.exists() else 0
    if found < size:
        raise UserError(f"{show(path)} is damaged, it has {found:,} bytes of {size:,}: delete the index to make it anew")
    file = open_file(path, "r+b" if path.exists() else "x+b", buffering=0)
    file.truncate(size)
    return file


def remove_other_generations(folder: Path, state: IndexState) -> None:
    """Delete files that the state does not mean. On Windows those that a reader has open stay until the next writer."""
    wanted = {state.path(folder, part) for part in INDEX_PARTS}
    for part, suffix in INDEX_PARTS.items():
        for path in folder.glob(f"{part}.*{suffix}"):
            if path not in wanted:
                with suppress(OSError):
                    path.unlink()
