"""One thread owns the device: it cuts batches from the requests that wait, and keeps two under way.

There is no delay timer. While the device computes, requests gather, and the next batch is cut from them. Small requests come
first, in their order of arrival, so a single text waits for the two batches under way and is in the next one; then large ones,
the fewest tokens left first. Of what is computed at least a quarter is for the large request that has waited longest.

On a device a text's bits do not depend on its batch, so texts of several requests share one. In numpy the last bits do, so
there a batch holds texts of one request, cut as `Encoder.encode` cuts them; of single texts each core computes one.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..encoder import Encoder
from ..engine import MAX_SEQUENCES
from ..errors import UserError
from ..graph.cores import usable_cores
from ..graph.tensor import Array
from .failures import BACKEND, OVERLOADED, UNAVAILABLE, Refusal, is_device_lost
from .jobs import QueuedTexts
from .notices import say, say_traceback

SMALL_PART = 4  # a request is small if what is left of it is at most a fourth of a batch
OTHERS = 3  # times as much as the oldest large request gets is computed for others meanwhile, if they want it
BATCH_COST = 128  # what a batch costs besides its tokens, in tokens
UNDER_WAY = 2  # batches on the device at a time; in numpy for each core, if all have one text
ASSUMED_RATE = 2000.0  # tokens per second, until a batch was measured
WEIGHT = 0.2  # of the newest batch in the measured rate
OVERDUE = 30.0  # seconds that a batch may take at least before the server calls itself unhealthy
OVERDUE_TIMES = 20.0  # and how many times as long as expected

Part = tuple[QueuedTexts, int]  # a text of a job


@dataclass
class Batch:
    """Texts that are computed together; `wait` gives their results, or their tokens' states, all at once."""

    parts: list[Part]
    tokens: int
    one_core: bool = False  # computed on one core, in numpy
    started: float = 0.0
    wait: Callable[[], Array] = field(default=lambda: np.empty(0))


@dataclass(frozen=True)
class Finished:
    """A batch that was computed, for metrics."""

    texts: int
    tokens: int
    seconds: float


