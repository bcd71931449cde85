"""RUN, the folder of a run: created if missing, locked for one process, owned by this user."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..corpus.lock import take_lock
from ..corpus.workspace import trusted_owners
from ..errors import UserError, show

LOCK = ".lock"


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a folder until the block ends. A new folder that is still empty is removed.

    Raises UserError if another process trains there, or if the folder belongs to another user.
    """
    parent = folder.absolute().parent
    if not parent.is_dir():
        raise UserError(f"there is no folder {show(parent)} to make {show(folder.name)} in")
    new = not folder.exists()
    folder.mkdir(exist_ok=True)
    owners, owner = trusted_owners(folder.absolute()), folder.stat().st_uid
    if owners is not None and owner not in owners:  # links in it would lead elsewhere
        raise UserError(f"{show(folder)} belongs to another user (uid {owner}): choose another folder")
    held = take_lock(folder / LOCK)
    if held is None:
        raise UserError(f"another process is training in {show(folder)}: wait for it, or choose another folder")
    try:
        with held:
            try:
                yield
            finally:
                if os.name != "nt":  # while it is locked, so that no other process's lock is removed
                    (folder / LOCK).unlink(missing_ok=True)
    finally:
        if os.name == "nt":
            with suppress(OSError):
                (folder / LOCK).unlink()
        if new:
            with suppress(OSError):  # not empty
                folder.rmdir()
