"""A lock that one process at a time holds."""

import os
from pathlib import Path
from typing import BinaryIO

from ..files import open_file


def take_lock(path: Path) -> BinaryIO | None:
    """The file, locked until it is closed or the process ends in any way; None if another process holds it."""
    while True:
        file = open_file(path, "ab")
        if not try_lock(file):
            file.close()
            return None
        try:
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        except FileNotFoundError:
            pass
        file.close()  # the previous owner removed it after we opened it and before we locked it


if os.name == "nt":
    import msvcrt

    def try_lock(file: BinaryIO) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        except OSError:
            return False
        return True
else:
    import fcntl

    def try_lock(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