class Scheduler:
    """Computes jobs on an Encoder's device. `submit` from any thread.

    room: most tokens that may wait. on_batch: called after each batch. on_fatal: called once if the device cannot be used any
    more. Both on the scheduler's thread.
    """

    def __init__(
        self, encoder: Encoder, *, room: int, on_batch: Callable[[Finished], None], on_fatal: Callable[[str], None]
    ) -> None:
        self.encoder, self.room, self._on_batch, self._on_fatal = encoder, room, on_batch, on_fatal
        self.mixes = encoder.engine.place.device is not None
        self.rate = ASSUMED_RATE
        self.waiting_tokens = 0
        self.fatal: str | None = None
        self._jobs: list[QueuedTexts] = []
        self._pending: deque[Batch] = deque()
        self._passed = self._losses = 0  # what was computed for others while a large request waited, in tokens
        self._lost = ""  # why the device was lost, until it is opened again
        self._closing = False
        self._changed = threading.Condition()
        self.thread = threading.Thread(target=self._run, name="gpt2wgpu device", daemon=True)
        self.thread.start()

    # --- called by requests

    def submit(self, jobs: Sequence[QueuedTexts]) -> None:
        """Add the jobs of a request. Raises Refusal if too much waits; what is larger than the room is taken if nothing waits."""
        tokens = sum(job.tokens_left for job in jobs)
        with self._changed:
            if self.fatal is not None:
                raise Refusal(UNAVAILABLE, self.fatal)
            if self.waiting_tokens and self.waiting_tokens + tokens > self.room:
                seconds = self.seconds_to_wait(tokens)
                found = f"{self.waiting_tokens} tokens wait and {self.room} may"
                raise Refusal(OVERLOADED, f"the queue is full: {found}; try again in {seconds:.1f} s", retry_after=seconds)
            for job in jobs:
                job.started = time.monotonic()
            self.waiting_tokens += tokens
            self._jobs += jobs
            self._changed.notify()

    def cancel(self, jobs: Sequence[QueuedTexts]) -> None:
        """Compute no more texts of these jobs; a batch that is under way is finished. Their room is free at once."""
        with self._changed:
            for job in jobs:
                job.drop()
            self._forget_done()

    def seconds_to_wait(self, tokens: int) -> float:
        """Until so many tokens have room, by the measured rate."""
        return max(0.05, (self.waiting_tokens + tokens - self.room) / self.rate)

    def overdue(self) -> str | None:
        """Why the device does not seem to work, or None. Takes no lock: it may be asked while the device hangs."""
        if not self.thread.is_alive():
            return "the thread that computes has ended"
        try:
            oldest = self._pending[0]
        except IndexError:
            return None
        seconds = time.monotonic() - oldest.started
        allowed = max(OVERDUE, OVERDUE_TIMES * oldest.tokens / self.rate)
        return f"a batch of {oldest.tokens} tokens has taken {seconds:.0f} s" if seconds > allowed else None

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._jobs and not self._pending

    def close(self, seconds: float = 5.0) -> None:
        """End the thread after the jobs that it has."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self.thread.join(seconds)

    # --- the thread

    def _run(self) -> None:
        while self._wait_for_work():
            with self.encoder.engine.lock:
                while not self._lost and self._step():
                    pass
            if self._lost:  # without the lock, which `reopen` takes
                why, self._lost = self._lost, ""
                self._reopen(why)

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not self._jobs and not self._closing:
                self._changed.wait()
            return bool(self._jobs) or not self._closing

    def _step(self) -> bool:
        """Start a batch, or finish one. False if there was nothing to do. Whatever goes wrong ends only its own requests."""
        batch = None
        try:
            if self._may_start():
                batch = self._cut_batch()
                if batch is not None:
                    self._start(batch)
                    return True
            if self._pending:
                batch = self._pending[0]
                self._finish(batch)
                return True
            return False
        except Exception as error:
            self._fail(batch, error)
            return True

    def _may_start(self) -> bool:
        each = usable_cores() if all(batch.one_core for batch in self._pending) else 1
        return len(self._pending) < UNDER_WAY * each

    def _cut_batch(self) -> Batch | None:
        """The texts of the next batch, taken from their jobs; None if nothing waits."""
        with self._changed:
            self._forget_done()
            if not self._jobs:
                return None
            most = self.encoder.engine.budget()
            small = [job for job in self._jobs if job.tokens_left <= most // SMALL_PART]
            large = [job for job in self._jobs if job.tokens_left > most // SMALL_PART]
            oldest = min(large, key=lambda job: job.number, default=None)
            order = [*small, *sorted(large, key=lambda job: (job.tokens_left, job.number))]
            if oldest is not None and self._passed >= OTHERS * most:
                order.insert(0, oldest)
            parts = self._take_mixed(order, most) if self.mixes else self._take_planned(order[0])
            tokens = sum(len(job.sequences[i]) for job, i in parts)
            own = sum(len(job.sequences[i]) for job, i in parts if job is oldest)
            self._passed = max(0, self._passed + BATCH_COST + tokens - (OTHERS + 1) * own) if large else 0
            self._forget_done()
            one_core = not self.mixes and len(parts) == 1 and bool(self._jobs or self._pending)
            return Batch(parts, tokens, one_core)

    def _forget_done(self) -> None:
        """Keep the jobs that still wait. For a caller that holds the condition."""
        self._jobs = [job for job in self._jobs if job.waits]
        self.waiting_tokens = sum(job.tokens_left for job in self._jobs)

    def _take_planned(self, job: QueuedTexts) -> list[Part]:
        rows = job.planned.pop()
        job.take(rows)
        return [(job, i) for i in rows]

    def _take_mixed(self, order: Sequence[QueuedTexts], most: int) -> list[Part]:
        """Texts of several jobs that want the same kind of result, up to `most` tokens."""
        parts: list[Part] = []
        tokens = 0
        for job in order:
            if job.states != order[0].states:
                continue
            while job.left and len(parts) < MAX_SEQUENCES:
                i = job.left[-1]
                if parts and tokens + len(job.sequences[i]) > most:
                    break
                tokens += len(job.sequences[i])
                job.left.pop()
                job.take([i])
                parts.append((job, i))
        return parts

    def _start(self, batch: Batch) -> None:
        now = time.monotonic()
        for job, _ in batch.parts:
            if np.isnan(job.first_submitted):
                job.first_submitted = now
        sequences = [job.sequences[i] for job, i in batch.parts]
        batch.started = now
        self._pending.append(batch)  # before it is started, so that one that hangs is overdue
        skips, states = [job.skip for job, _ in batch.parts], batch.parts[0][0].states
        batch.wait = self.encoder.engine.submit(sequences, skips, states=states, one_core=batch.one_core)

    def _finish(self, batch: Batch) -> None:
        found = batch.wait()
        self._pending.popleft()
        now = time.monotonic()
        seconds = max(1e-6, now - batch.started)
        under_way = 1 + len(self._pending)
        self.rate += WEIGHT * (batch.tokens * under_way / seconds - self.rate)
        self._on_batch(Finished(len(batch.parts), batch.tokens, seconds))
        states = batch.parts[0][0].states
        lengths = [len(job.sequences[i]) for job, i in batch.parts] if states else [1] * len(batch.parts)
        for (job, i), rows in zip(batch.parts, np.split(found, np.cumsum(lengths)[:-1]), strict=True):
            if job.future.done():
                continue
            if np.isfinite(rows).all():
                job.finished = now
                job.put(i, rows if states else rows[0])
            else:
                job.fail(Refusal(BACKEND, f"the vector of text {job.first + i} holds NaN or Inf ({self.encoder.engine.place})"))

    def _fail(self, batch: Batch | None, error: Exception) -> None:
        """End the jobs of a batch, and of every batch under way if the device is gone."""
        lost = is_device_lost(error)
        under_way = [*self._pending] if lost or batch is None else [batch]
        if batch is not None and batch not in under_way:
            under_way.append(batch)
        for other in under_way:
            if other in self._pending:
                self._pending.remove(other)
        if isinstance(error, Refusal):
            refusal = error
        elif isinstance(error, UserError | MemoryError):
            refusal = Refusal(UNAVAILABLE, str(error) or "there is not enough memory for this batch: try again, or send less")
        else:
            say_traceback(error)
            refusal = Refusal(BACKEND, f"an error inside the server: {type(error).__name__}")
        for other in under_way:
            for job, _ in other.parts:
                job.fail(refusal)
        if lost:
            self._lost = str(error)

    def _reopen(self, why: str) -> None:
        """Open the lost device again, once; the second time, or if it cannot be opened, the server ends."""
        self._losses += 1
        if self._losses == 1:
            say(f"the device was lost ({why}): opening it again")
            try:
                self.encoder.reopen()
                return
            except Exception as error:
                why = f"{why}; opening it again: {error}"
        self._die(f"the device cannot be used any more: {why}")

    def _die(self, why: str) -> None:
        with self._changed:
            self.fatal = why
            jobs, self._jobs, self.waiting_tokens = self._jobs, [], 0
        for job in jobs:
            job.fail(Refusal(UNAVAILABLE, why))
        self._on_fatal(why)
