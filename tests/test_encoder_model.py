"""What an Encoder computes and where: finite vectors, layers, poolings, devices, dtypes."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import GOLDEN, golden, refusal, tiny_gpt2, with_row
from safetensors.numpy import save_file

from gpt2wgpu import Encoder, checkpoint
from gpt2wgpu.checkpoint.graph import build_graph, concat_layers, default_layer
from gpt2wgpu.devices import choose
from gpt2wgpu.files import windows
from gpt2wgpu.gpu import Device, choose_adapter
from gpt2wgpu.gpu import device as device_module
from gpt2wgpu.graph.tensor import schedule

# --- vectors that are not finite


@pytest.mark.parametrize("pooling", [None, "max", "last"])
def test_an_overflow_names_the_text(
    pooling: str | None, make: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And without a warning (warnings are errors here)."""
    monkeypatch.setattr(windows, "WINDOW", 4)
    folder = tiny_gpt2(tmp_path, layers=2, change={"wte.weight": with_row(7, 3e38)})
    with np.errstate(all="warn"):
        model = make(folder, pooling=pooling, max_tokens=8, layer=2)
        assert np.isfinite(model.encode(["t1 t2", "t3"] * 5)).all()
        message = refusal(lambda: model.encode(["t1 t2", "t3", "t4", "t5 t6", "t1", "t2 t7", "t3"]))
        assert message.startswith("the vector of text 5 holds NaN or Inf")
        assert "float32" in message
        assert np.isfinite(model.encode(["t1 t2"])).all()  # it still works


@pytest.mark.parametrize(
    ("activation", "tensor"),
    [
        ("gelu_new", "h.0.mlp.c_fc.bias"),
        ("gelu_new", "h.0.ln_2.weight"),
        ("relu", "h.0.ln_2.weight"),
        ("tanh", "h.0.ln_2.weight"),
    ],
)
def test_an_overflow_of_f16_is_an_error_that_says_so(activation: str, tensor: str, use_gpu: None, device: Device, tmp_path: Path):
    """Infinity times weights of both signs is NaN, which relu and tanh of a GPU may turn into a number."""
    if not device.has_f16:
        pytest.skip("the device has no shader-f16")
    folder = tiny_gpt2(tmp_path, change={tensor: lambda w: w * 1e7}, activation_function=activation)
    texts = ["t1 t2 t3", "t4"]
    assert np.isfinite(Encoder(folder, device="gpu", dtype="float32").encode(texts)).all()
    message = refusal(lambda: Encoder(folder, device="gpu", dtype="float16").encode(texts))
    assert "holds NaN or Inf" in message
    assert "use dtype='float32'" in message


