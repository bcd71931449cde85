"""The device's clock, as drivers have it: with timestamps that are resolved too early, and with none."""

from typing import Any

import numpy as np
import pytest

from gpt2wgpu.gpu import Clock, Device, GPUProgram, measure_ceilings
from gpt2wgpu.gpu.tuning import Bench
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Tensor


@pytest.fixture
def events(production_device: Device, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What is recorded, submitted and waited for, in order; each with its encoder."""
    found: list[tuple[str, Any]] = []

    def spy(where: Any, name: str, what: str) -> None:
        original = getattr(where, name)
        monkeypatch.setattr(where, name, lambda self, *a, **k: found.append((what, self)) or original(self, *a, **k))

    library = production_device.library
    spy(library.api.GPUCommandEncoder, "begin_compute_pass", "pass")
    spy(library.api.GPUCommandEncoder, "resolve_query_set", "resolve")
    spy(library.api.GPUQueue, "submit", "submit")
    spy(type(library), "flush_writes", "wait")
    return found


def test_timestamps_are_resolved_in_a_submission_of_their_own(
    production_device: Device, events: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    """After the passes are done; Metal resolves zeros otherwise (gfx-rs/wgpu#9414)."""
    device = production_device
    if not device.clock:
        pytest.skip("the device has no timestamp-query")
    monkeypatch.setattr("gpt2wgpu.gpu.tuning.ROWS", (2, 3, 5, 9))
    monkeypatch.setattr("gpt2wgpu.gpu.ceilings.COPIED_BY_SOFTWARE", 1 << 20)
    monkeypatch.setattr("gpt2wgpu.gpu.ceilings.LONG_ENOUGH", 0.001)
    program = GPUProgram(device, ops.l2_normalize(Tensor(("B", 8), name="x")), lambda _: None, {"B": 3})
    clock = Clock(device, 1)
    program.submit({"x": np.ones((3, 8), np.float32)}, clock)()
    assert (clock.seconds() > 0).all()
    Bench(device, (64, 132, "f32")).measure(9)
    measure_ceilings(device)
    timed = [i for i, (what, _) in enumerate(events) if what == "resolve"]
    assert len(timed) >= 4
    for i in timed:
        encoder = events[i][1]
        assert events[i - 1][0] == "wait" and events[i + 1][0] == "submit"
        assert ("pass", encoder) not in events
