"""Folders whose matrices are stored in int8: what reads them, what writes them, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from encoders import GOLDEN, TEXTS, golden, refusal, tiny_gpt2
from process import Run
from refusals import refusal as refused
from safetensors.numpy import load_file, save_file
from test_int8 import cosines, sentences

from gpt2wgpu import Encoder
from gpt2wgpu.checkpoint import load_checkpoint
from gpt2wgpu.checkpoint.tensors import Tensors
from gpt2wgpu.explain.explain_texts import weight_reader
from gpt2wgpu.gpu import Device
from gpt2wgpu.graph.int8 import quantize_weights
from gpt2wgpu.graph.ops import quantized
from gpt2wgpu.graph.tensor import Array, Tensor, schedule

FAMILIES = ["gpt2_tanh", "gpt2_prefixed", "bert_relu_odd", "bert_9_heads_sharded_f16", "bert_tanh_bf16"]
FAMILIES += ["distilbert_prefixed_bf16", "mpnet", "modernbert", "nomic_bert", "qwen3_one_kv_head_bias_f16"]
FAMILIES += ["gpt_neo_mixed_sharded_bf16", "roberta_pad_5", "gpt2_25_heads_f16"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model in int8."""
    folder = tmp_path_factory.mktemp("int8") / "model"
    Encoder(device="numpy").save_pretrained(folder, dtype="int8")
    return folder


def in_int8(folder: Path, target: Path) -> Path:
    """A folder's int8 twin."""
    Encoder(folder, device="numpy", layer=load_checkpoint(folder).config.layers).save_pretrained(target, dtype="int8")
    return target


