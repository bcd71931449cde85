"""What is shown on stderr while a corpus is embedded or a model is trained."""

from collections.abc import Mapping
from pathlib import Path

from ..progress import Lines

SMOOTH = 0.9  # weight of earlier steps in the displayed loss


class CorpusProgress:
    """Shows how many texts are done. The time left is estimated from input bytes, as the number of texts is unknown."""

    def __init__(self, shown: Lines, again: str) -> None:
        self.shown, self.say = shown, shown.say
        self.again = again  # the command that resumes
        self.first = self.position = self.size = 0

    def begin(self, rows: int, position: int, size: int) -> None:
        self.first, self.position, self.size = rows, position, size
        self.shown.begin(position, size or None)

    def step(self, rows: int, position: int) -> None:
        self.position = position
        rate = (rows - self.first) / self.shown.elapsed
        share = f", {100 * position / self.size:.0f} %" if self.size else ""
        self.shown.update(position, f"{rows:,} texts{share}, {rate:,.0f} texts/s{self.shown.left(position)}")

    def writing(self, rows: int, total: int) -> None:
        self.shown.update(self.position, f"writing {rows:,} of {total:,} texts")

    def stopped(self, rows: int, folder: Path) -> None:
        self.say(f"stopped: {rows:,} texts are saved in {folder}; to resume: {self.again}")


class TrainProgress:
    """Shows the steps and the latest validation."""

    def __init__(self, shown: Lines) -> None:
        self.shown, self.say = shown, shown.say
        self.loss: float | None = None
        self.texts = self.steps = 0
        self.scores = ""

    def begin(self, step: int, steps: int) -> None:
        self.steps = steps
        self.shown.begin(step, steps)

    def step(self, values: Mapping[str, float]) -> None:
        """After a step; the last one is always shown."""
        loss, done = values["loss"], int(values["step"])
        self.loss = loss if self.loss is None else SMOOTH * self.loss + (1 - SMOOTH) * loss
        self.texts += int(values["texts"])
        rate = self.texts / self.shown.elapsed
        text = (
            f"step {done:,} of {self.steps:,}: loss {self.loss:.4f}{self.scores}, learning rate {values['lr']:.2e}, "
            f"{rate:,.0f} texts/s{self.shown.left(done)}"
        )
        self.shown.update(done, text)
        if done == self.steps:
            self.say(text)

    def validated(self, values: Mapping[str, float]) -> None:
        accuracy = f", accuracy {values['accuracy']:.4f}" if "accuracy" in values else ""
        plain = f", {values['unaveraged_spearman']:.4f} without the average" if "unaveraged_spearman" in values else ""
        self.scores = f", Spearman {values['spearman']:.4f}{accuracy}"
        self.say(f"step {values['step']:,}: validation Spearman {values['spearman']:.4f}{accuracy}{plain}")