def test_an_overflow_is_not_hidden_by_a_dense_module(make: Callable[..., Encoder], tmp_path: Path):
    """sentence-transformers' Dense ends in tanh, which makes a number of NaN on some GPUs."""
    tiny_gpt2(tmp_path, change={"wte.weight": with_row(7, 3e38)})
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    entries = [{"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(modules)]
    (tmp_path / "modules.json").write_text(json.dumps(entries), encoding="utf-8")
    for path, config in (("1_Pooling", {"word_embedding_dimension": 8}), ("2_Dense", {"in_features": 8, "out_features": 8})):
        (tmp_path / path).mkdir()
        (tmp_path / path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(
        {"linear.weight": np.eye(8, dtype="f"), "linear.bias": np.zeros(8, "f")}, tmp_path / "2_Dense" / "model.safetensors"
    )
    model = make(tmp_path)
    assert np.isfinite(model.encode("t1")).all()
    with np.errstate(all="ignore"):
        assert "text 1 holds NaN or Inf" in refusal(lambda: model.encode(["t1", "t7"]))


# --- layer and pooling


@pytest.mark.parametrize("name", ["gpt2_five_layers_bf16", "bert_tanh_bf16", "roberta"])
def test_every_layer_is_hidden_states_of_transformers(name: str, make: Callable[..., Encoder], tmp_path: Path):
    folder = golden(name, tmp_path)
    with np.load(folder / "expected.npz") as expected:
        sequences = np.split(expected["ids"], np.cumsum(expected["lengths"])[:-1])
        hidden = [np.split(h, np.cumsum(expected["lengths"])[:-1]) for h in expected["hidden"]]
    texts = [" ".join(f"t{i}" for i in ids) for ids in sequences]
    sizes = []
    for layer, states in enumerate(hidden):
        for pooling, pooled in (("mean", lambda h: h.mean(0)), ("last", lambda h: h[-1])):
            model = make(folder, layer=layer, pooling=pooling)
            want = np.stack([pooled(h) for h in states])
            assert np.abs(model.encode(texts) - want).max() <= 1e-4 * np.abs(want).max()
        sizes.append(model.info()["bytes on device"])
    assert sizes == sorted(set(sizes))  # only the blocks that are needed are uploaded


@pytest.mark.parametrize("name", ["gpt2_five_layers_bf16", "bert_tanh_bf16"])
def test_layers_side_by_side_are_the_same_bits(name: str, make: Callable[..., Encoder], tmp_path: Path):
    folder, texts = golden(name, tmp_path), ["t1 t2 t3", "t4", "t5 t1"]
    model = make(folder, layer=0, pooling="last", truncate_dim=3)
    layers = range(model.layers, -1, -2)
    side_by_side = model.with_layers(layers)
    assert side_by_side.dimensions == len(layers) * model.width
    for layer, part in zip(layers, np.split(side_by_side.encode(texts), len(layers), axis=1), strict=True):
        np.testing.assert_array_equal(part, make(folder, layer=layer, pooling="last").encode(texts))
    assert model.encode(texts).shape == (3, 3)  # it is as it was


def test_layers_side_by_side_run_every_block_once():
    c = checkpoint.load_checkpoint(GOLDEN / "sentence_models" / "new_xlmr_max_mean")
    tensors = schedule(concat_layers([build_graph(c, layer, "f32", c.modules) for layer in range(3)]))
    ops = Counter(t.op.name for t in tensors if t.op)
    assert (ops["embed"], ops["attention"], ops["linear"], ops["pool"], ops["concat"]) == (1, 2, 2 * 2 + 3, 3 * 2, 3 + 2)
    leaves = [t.name for t in tensors if t.op is None]
    assert len(leaves) == len(set(leaves))


def test_a_layer_out_of_range(tmp_path: Path):
    folder = tiny_gpt2(tmp_path, layers=2)
    for wrong in (-1, 3, 1.0, "1", True):
        message = refusal(lambda wrong=wrong: Encoder(folder, device="numpy", layer=wrong))
        assert message == f"layer must be a whole number from 0 to 2, not {wrong!r}"
    assert Encoder(folder, device="numpy", layer=np.int32(0)).layer == 0


@pytest.mark.parametrize(("layers", "expected"), [(1, 1), (2, 1), (3, 2), (6, 4), (12, 7)])
def test_the_default_layer_of_a_raw_gpt2(layers: int, expected: int, tmp_path: Path):
    model = Encoder(tiny_gpt2(tmp_path, layers=layers), device="numpy")
    assert model.layer == expected
    used = str(model.info()["layer used"])
    assert used.startswith(f"{expected} of {layers} (")
    assert ("default" in used) == (expected < layers)


def test_the_default_layer_of_other_models(built_in: Encoder):
    assert built_in.layer == built_in.layers
    for folder, layers in (("sentence_models/plain_bert", 2), ("sentence_models/old_gpt2_last", 2), ("models/roberta", 2)):
        assert default_layer(checkpoint.load_checkpoint(GOLDEN / folder)) == layers
    assert [
        default_layer(checkpoint.load_checkpoint(GOLDEN / "models" / f"gpt2_{n}")) for n in ("five_layers_bf16", "inverse_layer")
    ] == [
        3,
        2,
    ]


def test_pooling(tmp_path: Path):
    folder = tiny_gpt2(tmp_path)
    tokens = np.stack([Encoder(folder, device="numpy", pooling="last").encode(t) for t in ("t1", "t1 t2", "t1 t2 t3")])
    n = np.array([[1], [2], [3]])
    want = {
        "mean": tokens.mean(0),
        "cls": tokens[0],
        "max": tokens.max(0),
        "last": tokens[2],
        "weighted_mean": (tokens * n).sum(0) / 6,
        "sqrt_len_mean": tokens.sum(0) / np.sqrt(3),
        None: tokens.mean(0),
    }
    for pooling, vector in want.items():
        model = Encoder(folder, device="numpy", pooling=pooling)
        np.testing.assert_allclose(model.encode("t1 t2 t3"), vector, atol=1e-5)
        assert model.info()["pooling"] == (pooling or "mean")
    message = refusal(lambda: Encoder(folder, device="numpy", pooling="median"))
    assert message == "pooling must be one of mean, cls, max, last, weighted_mean, sqrt_len_mean, not 'median'"


def test_a_pooling_that_the_dense_module_cannot_take():
    message = refusal(lambda: Encoder(GOLDEN / "sentence_models" / "old_bert_cls_max_dense", device="numpy", pooling="mean"))
    assert message == "2_Dense takes 32 inputs, the pooling gives 16: choose another pooling"


# --- devices and dtypes


def test_without_a_real_gpu_auto_is_numpy(monkeypatch: pytest.MonkeyPatch):
    software = device_module.Adapter(0, "llvmpipe", "CPU", "Vulkan", "", frozenset(), {}, None)
    for found in ((), (software,)):
        monkeypatch.setattr(device_module, "list_adapters", lambda library, found=found: found)
        monkeypatch.setattr(choose, "has_gpu_node", lambda: True)
        model = Encoder(layer=0)
        assert model.device == "numpy"
        assert model.engine.place.reason == "no GPU found: computing with numpy on the CPU"
        assert model.dtype == "float32"


def test_auto_loads_no_driver_where_no_gpu_can_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_module, "list_adapters", lambda library: pytest.fail("it looked for adapters"))
    monkeypatch.setattr(choose, "has_gpu_node", lambda: False)
    assert Encoder(layer=0).device == "numpy"


def test_device_files_of_a_gpu(monkeypatch: pytest.MonkeyPatch):
    for platform, nodes, possible in (
        ("linux", {"/dev/dri"}, True),
        ("linux", {"/dev/dxg"}, True),
        ("linux", {"/dev/nvidiactl"}, True),
        ("linux", {"/dev/null"}, False),
        ("darwin", set(), True),
        ("win32", set(), True),
    ):
        monkeypatch.setattr(choose.sys, "platform", platform)
        monkeypatch.setattr(choose.Path, "exists", lambda path, nodes=nodes: str(path) in nodes)
        assert choose.has_gpu_node() == possible
        monkeypatch.undo()


def test_device_numpy_looks_for_no_adapter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_module, "list_adapters", lambda library: pytest.fail("it looked for adapters"))
    for name in ("numpy", "cpu"):
        assert Encoder(device=name, layer=0).device == "numpy"


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_module, "list_adapters", lambda library: ())
    message = refusal(lambda: Encoder(device="gpu"))
    assert "no WebGPU adapter found" in message
    assert "mesa-vulkan-drivers" in message
    assert "device='numpy'" in message


