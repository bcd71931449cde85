"""Distillation: the vectors of another model as targets (Hinton et al. 2015), made once and kept in a file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import files
from ..encoder import Encoder
from ..errors import UserError, show
from ..files.windows import take_window
from ..graph.tensor import Array
from ..models import Architecture
from ..outputs import warn_of_cut
from ..tokenizer import Tokenizer
from .data import TokenizedTexts, digest_data
from .stored import StoredVectors, leading_directions, map_vectors

HALVING_SHARE = 1e-3  # share of a token in the texts at which its vector is halved


def ask_teacher(run: Path, encoder: Encoder, texts: Sequence[str], width: int, resumed: bool = False) -> StoredVectors:
    """The teacher's unit vectors of texts, made once and kept in the folder of the run, as float16: each number is off by
    0.05 % at most, which changes a cosine by about 1e-5, a hundredth of what students differ by.

    The file names hold a digest of the texts and of every file of the teacher, so a file is reused only for the same texts and
    teacher. Raises UserError if a resumed run has no such file, or if the teacher's vectors have fewer than `width` dimensions.
    """
    check_dimensions("the teacher's vectors have", encoder.dimensions, width)
    key = hashlib.sha256(digest_data(encoder.checkpoint.files_read).encode())
    for text in texts:
        key.update(f"{len(text)} {text}".encode())
    path = run / f"teacher-{key.hexdigest()[:16]}.npy"
    if not path.exists():
        if resumed:
            raise UserError(f"the run has no {path.name}: the teacher is not the one that it began with, or the file was removed")
        write_vectors(path, encoder, texts)
    return project([np.load(path, mmap_mode="r")], path.with_name(f"{path.stem}-{width}.npy"), width)


def write_vectors(path: Path, encoder: Encoder, texts: Sequence[str]) -> None:
    """Write the unit vectors of texts to an .npy file, float16, without a step for each text."""
    rest = iter(texts)
    windows = iter(lambda: take_window(rest), [])
    options = encoder.options(normalize_embeddings=True, show_progress_bar=True)
    with files.open_output(str(path), {".npy": None}) as (file, _):
        file.write(files.npy_header("<f2", len(texts), encoder.dimensions))
        cut = 0
        for block, too_long in encoder.encode_windows(windows, options, total=len(texts)):
            file.write(block.astype("<f2").tobytes())
            cut += too_long
    warn_of_cut(cut, len(texts), options)


def read_vectors(
    run: Path, paths: Sequence[str], counts: Sequence[int], names: Sequence[str], width: int, exact: Sequence[bool]
) -> StoredVectors:
    """The vectors in files that were made before: row i of a file is the teacher's vector of text i of the file of texts.

    counts: how many rows of each are taken, the first ones. names: of the files of texts. exact: whether a file may have no
    more. Raises UserError if one has too few or too many rows, or if dimensions differ or are fewer than `width`.
    """
    found: list[Array] = []
    for path, count, name, whole in zip(paths, counts, names, exact, strict=True):
        vectors = map_vectors(path)
        if len(vectors) < count or (whole and len(vectors) != count):
            expected = f"{show(Path(name))} has {count:,} texts (blank ones are left out)"
            raise UserError(f"{show(Path(path))} holds {len(vectors):,} vectors, and {expected}: embed these texts again")
        check_dimensions(f"the vectors of {show(Path(path))} have", vectors.shape[1], width)
        if found and vectors.shape[1] != found[0].shape[1]:
            both = f"vectors of {vectors.shape[1]} dimensions, {show(Path(paths[0]))} of {found[0].shape[1]}"
            raise UserError(f"{show(Path(path))} holds {both}: take all from one teacher")
        found.append(vectors[:count])
    return project(found, run / f"directions-{width}-{digest_data(paths)[:16]}.npy", width)


def check_dimensions(what: str, found: int, width: int) -> None:
    if found < width:
        raise UserError(f"{what} {found} dimensions, the model's {width}: choose a teacher that has at least as many")


def project(found: Sequence[Array], path: Path, width: int) -> StoredVectors:
    """Vectors with the directions that bring them to `width` dimensions, if they have more; these are kept in a file."""
    if found[0].shape[1] == width:
        return StoredVectors(found)
    if not path.exists():
        with files.open_output(str(path), {".npy": None}) as (file, _):
            np.save(file, leading_directions(found, width))
    return StoredVectors(found, np.load(path))


def first_guess(
    encoder: Encoder, stored: StoredVectors, tokenizer: Tokenizer, config: Architecture, texts: TokenizedTexts
) -> dict[str, Array]:
    """First weights of a GPT-2 that make the vector of a text about the mean of its tokens' vectors.

    The vector of a token is the teacher's vector of that token alone, times a / (a + the token's share of the texts), so that
    frequent tokens count less (Arora et al. 2017). The last norm would make all tokens equally long. So every position
    starts with the same vector, four times as long as that of a rare token: then the norm divides all tokens by about the
    same number, and its bias subtracts that vector again. Values are about 1, so that steps of the optimiser are
    small in comparison.
    """
    size, width = config.vocab, config.width
    if encoder.dimensions != (given := stored.files[0].shape[1]):
        found = f"the teacher's vectors have {encoder.dimensions} dimensions, those of --teacher-vectors {given}"
        raise UserError(f"{found}: give the teacher that made them, or leave it out")
    vectors = encoder.encode(tokenizer.alone(size), normalize_embeddings=True)
    vectors = stored.projected(vectors)
    share = np.bincount(texts.ids, minlength=size) / len(texts.ids)
    common = np.arange(width) % 2 - 0.5
    common = ((common - common.mean()) / common.std()).astype(np.float32)
    table = vectors * (HALVING_SHARE / (HALVING_SHARE + share))[:, None] * (np.linalg.norm(common) / 4)
    positions = np.tile(common, (config.context, 1))
    return {"wte.weight": table.astype(np.float32), "wpe.weight": positions, "ln_f.bias": -common}
