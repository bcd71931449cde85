"""ModernBERT, Nomic BERT and Qwen3: their configurations, what is refused, and texts longer than a device has room for.

That they compute what `transformers` does is in test_models.py and test_sentence_models.py.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import golden
from refusals import leaves, one_line, refusal

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.checkpoint import Checkpoint, load_checkpoint
from gpt2wgpu.gpu import Device
from gpt2wgpu.models import read_config
from gpt2wgpu.models.fields import Fields
from gpt2wgpu.models.modernbert import ModernBertConfig
from gpt2wgpu.models.nomic_bert import NomicBertConfig
from gpt2wgpu.models.qwen3 import Qwen3Config
from gpt2wgpu.models.rotary import rotary_table
from gpt2wgpu.train.gradients import TrainGraph

GOLDEN = Path(__file__).parent / "golden"


def changed(name: str, folder: Path, **changes: Any) -> Path:
    """A golden model with another config.json, in `folder`; a field that is None is left out."""
    shutil.copytree(GOLDEN / "models" / name, folder, dirs_exist_ok=True)
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in fields.items() if v is not None}), encoding="utf-8")
    return folder


def model(name: str) -> Checkpoint:
    return load_checkpoint(GOLDEN / "models" / name)


# --- configurations


def test_modernbert_of_its_first_release():
    c = model("modernbert_old_config_bf16").config
    assert isinstance(c, ModernBertConfig)
    assert (c.local, c.window, c.thetas) == ((False, True, False, True), 3, (80000.0, 5000.0))
    assert ModernBertConfig().context == model("modernbert").config.context * 8192 // 160


def test_modernbert_blocks_without_fields_that_say_so(tmp_path: Path):
    c = load_checkpoint(changed("modernbert", tmp_path, layer_types=None, rope_parameters=None)).config
    assert isinstance(c, ModernBertConfig)
    assert (c.local, c.thetas) == ((False, True, True, False), (160000.0, 10000.0))


def test_modernbert_takes_sliding_window_where_both_are_given(tmp_path: Path):
    c = load_checkpoint(changed("modernbert", tmp_path, sliding_window=3)).config
    assert isinstance(c, ModernBertConfig)
    assert c.window == 3 != model("modernbert").config.window


@pytest.mark.parametrize(("window", "local"), [(None, False), (5000, True)])
def test_qwen3_without_a_window_has_no_local_blocks(tmp_path: Path, window: int | None, local: bool):
    """null is not the default here."""
    folder = changed("qwen3", tmp_path, use_sliding_window=True, layer_types=None, max_window_layers=0)
    values = json.loads((folder / "config.json").read_text()) | {"sliding_window": window}
    (folder / "config.json").write_text(json.dumps(values))
    c = load_checkpoint(folder).config
    assert isinstance(c, Qwen3Config)
    assert c.local == (local, local)


def test_qwen3_with_null_keys_and_values_has_those_of_each_head():
    config = read_config(
        Fields(Path("config.json"), {"model_type": "qwen3", "num_attention_heads": 6, "num_key_value_heads": None})
    )
    assert isinstance(config[1], Qwen3Config)
    assert config[1].kv_heads == config[1].heads == 6


def test_nomic_bert_reads_no_more_than_it_was_trained_for():
    c = model("nomic_bert_old_config_bf16").config
    assert isinstance(c, NomicBertConfig)
    assert (c.usable_length, c.activation, c.theta) == (120, "silu", 1000.0)


@pytest.mark.parametrize(("name", "activation"), [("geglu", "gelu_erf"), ("glu", "sigmoid")])
def test_gates_of_nomic_bert(name: str, activation: str, tmp_path: Path):
    c = load_checkpoint(changed("nomic_bert_old_config_bf16", tmp_path, activation_function=name)).config
    assert isinstance(c, NomicBertConfig)
    assert c.activation == activation


def test_qwen3_without_the_head_that_predicts_tokens():
    """No vector depends on lm_head; the file of `qwen3` has one, that of `qwen3_tied` does not."""
    for name, theta in (("qwen3", 1e6), ("qwen3_tied", 1e6), ("qwen3_every_kv_head_bf16", 500000.0)):
        c = model(name)
        assert isinstance(c.config, Qwen3Config)
        assert c.config.theta == theta
        assert not any("lm_head" in leaf for leaf in leaves(c))


@pytest.mark.parametrize("name", ["modernbert", "nomic_bert", "qwen3"])
def test_a_length_that_no_table_confirms_has_a_bound(name: str, tmp_path: Path):
    assert load_checkpoint(changed(name, tmp_path, max_position_embeddings=10**9)).max_seq_length == 1 << 17


def test_weights_that_no_file_holds():
    """Missing biases and positions are zero, tables of angles are computed; none of them counts as a parameter."""
    c = model("modernbert")
    found = leaves(c)
    absent = c.absent()
    made = {name for name in found if name.endswith(".bias")} | {"zeros", "full_attention", "sliding_attention"}
    assert absent == made
    assert c.parameters == sum(int(np.prod(t.shape)) for name, t in found.items() if name not in absent)
    np.testing.assert_array_equal(c.weights(found["full_attention"]), rotary_table(160, 8, 160000.0))
    assert not c.weights(found["layers.0.attn.Wqkv.bias"]).any()
    assert model("modernbert_biases_f16").absent() == {"zeros", "full_attention", "sliding_attention"}


YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("modernbert", {"num_attention_heads": 5}, ("num_attention_heads is 5", "divisor of the width, 24")),
        ("modernbert", {"num_attention_heads": 8}, ("head_dim", "even number", "found 3")),
        ("modernbert", {"head_dim": 10}, ("head_dim is 10", "8")),
        ("modernbert", {"layer_types": ["full_attention"]}, ("layer_types", "each of 4 layers")),
        ("modernbert", {"layer_types": ["full_attention", "linear"] * 2}, ("layer_types", "sliding_attention")),
        ("modernbert", {"layer_types": "full"}, ("layer_types is 'full'",)),
        ("modernbert", {"local_attention": 1}, ("local_attention is 1", "at least 2")),
        ("modernbert", {"hidden_activation": "mish"}, ("hidden_activation is 'mish'", "gelu")),
        ("modernbert", {"norm_bias": "yes"}, ("norm_bias is 'yes'", "true or false")),
        ("modernbert", {"norm_bias": True}, ("embeddings.norm.bias is missing",)),
        ("modernbert", {"rope_parameters": {"full_attention": YARN}}, ("rope_parameters", "scaled rotary positions")),
        ("modernbert", {"rope_scaling": YARN}, ("rope_scaling", "scaled rotary positions")),
        ("modernbert", {"rope_parameters": {"sliding_attention": {"rope_theta": -1}}}, ("rope_theta is -1", "positive")),
        ("modernbert", {"num_hidden_layers": 10**9, "layer_types": None}, ("layer_types is missing", "layers")),
        ("modernbert", {"num_hidden_layers": 10**12}, ("num_hidden_layers is 10", "at most 2147483647")),
        ("qwen3_window", {"sliding_window": 10**18}, ("sliding_window is 1000000000000000000", "at most 2147483647")),
        ("modernbert", {"num_hidden_layers": 3, "layer_types": None}, ("unexpected tensor", "3 layers", "ModernBertModel")),
        ("nomic_bert", {"causal": True}, ("causal is True", "false")),
        ("nomic_bert", {"prenorm": True}, ("prenorm is True", "false")),
        ("nomic_bert", {"qkv_proj_bias": True}, ("qkv_proj_bias is True", "false")),
        ("nomic_bert", {"rotary_emb_fraction": 0.5}, ("rotary_emb_fraction is 0.5", "1")),
        ("nomic_bert", {"rotary_emb_interleaved": True}, ("rotary_emb_interleaved is True",)),
        ("nomic_bert", {"rotary_emb_scale_base": 512}, ("rotary_emb_scale_base is 512", "none")),
        ("nomic_bert", {"activation_function": "gelu"}, ("activation_function is 'gelu'", "swiglu")),
        ("nomic_bert", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, ("rope_parameters", "scaled")),
        ("nomic_bert", {"head_dim": 7}, ("head_dim is 7", "even")),
        ("nomic_bert", {"num_attention_heads": 30, "head_dim": None}, ("head_dim is missing", "even number", "found 0")),
        ("nomic_bert", {"is_decoder": True}, ("is_decoder is True",)),
        ("nomic_bert", {"intermediate_size": 24}, ("mlp.fc12.weight", "[20, 24]", "[24, 24]")),
        ("qwen3", {"use_sliding_window": True, "layer_types": None, "max_window_layers": -1}, ("max_window_layers is -1",)),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, ("layer_types", "use_sliding_window is not true")),
        ("qwen3", {"layer_types": ["full_attention"]}, ("layer_types", "each of 2 layers")),
        ("qwen3_window", {"sliding_window": 1}, ("sliding_window is 1", "at least 2")),
        ("qwen3", {"rope_scaling": YARN}, ("rope_scaling", "scaled rotary positions")),
        ("qwen3", {"rope_scaling": {"type": "linear"}}, ("rope_scaling", "scaled rotary positions")),
        ("qwen3", {"rope_parameters": {"full_attention": {"rope_theta": 10.0}}}, ("rope_parameters", "rope_theta")),
        ("qwen3", {"rope_parameters": {"rope_theta": 10.0, "partial_rotary_factor": 0.5}}, ("rope_parameters", "scaled")),
        ("qwen3", {"rope_parameters": []}, ("rope_parameters is []", "an object")),
        ("qwen3", {"num_key_value_heads": 3}, ("num_key_value_heads is 3", "divisor of num_attention_heads, 4")),
        ("qwen3", {"num_key_value_heads": 1}, ("k_proj.weight", "[16, 20]", "[8, 20]")),
        ("qwen3", {"is_causal": 2}, ("is_causal is 2", "true or false")),
        ("qwen3", {"attention_bias": True}, ("q_proj.bias is missing",)),
        ("qwen3", {"model_type": "qwen3_moe"}, ("model_type is 'qwen3_moe'", "qwen3")),
    ],
)
def test_configs_that_are_refused(name: str, changes: dict[str, Any], words: tuple[str, ...], tmp_path: Path):
    refusal(changed(name, tmp_path, **changes), *words)


def test_a_block_with_experts_is_refused(tmp_path: Path):
    """So is any tensor that the architecture lacks; here it is the router of the experts."""
    from safetensors.numpy import load_file, save_file

    folder = changed("qwen3", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.layers.0.mlp.gate.weight": np.zeros((4, 20), np.float32)}, folder / "model.safetensors")
    refusal(folder, "unexpected tensor", "model.layers.0.mlp.gate.weight", "Qwen3Model")


@pytest.mark.parametrize("name", ["modernbert", "nomic_bert", "qwen3"])
def test_training_is_refused(name: str):
    with pytest.raises(UserError) as caught:
        TrainGraph(model(name).config.hidden(1, "f32"))
    one_line(caught.value, "a model with glu cannot be trained", "no gradient")


# --- texts


@pytest.mark.parametrize("limit", [None, 130])
def test_a_text_that_the_device_has_no_room_for(limit: int | None, device: Device, tmp_path: Path, monkeypatch: Any):
    """A binding holds 128 rows of the widest result. A longer text is named, others are computed."""
    small = replace(device.adapter, limits={**device.adapter.limits, "max-storage-buffer-binding-size": 200 * 64 * 4})
    small_device = replace(device, adapter=small, tuned={}, kernels={})
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (small_device, ""))
    encoder = Encoder(golden("qwen3", tmp_path), device="gpu", max_seq_length=limit)
    texts = ["t1", " ".join(["t2"] * 129), "t3"]
    with pytest.raises(UserError) as caught:
        encoder.encode(texts)
    one_line(caught.value, "text 1 has 129 tokens", "can compute 128", "max_seq_length=128")
    assert encoder.encode([texts[0], texts[2]]).shape == (2, 20)


def test_what_a_device_is_made_ready_for(device: Device, tmp_path: Path, monkeypatch: Any):
    """There is room for the model's longest text up to a bound; a larger max_seq_length raises the bound."""
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (device, ""))
    monkeypatch.setattr("gpt2wgpu.encoder.LONG_TEXT_TOKENS", 128)
    folder = changed("qwen3", golden("qwen3", tmp_path), max_position_embeddings=1000)
    encoder = Encoder(folder, device="gpu", max_tokens=8)
    assert encoder.max_seq_length == 1000
    assert encoder.engine.program.capacity["T"] == 128
    long = " ".join(["t1"] * 129)
    with pytest.raises(UserError, match="buffers for 128"):
        encoder.encode(long)
    assert encoder.encode("t1").shape == (20,)
    assert Encoder(folder, device="gpu", max_tokens=8, max_seq_length=129).encode(long).shape == (20,)