def test_the_environment_decides_what_auto_means(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GPT2WGPU_DEVICE", "numpy")
    assert Encoder(layer=0).engine.place.reason == "numpy on the CPU, as asked"
    monkeypatch.setenv("GPT2WGPU_DEVICE", "")
    monkeypatch.setattr(device_module, "list_adapters", lambda library: ())
    assert Encoder(layer=0).device == "numpy"
    monkeypatch.setenv("GPT2WGPU_DEVICE", "no such adapter")
    assert refusal(Encoder).startswith("GPT2WGPU_DEVICE: device 'no such adapter'")
    assert Encoder(device="numpy", layer=0).device == "numpy"


def test_a_device_by_number_and_name(device: Device):
    for name in (str(device.adapter.index), device.adapter.name[:5].upper(), device.adapter.index):
        model = Encoder(device=name, layer=0)
        assert model.device == str(choose_adapter(str(name)))
        assert "as asked" in model.engine.place.reason
        assert np.isfinite(model.encode("a")).all()


def test_device_none_is_auto(monkeypatch: pytest.MonkeyPatch):
    """As in sentence-transformers."""
    monkeypatch.setenv("GPT2WGPU_DEVICE", "numpy")
    assert Encoder(device=None, layer=0).device == "numpy"


def test_dtypes_in_numpy(built_in: Encoder):
    assert built_in.dtype == "float32"
    assert Encoder(device="numpy", dtype="f32", layer=0).dtype == "float32"
    assert refusal(lambda: Encoder(device="numpy", dtype="float16")) == "dtype float16 needs a GPU: numpy computes in float32"
    assert "not 'bfloat16'" in refusal(lambda: Encoder(device="numpy", dtype="bfloat16"))


def test_dtypes_on_a_gpu(use_gpu: None, device: Device, tmp_path: Path):
    folder = tiny_gpt2(tmp_path)
    assert Encoder(folder, device="gpu").dtype == ("float16" if device.has_f16 and not device.adapter.software else "float32")
    if not device.has_f16:
        assert "has no shader-f16; use float32" in refusal(lambda: Encoder(folder, device="gpu", dtype="f16"))
        return
    half, single = (Encoder(folder, device="gpu", dtype=d) for d in ("f16", "f32"))
    assert (half.dtype, single.dtype) == ("float16", "float32")
    assert half.info()["bytes on device"] < single.info()["bytes on device"]
    found = half.encode("t1 t2")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, single.encode("t1 t2"), atol=0.02)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "many", True])
