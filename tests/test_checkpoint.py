"""A model folder of GPT-2, BERT or RoBERTa: its configuration, and its weights in every form they are stored in."""

import struct
from pathlib import Path

import numpy as np
import pytest
import tiny
from refusals import bf16, leaves, save_raw

from gpt2wgpu.checkpoint import Pooling, load_checkpoint
from gpt2wgpu.graph import ops
from gpt2wgpu.models.bert import BertConfig
from gpt2wgpu.models.gpt2 import GPT2Config

# --- GPT-2


def test_gpt2_config_and_weights(tmp_path: Path):
    config = tiny.gpt2_config()
    c = load_checkpoint(tiny.save(tmp_path, config))
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
    c = load_checkpoint(tiny.save(tmp_path, tiny.gpt2_config()))
    found = c.weights(leaves(c)["wte.weight"])
    assert not found.flags.owndata and not found.flags.writeable


def test_weights_in_f16(tmp_path: Path):
    config = tiny.gpt2_config()
    c = load_checkpoint(tiny.save(tmp_path, config))
    for name, leaf in leaves(c, "f16").items():
        found = c.weights(leaf)
        assert found.dtype == {"f16": np.float16, "f32": np.float32}[leaf.dtype]
        np.testing.assert_array_equal(found, tiny.tensors(config)[name].astype(found.dtype))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_stored_types(tmp_path: Path, dtype: type):
    config = tiny.gpt2_config()
    weights = tiny.tensors(config, dtype)
    c = load_checkpoint(tiny.save(tmp_path, config, weights))
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
    c = load_checkpoint(tmp_path)
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
    c = load_checkpoint(folder)
    for name, leaf in leaves(c).items():
        found = c.weights(leaf)
        assert found.flags.aligned
        np.testing.assert_array_equal(found, tiny.tensors(config)[name])


def test_gpt2_language_model_files(tmp_path: Path):
    """Names have a prefix; masks, heads and so on are ignored."""
    config = tiny.gpt2_config()
    weights = tiny.tensors(config, prefix="transformer.")
    extra = {
        "transformer.h.0.attn.bias": np.tril(np.ones((1, 1, 7, 7), np.uint8)),
        "transformer.h.1.attn.masked_bias": np.float32([-1e4]),
    }
    extra |= {"lm_head.weight": weights["transformer.wte.weight"], "score.weight": np.ones((2, 8), np.float32)}
    extra |= {"multiple_choice_head.summary.weight": np.ones((1, 8), np.float32)}
    c = load_checkpoint(tiny.save(tmp_path, config, weights | extra))
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
    assert load_checkpoint(tiny.save(tmp_path / "gpt2", tiny.gpt2_config(activation_function=given))).config.activation == ours
    assert load_checkpoint(tiny.save(tmp_path / "bert", tiny.bert_config(hidden_act=given))).config.activation == ours


def test_gpt2_fields(tmp_path: Path):
    config = tiny.gpt2_config(n_inner=20, layer_norm_epsilon=1e-6, scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True)
    found = load_checkpoint(tiny.save(tmp_path, {**config, "reorder_and_upcast_attn": True})).config
    assert found == GPT2Config(2, 2, 8, 20, 7, 11, "gelu_tanh", 1e-6, scale_attention=False, scale_by_layer=True)


def test_gpt2_old_field_names(tmp_path: Path):
    config = tiny.gpt2_config()
    weights = tiny.tensors(config)
    config["n_ctx"] = config.pop("n_positions")
    assert load_checkpoint(tiny.save(tmp_path, config, weights)).config.context == 7


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
    c = load_checkpoint(tiny.save(tmp_path, config, stored))
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
    c = load_checkpoint(tiny.save(tmp_path, config, w))
    table = w["embeddings.position_embeddings.weight"] + w["embeddings.token_type_embeddings.weight"][0]
    found = c.weights(leaves(c, "f16")["embeddings.positions_and_type.weight"])
    np.testing.assert_array_equal(found, table.astype(np.float16))


@pytest.mark.parametrize("architecture", ["roberta", "xlm-roberta", "camembert"])
def test_roberta_counts_positions_from_after_the_padding_id(tmp_path: Path, architecture: str):
    config = tiny.bert_config(model_type=architecture, pad_token_id=1, type_vocab_size=1)
    c = load_checkpoint(tiny.save(tmp_path, config, tiny.tensors(config, prefix="roberta.")))
    assert c.architecture == architecture
    assert isinstance(c.config, BertConfig)
    assert (c.config.pad, c.config.types) == (1, 1)
    assert c.max_seq_length == 9 - 1 - 1
