"""One process at a time."""

import os
from pathlib import Path
from typing import BinaryIO


def lock(path: Path) -> BinaryIO | None:
    """The file, locked until it is closed or the process ends, however it does; None if another process has it."""
    while True:
        file = path.open("ab")
        if not try_lock(file):
            file.close()
            return None
        try:
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        except FileNotFoundError:
            pass
        file.close()  # the process before has removed it between our opening and our locking


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
