"""What the rows of one output must have in common: the model, to the last bit, and the options that change a vector."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..encoder import Encoder
from ..engine import EncodeOptions
from ..errors import UserError

MODEL_FILES = (".safetensors", ".json", ".txt", ".bpe")
OPTIONS = {"normalize": "--normalize", "truncate": "--no-truncate", "dimensions": "--truncate-dim or the model's dimensions"}


def fingerprint(encoder: Encoder, asked: EncodeOptions, precision: str) -> dict[str, Any]:
    return {
        "model": digest_of_files(encoder.checkpoint.path),
        "layer": encoder.layer,
        "pooling": encoder.info()["pooling"],
        "dtype": encoder.dtype,
        "dimensions": asked.dims,
        "max_seq_length": asked.limit,
        "prompt": asked.prompt,
        "normalize": asked.normalize,
        "truncate": asked.truncate,
        "precision": precision,
    }


def digest_of_files(folder: Path) -> str:
    """Of weights, configuration and tokenizer: the folder's files and those of its modules (1_Pooling, ...)."""
    found = hashlib.sha256()
    for path in sorted([*folder.glob("*"), *folder.glob("[0-9]*_*/*")]):
        if path.suffix in MODEL_FILES and path.is_file():
            with path.open("rb") as file:
                found.update(
                    f"{path.relative_to(folder).as_posix()} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
                )
    return found.hexdigest()


def check_fingerprint(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raises UserError naming the first difference."""
    for name, value in now.items():
        if before.get(name) != value:
            what = f"{OPTIONS.get(name, name)} is {value!r} here and {before.get(name)!r} there"
            if name == "model":
                what = "this is another model, or its files have changed"
            raise UserError(f"{folder} cannot be gone on with: {what}; give what it began with, or delete it to begin again")


def chain_digest(digest: str, texts: Sequence[str]) -> str:
    """The digest of a corpus from that of the texts before and the ones that follow, however they are cut into windows."""
    found = bytes.fromhex(digest)
    for text in texts:
        found = hashlib.sha256(found + text.encode("utf-8", "surrogatepass")).digest()
    return found.hex()
