"""The next micro-batch is ready before a device is waited for, in the order of the epoch."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpt2wgpu.graph.tensor import Array
from gpt2wgpu.train import loop
from gpt2wgpu.train.ahead import BatchesAhead

ORDER = [np.array([i, i + 10]) for i in range(5)]


def recording_run(events: list[str], **settings: Any) -> SimpleNamespace:
    """A run of five micro-batches an epoch that notes when each is packed, computed and waited for."""

    def pack(_: object, rows: Array) -> dict[str, Array]:
        events.append(f"pack {rows[0]}")
        return {"ids": rows, "spans": np.zeros((2, 2), np.uint32)}

    def gradients(packed: dict[str, Array], loss: Callable[[Array], tuple[float, Array]], seed: int) -> float:
        events.append(f"gradients {packed['ids'][0]}")
        value, gradient = loss(np.ones((2, 3), np.float32) * (1 + packed["ids"][:, None]))
        assert gradient.shape == (2, 3)
        return value

    def step(lr: float, weight_decay: float, clip: float) -> float:
        events.append("wait")
        return 1.0

    examples = SimpleNamespace(targets=np.arange(15.0)[:, None] + np.ones(3), batches=lambda *_: ORDER)
    given = {"epochs": 1, "batch_tokens": 10, "seed": 0, "accumulate": 2, "lr": 0.1, "weight_decay": 0.0, "clip": 1.0}
    given |= {"loss": "distillation", "hard_pairs": None, "average": False, **settings}
    model = SimpleNamespace(program=SimpleNamespace(gradients=gradients, step=step), batch=pack)
    return SimpleNamespace(
        settings=SimpleNamespace(**given), examples=examples, model=model, epoch=1, batch=0, step=0, steps=3, warmup=0
    )


def test_a_micro_batch_is_packed_before_the_step_is_waited_for():
    events: list[str] = []
    steps = [*loop.train_steps(recording_run(events), loop.Watch(0, False))]
    assert events == [
        *("pack 0", "gradients 0", "pack 1", "gradients 1", "pack 2", "wait"),
        *("gradients 2", "pack 3", "gradients 3", "pack 4", "wait"),
        *("gradients 4", "wait"),
    ]
    assert [step.metrics["texts"] for step in steps] == [4, 4, 2]


def test_a_resumed_epoch_goes_on_with_its_own_micro_batches():
    events: list[str] = []
    run = recording_run(events, epochs=2)
    run.batch = 4
    assert len([*loop.train_steps(run, loop.Watch(0, False))]) == 4
    assert [e for e in events if e.startswith("gradients")] == [f"gradients {i}" for i in (4, 0, 1, 2, 3, 4)]


def test_targets_belong_to_the_examples():
    ahead = BatchesAhead(recording_run([]), ORDER)
    for rows in ORDER:
        ahead.prepare()
        found = ahead.take()
        np.testing.assert_array_equal(found.rows, rows)
        np.testing.assert_array_equal(found.targets[:, 0], rows + 1.0)
    ahead.prepare()
    with pytest.raises(IndexError, match="no micro-batch is left"):
        ahead.take()
