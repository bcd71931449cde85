"""A program takes what a batch needs: bytes up, result buffers that grow, and submissions that stay short. Never other bits."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wgpu
from encoders import refusal, tiny_gpt2

from gpt2wgpu import Encoder, checkpoint
from gpt2wgpu.checkpoint.graph import build_graph
from gpt2wgpu.gpu import Device, GPUProgram, OutOfDeviceMemory
from gpt2wgpu.gpu.buffers import Buffers
from gpt2wgpu.gpu.pace import TIMED_TOKENS, count_operations
from gpt2wgpu.graph import memory, packing
from gpt2wgpu.graph.tensor import Array

TOKENS, TEXTS = 16384, 1024
CAPACITY = {"T": TOKENS, "B": TEXTS, "G": packing.max_tiles(TOKENS, TEXTS)}
NO_MEMORY = "Validation Error\n\nCaused by:\n  In wgpuDeviceCreateBuffer\n    Not enough memory left."

Build = Callable[..., GPUProgram]


@pytest.fixture
def build(device: Device, tmp_path: Path) -> Build:
    """Programs of one tiny model for large batches."""
    c = checkpoint.load_checkpoint(tiny_gpt2(tmp_path / "m", layers=2))
    output = build_graph(c, 2, "f32", c.modules)
    return lambda **options: GPUProgram(options.pop("device", device), output, c.weights, CAPACITY, **options)


def batch_of(lengths: list[int], seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    ids = [rng.integers(16, size=n) for n in lengths]
    return packing.pack_batch(ids, [np.arange(n) for n in lengths], [0] * len(ids))


def record_writes(device: Device, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of every write from here on."""
    found: list[int] = []
    write = device.raw.queue.write_buffer

    def counted(buffer: object, at: int, data: Array) -> None:
        found.append(data.nbytes)
        write(buffer, at, data)

    monkeypatch.setattr(device.raw.queue, "write_buffer", counted)
    return found


# --- bytes up


def test_a_batch_uploads_what_it_needs(build: Build, device: Device, monkeypatch: pytest.MonkeyPatch):
    """One write. Sizes that did not change are not written again. A large batch before it changes nothing."""
    program = build()
    written = record_writes(device, monkeypatch)
    expected = program.run(batch_of([8]))
    again = program.run(batch_of([8]))
    large = batch_of([32] * 500)
    program.run(large)
    after = program.run(batch_of([8]))
    np.testing.assert_array_equal([again, after], [expected] * 2)
    first, second, third, fourth = written
    assert second == 5 * 256 + 4  # five sections, and the one number that the last of the six arrays has
    assert first == fourth == second + program.upload.first < 5000
    assert third < program.upload.first + 2 * sum(a.nbytes for a in large.values())


def test_rows_of_uniform_values_are_shared_by_equal_steps(build: Build):
    program = build()
    assert program.upload.first // 256 == len({step.kind for step in program.steps}) < len(program.steps)


def test_layouts_keep_every_array_apart(build: Build):
    program = build()
    for lengths in ([1], [8], [32] * 3, [1] * 200, [32] * 512, [7] * 1000):
        program.run(batch_of(lengths))
        ends = program.upload.first
        for t, (at, size) in program.upload.sections.items():
            assert at == ends and at % 256 == 0 and size >= batch_of(lengths)[t.name].nbytes
            ends += size
        assert ends <= program.upload.buffer.size


# --- result buffers


