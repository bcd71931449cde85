"""DistilBERT, MPNet and GPT-Neo: their configurations and weights, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import leaves, refusal
from safetensors.numpy import load_file, save_file

from gpt2wgpu.checkpoint import load_checkpoint
from gpt2wgpu.models.distilbert import DistilBertConfig
from gpt2wgpu.models.gpt_neo import GPTNeoConfig
from gpt2wgpu.models.mpnet import BIAS, MPNetConfig, distance_bucket

GOLDEN = Path(__file__).parent / "golden" / "models"
FOLDERS = ("distilbert", "mpnet", "gpt_neo_layer_list")


def config_of(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / name / "config.json").read_text())


def folder(path: Path, name: str, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A golden model with other fields (None: without them) or other tensors."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config_of(name) | changes))
    save_file(load_file(GOLDEN / name / "model.safetensors") if tensors is None else tensors, path / "model.safetensors")
    return path


# --- config.json


def test_configurations(tmp_path: Path):
    assert load_checkpoint(GOLDEN / "distilbert").config == DistilBertConfig(2, 3, 24, 40, 48, 64)
    assert load_checkpoint(GOLDEN / "mpnet").config == MPNetConfig(2, 3, 24, 40, 50, 64)
    assert load_checkpoint(GOLDEN / "gpt_neo").config == GPTNeoConfig(4, 3, 24, 96, 48, 64, (False, True) * 2, 5)
    assert load_checkpoint(GOLDEN / "gpt_neo_layer_list").config == GPTNeoConfig(2, 2, 18, 72, 48, 64, (True, True), 9)
    patterns = folder(tmp_path, "gpt_neo_layer_list", attention_layers=None, attention_types=[[["local"], 1], [["global"], 1]])
    assert load_checkpoint(patterns).config.local == (True, False)


def test_texts_end_where_the_positions_do():
    lengths = {name: load_checkpoint(GOLDEN / name).max_seq_length for name in FOLDERS}
    assert lengths == {"distilbert": 48, "mpnet": 50 - 2, "gpt_neo_layer_list": 48}


def test_defaults_are_those_of_the_first_releases():
    assert DistilBertConfig().default_layer == 6 and not DistilBertConfig.decoder
    assert MPNetConfig(context=514).usable_length == 512
    assert GPTNeoConfig().default_layer == 24 and GPTNeoConfig.decoder


def test_mpnet_counts_positions_from_2_whatever_the_padding_id(tmp_path: Path):
    for pad in (0, 1, 7):
        assert load_checkpoint(folder(tmp_path, "mpnet", pad_token_id=pad)).config.pad == 1


ATTENTION = 'expected "global" or "local" for each of 2 layers'


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("distilbert", {"n_heads": 5}, ("n_heads is 5", "divisor of the width, 24")),
        ("distilbert", {"dim": None}, ("embeddings.word_embeddings.weight has shape [64, 24]", "[64, 768]")),
        ("distilbert", {"activation": "mish"}, ("activation is 'mish'",)),
        ("distilbert", {"is_decoder": True}, ("is_decoder is True",)),
        ("distilbert", {"hidden_dim": 41}, ("ffn.lin1.weight has shape [40, 24]", "[41, 24]")),
        ("mpnet", {"num_attention_heads": 4}, ("relative_attention_bias.weight has shape [32, 3]", "[32, 4]")),
        ("mpnet", {"relative_attention_num_buckets": 31}, ("relative_attention_num_buckets is 31", "at least 32")),
        ("mpnet", {"relative_attention_num_buckets": 33}, ("relative_attention_bias.weight has shape [32, 3]", "[33, 3]")),
        ("mpnet", {"max_position_embeddings": 2}, ("max_position_embeddings is 2", "at least 3")),
        ("gpt_neo_layer_list", {"num_heads": 4}, ("num_heads is 4", "divisor of the width, 18")),
        ("gpt_neo_layer_list", {"window_size": 1}, ("window_size is 1", "at least 2")),
        ("gpt_neo_layer_list", {"attention_layers": ["local"]}, ("attention_layers is ['local']", ATTENTION)),
        ("gpt_neo_layer_list", {"attention_layers": ["local", "sparse"]}, ("attention_layers", ATTENTION)),
        ("gpt_neo_layer_list", {"attention_layers": {"local": 2}}, ("attention_layers", ATTENTION)),
        ("gpt_neo_layer_list", {"attention_layers": None, "attention_types": None}, ("attention_types is missing", ATTENTION)),
        *(
            ("gpt_neo_layer_list", {"attention_layers": None, "attention_types": types}, ("attention_types is ", ATTENTION))
            for types in (
                "local",
                {"local": 2},
                [["local", 2]],
                [[["local"], 3]],
                [[["local"], 2, 1]],
                [[["local"], "2"]],
                [[["local"], -2], [["global"], 4]],
                [[["local"], 10**30]],
                [[[3], 2]],
            )
        ),
        ("gpt_neo_layer_list", {"num_layers": 10**9}, ("num_layers is 1000000000", "4096 at most")),
    ],
)
def test_configs_that_are_refused(tmp_path: Path, name: str, changes: dict[str, Any], words: tuple[str, ...]):
    refusal(folder(tmp_path, name, **changes), *words)


# --- weights


@pytest.mark.parametrize("name", FOLDERS)
def test_every_missing_tensor_is_named(tmp_path: Path, name: str):
    tensors = load_file(GOLDEN / name / "model.safetensors")
    body = [n for n in tensors if not n.startswith("pooler.")]
    assert len(body) >= 28
    for gone in body:
        rest = {n: a for n, a in tensors.items() if n != gone}
        refusal(folder(tmp_path, name, rest), f"tensor {gone} is missing", list(tensors[gone].shape))


@pytest.mark.parametrize("name", FOLDERS)
def test_every_misshapen_tensor_is_named(tmp_path: Path, name: str):
    tensors = load_file(GOLDEN / name / "model.safetensors")
    for wrong in tensors:
        if not wrong.startswith("pooler."):
            changed = tensors | {wrong: np.concatenate([tensors[wrong]] * 2)}
            refusal(folder(tmp_path, name, changed), f"tensor {wrong} has shape", f"expected {list(tensors[wrong].shape)}")


@pytest.mark.parametrize(
    ("name", "more", "model"),
    [
        ("distilbert", "transformer.layer.2.ffn.lin2.bias", "DistilBertModel"),
        ("distilbert", "embeddings.token_type_embeddings.weight", "DistilBertModel"),
        ("mpnet", "encoder.layer.0.attention.attn.q.lora_A.weight", "MPNetModel"),
        ("gpt_neo_layer_list", "h.0.attn.attention.q_proj.bias", "GPTNeoModel"),
        ("gpt_neo_layer_list", "h.2.ln_1.weight", "GPTNeoModel"),
    ],
)
def test_tensors_that_nothing_would_read(tmp_path: Path, name: str, more: str, model: str):
    tensors = load_file(GOLDEN / name / "model.safetensors") | {more: np.zeros(18, np.float32)}
    refusal(folder(tmp_path, name, tensors), f"unexpected tensor '{more}'", "2 layers with the tensors of", model)


@pytest.mark.parametrize("half", ["f32", "f16"])
def test_linear_layers_without_bias_have_a_zero_one(half: str):
    c = load_checkpoint(GOLDEN / "gpt_neo_layer_list")
    assert c.absent() == {f"h.{i}.attn.attention.qkv_proj.bias" for i in range(2)}
    for name in c.absent():
        found = c.weights(leaves(c, half)[name])
        assert found.dtype == np.float32 and found.shape == (54,) and not found.any()
    tensors = load_file(GOLDEN / "gpt_neo_layer_list" / "model.safetensors")
    assert c.parameters == sum(a.size for a in tensors.values())


@pytest.mark.parametrize("half", ["f32", "f16"])
def test_biases_of_mpnet_are_by_distance(half: str):
    c = load_checkpoint(GOLDEN / "mpnet")
    table = load_file(GOLDEN / "mpnet" / "model.safetensors")[BIAS]
    found = c.weights(leaves(c, half)[BIAS])
    assert found.shape == (3, 257) and found.dtype == np.float32 and found.flags.c_contiguous
    for distance, row in {0: 0, -1: 1, -7: 7, -8: 8, -128: 15, 1: 17, 7: 23, 8: 24, 11: 24, 12: 25, 128: 31}.items():
        assert np.array_equal(found[:, 128 + distance], table[row])


def test_farther_than_128_tokens_is_one_bucket():
    """So a table of 257 columns is exact: its ends hold for all larger distances."""
    far = np.array([91, 128, 129, 1000, 1 << 30])
    assert set(distance_bucket(-far)) == {15} and set(distance_bucket(far)) == {31}
    assert np.array_equal(distance_bucket(np.arange(-128, 1)), np.sort(distance_bucket(np.arange(-128, 1)))[::-1])
