"""Distillation: the vectors of another model as targets, made once and kept in a file."""

import hashlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import files
from ..encoder import Encoder
from ..errors import UserError
from ..ops import Array
from .data import digest

BLOCK = 4096  # rows at a time


def targets(run: Path, teacher: str, texts: Sequence[str], width: int, device: str) -> Array:
    """The teacher's vectors of texts, projected to `width` dimensions: float32 (n, width), mapped from a file in the run.

    The file's name holds a digest of the texts and of the teacher, so it is used again only where it belongs.
    """
    encoder = Encoder(teacher, device=device)
    if encoder.dimensions < width:
        found = f"the teacher's vectors have {encoder.dimensions} dimensions, the model's {width}"
        raise UserError(f"{found}: a teacher must have as many or more")
    key = hashlib.sha256(digest(sorted(Path(teacher).rglob("*.safetensors"))).encode())
    for text in texts:
        key.update(f"{len(text)} {text}".encode())
    path = run / f"teacher-{width}-{key.hexdigest()[:16]}.npy"
    if not path.exists():
        with tempfile.TemporaryFile(dir=run) as raw, files.output(str(path), {".npy": files.write_npy}) as (file, write):
            moments = np.zeros((encoder.dimensions, encoder.dimensions))
            block: list[Array] = []

            def keep() -> None:
                rows = np.stack(block).astype(np.float32)
                raw.write(rows.tobytes())
                moments[:] += rows.T.astype(np.float64) @ rows
                block.clear()

            for vector in encoder.encode_stream(texts, show_progress_bar=sys.stderr.isatty()):
                block.append(vector)
                if len(block) == BLOCK:
                    keep()
            if block:
                keep()
            directions = leading(moments, width)

            def projected() -> files.Rows:
                raw.seek(0)
                while data := raw.read(BLOCK * 4 * encoder.dimensions):
                    rows = np.frombuffer(data, np.float32).reshape(-1, encoder.dimensions)
                    yield from zip([""] * len(rows), rows @ directions if directions is not None else rows, strict=True)

            write(file, projected())
    return np.load(path, mmap_mode="r")


def leading(moments: Array, width: int) -> Array | None:
    """The `width` leading singular directions of vectors, float32 (C, width), from the sum of their outer products (C, C).

    The projection on them keeps as much of the vectors' squared lengths as `width` dimensions can, so it disturbs their
    dot products least. None if there is nothing to leave out.
    """
    if len(moments) == width:
        return None
    return np.ascontiguousarray(np.linalg.eigh(moments)[1][:, ::-1][:, :width], np.float32)
