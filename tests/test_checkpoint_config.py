"""config.json and folders: everything that is refused."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
from refusals import refusal
from safetensors.numpy import save_file

from gpt2wgpu.checkpoint import load_checkpoint
from gpt2wgpu.errors import UserError
from gpt2wgpu.hub import BUILT_IN
from gpt2wgpu.models import ARCHITECTURES

GOLDEN = Path(__file__).parent / "golden"

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
        load_checkpoint(tmp_path)
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
        (tiny.gpt2_config(is_causal=2), ("is_causal is 2", "true or false")),
        (tiny.gpt2_config(quantization_config={"bits": 4}), ("quantization_config", "f32 or f16")),
        (tiny.bert_config(auto_map={"AutoModel": "modeling.Model"}), ("auto_map is {'AutoModel'", "the repository's own code")),
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
    assert load_checkpoint(tmp_path).config.layers == 2


# --- numbers


@pytest.mark.parametrize(
    ("name", "field", "attribute"),
    [
        ("gpt2_head_2", "layer_norm_epsilon", "eps"),
        ("bert", "layer_norm_eps", "eps"),
        ("mpnet", "layer_norm_eps", "eps"),
        ("gpt_neo", "layer_norm_epsilon", "eps"),
        ("modernbert", "norm_eps", "eps"),
        ("nomic_bert", "layer_norm_eps", "eps"),
        ("qwen3", "rms_norm_eps", "eps"),
        ("qwen3", "rope_parameters", "theta"),
    ],
)
def test_a_float_that_is_written_without_a_point_is_a_float(tmp_path: Path, name: str, field: str, attribute: str):
    """A shader reads the bits of an integer as another number."""
    shutil.copytree(GOLDEN / "models" / name, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config[field] = {"rope_theta": 7} if field == "rope_parameters" else 7
    tiny.write_json(tmp_path / "config.json", config)
    found = getattr(load_checkpoint(tmp_path).config, attribute)
    assert found == 7.0 and isinstance(found, float)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_defaults_of_a_configuration_make_a_graph(name: str):
    config = ARCHITECTURES[name]()
    assert config.hidden(config.layers).shape == ("T", config.width)


def test_the_built_in_model_is_stored_in_int8_and_declared_float32():
    """With scales in float16. So that others compute in float32: float16 is slow on a CPU, and an empty text gave NaN there."""
    config = json.loads((BUILT_IN / "config.json").read_text())
    assert config["torch_dtype"] == "float32"
    c = load_checkpoint(BUILT_IN)
    assert {entry.dtype for entry in c._body.tensors.entries.values()} == {"I8", "F16"}


# --- folders


def test_absent_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    refusal(Path("gpt2"), "no folder gpt2", "a folder in Hugging Face layout")
    refusal(Path("openai/gpt2\n"), "a folder in Hugging Face layout")


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
