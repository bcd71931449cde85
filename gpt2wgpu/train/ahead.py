"""Micro-batches, made ready while the device is still computing the gradients of the one before."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..graph.tensor import Array
from .start import Run
from .stored import StoredVectors


@dataclass(frozen=True)
class MicroBatch:
    """rows: its examples. packed: its arrays, see packing.pack_batch. targets: of its examples or texts; empty if the loss needs
    none."""

    rows: Array
    packed: dict[str, Array]
    targets: Array


class BatchesAhead:
    """The micro-batches of `order` (the examples of each) one after the other.

    Packing one and reading its targets from their file takes milliseconds. Call `prepare` when the device is busy, so that it
    need not wait for them.
    """

    def __init__(self, run: Run, order: Iterable[Array]) -> None:
        self.run, self.left = run, iter(order)
        self.ready: MicroBatch | None = None

    def prepare(self) -> None:
        """Make the next micro-batch ready, if there is one and it is not."""
        if self.ready is None and (rows := next(self.left, None)) is not None:
            examples = self.run.examples
            by_text = isinstance(examples.targets, StoredVectors)
            targets = np.empty(0) if examples.targets is None else examples.targets[examples.texts_of(rows) if by_text else rows]
            self.ready = MicroBatch(rows, self.run.model.batch(examples, rows), targets)

    def take(self) -> MicroBatch:
        """The next micro-batch. Raises IndexError if there is none."""
        self.prepare()
        if self.ready is None:
            raise IndexError("no micro-batch is left")
        found, self.ready = self.ready, None
        return found
