"""Whose texts are computed first, and how many batches a request waits."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from schedulers import Harness

from gpt2wgpu import Encoder
from gpt2wgpu.serve import scheduler as scheduling
from gpt2wgpu.serve.jobs import QueuedTexts, plan_like_encode


def test_a_small_request_does_not_wait_behind_a_bulk_one(harness: Harness):
    harness.gate.clear()
    bulk = harness.submit([f"{'word ' * 60}{i}" for i in range(60)])  # some fifteen batches
    singles = [harness.submit([f"single {i}"]) for i in range(3)]
    harness.gate.set()
    for job in (*singles, bulk):
        job.future.result(60)
    assert bulk.finished > max(job.finished for job in singles)
    before = [batch.texts for batch in harness.batches[:6]]
    assert before.count(1) == 3  # each single text is among the first batches


def test_small_requests_come_in_their_order_of_arrival(harness: Harness):
    """A longer text is not passed by shorter ones that arrive after it."""
    harness.gate.clear()
    first = harness.submit(["first"])  # it holds the gate, or is held by it
    longer = harness.submit(["word " * 30])
    shorter = [harness.submit([f"{i}"]) for i in range(20)]
    harness.gate.set()
    for job in (first, longer, *shorter):
        job.future.result(60)
    assert longer.first_submitted < min(job.first_submitted for job in shorter)


def test_a_bulk_request_is_not_starved(harness: Harness):
    """Every fourth batch begins with the request that has waited longest, however many small ones arrive."""
    harness.gate.clear()
    bulk = harness.submit([f"{'word ' * 200}{i}" for i in range(4)])
    singles = [harness.submit([f"single {i}"]) for i in range(60)]
    harness.gate.set()
    bulk.future.result(60)
    for job in singles:
        job.future.result(60)
    later = [job for job in singles if job.finished > bulk.finished]
    assert later


def test_the_oldest_large_request_gets_its_share(harness: Harness):
    """While small ones never run out, at least a quarter of what is computed is for it, batches counted with their cost."""
    harness.gate.clear()
    bulk = harness.submit([f"{'word ' * 100}{i}" for i in range(40)])
    for i in range(400):
        harness.submit([f"{'word ' * 20}{i}"])
    harness.gate.set()
    bulk.future.result(60)
    done = list(harness.batches)
    large = sum(batch.tokens for batch in done if batch.tokens > 100)
    small = sum(batch.tokens + scheduling.BATCH_COST for batch in done if batch.tokens <= 100)
    assert small > large  # the small ones come first
    assert large >= small / scheduling.OTHERS - 4 * 256  # but for the batches under way


def test_in_numpy_each_core_has_a_text(harness: Harness, encoder: Encoder, monkeypatch: pytest.MonkeyPatch):
    """Several single texts are under way at a time, each on one core, and have the bits of `encode`."""
    monkeypatch.setattr(scheduling, "usable_cores", lambda: 3)
    submit, most, on_one_core = encoder.engine.submit, [0], []

    def counted(*args: Any, one_core: bool = False, **options: Any) -> Any:
        on_one_core.append(one_core)
        most[0] = max(most[0], len(harness.scheduler._pending))
        return submit(*args, one_core=one_core, **options)

    encoder.engine.submit = counted  # type: ignore[method-assign]
    harness.gate.clear()
    texts = [f"{'word ' * (i * 7 % 60)}{i}" for i in range(30)]
    jobs = [harness.submit([text]) for text in texts]
    harness.gate.set()
    for text, job in zip(texts, jobs, strict=True):
        np.testing.assert_array_equal(job.future.result(60), encoder.encode([text]))
    assert most[0] == 3 * scheduling.UNDER_WAY
    assert sum(on_one_core) >= len(texts) - 1  # the last one may have all cores


class Clock:
    """An encoder's place in virtual time: a batch takes as long as it has tokens, and BATCH_COST, one after the other."""

    def __init__(self, mixes: bool) -> None:
        self.now = self.free = 0.0
        self.lock, self.max_tokens, self.place = threading.RLock(), 2048, SimpleNamespace(device=mixes or None)
        self.engine = self

    def budget(self) -> int:
        return self.max_tokens

    def submit(self, sequences: Any, *_: Any, **__: Any) -> Callable[[], Any]:
        self.free = end = max(self.free, self.now) + scheduling.BATCH_COST + sum(map(len, sequences))

        def wait() -> Any:
            self.now = max(self.now, end)
            return np.zeros((len(sequences), 1), np.float32)

        return wait


@pytest.mark.parametrize("mixes", [True, False], ids=["device", "numpy"])
def test_a_single_text_waits_three_batches_at_most(mixes: bool):
    """8 callers of single texts and a bulk one, each asking again as soon as it has its answer, in virtual time."""
    clock, rng = Clock(mixes), np.random.default_rng(0)
    found = scheduling.Scheduler(clock, room=10**9, on_batch=lambda batch: None, on_fatal=pytest.fail)  # type: ignore[arg-type]
    batch = clock.max_tokens + scheduling.BATCH_COST
    waited: dict[int, list[float]] = {1: [], 2048: []}
    ended = threading.Event()

    def ask(texts: int) -> None:
        if clock.now > 300 * batch:
            return ended.set()
        sequences = [np.full(n, rng.integers(1 << 30), np.uint32) for n in rng.integers(6, 60, texts)]
        plan = None if mixes else plan_like_encode(clock.max_tokens, 1024)
        job, begin = QueuedTexts(sequences, first=0, skip=0, vectors=np.zeros((texts, 1), np.float32), plan=plan), clock.now

        def answer(_: Any) -> None:
            waited[texts].append((clock.now - begin) / batch)
            ask(texts)

        job.future.add_done_callback(answer)
        found.submit([job])

    with found._changed:  # all of them at once
        for texts in [2048, *[1] * 8]:
            ask(texts)
    assert ended.wait(120)
    found.close()
    assert len(waited[1]) > 1000 and max(waited[1]) <= 3
    assert len(waited[2048]) > 1 and max(waited[2048]) <= 4 * 33 + 4  # a quarter of the time, and some 33 batches
