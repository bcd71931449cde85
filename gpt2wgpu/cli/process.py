"""What a command needs of its process: open streams, and signals that end it within two seconds."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..errors import UserError

GRACE = 1.5  # seconds that a command has for saving and removing unfinished files after a signal
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise SystemExit where the command is; after GRACE seconds the process ends in any case.

    A signal that was ignored before, as under nohup, stays ignored. Code that handles a signal itself, as training does to
    save its state, has all the time it needs.
    """
    if threading.current_thread() is not threading.main_thread():  # signals can be handled in the main thread only
        yield
        return
    stopped: list[int] = []

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        # hide whatever else fails because of the exception, such as an import
        sys.unraisablehook = lambda _: None
        threading.excepthook = lambda _: None
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, stop)
    received, sent = socket.socketpair()
    sent.setblocking(False)
    woken = signal.set_wakeup_fd(sent.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=end_after_grace, args=(received, stop, stopped), daemon=True, name="gpt2wgpu-signals").start()
    try:
        yield
    except BaseException:
        if stopped:  # the error is a consequence, such as the RuntimeError of a lock that was being acquired
            raise SystemExit(128 + stopped[0]) from None
        raise
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        sent.close()


def end_after_grace(received: socket.socket, handler: Callable[..., None], stopped: list[int]) -> None:
    """End the process when Python cannot: its main thread may be inside a library, and on exit Python waits for threads.

    Python writes the number of each signal to `received` immediately, whatever the main thread does.
    """
    with received:
        while number := received.recv(1):
            if stopped or signal.getsignal(number[0]) is handler:
                time.sleep(GRACE)
                remove_unfinished()
                os._exit(128 + number[0])


def remove_unfinished() -> None:
    """Remove the temporary files of outputs that are not complete."""
    output = sys.modules.get("gpt2wgpu.files.output")
    for path in [*output.unfinished] if output else ():
        with suppress(OSError):
            path.unlink()


class ClosedStdin:
    """Replaces a stdin that the parent process closed. Raises UserError on any use."""

    def __getattr__(self, name: str) -> Any:
        raise UserError("stdin is closed: give a file, or redirect stdin")


def open_streams() -> None:
    """Make printing safe if the parent process closed streams. Raises UserError if stdout is closed.

    A closed descriptor is reopened, because otherwise the next file would get its number and receive what is printed. Python
    sets the stream of a closed descriptor to None, and would then print messages for stderr to stdout.
    """
    for descriptor, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):  # 0 cannot be read, 1 cannot be written
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest number that is free: this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stdin is None:
        sys.stdin = ClosedStdin()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # JSON is UTF-8, also in a Windows pipe
    if sys.stdout is None:
        raise UserError("stdout is closed, but results go there: redirect it, to /dev/null if they are not wanted")


def flush_stdout() -> None:
    """Write what was printed. If that fails, drop the rest: Python would try again on exit, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise
