"""A model's memory is known before it is loaded, loading needs at most one tensor more, and what does not fit is refused in one
line."""

import json
import re
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import wgpu
from encoders import refusal, tiny_gpt2
from process import Run

from gpt2wgpu import Encoder, checkpoint
from gpt2wgpu.checkpoint.graph import build_graph
from gpt2wgpu.checkpoint.tensors import Tensors
from gpt2wgpu.gpu import Device, GPUProgram, buffers, open_device
from gpt2wgpu.graph import memory, packing, reference
from gpt2wgpu.graph.int8 import quantize_weights
from gpt2wgpu.graph.tensor import Array, Tensor, schedule

CAPACITY = {"T": 256, "B": 128, "G": 128}


def graph(folder: Path, half: str = "f32", *, int8: bool = False) -> tuple[Tensor, Callable[[Tensor], Array]]:
    c = checkpoint.load_checkpoint(folder)
    return build_graph(c, c.config.layers, half, c.modules, int8=int8), quantize_weights(c.weights) if int8 else c.weights


# --- what a graph needs


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_a_program_takes_what_was_foreseen(kind: str, device: Device, tmp_path: Path):
    if kind == "float16" and not device.has_f16:
        pytest.skip("the device has no shader-f16")
    output, weights = graph(tiny_gpt2(tmp_path / "m", layers=3), "f16" if kind == "float16" else "f32", int8=kind == "int8")
    needed = memory.memory_needed(output, CAPACITY)
    built = GPUProgram(device, output, weights, CAPACITY)
    assert built.bytes < needed.total
    built.grow(CAPACITY)
    padding = buffers.PADDING * sum(t.is_weight for t in schedule(output))
    batch = sum(memory.tensor_bytes(t, CAPACITY) for t in built.inputs)
    assert built.bytes == needed.total - batch + padding
    if kind == "float32":
        assert needed.weights == reference.NumpyProgram(output, weights).bytes


def test_results_share_buffers_only_when_their_last_reader_is_done(tmp_path: Path):
    output, _ = graph(tiny.save(tmp_path / "m", tiny.bert_config()))
    tensors = schedule(output)
    places, sizes = memory.plan_buffers(tensors, lambda t: memory.tensor_bytes(t, CAPACITY))
    ops = [t for t in tensors if t.op]
    assert len(sizes) < len(ops)
    holds: dict[int, Tensor] = {}
    for t in ops:
        assert all(holds[places[x]] is x for x in t.inputs if x.op)  # nothing has been written over
        assert places[t] not in {places[x] for x in t.inputs if x.op}
        assert sizes[places[t]] >= memory.tensor_bytes(t, CAPACITY)
        holds[places[t]] = t
    kept, _ = memory.plan_buffers(tensors, lambda t: memory.tensor_bytes(t, CAPACITY), keep=ops)
    assert len(set(kept.values())) == len(ops)


def test_readable_sizes():
    found = [memory.readable_bytes(n) for n in (6_230_000_000, 1_000_000_000, 153_600_000, 4096)]
    assert found == ["6.2 GB", "1.0 GB", "154 MB", "1 MB"]


# --- what there is


def test_available_memory():
    found = memory.available_memory()
    assert found is None if sys.platform == "win32" else found and 1 << 20 < found < 1 << 50


def test_the_least_of_what_the_system_tells(monkeypatch: pytest.MonkeyPatch):
    files = {
        "meminfo": "MemTotal:  900 kB\nMemAvailable:  500 kB\n",
        "memory.max": "max\n",
        "memory.stat": "anon 100000\nfile 7\n",
    }
    monkeypatch.setattr(memory.Path, "read_text", lambda path, *_: files[path.name])
    assert memory.available_memory() == 500 * 1024
    files["memory.max"] = "300000\n"
    assert memory.available_memory() == 200000
    files |= {"meminfo": "", "memory.max": "max"}
    total = memory.available_memory()
    assert total is None if sys.platform == "win32" else total and total > 1 << 26


# --- what does not fit


@pytest.mark.parametrize(
    ("dtype", "help"), [("float32", "use dtype='int8' or a smaller max_tokens"), ("int8", "use a smaller max_tokens")]
)
def test_numpy_refuses_what_does_not_fit(dtype: str, help: str, monkeypatch: pytest.MonkeyPatch, run: Run):
    monkeypatch.setattr(memory, "available_memory", lambda: 1_500_000)
    monkeypatch.setattr(reference, "NumpyProgram", lambda *_: pytest.fail("begins to load it"))
    found = refusal(lambda: Encoder(device="numpy", dtype=dtype))
    expected = r"built-in needs \d+ MB \(weights \d+ MB, activations \d+ MB\) in "
    assert re.fullmatch(rf"{expected}{dtype}, this machine has 2 MB free: {help}", found), found
    code, out, err = run("embed", "--sentence", "a", "--dtype", dtype)
    assert (code, out, err) == (1, "", f"error: {found}\n")


def test_what_helps_is_what_is_smaller(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1_500_000)
    assert refusal(lambda: Encoder(device="numpy", dtype="int8", max_tokens=1)).endswith("free: use a smaller model")


def test_a_device_with_main_memory_refuses_what_does_not_fit(device: Device, use_gpu: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1_500_000)
    found = refusal(lambda: Encoder(device="gpu", dtype="float32"))
    half = "dtype='float16' or " if device.has_f16 else ""
    assert found.endswith(f" in float32, this machine has 2 MB free: use {half}dtype='int8' or a smaller max_tokens")


IN_WGPU = "Validation Error\n\nCaused by:\n  In wgpuDeviceCreateBuffer, label = 'wte'\n    Not enough memory left."


@pytest.mark.parametrize("error", [wgpu.GPUValidationError(IN_WGPU), wgpu.GPUOutOfMemoryError("")], ids=["native", "standard"])
def test_a_device_with_memory_of_its_own_tells_only_when_it_is_full(
    error: Exception, device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Nothing of the half-loaded model stays behind: the next one loads."""
    real = replace(open_device(device.adapter), adapter=replace(device.adapter, kind="DiscreteGPU"))
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (real, ""))
    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    folder = tiny_gpt2(tmp_path / "m")
    expected = Encoder(folder, device="gpu", dtype="float32").encode("t1 t2")

    def full(self: buffers.Buffers, label: str, size: int) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(buffers.Buffers, "make", full)
        found = refusal(lambda: Encoder(folder, device="gpu", dtype="float32"))
        assert f" in float32, more than {real.adapter} has free: use " in found
    np.testing.assert_array_equal(Encoder(folder, device="gpu", dtype="float32").encode("t1 t2"), expected)


def test_memory_that_runs_out_while_it_computes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    model = Encoder(tiny_gpt2(tmp_path / "m"), device="numpy")

    def full(batch: dict[str, Array]) -> None:
        np.empty(1 << 60, np.uint8)

    with monkeypatch.context() as patch:
        for program in (model.engine.program, model.engine._states_program()):
            patch.setattr(program, "submit", full)
        for value in ("sentence_embedding", "token_embeddings"):
            message = refusal(lambda value=value: model.encode("t1", output_value=value))
            assert " in float32, more than numpy has free: use dtype='int8'" in message
    assert np.isfinite(model.encode("t1")).all()


def test_a_lost_device(device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    lost = open_device(device.adapter)
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (lost, ""))
    model = Encoder(tiny_gpt2(tmp_path / "m"), device="gpu", dtype="float32")
    lost.raw.destroy()
    for call in (lambda: model.encode("t1 t2"), lambda: Encoder(tmp_path / "m", device="gpu", dtype="float32")):
        found = refusal(call)
        why = "its driver was reset or updated, or the GPU is gone"
        assert found == f"{lost.adapter} was lost: {why}; open the model again (Encoder.reopen)"


# --- loading


def test_weights_go_to_the_device_in_chunks(device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """wgpu keeps a copy of what is written until it has been submitted."""
    output, weights = graph(tiny_gpt2(tmp_path / "m", layers=2))
    batch = packing.pack_batch([np.arange(5)], [np.arange(5)], [0])
    expected = GPUProgram(device, output, weights, CAPACITY).run(batch)
    waiting, most = 0, 0
    flush, write = device.library.flush_writes, device.raw.queue.write_buffer

    def counted_write(buffer: object, at: int, data: Array) -> None:
        nonlocal waiting, most
        waiting += data.nbytes
        most = max(most, waiting)
        write(buffer, at, data)

    def counted_flush(raw: object) -> None:
        nonlocal waiting
        waiting = 0
        flush(raw)

    with monkeypatch.context() as patch:
        patch.setattr(buffers, "UPLOAD_BYTES", 512)
        patch.setattr(device.library, "flush_writes", counted_flush)
        patch.setattr(device.raw.queue, "write_buffer", counted_write)
        built = GPUProgram(device, output, weights, CAPACITY)
    assert 512 <= most < 1024 < built.bytes
    np.testing.assert_array_equal(built.run(batch), expected)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_of_the_files_one_tensor_at_a_time_is_in_memory(tmp_path: Path):
    """Views of the files are read again when they are used."""
    config = tiny.gpt2_config(n_embd=512, n_layer=3, vocab_size=2000)
    c = checkpoint.load_checkpoint(tiny.save(tmp_path / "m", config))
    leaves = [t for t in schedule(c.config.hidden(3, "f32")) if t.is_weight]
    largest = max(memory.tensor_bytes(t, {}) for t in leaves)
    before, most, views = resident(), 0, []
    for t in leaves:
        views.append(c.weights(t))
        most = max(most, resident() - before)
    assert sum(memory.tensor_bytes(t, {}) for t in leaves) > 8 * largest
    assert most < 2 * largest
    stored = tiny.tensors(config)
    for t, view in zip(leaves, views, strict=True):
        np.testing.assert_array_equal(view, stored[t.name])


def test_a_table_in_bf16_is_widened_in_one_piece(tmp_path: Path):
    table = np.arange(-4.0, 4.0, 1 / 65536, dtype=np.float32).view(np.uint32) >> 16  # what bf16 keeps of it
    header = json.dumps({"wte": {"dtype": "BF16", "shape": [512, 1024], "data_offsets": [0, 2 * table.size]}}).encode()
    data = len(header).to_bytes(8, "little") + header + table.astype("<u2").tobytes()
    (tmp_path / "model.safetensors").write_bytes(data)
    tensors = Tensors(tmp_path)
    tracemalloc.start()
    found = tensors.read("wte")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found.reshape(-1), (table << 16).view(np.float32))
    assert found.nbytes <= peak < 1.2 * found.nbytes


def resident() -> int:
    """Bytes of files in this process's memory."""
    return 1024 * memory.proc_field(Path("/proc/self/status"), "RssFile:")


def test_vectors_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They are refused before any work."""
    encoder = Encoder(tiny_gpt2(tmp_path), device="numpy")
    monkeypatch.setattr("gpt2wgpu.graph.memory.available_memory", lambda: 1 << 28)
    texts = ["t1"] * ((1 << 23) + 1)  # of 8 numbers each
    expected = "8,388,609 vectors take 269 MB of memory, this machine has 269 MB free: encode fewer at a time"
    assert refusal(lambda: encoder.encode(texts)).startswith(expected)
