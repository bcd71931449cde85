"""Distillation: the vectors of another model as targets (Hinton et al. 2015), made once and kept in a file."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from .. import files
from ..encoder import Encoder
from ..errors import UserError
from ..graph.cores import ONE_THREAD_BLAS
from ..graph.tensor import Array
from ..models import Architecture
from ..tokenizer import Tokenizer
from .data import TokenizedTexts, digest_data

BLOCK_ROWS = 4096  # vectors in memory at a time
HALVING_SHARE = 1e-3  # share of a token in the texts at which its vector is halved


@dataclass(frozen=True)
class Teacher:
    """The targets of texts. vectors: float32 (n, width), mapped from a file. directions: (C, width), by which the
    teacher's vectors are multiplied to have `width` dimensions; None if they have as many already."""

    encoder: Encoder
    vectors: Array
    directions: Array | None


def ask_teacher(run: Path, model: str, texts: Sequence[str], width: int, device: str, resumed: bool = False) -> Teacher:
    """The teacher's vectors of texts, made once and kept in the folder of the run.

    The file names hold a digest of the texts and of every file of the teacher, so a file is reused only for the same texts and
    teacher. Raises UserError if a resumed run has no such file, or if the teacher's vectors
    have fewer than `width` dimensions.
    """
    encoder = Encoder(model, device=device)
    if encoder.dimensions < width:
        found = f"the teacher's vectors have {encoder.dimensions} dimensions, the model's {width}"
        raise UserError(f"{found}: choose a teacher that has at least as many")
    key = hashlib.sha256(digest_data(encoder.checkpoint.files_read).encode())
    for text in texts:
        key.update(f"{len(text)} {text}".encode())
    name = f"teacher-{width}-{key.hexdigest()[:16]}"
    path, projection = run / f"{name}.npy", run / f"{name}-directions.npy"
    if not path.exists():
        if resumed:
            raise UserError(f"the run has no {path.name}: the teacher is not the one that it began with, or the file was removed")
        write_vectors(path, projection, encoder, texts, width)
    return Teacher(encoder, np.load(path, mmap_mode="r"), np.load(projection) if encoder.dimensions > width else None)


def write_vectors(path: Path, projection: Path, encoder: Encoder, texts: Sequence[str], width: int) -> None:
    """Write the vectors and directions to their files. The directions need all vectors, which wait in a temporary file."""
    moments = np.zeros((encoder.dimensions, encoder.dimensions))
    with tempfile.TemporaryFile(dir=path.parent) as raw, files.open_output(str(path), {".npy": files.write_npy}) as (file, write):
        stream = encoder.encode_stream(texts, show_progress_bar=True)
        while block := [*islice(stream, BLOCK_ROWS)]:
            rows = np.stack(block)
            raw.write(rows.tobytes())
            with ONE_THREAD_BLAS:
                moments += rows.T.astype(np.float64) @ rows
        directions = leading_directions(moments, width)
        if encoder.dimensions > width:
            with files.open_output(str(projection), {".npy": files.write_npy}) as (directions_file, write_directions):
                write_directions(directions_file, (("", row) for row in directions))

        def projected() -> files.Rows:
            raw.seek(0)
            while data := raw.read(BLOCK_ROWS * 4 * encoder.dimensions):
                rows = np.frombuffer(data, np.float32).reshape(-1, encoder.dimensions)
                with ONE_THREAD_BLAS:
                    rows = rows @ directions if encoder.dimensions > width else rows
                yield from (("", row) for row in rows)

        write(file, projected())


def first_guess(teacher: Teacher, tokenizer: Tokenizer, config: Architecture, texts: TokenizedTexts) -> dict[str, Array]:
    """First weights of a GPT-2 that make the vector of a text about the mean of its tokens' vectors.

    The vector of a token is the teacher's vector of that token alone, times a / (a + the token's share of the texts), so that
    frequent tokens count less (Arora et al. 2017). The last norm would make all tokens equally long. So every position
    starts with the same vector, four times as long as that of a rare token: then the norm divides all tokens by about the
    same number, and its bias subtracts that vector again. Values are about 1, so that steps of the optimiser are
    small in comparison.
    """
    size, width = config.vocab, config.width
    vectors = teacher.encoder.encode(tokenizer.alone(size), normalize_embeddings=True)
    if teacher.directions is not None:
        with ONE_THREAD_BLAS:
            vectors = vectors @ teacher.directions
    share = np.bincount(texts.ids, minlength=size) / len(texts.ids)
    common = np.arange(width) % 2 - 0.5
    common = ((common - common.mean()) / common.std()).astype(np.float32)
    table = vectors * (HALVING_SHARE / (HALVING_SHARE + share))[:, None] * (np.linalg.norm(common) / 4)
    positions = np.tile(common, (config.context, 1))
    return {"wte.weight": table.astype(np.float32), "wpe.weight": positions, "ln_f.bias": -common}


def leading_directions(moments: Array, width: int) -> Array:
    """The first `width` singular directions of vectors, float32 (C, width), from the sum of their outer products (C, C).

    No other projection to `width` dimensions keeps more of the squared lengths (Eckart & Young 1936), so this one changes dot
    products least.
    """
    with ONE_THREAD_BLAS:
        return np.ascontiguousarray(np.linalg.eigh(moments)[1][:, ::-1][:, :width], np.float32)
