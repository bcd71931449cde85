"""How a corpus is shown while it is embedded, on stderr: a live line on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..progress import duration
from .console import one_line, say

EVERY = 30.0  # seconds between lines where there is no terminal


class Lines:
    """Plain lines. How much is left is told by the bytes of the input, as nobody has counted its texts."""

    def __init__(self, again: str) -> None:
        self.again = again  # the command that goes on
        self.first_row = self.first_byte = self.size = 0
        self.start = self.told = time.monotonic()

    def say(self, line: str) -> None:
        say(line)

    def begin(self, rows: int, position: int, size: int) -> None:
        self.first_row, self.first_byte, self.size = rows, position, size
        self.start = self.told = time.monotonic()

    def step(self, rows: int, position: int) -> None:
        elapsed = time.monotonic() - self.start
        rate = (rows - self.first_row) / max(elapsed, 1e-9)
        read = position - self.first_byte
        left = elapsed / read * (self.size - position) if read > 0 else None
        self.show(rows, position, f"{rate:,.0f} texts/s", "" if left is None else f"{duration(left)} left")

    def writing(self, rows: int, total: int) -> None:
        self.show_writing(rows, total)

    def stopped(self, rows: int, folder: Path) -> None:
        self.say(f"stopped: {rows:,} texts are done and kept in {folder}; to go on: {self.again}")

    def due(self) -> bool:
        if time.monotonic() - self.told < EVERY:
            return False
        self.told = time.monotonic()
        return True

    def show(self, rows: int, position: int, rate: str, left: str) -> None:
        if self.due():
            share = f"{100 * position / self.size:.0f} %" if self.size else ""
            self.say(", ".join(part for part in (f"{rows:,} texts", share, rate, left) if part))

    def show_writing(self, rows: int, total: int) -> None:
        if self.due():
            self.say(f"writing {rows:,} of {total:,} texts")


class Live(Lines):
    """A bar below the lines."""

    def __init__(self, again: str, bar: Any) -> None:
        super().__init__(again)
        self.bar = bar
        self.task: Any = None

    def say(self, line: str) -> None:
        self.bar.console.print(one_line(line), markup=False, highlight=False)

    def begin(self, rows: int, position: int, size: int) -> None:
        super().begin(rows, position, size)
        self.task = self.bar.add_task("", total=size or None, completed=position, told="")

    def show(self, rows: int, position: int, rate: str, left: str) -> None:
        self.bar.update(self.task, completed=position, told="  ".join((f"{rows:,} texts", rate, left)))

    def show_writing(self, rows: int, total: int) -> None:
        self.bar.update(self.task, told=f"writing {rows:,} of {total:,} texts")


@contextmanager
def report_progress(again: str) -> Iterator[Lines]:
    if not sys.stderr.isatty():
        yield Lines(again)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = BarColumn(20), TaskProgressColumn(), TextColumn("{task.fields[told]}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Live(again, bar)
