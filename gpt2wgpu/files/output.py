"""Files and what they are named appear together: complete, and down to the disk."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar
from uuid import uuid4

from ..errors import UserError

Format = TypeVar("Format")
unfinished: set[Path] = set()  # temporary files, for whoever ends the process at once


def suffix_of(name: str, formats: Mapping[str, Format]) -> str | None:
    """The longest of the suffixes that a file's name has after at least one other letter."""
    found = (s for s in formats if name.lower().endswith(s) and len(name) > len(s))
    return max(found, key=len, default=None)


def resolve_output(path: str, formats: Mapping[str, Format]) -> tuple[Path, Format]:
    """The file that a name for output means, and its format. Raises UserError where it cannot be one."""
    target = Path(os.path.realpath(path))  # through a link: the file it points to is replaced, not the link
    if (suffix := suffix_of(target.name, formats)) is None:
        raise UserError(f"{path}: the name must end in one of {' '.join(formats)}")
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(target.stat().st_mode):
            raise UserError(f"{path}: is not a file")
    if not target.parent.is_dir():
        raise UserError(f"{path}: there is no folder {target.parent}")
    return target, formats[suffix]


@contextmanager
def open_output(path: str, formats: Mapping[str, Format], folder: Path | None = None) -> Iterator[tuple[BinaryIO, Format]]:
    """A file to write to, which takes the place of `path` if the block succeeds and vanishes if it fails; and its format.

    Until then it is in `folder`, by default that of `path`. Whether it can be written is found on entry, before any work.
    Raises UserError or OSError.
    """
    target, write = resolve_output(path, formats)
    temporary = (folder or target.parent) / f".gpt2wgpu-{uuid4().hex}.tmp"  # on the same disk: os.replace does not cross disks
    with naming(path, temporary):
        file = temporary.open("xb", buffering=1 << 20)
        unfinished.add(temporary)
        try:
            with file:
                yield file, write
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:  # Ctrl-C too
            with suppress(OSError):
                temporary.unlink()
            raise
        finally:
            unfinished.discard(temporary)


@contextmanager
def naming(path: str, *hidden: Path) -> Iterator[None]:
    """OSErrors name the output, and not a file beside it that nobody knows of; a full disk does not say which file at all."""
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(error.filename) in hidden:
            raise OSError(error.errno, error.strerror or str(error), path) from None
        raise


def sync(path: Path) -> None:
    """A file or folder down to the disk. Windows has no such thing for folders."""
    if path.is_dir() and os.name == "nt":
        return
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)
