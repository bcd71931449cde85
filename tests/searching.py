"""Folders and indexes that the tests of search share."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from corpora import tiny_model

from gpt2wgpu import Encoder
from gpt2wgpu.search.reader import Index
from gpt2wgpu.search.update import update_index


class Quiet:
    """A report that keeps what it hears."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def step(self, passages: int, files: int, of: int) -> None:
        pass


def write_folder(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def tiny_encoder(folder: Path) -> Encoder:
    return Encoder(tiny_model(folder), device="numpy")


def update(encoder: Encoder, index: Path, *paths: Path, column: str | None = None) -> Index:
    return update_index(encoder, index, [str(p) for p in paths], Quiet(), column)


def passages_of(index: Index) -> list[tuple[str, int, int, str]]:
    """Every passage that belongs to a file, for each of its files, in order."""
    rows = np.flatnonzero(index.allowed()).tolist()
    found = [
        (Path(path).name, int(index.rows["first"][row]), int(index.rows["last"][row]), index.text(row))
        for row in rows
        for path in index.files_of(row)
    ]
    return sorted(found)


def vectors_by_text(index: Index) -> dict[str, np.ndarray]:
    return {index.text(row): index.vectors[row] for row in np.flatnonzero(index.allowed()).tolist()}
