"""Fingerprint of the model and the options; a resumed run must have the same one."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import Checkpoint
from ..encoder import Encoder
from ..engine import EncodeOptions
from ..errors import UserError

OPTIONS = {
    "normalize": "--normalize",
    "truncate": "--no-truncate",
    "dimensions": "--truncate-dim or the model's dimensions",
    "max_tokens": "--max-tokens",
}
FileDigests = dict[str, list[int | str]]  # path in the model's folder -> [size, mtime, ctime, inode, SHA-256]


def fingerprint(encoder: Encoder, asked: EncodeOptions, precision: str, digests: FileDigests) -> dict[str, Any]:
    """What all rows of one output have in common, as JSON values. digests: those of the model's files."""
    model = hashlib.sha256("".join(f"{name} {found[-1]}\n" for name, found in digests.items()).encode())
    for name, array in encoder.checkpoint.fitted.items():
        model.update(name.encode() + array.tobytes())
    return {
        "model": model.hexdigest(),
        "layer": encoder.layer,
        "pooling": encoder.info()["pooling"],
        "dtype": encoder.dtype,
        "dimensions": asked.dims,
        "max_seq_length": asked.limit,
        "prompt": asked.prompt,
        "normalize": asked.normalize,
        "truncate": asked.truncate,
        "precision": precision,
        # in numpy a vector's last bits depend on its batch; on a device they do not
        "max_tokens": encoder.engine.max_tokens if encoder.device == "numpy" else None,
    }


def digest_model_files(checkpoint: Checkpoint, known: Mapping[str, Sequence[int | str]]) -> FileDigests:
    """The digest of each file that a vector may depend on.

    Files are read in full, because weights may be replaced by others of the same size. A file is not read again if `known`,
    the digests of an earlier process, has the same size, times and inode: a resume reads none of gpt2-xl's 6 GB.
    """
    found: FileDigests = {}
    for path in checkpoint.files_read:
        name = path.relative_to(checkpoint.path).as_posix()
        stat = path.stat()
        facts = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        if [*known.get(name, ())][:-1] == facts:
            found[name] = [*known[name]]
            continue
        with path.open("rb") as file:
            found[name] = [*facts, hashlib.file_digest(file, "sha256").hexdigest()]
    return found


def check_fingerprint(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raises UserError if two fingerprints differ, naming the first difference."""
    for name, value in now.items():
        if name == "max_tokens" and None in (value, before.get(name)):
            continue  # one of the two ran on a device
        if before.get(name) != value:
            what = f"{OPTIONS.get(name, name)} is {value!r} now and was {before.get(name)!r}"
            if name == "model":
                what = "this is another model, or its files have changed"
            raise UserError(f"{folder} cannot be resumed: {what}; use what it was started with, or delete it to start again")


def chain_digest(digest: str, texts: Sequence[str]) -> str:
    """The digest of a corpus: that of the texts so far, continued with more. It does not depend on how windows are cut."""
    found = bytes.fromhex(digest)
    for text in texts:
        found = hashlib.sha256(found + text.encode("utf-8", "surrogatepass")).digest()
    return found.hex()