def test_results_grow_with_the_batches_and_keep_their_bits(build: Build, device: Device, monkeypatch: pytest.MonkeyPatch):
    """New buffers are full of NaN here, which reaches no result."""
    make = Buffers.make

    def poisoned(self: Buffers, label: str, size: int) -> Any:
        buffer = make(self, label, size)
        if label.startswith("result"):
            device.raw.queue.write_buffer(buffer, 0, np.full(buffer.size, 0xFF, np.uint8))
        return buffer

    batches = [batch_of(n, seed) for seed, n in enumerate(([3], [32] * 5, [5, 6], [32] * 300, [9], [1] * 900, [32] * 512))]
    whole = build()
    whole.grow(CAPACITY)
    monkeypatch.setattr(Buffers, "make", poisoned)
    grown = build()
    at_load, sizes = grown.bytes, []
    for batch in batches:
        np.testing.assert_array_equal(grown.run(batch), whole.run(batch))
        sizes.append(grown.bytes)
    assert at_load == sizes[0] < whole.bytes / 10
    assert sizes == sorted(sizes) and sizes[1] > sizes[0] and sizes[2] == sizes[1] and sizes[4] == sizes[3]
    assert sizes[-1] <= whole.bytes
    np.testing.assert_array_equal(grown.run(batches[0]), whole.run(batches[0]))


@pytest.mark.parametrize("order", [*permutations(range(3))], ids=str)
def test_growth_while_batches_are_under_way(order: tuple[int, ...], build: Build):
    program = build()
    batches = [batch_of([5], 1), batch_of([32] * 40, 2), batch_of([32] * 400, 3)]
    expected = [build().run(batch) for batch in batches]
    waits = [program.submit(batch) for batch in batches]
    for i in order:
        np.testing.assert_array_equal(waits[i](), expected[i])
    np.testing.assert_array_equal(program.run(batches[0]), expected[0])


def test_close_frees_what_has_grown(build: Build, device: Device, monkeypatch: pytest.MonkeyPatch):
    made, destroyed = [], []
    create, destroy = device.raw.create_buffer, device.library.api.GPUBuffer.destroy
    monkeypatch.setattr(device.raw, "create_buffer", lambda **options: made.append(create(**options)) or made[-1])
    monkeypatch.setattr(device.library.api.GPUBuffer, "destroy", lambda self: destroyed.append(self) or destroy(self))
    program = build()
    for lengths in ([3], [32] * 40, [3], [32] * 400):
        program.run(batch_of(lengths))
    assert destroyed
    program.close()
    assert set(made) == set(destroyed) and len(destroyed) == len(made)
    assert program.bytes == 0


class SmallMemory:
    """Lets a device have only so many bytes for results. events: what was made, destroyed and waited for."""

    def __init__(self, device: Device, bytes: int, patch: pytest.MonkeyPatch) -> None:
        self.left, self.events = bytes, []
        create, destroy, flush = device.raw.create_buffer, device.library.api.GPUBuffer.destroy, device.library.flush_writes

        def make(**options: Any) -> Any:
            if options["label"].startswith("result"):
                if options["size"] > self.left:
                    raise wgpu.GPUValidationError(NO_MEMORY)
                self.left -= options["size"]
                self.events.append("made")
            return create(**options)

        def free(buffer: Any) -> None:
            if buffer.label.startswith("result"):
                self.left += buffer.size
                self.events.append("destroyed")
            destroy(buffer)

        patch.setattr(device.raw, "create_buffer", make)
        patch.setattr(device.library.api.GPUBuffer, "destroy", free)
        patch.setattr(device.library, "flush_writes", lambda raw: self.events.append("waited") or flush(raw))


def result_bytes(program: GPUProgram) -> int:
    return sum(buffer.size for buffer in program.results.made)


def test_old_and_new_results_never_take_memory_together(build: Build, device: Device, monkeypatch: pytest.MonkeyPatch):
    large = batch_of([32] * 200)
    program = build()
    program.run(large)
    limit = result_bytes(program)
    memory_left = SmallMemory(device, limit, monkeypatch)
    program = build()
    program.submit(batch_of([32] * 100))()
    memory_left.events.clear()
    wait, last = program.submit(batch_of([32] * 90)), program.submit(large)
    assert memory_left.left == limit - result_bytes(program) == 0
    found = memory_left.events
    assert found == sorted(found, key=["waited", "destroyed", "made"].index) and len({*found}) == 3
    assert np.isfinite(wait()).all() and np.isfinite(last()).all()


