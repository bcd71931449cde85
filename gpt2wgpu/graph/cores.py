"""How many cores this process may use, a pool of threads for them, and a BLAS with one thread."""

import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Event, RLock, Thread
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

CGROUP = Path("/sys/fs/cgroup")
CROWDED = 4  # threads of all processes that run or wait, for each core of the machine, over the last minute
BLAS_ALONE = 1 << 16  # multiply-adds up to which OpenBLAS itself uses one thread


def usable_cores() -> int:
    """How many cores this process may use: its affinity (taskset, cpuset) and a container's quota limit them."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13; -X cpu_count included
        allowed = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return min(allowed, container_cores() or allowed)


@cache
def container_cores() -> int | None:
    """A container's quota of CPU time (cgroup v2) in whole cores, rounded up; None if there is none."""
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text("utf-8").split()
        return max(1, -(-int(quota) // int(period)))  # "max" is not a number
    return None


def machine_crowded() -> bool:
    """Whether several processes wait for every core, so that threads that meet often would mostly wait for each other."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > CROWDED * (os.cpu_count() or 1)


@cache
def core_threads() -> ThreadPoolExecutor:
    """One pool for everything that numpy computes, with a thread per core."""
    count = usable_cores()
    pool = ThreadPoolExecutor(count, thread_name_prefix="gpt2wgpu")
    together = Barrier(count)
    with ONE_THREAD_BLAS:
        wait([pool.submit(touch_buffers, together) for _ in range(count)])
    return pool


def touch_buffers(together: Barrier) -> None:
    """Make OpenBLAS touch the pages of the buffer that it packs matrices into, in their order.

    It has a buffer for each thread that computes at the same time, so the threads do this together. The system gives a page its
    place in memory when it is first touched. Where the first product is a small one, pages that are used together get
    places that compete in the cache, and later products of some sizes are up to three times slower (benchmarks/LOG.md).
    """
    with suppress(BrokenBarrierError):
        together.wait(timeout=1)
    np.matmul(np.zeros((256, 320), np.float32), np.zeros((320, 1024), np.float32))


@cache
def blas_libraries() -> ThreadpoolController:
    return ThreadpoolController()


class OneThreadBLAS:
    """While any thread is inside, BLAS has one thread.

    The setting is the whole process's, and threadpoolctl ignores every thread but the one that changed it first. So the
    first thread to enter starts a holder thread, which changes the setting and restores it when the last thread leaves.
    """

    def __init__(self) -> None:
        self.limit: Any = None  # threadpoolctl's, which knows the previous setting; None when no thread is inside
        self.reset()

    def reset(self) -> None:
        """For a forked child, which lacks the threads that were inside. The next holder restores the setting first."""
        self.left_behind, self.limit = self.limit, None
        self.lock, self.inside = RLock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                entered: Future[None] = Future()
                self.leave = Event()
                self.holder = Thread(target=self._hold, args=(entered, self.leave), name="gpt2wgpu-blas", daemon=True)
                self.holder.start()
                try:
                    entered.result()  # raises what the holder raised
                finally:
                    del entered  # an error holds this frame, and would be held by it
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.leave.set()
                self.holder.join()

    def _hold(self, entered: Future[None], leave: Event) -> None:
        try:
            if self.left_behind is not None:
                self.left_behind.restore_original_limits()
                self.left_behind = None
            with blas_libraries().limit(limits=1, user_api="blas") as self.limit:
                entered.set_result(None)
                leave.wait()
            self.limit = None
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)


ONE_THREAD_BLAS = OneThreadBLAS()


def forget_threads() -> None:
    core_threads.cache_clear()
    ONE_THREAD_BLAS.reset()


if hasattr(os, "register_at_fork"):  # a forked child inherits the pool without its threads, and would wait for ever
    # The lock is held during the fork, so that no thread is halfway in or out and the child knows the setting.
    os.register_at_fork(
        before=lambda: ONE_THREAD_BLAS.lock.acquire(),
        after_in_parent=lambda: ONE_THREAD_BLAS.lock.release(),
        after_in_child=forget_threads,
    )
