"""Downloads the files of a repository on the hub into the cache, in huggingface_hub's layout.

Beyond what that package does (2.4): a download resumes in the next process, checksums are verified, no file may be larger than
announced, and a lack of disk space is found before the download.
"""

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError, show
from ..progress import downloading, megabytes
from .cache import COMMIT, Storage
from .session import TRIES, Remote, Session, error_reason


class Failure(NamedTuple):
    """Why a file did not arrive. wait: seconds that the hub asks for. restart: the part that arrived is useless."""

    why: str
    wait: float | None = None
    restart: bool = False


class Repository:
    """A commit of a repository on the hub, and its files. Raises UserError."""

    def __init__(self, storage: Storage, revision: str, token: str | bool | None) -> None:
        self.storage, self.name, self.revision = storage, storage.name, revision
        self.hub = Session(storage.name, revision, token)
        self.commit, self.files = self.hub.contents()
        self.weights: list[Remote] = []

    # --- what `list_model_files` asks for

    def get(self, file: str) -> Path | None:
        """The path of a file, downloaded if it is not here; None if there is none. Weights are only noted, for `finish`."""
        here = self.storage.snapshot(self.commit) / file
        absent = self.storage.lacks(self.commit, file)
        with self.writing():
            absent.parent.mkdir(parents=True, exist_ok=True)
            if file not in self.files:
                if not absent.exists():  # do not write into a complete, read-only cache
                    absent.touch()
                return None
        if is_complete_file(here, self.files[file]):
            return here
        remote = self.hub.look_up(file, self.commit)
        if remote.size is None:
            remote = replace(remote, size=self.files[file])
        if file.endswith(".safetensors"):
            self.weights.append(remote)
        else:
            self.fetch(remote, lambda n: None)
        return here

    def finish(self) -> None:
        """Download the weights, and only then let the revision mean this commit."""
        missing = self.missing()
        self.check_space(self.needed())
        total = sum(remote.size or 0 for remote in missing)
        with downloading(self.name, total) if missing else nullcontext(lambda n: None) as advance:
            for remote in self.weights:
                self.fetch(remote, advance)
        if not COMMIT.fullmatch(self.revision) and self.storage.commit(self.revision) != self.commit:
            with self.writing():
                ref = self.storage.ref(self.revision)
                ref.parent.mkdir(parents=True, exist_ok=True)
                write_small_file(ref, self.commit)

    def needed(self) -> int:
        """Bytes of weights that are not here yet."""
        return sum((remote.size or 0) - file_size(self.part(remote)) for remote in self.missing())

    def missing(self) -> list[Remote]:
        return [remote for remote in self.weights if not is_complete_file(self.blob(remote), remote.size)]

    # --- one file

    def blob(self, remote: Remote) -> Path:
        return self.storage.folder / "blobs" / remote.etag

    def part(self, remote: Remote) -> Path:
        return self.blob(remote).with_name(f"{remote.etag}.incomplete")

    def fetch(self, remote: Remote, advance: Callable[[int], None]) -> None:
        """Download a file to its place. If two processes ask for it, the second waits and then finds it."""
        here, blob, part = self.storage.snapshot(self.commit) / remote.file, self.blob(remote), self.part(remote)
        lock = self.storage.cache / ".locks" / self.storage.folder.name / f"{remote.etag}.lock"
        with self.writing():
            for path in (lock, blob, here):
                path.parent.mkdir(parents=True, exist_ok=True)
            with self.hub.utils.WeakFileLock(lock):
                if is_complete_file(here, remote.size):
                    return
                if not is_complete_file(blob, remote.size):
                    self.receive_whole(remote, part, advance)
                    part.replace(blob)
                link_blob(blob, here)

    def receive_whole(self, remote: Remote, part: Path, advance: Callable[[int], None]) -> None:
        """Receive a file and compare its checksum; a file with a wrong one is received again, once.

        A small file that arrives twice with the same bytes is accepted: not every mirror's ETag is git's checksum.
        """
        before = None
        for _ in range(2):
            received = self.receive(remote, part, advance)
            found = file_checksum(part, remote.etag)
            if found == remote.etag or (found == before and len(found) < 64):
                return
            before = found
            part.unlink()
            advance(-received)
        what = f"{remote.file} of {self.name} arrived twice with another checksum than {self.hub.address} announces"
        raise UserError(f"{what}: try again later; if it stays so, the file there or a proxy in between is broken")

    def receive(self, remote: Remote, part: Path, advance: Callable[[int], None]) -> int:
        """Receive a file, starting where `part` ends, and return its size in bytes. Repeats failed attempts.

        Returns only when the file is complete: of the size that the hub announces, if it does. Raises UserError.
        """
        tries = restarts = 0
        advance(file_size(part))
        while not (before := file_size(part)) or before != remote.size:
            self.check_space((remote.size or 0) - before)
            failure = self.attempt(remote, part, advance)
            size = file_size(part)
            if failure is None:
                return size
            if failure.restart or (remote.size is not None and size > remote.size):
                part.unlink(missing_ok=True)
                advance(-size)
                restarts += 1
            tries = 1 if before < size and not restarts else tries + 1
            if restarts > 1 or tries >= TRIES:
                have = f"{file_size(part):,} of {remote.size:,} bytes" if remote.size else f"{file_size(part):,} bytes"
                what = f"{remote.file} of {self.name} did not arrive from {self.hub.address} ({failure.why}; {have} are here)"
                raise UserError(f"{what}: run it again to resume")
            self.hub.wait(min(2 ** (tries - 1), 8) if failure.wait is None else failure.wait, failure.why)
        return before

    def attempt(self, remote: Remote, part: Path, advance: Callable[[int], None]) -> Failure | None:
        """Request what `part` lacks once and append it. Returns None if the file is then complete."""
        before = file_size(part)
        try:
            with self.hub.stream(remote, before) as (begin, total, chunks):
                expected = total if remote.size is None else remote.size
                if begin not in (0, before):
                    return Failure("it begins elsewhere", restart=True)
                if total is not None and total != expected:  # another file, such as a login page: keep what is here
                    return Failure(f"it announces {total:,} bytes")
                if begin == 0:
                    advance(-before)
                write_download(part, "ab" if begin else "wb", chunks, advance, expected)
        except self.hub.status_error as e:
            if e.response.status_code == 416:  # there is nothing after the part that arrived
                return Failure("it answers 416", restart=True)
            why, wait = self.hub.busy(e, remote.file)
            return Failure(why, wait)
        except self.hub.no_answer as e:
            return Failure(error_reason(e))
        size = file_size(part)
        if expected is None or size == expected:
            return None
        return Failure(f"{size:,} bytes arrived" if size < expected else f"more than the announced {expected:,} bytes arrived")

    def check_space(self, needed: int) -> None:
        folder = next(p for p in (self.storage.folder, *self.storage.folder.parents) if p.exists())
        if (free := shutil.disk_usage(folder).free) < needed:
            raise no_space_error(self.name, folder, needed, free)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn errors of the disk into a UserError."""
        try:
            yield
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(self.storage.cache).free
                raise no_space_error(self.name, self.storage.cache, self.needed(), free) from None
            if e.errno is None:
                raise
            raise UserError(f"{show(self.storage.cache)} cannot be written ({e.strerror}): see cache_folder or HF_HOME") from None


def no_space_error(name: str, folder: Path, needed: int, free: int) -> UserError:
    sizes = f"{name} needs {megabytes(needed)} more and the disk of {show(folder)} has {megabytes(free)}"
    return UserError(f"{sizes}: make room, or choose another disk with cache_folder or HF_HOME")


def write_download(part: Path, mode: str, chunks: Iterator[bytes], advance: Callable[[int], None], limit: int | None) -> None:
    """Write the chunks as they come, stopping after more than `limit` bytes.

    fsync before the file gets its name: otherwise, after a power loss, the name could exist without the content.
    """
    with part.open(mode) as file:
        for chunk in chunks:
            file.write(chunk)
            advance(len(chunk))
            if limit is not None and file.tell() > limit:
                break
        file.flush()
        os.fsync(file.fileno())


def is_complete_file(path: Path, size: int | None) -> bool:
    return path.exists() and size in (None, path.stat().st_size)


def file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def file_checksum(path: Path, etag: str) -> str:
    """The checksum that an ETag is: SHA-256 for large files, git's SHA-1 for small ones; for any other ETag, the ETag."""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag):
        return etag
    found = hashlib.sha256() if len(etag) == 64 else hashlib.sha1(b"blob %d\0" % file_size(path), usedforsecurity=False)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: found).hexdigest()


def link_blob(blob: Path, here: Path) -> None:
    """Put the blob at `here`: as a relative link, or by moving it if the system has no links (Windows)."""
    here.unlink(missing_ok=True)  # a link to a blob that was deleted
    try:
        here.symlink_to(os.path.relpath(blob, here.parent))
    except OSError:
        blob.replace(here)


def write_small_file(path: Path, text: str) -> None:
    """Write a small file atomically."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    part.write_text(text)
    part.replace(path)
