"""An index as arrays, memory-mapped, as it was when it was opened: what writers do later does not show."""

import json
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError, show
from ..graph.tensor import Array
from ..vectors.coarse import FACTS_OF_ROW, CoarseRows
from .store import INDEX_PARTS, PASSAGE_ROW, IndexState, read_index_state

ATTEMPTS = 5  # a writer may replace the files between reading the state and opening them


class Content(NamedTuple):
    """The passages of one content: rows [first, first + rows)."""

    first: int
    rows: int


class KnownFile(NamedTuple):
    """key: of its content. stat: size, mtime, ctime and inode when it was read. why: it is not searched; "" if it is."""

    key: str
    stat: tuple[int, ...]
    why: str = ""


@dataclass
class Catalogue:
    """What the log says: which passages are of which content, and which file has which content."""

    contents: dict[str, Content] = field(default_factory=dict)
    files: dict[str, KnownFile] = field(default_factory=dict)

    def apply(self, entry: dict[str, Any]) -> None:
        """One line of the log; later ones win."""
        if "first" in entry:
            self.contents[entry["key"]] = Content(entry["first"], entry["rows"])
        elif entry.get("removed"):
            self.files.pop(entry["path"], None)
        else:
            self.files[entry["path"]] = KnownFile(entry["key"], tuple(entry["stat"]), entry.get("why", ""))

    def used(self) -> dict[str, list[str]]:
        """The files of each content that has any, by the order of its passages."""
        found: dict[str, list[str]] = {}
        for path in sorted(path for path, file in self.files.items() if not file.why):
            found.setdefault(self.files[path].key, []).append(path)
        return dict(sorted(found.items(), key=lambda item: self.contents[item[0]].first))


def read_catalogue(data: bytes, path: Path, checksum: int) -> Catalogue:
    """Raises UserError if the log is damaged."""
    if zlib.crc32(data) != checksum:
        raise damaged_part(path)
    found = Catalogue()
    for line in data.splitlines():
        found.apply(json.loads(line))
    return found


class Index:
    """An index that is open to be read."""

    def __init__(self, folder: Path, state: IndexState, parts: dict[str, Array]) -> None:
        self.folder, self.state, self.parts = folder, state, parts
        self.width = int(state.made_with["dimensions"])
        self.vectors = parts["vectors"].view("<f4").reshape(state.rows, self.width)
        self.coarse = CoarseRows(parts["coarse"].view(np.int8).reshape(state.rows, self.width), parts["facts"].view(FACTS_OF_ROW))
        self.rows = parts["rows"].view(PASSAGE_ROW)
        self.words, self.counts = parts["words"].view("<u8"), parts["counts"].view("<u2")
        self.texts = parts["texts"]
        self.catalogue = read_catalogue(parts["log"].tobytes(), state.path(folder, "log"), state.checksums["log"])

    def text(self, row: int) -> str:
        place, size = int(self.rows["text"][row]), int(self.rows["bytes"][row])
        try:
            return self.texts[place : place + size].tobytes().decode()
        except UnicodeDecodeError:
            raise damaged_part(self.state.path(self.folder, "texts")) from None

    @cached_property
    def used(self) -> list[tuple[Content, list[str]]]:
        """Each content that belongs to files, with these, in the order of its rows; those without passages are left out."""
        found = [(self.catalogue.contents[key], paths) for key, paths in self.catalogue.used().items()]
        return [(content, paths) for content, paths in found if content.rows]

    @cached_property
    def _firsts(self) -> Array:
        return np.array([content.first for content, _ in self.used], np.int64)

    def files_of(self, row: int) -> list[str]:
        """The files that hold a passage, in the order of their names."""
        return self.used[int(np.searchsorted(self._firsts, row, side="right")) - 1][1]

    def allowed(self, below: list[str] | None = None) -> Array:
        """bool (n,): the passages of files that the index holds now. below: of these files, and files below these folders."""
        found = np.zeros(self.state.rows, bool)
        for content, paths in self.used:
            if below is None or any(is_below(path, below) for path in paths):
                found[content.first : content.first + content.rows] = True
        return found


def is_below(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/\\") + ("\\" if "\\" in folder else "/")) for folder in folders)


def open_index(folder: Path) -> Index:
    """The index in a folder. Raises UserError if there is none, or if it is damaged."""
    for attempt in range(ATTEMPTS):
        state = read_index_state(folder)
        if state is None:
            raise UserError(f"{show(folder)}: there is no index: make it with `gpt2wgpu search --index {folder} PATH... QUERY`")
        try:
            return Index(folder, state, {part: map_part(state.path(folder, part), state.sizes[part]) for part in INDEX_PARTS})
        except FileNotFoundError as error:
            if attempt == ATTEMPTS - 1:
                raise UserError(f"{show(Path(error.filename))} is missing: delete the index to make it anew") from None
    raise AssertionError


def map_part(path: Path, size: int) -> Array:
    """The bytes of a file that count. Raises UserError if it is shorter."""
    if not size:
        return np.empty(0, np.uint8)
    if (found := path.stat().st_size) < size:
        raise UserError(f"{show(path)} is damaged, it has {found:,} bytes of {size:,}: delete the index to make it anew")
    return np.memmap(path, np.uint8, "r", shape=(size,))


def check_index(index: Index) -> None:
    """Read all that an index holds and compare its checksums. Raises UserError for the first file that is damaged."""
    for part, data in index.parts.items():
        if zlib.crc32(data.data) != index.state.checksums[part]:
            raise damaged_part(index.state.path(index.folder, part))


def damaged_part(path: Path) -> UserError:
    return UserError(f"{show(path)} is damaged, its checksum is wrong: delete the index to make it anew")
