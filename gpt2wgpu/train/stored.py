"""Vectors of a teacher in files, mapped to memory: those that a run asked for, and those that were made before."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError, show
from ..graph.cores import ONE_THREAD_BLAS
from ..graph.tensor import Array

BLOCK_ROWS = 16384  # vectors in memory at a time
DTYPES_STORED = ("float32", "float16")


@dataclass(frozen=True)
class StoredVectors:
    """n vectors, one file after the other. files: (m, C) each, float32 or float16, mapped to memory. directions: (C, width), by
    which they are multiplied to have `width` dimensions; None if they have as many already."""

    files: Sequence[Array]
    directions: Array | None = None

    def __getitem__(self, rows: Array) -> Array:
        """The vectors of these rows, float32 (m, width)."""
        ends = np.cumsum([len(file) for file in self.files])
        at = np.searchsorted(ends, rows, side="right")
        found = np.empty((len(rows), self.files[0].shape[1]), np.float32)
        for number, file in enumerate(self.files):
            here = at == number
            found[here] = file[rows[here] - (ends[number] - len(file))]
        return self.projected(found)

    def projected(self, vectors: Array) -> Array:
        """Vectors (m, C) in the dimensions of the model, (m, width)."""
        if self.directions is None:
            return vectors
        with ONE_THREAD_BLAS:
            return vectors @ self.directions


def map_vectors(path: str) -> Array:
    """The vectors of an .npy file, (n, C), mapped to memory. Raises UserError if it holds anything else, NaN, infinity or a
    row of zeros."""
    expected = "expected the vectors of texts, as `gpt2wgpu embed -o vectors.npy` writes them"
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        why = " ".join(str(error).split())[:100]
        raise UserError(f"{show(Path(path))} cannot be read as .npy ({why}): {expected}") from None
    if not isinstance(found, np.ndarray):  # an .npz
        raise UserError(f"{show(Path(path))} is not an .npy file: {expected}")
    if found.ndim != 2 or found.dtype not in DTYPES_STORED or not found.size:
        raise UserError(f"{show(Path(path))} holds {found.dtype} {found.shape}: {expected}, {' or '.join(DTYPES_STORED)} (n, C)")
    for first in range(0, len(found), BLOCK_ROWS):
        block = found[first : first + BLOCK_ROWS]
        finite = np.isfinite(block).all(axis=1)
        right = finite & block.any(axis=1)  # zeros have no direction: a file that was never filled to its end has such rows
        if not right.all():
            row = int(np.argmin(right))
            what = "holds only zeros" if np.isfinite(block[row]).all() else "holds NaN or infinity"
            raise UserError(f"{show(Path(path))}: row {first + row} {what} (rows count from 0): make the vectors again")
    return found


def leading_directions(files: Sequence[Array], width: int) -> Array:
    """The first `width` singular directions of the unit vectors of files, float32 (C, width).

    No other projection to `width` dimensions keeps more of the squared lengths (Eckart & Young 1936), so this one changes
    cosines least.
    """
    size = files[0].shape[1]
    moments = np.zeros((size, size))
    with ONE_THREAD_BLAS:
        for file in files:
            for first in range(0, len(file), BLOCK_ROWS):
                rows = file[first : first + BLOCK_ROWS].astype(np.float64)
                rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
                moments += rows.T @ rows
        return np.ascontiguousarray(np.linalg.eigh(moments)[1][:, ::-1][:, :width], np.float32)
