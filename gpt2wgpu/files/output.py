"""Atomic output files: written under a temporary name, fsynced, then renamed."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar, cast
from uuid import uuid4

from ..errors import UserError, show

Format = TypeVar("Format")
unfinished: set[Path] = set()  # temporary files, to be removed if a signal ends the process immediately


def suffix_of(name: str, formats: Mapping[str, Format]) -> str | None:
    """The longest suffix in `formats` that a file's name ends in, after at least one other letter; None if there is none."""
    found = (s for s in formats if name.lower().endswith(s) and len(name) > len(s))
    return max(found, key=len, default=None)


def resolve_output(path: str, formats: Mapping[str, Format]) -> tuple[Path, Format]:
    """The file that an output's name means, and its format. Raises UserError if the name cannot be an output."""
    target, shown = Path(os.path.realpath(path)), show(Path(path))  # a link's target is replaced, not the link
    if (suffix := suffix_of(target.name, formats)) is None:
        raise UserError(f"{shown}: the name must end in one of {' '.join(formats)}")
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(target.stat().st_mode):
            raise UserError(f"{shown}: is not a file")
    if not target.parent.is_dir():
        raise UserError(f"{shown}: there is no folder {show(target.parent)}")
    return target, formats[suffix]


@contextmanager
def open_output(path: str, formats: Mapping[str, Format], folder: Path | None = None) -> Iterator[tuple[BinaryIO, Format]]:
    """A file to write to, and its format. If the block succeeds it replaces `path`, keeping its permissions; else it vanishes.

    Until then it lies in `folder`, by default that of `path`. Whether it can be written is checked on entry, before any work.
    Raises UserError or OSError.
    """
    target, write = resolve_output(path, formats)
    temporary = (folder or target.parent) / f".gpt2wgpu-{uuid4().hex}.tmp"  # on the same disk: os.replace does not cross disks
    with name_output(path, temporary):
        unfinished.add(temporary)
        try:  # from before it exists: a signal may come as soon as it does
            with open_file(temporary, "xb", rights=0o600 if target.exists() else 0o666) as file:
                keep_permissions(file, target)
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


def open_file(path: Path, mode: str, *, rights: int = 0o666, buffering: int = 1 << 20) -> BinaryIO:
    """Open a file, never following a link at `path`. rights: the permissions of a new file, before the umask."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), rights)  # Windows has no such flag

    return cast(BinaryIO, open(path, mode, buffering=buffering, opener=opener))


def keep_permissions(file: BinaryIO, target: Path) -> None:
    """Give a file the permissions and the group of the one that it will replace, if there is one."""
    if os.name == "nt" or not target.exists():
        return
    old = target.stat()
    with suppress(PermissionError):
        os.fchown(file.fileno(), old.st_uid if os.geteuid() == 0 else -1, old.st_gid)
    rights = stat.S_IMODE(old.st_mode)
    if os.fstat(file.fileno()).st_gid != old.st_gid:
        rights &= ~0o070  # these were meant for another group
    os.fchmod(file.fileno(), rights)


@contextmanager
def name_output(path: str, *hidden: Path) -> Iterator[None]:
    """Make OSErrors name the output `path` instead of a `hidden` file next to it, or of none (a full disk)."""
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(error.filename) in hidden:
            raise OSError(error.errno, error.strerror or str(error), path) from None
        raise


def sync_to_disk(path: Path) -> None:
    """fsync a file or a folder. Windows cannot do that with folders."""
    if path.is_dir() and os.name == "nt":
        return
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)
