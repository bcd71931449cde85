"""Work that does not delay signals: it runs on a daemon thread, which the process abandons when it ends.

A thread that returns to Python from native code while the interpreter shuts down aborts the process (its stack cannot be
unwound through Rust). So once the process is ending these threads stop between two native calls, and the exit handler waits
for them to get there, for a second at most.
"""

import atexit
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_busy: set[threading.Thread] = set()
_ending = threading.Event()


def run_in_background(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Start `work` on its own daemon thread, which costs about 0.1 ms."""
    future: Future[T] = Future()

    def run(future: Future[T]) -> None:
        try:
            future.set_result(work(*args, **kwargs))
        except BaseException as error:  # whoever waits raises it
            future.set_exception(error)
        finally:
            del future  # this frame is in the error's traceback: the two would keep each other, and an Encoder, alive
            _busy.discard(thread)

    thread = threading.Thread(target=run, args=(future,), name=f"gpt2wgpu {work.__name__}", daemon=True)
    _busy.add(thread)
    thread.start()
    return future


def run_interruptibly(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`work(...)`, a call into native code that Ctrl-C and SIGTERM interrupt immediately.

    Python runs signal handlers on the main thread between two of its own instructions, so a call into native code would
    delay them. On the main thread the call therefore runs in the background.
    """
    if threading.current_thread() is not threading.main_thread():
        stop_at_the_end()
        return work(*args, **kwargs)
    return wait_interruptibly(run_in_background(work, *args, **kwargs))


def wait_interruptibly(future: Future[T]) -> T:
    """`future.result()`, for the main thread.

    It polls: a signal that arrives just before a wait begins does not end that wait.
    """
    wait_until_done(future)
    try:
        return future.result()
    finally:
        del future  # as in `run_in_background`


def wait_until_done(future: Future[T]) -> None:
    while not wait([future], timeout=0.2).done:
        stop_at_the_end()


def stop_at_the_end() -> None:
    """On a background thread: block here for ever once the process is ending. Call it before each call into native code."""
    thread = threading.current_thread()
    if _ending.is_set() and thread in _busy:
        _busy.discard(thread)
        threading.Event().wait()


def stopping_at_the_end(items: Iterable[T]) -> Iterator[T]:
    """The items, for native code in the background that iterates over them."""
    for item in items:
        stop_at_the_end()
        yield item


@atexit.register
def wait_for_background() -> None:
    """Wait, for a second at most, until every background thread has left native code."""
    _ending.set()
    deadline = time.monotonic() + 1
    while any(thread.is_alive() for thread in list(_busy)) and time.monotonic() < deadline:
        time.sleep(0.01)
