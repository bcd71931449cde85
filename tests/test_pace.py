"""How large batches and submissions are, by the kind of a device and by how fast it turns out to be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import tiny_gpt2

from gpt2wgpu import Encoder
from gpt2wgpu.gpu import Device, Pace
from gpt2wgpu.gpu.pace import SMALLEST_BATCH, count_operations
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Array, Tensor


def as_kind(device: Device, kind: str) -> Device:
    return replace(device, adapter=replace(device.adapter, kind=kind))


def test_steps_are_submitted_in_parts_of_a_fifth_of_a_second(device: Device):
    pace = Pace(as_kind(device, "IntegratedGPU"))
    pace.operations = 50.0  # a second: parts of 10
    for operations, expected in {
        (4, 4, 4, 4): [2, 2],
        (1, 2, 3): [3],
        (30, 1, 30, 5, 5): [1, 1, 1, 2],
        (0, 10, 0, 0, 1): [4, 1],
        (): [0],
    }.items():
        parts = pace.split_steps(operations)
        assert [len(operations[part]) for part in parts] == expected
        assert sum((operations[part] for part in parts), ()) == operations


def test_operations_of_a_step():
    x, w, b = Tensor(("T", 8), name="x"), Tensor((8, 12), name="w"), Tensor((12,), name="b")
    spans, tiles = Tensor(("B", 2), "u32", "spans"), Tensor(("G", 2), "u32", "tiles")
    product = ops.linear(x, w, b)
    attend = {"head_size": 2, "scale": 1.0, "causal": False}
    assert count_operations(product, 100, 7) == 2 * 100 * 8 * 12
    assert count_operations(ops.attention(product, spans, tiles, **attend), 100, 7) == 4 * 100 * 7 * 4
    assert count_operations(ops.attention(product, spans, tiles, window=3, **attend), 100, 7) == 4 * 100 * 3 * 4
    assert count_operations(ops.rms_norm(x, Tensor((8,), name="g"), size=8), 100, 7) == 0


@pytest.mark.parametrize(
    ("kind", "expected"), [("DiscreteGPU", 16384), ("IntegratedGPU", 2048), ("Unknown", 2048), ("CPU", 2048)]
)
def test_the_budget_fits_the_kind_of_adapter(
    kind: str, expected: int, device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (as_kind(device, kind), ""))
    folder = tiny_gpt2(tmp_path / "m")
    assert Encoder(folder, device="gpu", dtype="float32").engine.max_tokens == expected
    assert Encoder(folder, device="gpu", dtype="float32", max_tokens=300).engine.max_tokens == 300


def test_batches_are_smaller_on_a_slow_gpu_and_have_the_same_bits(
    device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Unless the user sets their size; a software driver keeps its own."""
    folder = tiny_gpt2(tmp_path / "m")
    rng = np.random.default_rng(0)
    texts = [" ".join(f"t{i}" for i in rng.integers(16, size=32)) for _ in range(200)]
    for kind, options, expected in (
        ("IntegratedGPU", {}, SMALLEST_BATCH),
        ("IntegratedGPU", {"max_tokens": 1024}, 1024),
        ("CPU", {}, 2048),
    ):
        monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted, kind=kind: (as_kind(device, kind), ""))
        model = Encoder(folder, device="gpu", dtype="float32", **options)
        before = model.encode(texts)
        model.engine.pace.tokens, tokens = 5.0, []
        submit = model.engine.program.submit

        def counted(batch: dict[str, Array], submit: Any = submit, tokens: list[int] = tokens) -> Callable[[], Array]:
            tokens.append(len(batch["ids"]))
            return submit(batch)

        monkeypatch.setattr(model.engine.program, "submit", counted)
        np.testing.assert_array_equal(model.encode(texts), before)
        assert max(tokens) == expected and len(tokens) == -(-200 * 32 // expected)


def test_a_budget_follows_the_rate(device: Device):
    pace = Pace(as_kind(device, "DiscreteGPU"))
    assert pace.batch_tokens(16384) == 16384  # nothing is known yet
    found = []
    for rate in (1e9, 20_000, 100):
        pace.tokens = rate
        found.append(pace.batch_tokens(16384))
    assert found == [16384, 3968, SMALLEST_BATCH]
    assert pace.batch_tokens(100) == 100
