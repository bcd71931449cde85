"""Files of a repository on the hub -> its place in the cache, as huggingface_hub puts them there.

What that package leaves out (2.4) is here: the next process goes on with a file where the last one broke off, checksums are
compared, and a full disk is noticed before it is full.
"""

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ..errors import UserError, show
from ..progress import downloading, megabytes
from .cache import COMMIT, Storage
from .session import TRIES, Remote, Session, reason


class Repository:
    """A commit of a repository on the hub, and its files. Raises UserError."""

    def __init__(self, storage: Storage, revision: str, token: str | bool | None) -> None:
        self.storage, self.name, self.revision = storage, storage.name, revision
        self.hub = Session(storage.name, revision, token)
        self.commit, self.files = self.hub.contents()
        self.weights: list[Remote] = []

    # --- what `walk` asks

    def get(self, file: str) -> Path | None:
        """Where a file lies, fetched if need be; None if there is none. Weights are only noted, for `finish`."""
        here = self.storage.snapshot(self.commit) / file
        absent = self.storage.lacks(self.commit, file)
        with self.writing():
            absent.parent.mkdir(parents=True, exist_ok=True)
            if file not in self.files:
                if not absent.exists():  # a cache that cannot be written may be complete
                    absent.touch()
                return None
        if is_whole(here, self.files[file]):
            return here
        remote = self.hub.look_up(file, self.commit)
        if file.endswith(".safetensors"):
            self.weights.append(remote)
        else:
            self.fetch(remote, lambda n: None)
        return here

    def finish(self) -> None:
        """Fetch the weights, and only then let the revision mean this commit."""
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
                replace(ref, self.commit)

    def needed(self) -> int:
        """Bytes of weights that are not here yet."""
        return sum((remote.size or 0) - size_of(self.part(remote)) for remote in self.missing())

    def missing(self) -> list[Remote]:
        return [remote for remote in self.weights if not is_whole(self.blob(remote), remote.size)]

    # --- one file

    def blob(self, remote: Remote) -> Path:
        return self.storage.folder / "blobs" / remote.etag

    def part(self, remote: Remote) -> Path:
        return self.blob(remote).with_name(f"{remote.etag}.incomplete")

    def fetch(self, remote: Remote, advance: Callable[[int], None]) -> None:
        """Bring a file to its place. Two processes at the same time: the second one waits, and finds it there."""
        here, blob, part = self.storage.snapshot(self.commit) / remote.file, self.blob(remote), self.part(remote)
        lock = self.storage.cache / ".locks" / self.storage.folder.name / f"{remote.etag}.lock"
        with self.writing():
            for path in (lock, blob, here):
                path.parent.mkdir(parents=True, exist_ok=True)
            with self.hub.utils.WeakFileLock(lock):
                if is_whole(here, remote.size):
                    return
                if not is_whole(blob, remote.size):
                    self.receive_whole(remote, part, advance)
                    part.replace(blob)
                link(blob, here)

    def receive_whole(self, remote: Remote, part: Path, advance: Callable[[int], None]) -> None:
        """Receive a file and compare its checksum; what is wrong is received again, once.

        A small file that is the same again is taken for right: not every mirror's ETag is git's checksum.
        """
        before = None
        for _ in range(2):
            received = self.receive(remote, part, advance)
            found = checksum(part, remote.etag)
            if found == remote.etag or (found == before and len(found) < 64):
                return
            before = found
            part.unlink()
            advance(-received)
        what = f"{remote.file} of {self.name} arrived twice with another checksum than {self.hub.endpoint} announces"
        raise UserError(f"{what}: try again later; if it stays so, the file there or a proxy in between is broken")

    def receive(self, remote: Remote, part: Path, advance: Callable[[int], None]) -> int:
        """Receive a file, going on where `part` ends; gives its size. A connection that breaks is opened again.

        Nothing but a complete file comes back from here: where the hub says a size, of that size.
        """
        tries = discarded = 0
        advance(size_of(part))
        while True:
            before, wait, why, useless = size_of(part), None, "", False
            if before and before == remote.size:
                return before
            self.check_space((remote.size or 0) - before)
            try:
                with self.hub.stream(remote, before) as (begin, total, chunks):
                    expected = total if remote.size is None else remote.size
                    if begin not in (0, before):
                        useless, why = True, "it begins elsewhere"
                    elif total is not None and total != expected:  # something else: what is here stays as it is
                        why = f"it announces {total:,} bytes"
                    else:
                        if begin == 0:
                            advance(-before)
                        write_download(part, "ab" if begin else "wb", chunks, advance)
                        if expected is None or size_of(part) == expected:
                            return size_of(part)
                        why = f"{size_of(part):,} bytes arrived"
            except self.hub.status_error as e:
                useless = e.response.status_code == 416  # there is nothing after what is here
                why, wait = ("it answers 416", None) if useless else self.hub.busy(e, remote.file)
            except self.hub.no_answer as e:
                why = reason(e)
            size = size_of(part)
            if useless or (remote.size is not None and size > remote.size):
                part.unlink(missing_ok=True)
                advance(-size)
                discarded += 1
            tries = 1 if before < size and not discarded else tries + 1
            if discarded > 1 or tries >= TRIES:
                have = f"{size_of(part):,} of {remote.size:,} bytes" if remote.size else f"{size_of(part):,} bytes"
                what = f"{remote.file} of {self.name} did not arrive from {self.hub.endpoint} ({why}; {have} are here)"
                raise UserError(f"{what}: run it again, it goes on there")
            self.hub.wait(min(2 ** (tries - 1), 8) if wait is None else wait, why)

    def check_space(self, needed: int) -> None:
        folder = next(p for p in (self.storage.folder, *self.storage.folder.parents) if p.exists())
        if (free := shutil.disk_usage(folder).free) < needed:
            raise no_space(self.name, folder, needed, free)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What the disk refuses, in one line."""
        try:
            yield
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(self.storage.cache).free
                raise no_space(self.name, self.storage.cache, self.needed(), free) from None
            if e.errno is None:
                raise
            raise UserError(f"{show(self.storage.cache)} cannot be written ({e.strerror}): see cache_folder or HF_HOME") from None


def no_space(name: str, folder: Path, needed: int, free: int) -> UserError:
    sizes = f"{name} needs {megabytes(needed)} more and the disk of {show(folder)} has {megabytes(free)}"
    return UserError(f"{sizes}: make room, or choose another disk with cache_folder or HF_HOME")


def write_download(part: Path, mode: str, chunks: Iterator[bytes], advance: Callable[[int], None]) -> None:
    """What comes, as it comes; and all on the disk before it gets its name, which would survive a power loss without it."""
    with part.open(mode) as file:
        for chunk in chunks:
            file.write(chunk)
            advance(len(chunk))
        file.flush()
        os.fsync(file.fileno())


def is_whole(path: Path, size: int | None) -> bool:
    return path.exists() and size in (None, path.stat().st_size)


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def checksum(path: Path, etag: str) -> str:
    """Of the kind that an ETag is: SHA-256 of a large file, git's of a small one; the ETag itself if it is neither."""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag):
        return etag
    found = hashlib.sha256() if len(etag) == 64 else hashlib.sha1(b"blob %d\0" % size_of(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: found).hexdigest()


def link(blob: Path, here: Path) -> None:
    """Let `here` show the blob: a relative link, or where the system has none (Windows) the file itself."""
    here.unlink(missing_ok=True)  # a link to a blob that was deleted
    try:
        here.symlink_to(os.path.relpath(blob, here.parent))
    except OSError:
        blob.replace(here)


def replace(path: Path, text: str) -> None:
    """A small file, complete or not there."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    part.write_text(text)
    part.replace(path)
