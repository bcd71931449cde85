"""Several threads share one piece of work in chunks, without a spinning barrier.

A thread takes the next chunk as soon as it is done with one, and sleeps when none is left. Where another process takes a core,
the thread on it delays one chunk, and the core of a thread that sleeps is free to go on with that one.
"""

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Condition, Lock
from typing import Any, Self

from . import cores


class SharedWork:
    """work(0) ... work(count - 1), each computed once, by whichever thread takes it."""

    def __init__(self, work: Callable[[int], None], count: int) -> None:
        self.work, self.count = work, count
        self.next = self.started = self.finished = 0
        self.error: BaseException | None = None
        self.lock, self.done = Lock(), Lock()
        self.done.acquire()  # released with the last chunk

    def compute_chunks(self) -> None:
        """Compute chunks until none is left, or one has failed."""
        while (chunk := self._take()) is not None:
            try:
                self.work(chunk)
            except BaseException as error:
                self.error = error
                self.next = self.count
            finally:
                self._finish()

    def _take(self) -> int | None:
        with self.lock:
            if self.next >= self.count:
                return None
            chunk, self.next, self.started = self.next, self.next + 1, self.started + 1
            return chunk

    def _finish(self) -> None:
        with self.lock:
            self.finished += 1
            if self.next >= self.count and self.finished == self.started:
                self.done.release()


class Crew:
    """The calling thread and the threads of other cores, as long as a block runs: `with Crew() as crew: crew.share(...)`.

    Inside it BLAS has one thread. most: threads, where the work is too short for all. Helpers that are busy elsewhere join when
    they are free; nothing waits for them to join. On a crowded machine, or if it is to be alone, the calling thread works
    alone, on the same chunks.
    """

    def __init__(self, *, alone: bool = False, most: int | None = None) -> None:
        self.size = min(cores.usable_cores(), most or cores.usable_cores())
        self.alone = alone or self.size == 1 or cores.machine_crowded()
        self.changed = Condition()
        self.shared: SharedWork | None = None
        self.closed = False
        self.helpers: list[Future[None]] = []

    def __enter__(self) -> Self:
        self.pool = cores.core_threads()
        cores.ONE_THREAD_BLAS.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        try:
            with self.changed:
                if self.shared is not None:
                    self.shared.next = self.shared.count  # after Ctrl-C: no more chunks
                self.shared, self.closed = None, True
                self.changed.notify_all()
            wait([helper for helper in self.helpers if not helper.cancel()])
        finally:
            cores.ONE_THREAD_BLAS.__exit__()

    def share(self, work: Callable[[int], None], count: int) -> None:
        """Compute work(0) ... work(count - 1); they must not depend on each other. Raises what one of them raised."""
        if not count:
            return
        shared = SharedWork(work, count)
        if count > 1 and not self.alone:
            for _ in range(len(self.helpers), min(self.size, count) - 1):
                self.helpers.append(self.pool.submit(self._help))
            with self.changed:
                self.shared = shared
                self.changed.notify_all()
        shared.compute_chunks()
        shared.done.acquire()  # sleeps until the helpers are done with their chunks
        error, shared.error = shared.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # it holds this frame, and would be held by it

    def _help(self) -> None:
        done: SharedWork | None = None
        while True:
            with self.changed:
                while not self.closed and self.shared is done:
                    self.changed.wait()
                if self.closed:
                    return
                done = self.shared
            if done is not None:
                done.compute_chunks()
