"""The texts of one request, or of one window of it, on their way to vectors."""

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ..graph import packing
from ..graph.tensor import Array

_numbers = itertools.count()


class QueuedTexts:
    """The tokens of a request's texts, and their results as they come. Equal texts are computed once.

    sequences: token ids of each text, prompt included. first: the number of its first text in the request. skip: leading
    tokens that pooling leaves out. vectors: float32 (n, width), where the results are written; None if the hidden states of
    the tokens are wanted instead, which are the future's result. plan: cuts texts into batches, given their lengths; None if
    texts of several jobs may share a batch.

    The scheduler owns a job from `submit` to the end; the future is completed on its thread.
    """

    def __init__(
        self,
        sequences: Sequence[Array],
        *,
        first: int,
        skip: int,
        vectors: Array | None,
        plan: Callable[[list[int]], list[list[int]]] | None = None,
    ) -> None:
        self.sequences, self.first, self.skip, self.vectors = sequences, first, skip, vectors
        self.states = vectors is None
        self.number = next(_numbers)
        self.future: Future[Any] = Future()
        self.future.set_running_or_notify_cancel()  # whoever waits may leave, but cannot end it
        self.started = self.first_submitted = self.finished = math.nan  # by time.monotonic
        self._same_as, distinct = packing.find_equal(sequences)
        self.planned: list[list[int]] = []
        self.left: list[int] = []
        if plan is None:
            self.left = sorted(distinct, key=lambda i: len(sequences[i]))  # the longest are taken first, from the end
        else:
            rows = plan([len(sequences[i]) for i in distinct])
            self.planned = [[distinct[i] for i in batch] for batch in reversed(rows)]
        self._missing = len(distinct)
        self.tokens_left = sum(len(sequences[i]) for i in distinct)
        self._states: dict[int, Array] = {}

    @property
    def waits(self) -> bool:
        """Whether it has texts that are in no batch yet."""
        return bool(self.left or self.planned)

    def take(self, rows: Sequence[int]) -> None:
        """Note that these texts are in a batch now."""
        self.tokens_left -= sum(len(self.sequences[i]) for i in rows)

    def put(self, i: int, result: Array) -> None:
        """The result of text i: a vector (C,), or states (n, C)."""
        if self.vectors is None:
            self._states[i] = result.copy()
        else:
            self.vectors[i] = result
        self._missing -= 1
        if not self._missing and not self.future.done():
            self.future.set_result(self._result())

    def _result(self) -> Any:
        if self.vectors is None:
            return [self._states[i] for i in self._same_as]
        for i, same in enumerate(self._same_as):
            if i != same:
                self.vectors[i] = self.vectors[same]
        return self.vectors

    def drop(self) -> None:
        """None of its texts is computed any more."""
        self.left, self.planned = [], []

    def fail(self, error: Exception) -> None:
        """End the job."""
        self.drop()
        if not self.future.done():
            self.future.set_exception(error)


def plan_like_encode(max_tokens: int, sequences: int) -> Callable[[list[int]], list[list[int]]]:
    """The batches that `Encoder.encode` cuts from a request of one window: in numpy the last bits of a vector depend on them."""
    return lambda lengths: packing.plan_batches(lengths, max_tokens, sequences)