def edit(folder: Path, change: Callable[[dict[str, Array]], Any]) -> Path:
    """Change the tensors of a folder in place."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file({name: np.ascontiguousarray(a) for name, a in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def leaves(folder: Path) -> list[Tensor]:
    c = load_checkpoint(folder)
    return [t for t in schedule(c.config.hidden(c.config.layers)) if t.is_weight]


# --- the built-in model


def test_the_built_in_model_stored_in_int8_is_near_itself(built_in: Encoder, small: Path):
    """It is stored so already. Measured: 0.9999998 between float32 and int8 of the same folder."""
    texts = [*sentences()[:200], *TEXTS]
    wide, narrow = (Encoder(small, device="numpy", dtype=dtype).encode(texts) for dtype in ("auto", "int8"))
    assert cosines(built_in.encode(texts), wide).min() >= 0.999999
    assert cosines(wide, narrow).min() >= 0.999999


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_built_in_model_stored_in_int8_on_a_device(dtype: str, small: Path, device: Device):
    """Measured on lavapipe: at least 0.999999 to numpy."""
    if dtype == "float16" and not device.has_f16:
        pytest.skip("the device has no shader-f16")
    want = Encoder(small, device="numpy", dtype="int8").encode(TEXTS)
    with Encoder(small, device="gpu", dtype=dtype) as encoder:
        assert cosines(encoder.encode(TEXTS), want).min() >= 0.99999
        if dtype == "int8":
            q = weight_reader(encoder)(Tensor((19712, 384), "i8", "wte.weight", attrs={"table": True}))
            np.testing.assert_array_equal(q, load_file(small / "model.safetensors")["wte.weight"])


@pytest.mark.parametrize("name", ["bert_relu_odd", "gpt2_25_heads_f16"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_odd_sizes_stored_in_int8_on_a_device(name: str, dtype: str, device: Device, tmp_path: Path):
    """Matrices of (out, in) and of (in, out), and parts that are joined."""
    small = in_int8(golden(name, tmp_path), tmp_path / "small")
    want = Encoder(small, device="numpy", dtype="int8").encode(["t5 t6 t7", "t8"])
    with Encoder(small, device="gpu", dtype=dtype) as encoder:
        np.testing.assert_allclose(encoder.encode(["t5 t6 t7", "t8"]), want, rtol=0, atol=1e-4 * np.abs(want).max())


def test_the_built_in_folder_takes_at_most_20_megabytes(built_in: Encoder):
    """Six layers of 384 and the tokenizer. Scales are no parameters."""
    files = [f for f in built_in.checkpoint.path.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 20_000_000
    assert built_in.checkpoint.parameters == 16_051_200


# --- reading


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_reads_what_it_writes(name: str, tmp_path: Path):
    """In float32 each weight is q * scale, and in int8 it is the stored integers."""
    source = golden(name, tmp_path)
    small = in_int8(source, tmp_path / "small")
    before, after = load_checkpoint(source), load_checkpoint(small)
    entries = Tensors(small).entries
    in_files = {name for name, entry in entries.items() if entry.dtype == "I8"}
    assert {entry.dtype for name, entry in entries.items() if name.removesuffix("_scale") in in_files - {name}} == {"F16"}
    read = quantize_weights(after.weights, after.stored_int8)
    parts: set[str] = set()
    for t in leaves(source):
        found = after.weights(t)
        if (pair := after.stored_int8(t)) is None:
            np.testing.assert_array_equal(found, before.weights(t))
            continue
        q, scale = pair
        is_table = t.name == after.config.table
        np.testing.assert_array_equal(found, (quantized.dequantize_table if is_table else quantized.dequantize)(q, scale))
        step = np.repeat(scale, 64, axis=int(is_table))[: len(q), : q.shape[1]]
        assert (np.abs(found - before.weights(t)) <= 0.501 * step).all()
        np.testing.assert_array_equal(read(Tensor(t.shape, "i8", t.name, attrs={"table": is_table})), q)
        parts |= {after._body._stored(part) for part in after.config.parts(t.name, tuple(map(int, t.shape)))}
    assert parts == in_files and len(parts) > 4


def test_integers_are_not_rounded_twice(tmp_path: Path):
    """Quantising anew would stretch them: the largest of a group would be 127."""
    small = in_int8(tiny_gpt2(tmp_path / "m"), tmp_path / "small")
    edit(small, lambda w: w.update({name: a // 3 for name, a in w.items() if a.dtype == np.int8}))
    stored = load_file(small / "model.safetensors")
    program = Encoder(small, device="numpy", dtype="int8").engine.program
    found = {t.name: a for t, a in program.weights.items() if t.dtype == "i8"}
    assert len(found) == 5
    for name, q in found.items():
        assert np.abs(q).max() <= 43
        np.testing.assert_array_equal(q, stored[name])


def test_integers_are_views_of_the_mapped_file(small: Path):
    program = Encoder(small, device="numpy", dtype="int8").engine.program
    assert not any(a.flags.owndata for t, a in program.weights.items() if t.dtype == "i8")


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_mixed_folder(dtype: str, tmp_path: Path):
    source = golden("bert_relu_odd", tmp_path)
    small = in_int8(source, tmp_path / "small")
    floats = load_file(source / "model.safetensors")
    prefix = next(name for name in floats if name.endswith("word_embeddings.weight")).removesuffix(
        "embeddings.word_embeddings.weight"
    )

    def change(w: dict[str, Array]) -> None:
        for part in ("encoder.layer.0.attention.self.key", "encoder.layer.0.output.dense"):
            name = f"{prefix}{part}.weight"
            w[name] = floats[name].astype(np.float16)
            del w[f"{name}_scale"]

    edit(small, change)
    texts = ["t5 t6 t7", "t8"]
    found = Encoder(small, device="numpy", dtype=dtype).encode(texts)
    assert cosines(found, Encoder(source, device="numpy").encode(texts)).min() > 0.999


def test_shards_and_a_dense_module(tmp_path: Path):
    source = GOLDEN / "sentence_models" / "old_bert_cls_max_dense"
    small = in_int8(source, tmp_path / "small")
    name = "2_Dense/model.safetensors"
    assert (small / name).read_bytes() == (source / name).read_bytes()
    texts = ["a cat", "the sun"]
    assert cosines(*(Encoder(f, device="numpy").encode(texts) for f in (source, small))).min() > 0.999


# --- writing


def test_others_get_floats(small: Path, tmp_path: Path):
    encoder = Encoder(small, device="numpy")
    for name, kwargs, kind in (("a", {}, np.float16), ("b", {"dtype": "float32"}, np.float32)):
        encoder.save_pretrained(tmp_path / name, **kwargs)  # type: ignore[arg-type]
        saved = load_file(tmp_path / name / "model.safetensors")
        assert {a.dtype for a in saved.values()} == {np.dtype(kind)}
        assert saved.keys() == {name for name in load_file(small / "model.safetensors") if not name.endswith("_scale")}
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert "quantization_config" not in config and config["torch_dtype"] == "float32"
        assert cosines(Encoder(tmp_path / name, device="numpy").encode(TEXTS), encoder.encode(TEXTS)).min() > 0.999999
    np.testing.assert_array_equal(Encoder(tmp_path / "b", device="numpy").encode(TEXTS), encoder.encode(TEXTS))


def test_int8_saved_again_has_the_same_bytes(small: Path, tmp_path: Path):
    Encoder(small, device="numpy").save_pretrained(tmp_path / "again", dtype="int8")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (small / name).read_bytes()


def test_tensors_that_are_no_weights_are_copied(tmp_path: Path):
    """Masks, heads, and floats of 64 bits; and every tensor is aligned to its type."""
    source = tiny_gpt2(tmp_path / "m")
    more = {"h.0.attn.bias": np.tril(np.ones((1, 1, 7, 7), np.uint8)), "lm_head.weight": np.ones((3, 5), np.float32)}
    edit(source, lambda w: w.update(more, **{"head.ids": np.arange(3), "ln_f.bias": w["ln_f.bias"].astype(np.float64)}))
    small = in_int8(source, tmp_path / "small")
    before, after = (load_file(folder / "model.safetensors") for folder in (source, small))
    for name in ("h.0.attn.bias", "lm_head.weight", "head.ids", "ln_f.bias", "wpe.weight"):
        np.testing.assert_array_equal(after[name], before[name], strict=True)
    sizes = {"I8": 1, "U8": 1, "F16": 2, "F32": 4, "F64": 8, "I64": 8}
    assert not [e for e in Tensors(small).entries.values() if e.start % sizes[e.dtype]]
    Encoder(small, device="numpy", layer=1).save_pretrained(tmp_path / "half")
    half = load_file(tmp_path / "half" / "model.safetensors")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "float32"
    assert {a.dtype for name, a in half.items() if name not in ("h.0.attn.bias", "head.ids")} == {np.dtype(np.float16)}
    np.testing.assert_array_equal(half["head.ids"], before["head.ids"], strict=True)


def test_what_cannot_be_written(tmp_path: Path):
    huge = tiny_gpt2(tmp_path / "m", change={"h.0.mlp.c_fc.weight": lambda w: w * 1e8})
    encoder = Encoder(huge, device="numpy", layer=1)
    for dtype in ("int8", "float16"):
        found = refusal(lambda dtype=dtype: encoder.save_pretrained(tmp_path / "s", dtype=dtype))
        assert found == "tensor h.0.mlp.c_fc.weight has values that overflow f16: save this model in float32"
        assert not (tmp_path / "s").exists() and not [*tmp_path.glob(".gpt2wgpu*")]
    assert "dtype must be one of float32, float16, int8, not 'int4'" in refusal(
        lambda: encoder.save_pretrained(tmp_path / "s", dtype="int4")
    )


def test_scales_of_small_weights(tmp_path: Path):
    """A scale that f16 holds only as a subnormal, or would round to zero."""
    for factor in (1e-4, 1e-6, 1e-9, 0):
        source = tiny_gpt2(tmp_path / f"{factor}", change={"h.0.mlp.c_fc.weight": lambda w, factor=factor: w * factor})
        c = load_checkpoint(in_int8(source, tmp_path / f"small {factor}"))
        leaf = Tensor((8, 32), "f32", "h.0.mlp.c_fc.weight")
        want = load_checkpoint(source).weights(leaf)
        np.testing.assert_allclose(c.weights(leaf), want, atol=max(np.abs(want).max() / 200, 2**-24) if factor else 0)


def test_the_command(run: Run, tmp_path: Path):
    source = tiny.sentence_model(tmp_path / "m", tiny.gpt2_config(vocab_size=16, n_embd=64, n_positions=32))
    shutil.copy(tiny_gpt2(tmp_path / "t") / "tokenizer.json", source)
    code, said, err = run("convert", "--model", source, "--dtype", "int8", "--output", tmp_path / "small")
    assert (code, err) == (0, "") and int(said) == (tmp_path / "small" / "model.safetensors").stat().st_size
    assert run("embed", "t5 t6", "--model", tmp_path / "small")[0] == 0
    assert run("convert", "-m", tmp_path / "small", "--dtype", "float16", "-o", tmp_path / "half")[0] == 0
    assert {a.dtype for a in load_file(tmp_path / "half" / "model.safetensors").values()} == {np.dtype(np.float16)}
    assert run("convert", "-m", source, "--dtype", "int4", "-o", tmp_path / "x")[::2] == (
        1,
        "error: dtype must be one of float32, float16, int8, not 'int4'\n",
    )
    assert run("convert", "-m", source, "-o", tmp_path / "x")[0] == 2


def test_training_starts_from_int8_and_writes_floats(run: Run, data: Path, tmp_path: Path):
    source = tiny_gpt2(tmp_path / "m")
    tokenizer = Encoder(device="numpy").checkpoint.path / "tokenizer.json"
    shutil.copy(tokenizer, source)
    edit(source, lambda w: w.update({"wte.weight": np.resize(w["wte.weight"], (20480, 8))}))
    tiny.write_json(source / "config.json", json.loads((source / "config.json").read_text()) | {"vocab_size": 20480})
    small = in_int8(source, tmp_path / "small")
    args = ("--data", data / "labels.tsv", "--epochs", 1, "--limit-train", 9, "--freeze", "wte", "--max-seq-length", 16)
    code, _, err = run("train", "--model", small, *args, "-o", tmp_path / "run")
    assert code == 0, err
    saved, stored = load_file(tmp_path / "run/model/model.safetensors"), load_checkpoint(small)
    assert {a.dtype for a in saved.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(saved["wte.weight"], stored.weights(Tensor((20480, 8), "f32", "wte.weight")))
    assert "quantization_config" not in json.loads((tmp_path / "run/model/config.json").read_text())
    assert Encoder(tmp_path / "run/model", device="numpy").dimensions == 8


# --- damage


def test_damaged_folders_are_refused(tmp_path: Path):
    whole = in_int8(tiny_gpt2(tmp_path / "m"), tmp_path / "whole")
    scale = "h.0.attn.c_attn.weight_scale"  # (1, 24)

    def broken(change: Callable[[dict[str, Array]], Any]) -> Path:
        shutil.rmtree(tmp_path / "broken", ignore_errors=True)
        return edit(shutil.copytree(whole, tmp_path / "broken"), change)

    refused(broken(lambda w: w.pop(scale)), f"{scale} is missing, expected with shape [1, 24]", "which is I8")
    for bad in (np.ones((24, 1), np.float16), np.ones(24, np.float16), np.ones((2, 24), np.float16)):
        refused(broken(lambda w, bad=bad: w.update({scale: bad})), f"{scale} has shape", "expected [1, 24]")
    refused(broken(lambda w: w.update({scale: np.ones((1, 24), np.int8)})), f"{scale} is I8, expected F32, F16 or BF16")
    for name in ("ln_f.weight", "h.0.attn.c_attn.bias", "wpe.weight"):
        found = broken(lambda w, name=name: w.update({name: w[name].astype(np.int8)}))
        refused(found, f"{name} is I8, expected F32, F16 or BF16 (not quantised)")
    found = broken(lambda w: w.update({"wte.weight": w["wte.weight"].view(np.uint8)}))
    refused(found, "wte.weight is U8, expected F32, F16, BF16, or I8 with scales")
    refused(broken(lambda w: w.update({"ln_f.weight_scale": np.ones(8)})), "unexpected tensor", "ln_f.weight_scale")
    floats = {"h.0.attn.c_attn.weight": np.ones((8, 24), np.float32)}
    refused(broken(lambda w: w.update(floats)), "unexpected tensor", scale)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_damaged_scales_are_refused(dtype: str, tmp_path: Path):
    small = in_int8(tiny_gpt2(tmp_path / "m"), tmp_path / "small")
    for value, why in ((np.nan, "holds NaN or infinity"), (np.inf, "holds NaN or infinity"), (3e38, "overflows float32")):
        edit(small, lambda w, value=value: w.update({"wte.weight_scale": np.full((16, 1), value, np.float32)}))
        found = refusal(lambda: Encoder(small, device="numpy", dtype=dtype))
        assert "tensor wte.weight_scale" in found and why in found


def test_other_quantisations_are_refused(tmp_path: Path):
    small = in_int8(tiny_gpt2(tmp_path / "m"), tmp_path / "small")
    config = json.loads((small / "config.json").read_text())
    for other in ({"quant_method": "compressed-tensors"}, {**config["quantization_config"], "group_size": 32}, {}):
        tiny.write_json(small / "config.json", {**config, "quantization_config": other})
        refused(small, "quantization_config", '"format": "gpt2wgpu-int8", "group_size": 64', "save the model in f32 or f16")
