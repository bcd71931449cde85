"""Distillation: the vectors of another model as targets, made once and kept in a file."""

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
from ..graph.tensor import Array
from ..models import Architecture
from ..tokenizer import Tokenizer
from .data import TokenizedTexts, digest_data

BLOCK = 4096  # rows at a time
RARE = 1e-3  # share of a token that halves its vector


@dataclass(frozen=True)
class Teacher:
    """vectors: of the texts, float32 (n, width), mapped from a file. directions: what all vectors of the teacher are
    multiplied by to have `width` dimensions, (C, width), or None where they have it already."""

    encoder: Encoder
    vectors: Array
    directions: Array | None


def ask_teacher(run: Path, model: str, texts: Sequence[str], width: int, device: str, resumed: bool = False) -> Teacher:
    """The teacher's vectors of texts, made once and kept in the run.

    The names of the files hold a digest of the texts and of the teacher, so they are used again only where they belong.
    Raises UserError if a run that goes on has none that belong.
    """
    encoder = Encoder(model, device=device)
    if encoder.dimensions < width:
        found = f"the teacher's vectors have {encoder.dimensions} dimensions, the model's {width}"
        raise UserError(f"{found}: a teacher must have as many or more")
    key = hashlib.sha256(digest_data(sorted(encoder.checkpoint.path.rglob("*.safetensors"))).encode())
    for text in texts:
        key.update(f"{len(text)} {text}".encode())
    name = f"teacher-{width}-{key.hexdigest()[:16]}"
    path, projection = run / f"{name}.npy", run / f"{name}-directions.npy"
    if not path.exists():
        if resumed:
            raise UserError(f"the run has no {path.name}: the teacher is not the one that it began with, or the file is gone")
        write_vectors(path, projection, encoder, texts, width)
    return Teacher(encoder, np.load(path, mmap_mode="r"), np.load(projection) if encoder.dimensions > width else None)


def write_vectors(path: Path, projection: Path, encoder: Encoder, texts: Sequence[str], width: int) -> None:
    """Vectors and directions to their files. All vectors are needed for the directions, so they wait in a file too."""
    moments = np.zeros((encoder.dimensions, encoder.dimensions))
    with tempfile.TemporaryFile(dir=path.parent) as raw, files.open_output(str(path), {".npy": files.write_npy}) as (file, write):
        stream = encoder.encode_stream(texts, show_progress_bar=True)
        while block := [*islice(stream, BLOCK)]:
            rows = np.stack(block)
            raw.write(rows.tobytes())
            moments += rows.T.astype(np.float64) @ rows
        directions = leading_directions(moments, width)
        if encoder.dimensions > width:
            with files.open_output(str(projection), {".npy": files.write_npy}) as (beside, write_directions):
                write_directions(beside, (("", row) for row in directions))

        def projected() -> files.Rows:
            raw.seek(0)
            while data := raw.read(BLOCK * 4 * encoder.dimensions):
                rows = np.frombuffer(data, np.float32).reshape(-1, encoder.dimensions)
                yield from (("", row) for row in (rows @ directions if encoder.dimensions > width else rows))

        write(file, projected())


def first_guess(teacher: Teacher, tokenizer: Tokenizer, config: Architecture, texts: TokenizedTexts) -> dict[str, Array]:
    """Weights of a GPT-2 to begin with, whose vector of a text is about the mean of its tokens' vectors: of each token the
    teacher's vector of that token alone, the rarer in the texts the longer: a / (a + its share) (Arora et al. 2017).

    The last norm would make all tokens equally long. So every position begins with one and the same vector, four times as
    long as a rare token's, which makes the norm divide them all by about the same; its bias takes that vector away again.
    Values are about 1, so that steps of the optimiser are small beside them.
    """
    size, width = config.vocab, config.width
    vectors = teacher.encoder.encode(tokenizer.alone(size), normalize_embeddings=True)
    if teacher.directions is not None:
        vectors = vectors @ teacher.directions
    share = np.bincount(texts.ids, minlength=size) / len(texts.ids)
    common = np.arange(width) % 2 - 0.5
    common = ((common - common.mean()) / common.std()).astype(np.float32)
    table = vectors * (RARE / (RARE + share))[:, None] * (np.linalg.norm(common) / 4)
    positions = np.tile(common, (config.context, 1))
    return {"wte.weight": table.astype(np.float32), "wpe.weight": positions, "ln_f.bias": -common}


def leading_directions(moments: Array, width: int) -> Array:
    """The `width` leading singular directions of vectors, float32 (C, width), from the sum of their outer products (C, C).

    The projection on them keeps as much of the vectors' squared lengths as `width` dimensions can, so it disturbs their
    dot products least.
    """
    return np.ascontiguousarray(np.linalg.eigh(moments)[1][:, ::-1][:, :width], np.float32)
