"""Progress of long work, on stderr: a bar on a terminal, else a line now and then."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 30.0  # seconds between lines


@contextmanager
def progress(show: bool | None, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows how far encoding is, if that is asked for; gives the function that advances it by a number of texts."""
    if not show:
        yield lambda texts: None
        return
    if not sys.stderr.isatty():
        yield progress_lines(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = TextColumn("encoding"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("encoding", total=total)
        yield lambda texts: bar.advance(task, texts)


def progress_lines(total: int | None) -> Callable[[int], None]:
    start = told = time.monotonic()
    done = 0

    def advance(texts: int) -> None:
        nonlocal done, told
        done += texts
        now = time.monotonic()
        if now - told >= EVERY:
            told, rate = now, done / (now - start)
            rest = "" if total is None else f", {duration((total - done) / rate)} left"
            of = "" if total is None else f" of {total:,}"
            print(f"encoded {done:,}{of} texts, {rate:,.0f} texts/s{rest}", file=sys.stderr, flush=True)

    return advance


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


@contextmanager
def downloading(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar of a download on a terminal, elsewhere one line; gives the function that advances it by bytes.

    HF_HUB_DISABLE_PROGRESS_BARS=1 asks for neither.
    """
    quiet = is_set("HF_HUB_DISABLE_PROGRESS_BARS")
    if quiet or not sys.stderr.isatty():
        if not quiet:
            notice(f"downloading {name} ({megabytes(total)})")
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = TextColumn(f"downloading {name}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("downloading", total=total)
        yield lambda n: bar.advance(task, n)


def is_set(variable: str) -> bool:
    """Whether an environment variable says yes, as huggingface_hub reads it."""
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def notice(message: str) -> None:
    """One line on stderr."""
    print(message, file=sys.stderr, flush=True)


def megabytes(n: int) -> str:
    return f"{n / 1e6:,.0f} MB" if n >= 1e7 else f"{n / 1e6:.1f} MB" if n >= 1e5 else f"{n:,} bytes"
