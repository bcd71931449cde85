"""Loops that a driver ends early: how far they go is found out, and what would need more is refused.

The devices of the tests keep wgpu's checks, with which llvmpipe unrolls nothing: its limit is met by small sizes.
"""

from pathlib import Path
from typing import Any

import pytest
from encoders import refusal, tiny_gpt2

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.devices import loop_limit
from gpt2wgpu.devices.selftest import Case, case_arrays, check_op
from gpt2wgpu.gpu import Device
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Tensor
from gpt2wgpu.train import loop_limit as train_loops
from gpt2wgpu.train import selftest as train_checks


def graph(case: Case) -> Tensor:
    return case_arrays(case)[0]


ATTENTION = [
    {"head_size": 64, "causal": True},
    {"head_size": 128, "causal": False},
    {"head_size": 100, "causal": True, "window": 70},
    {"head_size": 20, "causal": False, "kv_heads": 2},
]


@pytest.mark.parametrize("attrs", ATTENTION, ids=str)
@pytest.mark.parametrize("half", [False, True])
def test_texts_are_attended_to_to_their_end(attrs: dict[str, Any], half: bool, device: Device):
    if half and not device.has_f16:
        pytest.skip(f"{device.adapter.name} has no shader-f16")
    case = Case(ops.attention, {"N": 6 * attrs["head_size"]}, (1,), {"scale": 0.05, **attrs}, half)
    tokens = loop_limit.longest_text(device, graph(case), 2000)
    assert tokens >= 256
    for n in {tokens, min(tokens, 300)}:
        check = check_op(device, Case(case.op, case.sizes, (n,), case.attrs, half))
        assert check.ok, check


def test_texts_are_attended_to_with_a_bias(device: Device):
    case = Case(ops.attention_bias, {"N": 192, "H": 1, "R": 33}, (1,), {"head_size": 64, "scale": 0.05, "causal": False})
    tokens = loop_limit.longest_text(device, graph(case), 2000)
    check = check_op(device, Case(case.op, case.sizes, (tokens,), case.attrs))
    assert check.ok, check


@pytest.mark.parametrize("op", [ops.linear, ops.linear_add, ops.linear_int8])
@pytest.mark.parametrize("k", [768, 6400, 6401])
def test_products_are_right_or_refused(op: Any, k: int, device: Device):
    case = Case(op, {"K": k, "N": 36 if k % 4 == 0 else 33}, (20,))
    try:
        loop_limit.longest_text(device, graph(case), 1)
    except UserError as e:
        assert f"ends the loops of products over {k} columns early: update its driver, or use device='numpy'" in str(e)
        assert not check_op(device, case).ok
        return
    check = check_op(device, case)
    assert check.ok, check


@pytest.mark.parametrize("attrs", ATTENTION, ids=str)
def test_texts_are_trained_on_to_their_end(attrs: dict[str, Any], device: Device):
    size, window, kv_heads = attrs["head_size"], attrs.get("window", 0), attrs.get("kv_heads", 0)
    case = train_checks.attention_cases(2 * size, size, attrs["causal"], (1,), window, kv_heads)[1]
    forward = graph(Case(ops.attention, {"N": case.sizes["N"]}, (1,), case.attrs))
    tokens = loop_limit.largest_fitting(1000, lambda n: train_loops.attention_gradient_completes(device, forward, n))
    assert tokens >= 128
    check = check_op(device, train_checks.attention_cases(2 * size, size, attrs["causal"], (tokens,), window, kv_heads)[1])
    assert check.ok, check


def test_the_most_that_fits():
    tried: list[int] = []

    def fits(limit: int, n: int) -> bool:
        tried.append(n)
        return n <= limit

    for limit, expected in ((1000, 1000), (999, 896), (128, 128), (127, 0), (5000, 1000)):
        tried.clear()
        assert loop_limit.largest_fitting(1000, lambda n, limit=limit: fits(limit, n)) == expected
        assert len(tried) <= 5 and max(tried) == 1000
    assert loop_limit.largest_fitting(100, lambda n: n == 100) == 100


def test_a_text_that_the_device_cannot_compute(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The line does not advise to ask for more."""
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (device, ""))
    monkeypatch.setattr("gpt2wgpu.devices.loop_limit.longest_text", lambda device, output, wanted: min(wanted, 8))
    folder = tiny_gpt2(tmp_path / "model")
    encoder = Encoder(folder, device="gpu")
    assert encoder.encode(["t1 " * 5, "t2"]).shape == (2, 8)
    line = refusal(lambda: encoder.encode(["t1", "t2 " * 9]))
    assert "can compute 8: open the model with max_seq_length=8 to cut texts there, or use device='numpy'" in line


def test_training_on_texts_that_are_too_long(device: Device, monkeypatch: pytest.MonkeyPatch):
    output = graph(Case(ops.attention, {"N": 30}, (1,), {"head_size": 10, "scale": 0.3, "causal": True}))
    train_loops.check_loops(device, output, 300, 1000)
    if not device.adapter.software:
        return
    with monkeypatch.context() as patch:
        patch.setattr(train_loops, "attention_gradient_completes", lambda device, t, tokens: tokens <= 200)
        line = refusal(lambda: train_loops.check_loops(device, output, 300, 1000))
        assert "cannot train on texts of 300 tokens: lower --max-seq-length to 128" in line
    monkeypatch.setattr(train_loops, "column_sum_completes", lambda device, tokens: tokens <= 600)
    assert "batches of 1000 tokens: lower --batch-tokens to 512" in refusal(
        lambda: train_loops.check_loops(device, output, 300, 1000)
    )
