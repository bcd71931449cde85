"""How training is shown while it runs, on stderr: a live line on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..progress import duration
from .console import one_line, say

EVERY = 10.0  # seconds between lines where there is no terminal
SMOOTH = 0.9  # how much of the loss shown is that of earlier steps


class Lines:
    """Plain lines."""

    def __init__(self) -> None:
        self.loss: float | None = None
        self.texts = self.first = self.done = self.steps = 0
        self.start = self.told = time.monotonic()

    def say(self, line: str) -> None:
        say(line)

    def begin(self, step: int, steps: int) -> None:
        self.first = self.done = step
        self.steps = steps
        self.start = self.told = time.monotonic()

    def step(self, values: dict[str, Any]) -> None:
        self.loss = values["loss"] if self.loss is None else SMOOTH * self.loss + (1 - SMOOTH) * values["loss"]
        self.texts += values["texts"]
        self.done = values["step"]
        self.show(values)

    def show(self, values: dict[str, Any]) -> None:
        if time.monotonic() - self.told >= EVERY or self.done == self.steps:
            self.told = time.monotonic()
            left = duration((self.told - self.start) / (self.done - self.first) * (self.steps - self.done))
            rate = self.texts / (self.told - self.start)
            self.say(
                f"step {self.done:,} of {self.steps:,}: loss {self.loss:.4f}, learning rate {values['lr']:.2e}, "
                f"{rate:,.0f} texts/s, {left} left"
            )

    def validated(self, values: dict[str, Any]) -> None:
        accuracy = f", accuracy {values['accuracy']:.4f}" if "accuracy" in values else ""
        self.say(f"step {values['step']:,}: validation Spearman {values['spearman']:.4f}{accuracy}")


class Live(Lines):
    """A bar below the lines."""

    def __init__(self, bar: Any) -> None:
        super().__init__()
        self.bar = bar
        self.task: Any = None
        self.scores = ""

    def say(self, line: str) -> None:
        self.bar.console.print(one_line(line), markup=False, highlight=False)

    def begin(self, step: int, steps: int) -> None:
        super().begin(step, steps)
        self.task = self.bar.add_task("", total=steps, completed=step, told="")

    def show(self, values: dict[str, Any]) -> None:
        elapsed = time.monotonic() - self.start
        told = f"loss {self.loss:.4f}  {self.scores}lr {values['lr']:.1e}  {self.texts / elapsed:,.0f} texts/s"
        self.bar.update(self.task, completed=self.done, told=told)

    def validated(self, values: dict[str, Any]) -> None:
        super().validated(values)
        accuracy = f"accuracy {values['accuracy']:.3f}  " if "accuracy" in values else ""
        self.scores = f"Spearman {values['spearman']:.3f}  {accuracy}"


@contextmanager
def live() -> Iterator[Lines]:
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield Live(bar)