def test_a_wrong_token_budget(wrong: Any):
    assert "max_tokens must be a whole number from 1" in refusal(lambda: Encoder(device="numpy", max_tokens=wrong))


def test_info(make: Callable[..., Encoder], built_in: Encoder):
    model = make(dtype="float32")
    found = model.info()
    assert found.pop("device") == model.device
    assert found.pop("bytes on device") >= 4 * found["parameters"]
    assert str(found.pop("layer used")).startswith(f"{built_in.layers} of {built_in.layers} (")
    assert found.pop("matmul") == ("BLAS" if model.engine.place.device is None else model.engine.place.device.matmul("f32"))
    assert found == {
        "model": "built-in",
        "architecture": "gpt2",
        "layers": built_in.layers,
        "width": 384,
        "heads": 12,
        "vocabulary": built_in.checkpoint.config.vocab,
        "parameters": sum(a.size for a in built_in.engine.program.weights.values()),
        "pooling": "mean then Normalize",
        "dimensions": 384,
        "max_seq_length": built_in.max_seq_length,
        "prompts": "none",
        "similarity": "cosine",
        "dtype": "float32",
        "tokens per batch": 2048,
    }


def test_info_of_a_folder_with_modules():
    found = Encoder(GOLDEN / "sentence_models" / "new_xlmr_max_mean", device="numpy", layer=0, truncate_dim=4).info()
    assert found["layer used"] == "0 of 2 (the embeddings)"
    assert found["pooling"] in ("max + mean then Dense 14", "mean + max then Dense 14")
    assert found["dimensions"] == 4
    assert set(str(found["prompts"]).split(", ")) == {"query", "document"}
