"""The scheduler: order, bits, failures of one request, a lost device."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from schedulers import Harness

from gpt2wgpu import Encoder
from gpt2wgpu.gpu import Device, DeviceLost
from gpt2wgpu.serve import scheduler as scheduling
from gpt2wgpu.serve.failures import BACKEND, OVERLOADED, UNAVAILABLE, Refusal
from gpt2wgpu.serve.service import Limits, Service, VectorRequest


def test_a_job_has_the_bits_of_encode(harness: Harness, encoder: Encoder):
    texts = [f"{'word ' * (i % 40)}{i}" for i in range(300)] + ["the same", "the same", ""]
    expected = encoder.encode(texts)
    jobs = [harness.submit(texts), harness.submit(["alone"]), harness.submit(texts[::-1])]
    np.testing.assert_array_equal(jobs[0].future.result(60), expected)
    np.testing.assert_array_equal(jobs[1].future.result(60), encoder.encode(["alone"]))
    np.testing.assert_array_equal(jobs[2].future.result(60), encoder.encode(texts[::-1]))


def test_a_full_queue_says_when_to_come_again(encoder: Encoder):
    found = Harness(encoder, room=100)
    try:
        found.gate.clear()
        jobs = [found.submit(["word " * 300])]  # larger than the room, but nothing else waits
        while found.scheduler.waiting_tokens:
            time.sleep(0.001)
        jobs += [found.submit(["word " * 90])]
        with pytest.raises(Refusal, match=r"the queue is full: .* try again in") as refused:
            found.submit(["word " * 50])
        assert refused.value.kind == OVERLOADED and refused.value.retry_after and refused.value.retry_after > 0
        found.gate.set()
        for job in jobs:
            assert np.isfinite(job.future.result(60)).all()
        assert found.scheduler.waiting_tokens == 0 and found.scheduler.idle
    finally:
        found.gate.set()
        found.scheduler.close()


def test_a_cancelled_job_computes_no_more(harness: Harness):
    harness.gate.clear()
    first = harness.submit(["first"])
    bulk = harness.submit([f"{'word ' * 60}{i}" for i in range(200)])
    harness.scheduler.cancel([bulk])
    harness.gate.set()
    first.future.result(60)
    while not harness.scheduler.idle:
        time.sleep(0.001)
    assert sum(batch.texts for batch in harness.batches) <= 1 + 10
    assert harness.submit(["after"]).future.result(60).shape == (1, 384)


def test_a_vector_with_nan_fails_only_its_own_request(harness: Harness, encoder: Encoder):
    engine = encoder.engine
    submit = engine.submit

    def with_nan(sequences: Any, skips: Any, **options: Any) -> Callable[[], Any]:
        wait = submit(sequences, skips, **options)

        def spoiled() -> Any:
            found = wait().copy()
            for i, ids in enumerate(sequences):
                if len(ids) == 9:  # with [CLS] and [SEP]
                    found[i, 3] = math.nan
            return found

        return spoiled

    engine.submit = with_nan  # type: ignore[method-assign]
    bad = harness.submit(["good one", "a b c d e f g", "good two"])
    good = harness.submit(["good three"])
    assert np.isfinite(good.future.result(60)).all()
    with pytest.raises(Refusal, match="the vector of text 1 holds NaN or Inf") as refused:
        bad.future.result(60)
    assert refused.value.kind == BACKEND


@pytest.mark.parametrize("error", [ValueError("a bug"), MemoryError(), RuntimeError("another")])
def test_the_thread_outlives_any_exception(
    harness: Harness, encoder: Encoder, error: Exception, capsys: pytest.CaptureFixture[str]
):
    submit = encoder.engine.submit
    fails = [True]

    def failing(*args: Any, **options: Any) -> Any:
        if fails.pop() if fails else False:
            raise error
        return submit(*args, **options)

    encoder.engine.submit = failing  # type: ignore[method-assign]
    with pytest.raises(Refusal):
        harness.submit(["a"]).future.result(60)
    assert np.isfinite(harness.submit(["b"]).future.result(60)).all()
    assert ("Traceback" in capsys.readouterr().err) == (not isinstance(error, MemoryError))


def test_a_lost_device_is_opened_again_once(encoder: Encoder, capsys: pytest.CaptureFixture[str]):
    found = Harness(encoder)
    losses = [0]
    reopen = encoder.reopen

    def lose(*_: Any, **__: Any) -> Any:
        losses[0] += 1
        raise DeviceLost("unplugged")

    def reopened() -> None:
        reopen()

    encoder.engine.submit = lose  # type: ignore[method-assign]
    encoder.reopen = reopened  # type: ignore[method-assign]
    with pytest.raises(Refusal) as refused:
        found.submit(["a"]).future.result(60)
    assert refused.value.kind == UNAVAILABLE
    assert np.isfinite(found.submit(["b"]).future.result(60)).all()  # on the new device
    encoder.engine.submit = lose  # type: ignore[method-assign]
    with pytest.raises(Refusal):
        found.submit(["c"]).future.result(60)
    deadline = time.monotonic() + 60
    while not found.fatal and time.monotonic() < deadline:
        time.sleep(0.001)
    assert found.fatal and "cannot be used any more" in found.fatal[0]
    with pytest.raises(Refusal, match="cannot be used any more"):
        found.submit(["d"])
    assert "opening it again" in capsys.readouterr().err
    found.scheduler.close()


def test_a_batch_that_takes_too_long_is_overdue(harness: Harness, encoder: Encoder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scheduling, "OVERDUE", 0.0)
    monkeypatch.setattr(scheduling, "OVERDUE_TIMES", 0.0)
    submit, hang = encoder.engine.submit, threading.Event()

    def hanging(*args: Any, **options: Any) -> Callable[[], Any]:
        wait = submit(*args, **options)
        return lambda: (hang.wait(), wait())[1]

    encoder.engine.submit = hanging  # type: ignore[method-assign]
    assert harness.scheduler.overdue() is None
    job = harness.submit(["a"])
    try:
        deadline = time.monotonic() + 60
        while harness.scheduler.overdue() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        assert "a batch of 3 tokens has taken" in str(harness.scheduler.overdue())
    finally:
        hang.set()
    job.future.result(60)
    while not harness.scheduler.idle:
        time.sleep(0.001)
    assert harness.scheduler.overdue() is None


def test_on_a_device_texts_of_several_requests_share_a_batch_and_keep_their_bits(
    production_device: Device, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (production_device, "the device of the tests"))
    with Encoder(device="gpu", layer=1, max_tokens=512) as encoder:
        texts = [f"{'word ' * (i % 4)}{i}" for i in range(300)]  # each is a request, and together they are another
        alone = [encoder.encode([text])[0] for text in texts[::100]]
        expected = encoder.encode(texts)
        np.testing.assert_array_equal(expected[::100], alone)
        found = Harness(encoder)
        assert found.scheduler.mixes
        found.gate.clear()
        jobs = [found.submit([text]) for text in texts]
        bulk = found.submit(texts)
        found.gate.set()
        for job, row in zip(jobs, expected, strict=True):
            np.testing.assert_array_equal(job.future.result(600)[0], row)
        np.testing.assert_array_equal(bulk.future.result(600), expected)
        assert len(found.batches) < len(jobs) / 10
        found.scheduler.close()


def test_a_request_waits_for_its_first_batch_for_a_bounded_time(encoder: Encoder):
    async def ask() -> None:
        limits = Limits(queue_seconds=0.2)
        service = Service(encoder, limits, name="tiny", on_batch=lambda batch: None)
        gate, submit = threading.Event(), encoder.engine.submit

        def gated(*args: Any, **options: Any) -> Any:
            gate.wait()
            return submit(*args, **options)

        encoder.engine.submit = gated  # type: ignore[method-assign]
        first = asyncio.ensure_future(service.find_vectors(VectorRequest(["a b"], timeout=60)))
        await asyncio.sleep(0.05)
        with pytest.raises(Refusal, match="not computed in") as refused:
            await service.find_vectors(VectorRequest(["b"]))
        assert refused.value.kind == UNAVAILABLE
        gate.set()
        assert np.isfinite((await first).vectors).all()  # its batch had begun
        assert np.isfinite((await service.find_vectors(VectorRequest(["c"]))).vectors).all()
        assert service.requests == 0
        service.scheduler.close()

    asyncio.run(ask())


def test_prompts_over_the_wire(tmp_path: Path):
    with Encoder(device="numpy", layer=1, prompts={"query": "query: ", "passage": "passage: "}) as encoder:

        async def ask(**options: Any) -> tuple[Any, str]:
            service = Service(encoder, Limits(), name="tiny", on_batch=lambda batch: None)
            found = await service.find_vectors(VectorRequest(["cats"], normalize=False, **options))
            service.scheduler.close()
            return found.vectors, found.prompt

        for options, prompt, name in (
            ({}, "", ""),
            ({"prompt_name": "query"}, "query: ", "query"),
            ({"role": "search_query"}, "query: ", "query"),
            ({"role": "search_document"}, "passage: ", "passage"),
            ({"role": "classification"}, "", ""),
        ):
            vectors, used = asyncio.run(ask(**options))
            np.testing.assert_array_equal(vectors, encoder.encode([f"{prompt}cats"]))
            assert used == name
        with pytest.raises(Refusal, match="prompt_name 'nothing' is not among"):
            asyncio.run(ask(prompt_name="nothing"))


def test_one_text_among_a_thousand_requests_has_the_bits_of_encode(encoder: Encoder):
    """In numpy, where each core computes single texts beside larger requests."""
    texts = [f"{'word ' * (i % 20)}{i}" for i in range(1000)]
    expected = [encoder.encode([text], normalize_embeddings=True) for text in texts]

    async def ask_all() -> list[Any]:
        limits = Limits(requests=2000, waiting_batches=1000, queue_seconds=3600)
        service = Service(encoder, limits, name="tiny", on_batch=lambda batch: None)
        lists = [[text] for text in texts] + [texts[i : i + 40] for i in range(0, 1000, 100)]
        found = await asyncio.gather(*(service.find_vectors(VectorRequest(asked)) for asked in lists))
        service.scheduler.close()
        return [answer.vectors for answer in found]

    for row, vectors in zip(expected, asyncio.run(ask_all()), strict=False):
        np.testing.assert_array_equal(vectors, row)
