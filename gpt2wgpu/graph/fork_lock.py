"""A lock that survives a fork."""

import os
import threading
import weakref


class ForkSafeLock:
    """A lock that is free in a forked child, where a thread that held it in the parent does not exist."""

    def __init__(self) -> None:
        self.reset()
        _locks.add(self)

    def reset(self) -> None:
        self._lock, self._holder = threading.Lock(), 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._holder = os.getpid()

    def __exit__(self, *_: object) -> None:
        if self._holder == os.getpid():  # else it was taken before a fork, and is free here
            self._lock.release()


_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


def reset_locks() -> None:
    for lock in list(_locks):
        lock.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset_locks)
