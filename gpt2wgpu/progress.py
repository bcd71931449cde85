"""Progress of long work on stderr: a bar on a terminal, elsewhere a line now and then."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import one_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

EVERY = 30.0  # seconds between lines if stderr is not a terminal


class Lines:
    """A line now and then. `done` and `total` count anything, such as texts, bytes or steps."""

    def __init__(self) -> None:
        self.begin()

    def say(self, message: str) -> None:
        """Print a line now."""
        notice(message)

    def begin(self, done: float = 0, total: float | None = None) -> None:
        """Start the clock. total: None if it is unknown."""
        self.first, self.total = done, total
        self.start = self.shown = time.monotonic()

    def update(self, done: float, text: str) -> None:
        """Show how far the work is."""
        if time.monotonic() - self.shown >= EVERY:
            self.shown = time.monotonic()
            self.say(text)

    @property
    def elapsed(self) -> float:
        """Seconds since the work began, not 0."""
        return max(time.monotonic() - self.start, 1e-9)

    def left(self, done: float) -> str:
        """The time left at this rate, such as ", 1:05 left"; "" if unknown."""
        if self.total is None or done <= self.first:
            return ""
        return f", {duration(self.elapsed / (done - self.first) * (self.total - done))} left"


class Bar(Lines):
    """A progress bar with the text next to it, below the lines."""

    def __init__(self, bar: "Progress") -> None:
        self.bar = bar
        self.task: TaskID | None = None
        super().__init__()

    def say(self, message: str) -> None:
        self.bar.console.print(one_line(message), markup=False, highlight=False)

    def begin(self, done: float = 0, total: float | None = None) -> None:
        super().begin(done, total)
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task("", total=total, completed=int(done), text="")

    def update(self, done: float, text: str) -> None:
        assert self.task is not None
        self.bar.update(self.task, completed=done, text=one_line(text))


@contextmanager
def show_progress() -> Iterator[Lines]:
    """A bar if stderr is a terminal, else lines."""
    if not on_terminal():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = BarColumn(20), TextColumn("{task.fields[text]}", markup=False)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Bar(bar)


@contextmanager
def progress(show: bool | None, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how far encoding is, if asked to; gives the function that advances it by a number of texts. total: of texts."""
    if not show:
        yield lambda texts: None
        return
    done, of = 0, "" if total is None else f" of {total:,}"
    with show_progress() as shown:
        shown.begin(0, total)

        def advance(texts: int) -> None:
            nonlocal done
            done += texts
            shown.update(done, f"encoded {done:,}{of} texts, {done / shown.elapsed:,.0f} texts/s{shown.left(done)}")

        yield advance


@contextmanager
def downloading(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far a download is; gives the function that advances it by a number of bytes. total: of bytes.

    HF_HUB_DISABLE_PROGRESS_BARS=1 shows nothing.
    """
    if is_set("HF_HUB_DISABLE_PROGRESS_BARS"):
        yield lambda n: None
        return
    done = 0
    with show_progress() as shown:
        shown.say(f"downloading {name} ({megabytes(total)})")
        shown.begin(0, total)

        def advance(n: int) -> None:
            nonlocal done
            done += n
            text = f"downloaded {megabytes(done)} of {megabytes(total)}, {megabytes(round(done / shown.elapsed))}/s"
            shown.update(done, f"{text}{shown.left(done)}")

        yield advance


def on_terminal() -> bool:
    """Whether stderr is a terminal. In a process without stderr, Python sets it to None."""
    return sys.stderr is not None and sys.stderr.isatty()


def duration(seconds: float) -> str:
    """Such as 1:05, or 1:00:00 for an hour."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def is_set(variable: str) -> bool:
    """Whether an environment variable says yes, by huggingface_hub's rule."""
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def notice(message: str) -> None:
    """One line on stderr, whatever the message contains."""
    if sys.stderr is not None:  # print(file=None) would print on stdout
        print(one_line(message), file=sys.stderr, flush=True)


def megabytes(n: int) -> str:
    """A number of bytes, such as 91 MB, 2.0 MB or 251 bytes."""
    return f"{n / 1e6:,.0f} MB" if n >= 1e7 else f"{n / 1e6:.1f} MB" if n >= 1e5 else f"{n:,} bytes"
