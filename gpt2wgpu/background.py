"""Work that a signal does not have to wait for: it runs on a daemon thread, which a process leaves behind when it ends."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def run_in_background(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Start `work` on a daemon thread of its own. The thread takes some 0.1 ms."""
    future: Future[T] = Future()

    def run(future: Future[T]) -> None:
        try:
            future.set_result(work(*args, **kwargs))
        except BaseException as error:  # whoever waits raises it
            future.set_exception(error)
        finally:
            del future  # this frame is in the error's traceback: the two would keep each other, and all that they refer to

    threading.Thread(target=run, args=(future,), name=f"gpt2wgpu {work.__name__}", daemon=True).start()
    return future


def run_interruptibly(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`work(...)`, during which Ctrl-C and SIGTERM are answered at once.

    Python runs signal handlers on the main thread between two of its own instructions, so a call into native code holds
    them up. On the main thread the call therefore runs in the background.
    """
    if threading.current_thread() is not threading.main_thread():
        return work(*args, **kwargs)
    return wait_interruptibly(run_in_background(work, *args, **kwargs))


def wait_interruptibly(future: Future[T]) -> T:
    """`future.result()`, for the main thread.

    It looks up now and then: a signal that comes just before a wait begins does not end it.
    """
    while not wait([future], timeout=0.5).done:
        pass
    try:
        return future.result()
    finally:
        del future  # as in `run_in_background`
