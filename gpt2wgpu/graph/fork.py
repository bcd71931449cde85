"""A lock that survives a fork."""

import os
import threading
import weakref


class ForkSafeLock:
    """A lock that a forked child has anew: a thread of the parent that holds it does not exist in the child."""

    def __init__(self) -> None:
        self.reset()
        _locks.add(self)

    def reset(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


def reset_locks() -> None:
    for lock in list(_locks):
        lock.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset_locks)