def test_a_batch_without_room_is_refused_and_a_smaller_one_is_computed(
    build: Build, device: Device, monkeypatch: pytest.MonkeyPatch
):
    program, small, large = build(), batch_of([5, 9]), batch_of([32] * 400)
    expected = program.run(small), program.run(large)
    with monkeypatch.context() as patch:
        SmallMemory(device, result_bytes(program) - program.results.made[-1].size, patch)  # all but the last fit, exactly
        program = build()
        for _ in range(2):
            with pytest.raises(OutOfDeviceMemory, match="has no memory left"):
                program.run(large)
            np.testing.assert_array_equal(program.run(small), expected[0])
        patch.undo()
        np.testing.assert_array_equal(program.run(large), expected[1])


def test_a_lack_of_memory_during_a_call_is_one_line(
    use_gpu: None, device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    model = Encoder(tiny_gpt2(tmp_path / "m"), device="gpu", dtype="float32")
    expected = model.encode("t1 t2")

    def full(**options: Any) -> None:
        raise wgpu.GPUValidationError(NO_MEMORY)

    with monkeypatch.context() as patch:
        patch.setattr(device.raw, "create_buffer", full)
        found = refusal(lambda: model.encode([f"t{i} " * 30 for i in range(15)]))
        assert f" in float32, more than {device.adapter} has free: use " in found
    np.testing.assert_array_equal(model.encode("t1 t2"), expected)


def test_a_model_at_rest_takes_little(use_gpu: None, tmp_path: Path):
    """Whatever the budget is."""
    folder = tiny_gpt2(tmp_path / "m")
    small, large = (Encoder(folder, device="gpu", max_tokens=n) for n in (128, 16384))
    need = memory.memory_needed(large.engine.program.output, CAPACITY)
    for model in (small, large):
        model.encode("t1 t2")
    assert small.engine.program.bytes == large.engine.program.bytes < need.total / 10


def test_threads_grow_one_encoder(use_gpu: None, tmp_path: Path):
    folder = tiny_gpt2(tmp_path / "m")
    rng = np.random.default_rng(0)
    texts = [[" ".join(f"t{i}" for i in rng.integers(16, size=n)) for n in rng.integers(1, 32, 40 * k)] for k in range(1, 5)]
    alone = [Encoder(folder, device="gpu").encode(some) for some in texts]
    model = Encoder(folder, device="gpu")
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(model.encode, texts), alone, strict=True):
            np.testing.assert_array_equal(found, expected)


# --- how much is submitted at a time (see test_pace.py)


def test_a_long_batch_takes_several_submissions_and_has_the_same_bits(build: Build, monkeypatch: pytest.MonkeyPatch):
    program, batch = build(), batch_of([32] * 40)
    expected = program.run(batch)
    submitted: list[int] = []
    library = program.device.library
    record = library.record_dispatches
    monkeypatch.setattr(library, "record_dispatches", lambda to, some: submitted.append(len(some)) or record(to, some))
    program.pace.operations, program.pace.first_rate = 1.0, 1.0  # a GPU than which nothing is slower
    waits = [program.submit(batch) for _ in range(2)]
    for wait in waits:
        np.testing.assert_array_equal(wait(), expected)
    products = sum(count_operations(s.tensor, 1, 1) > 0 for s in program.steps)
    assert sum(submitted) == 2 * len(program.steps)
    assert products < len(submitted) / 2 <= len(program.steps)
    submitted.clear()
    program.pace.operations = 1e15
    np.testing.assert_array_equal(program.run(batch), expected)
    assert submitted == [len(program.steps)]


def test_a_device_is_timed_by_its_batches(build: Build):
    program = build()
    program.run(batch_of([32] * (TIMED_TOKENS // 32 - 1)))
    assert not program.pace.tokens  # too few to tell
    program.run(batch_of([32] * 20))
    rate = program.pace.operations
    assert rate > 0 and program.pace.tokens > 0
    program.pace.note_batch(TIMED_TOKENS, rate / 4, 0.5)
    assert program.pace.operations == rate  # the fastest batch counts
