"""What a folder says about texts: chat templates, and arguments that override other files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from refusals import refusal
from vocabularies import WORDS, bert_folder

from gpt2wgpu import Encoder
from gpt2wgpu.checkpoint import Checkpoint, load_checkpoint
from gpt2wgpu.checkpoint.graph import build_graph
from gpt2wgpu.checkpoint.settings import set_length
from gpt2wgpu.graph.tensor import Array, schedule
from gpt2wgpu.train.checkpoint import make_template, write_checkpoint

FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}


def sentence_bert(folder: Path, **content: Any) -> Path:
    tiny.write_json(tiny.sentence_model(folder) / "sentence_bert_config.json", content)
    return folder


# --- chat templates


def test_a_model_whose_texts_are_rendered_through_a_template(tmp_path: Path):
    """As sentence-transformers 5.4 and later save a base model that has one."""
    modality = {"text": FORWARD, "message": {**FORWARD, "format": "flat"}}
    folder = sentence_bert(tmp_path, modality_config=modality, module_output_name="token_embeddings")
    refusal(folder, "sentence_bert_config.json", "modality_config has a message", "chat template", "remove it")
    sentence_bert(tmp_path, modality_config={"text": FORWARD, "image": FORWARD}, module_output_name="token_embeddings")
    (folder / "chat_template.jinja").write_text("{{ messages }}")  # nothing renders it then
    assert load_checkpoint(folder).sentence_model


@pytest.mark.parametrize(
    "text", [None, {"method": "forward"}, {**FORWARD, "method_output_name": "pooler_output"}, {**FORWARD, "method": "encode"}]
)
def test_texts_that_go_through_the_model_in_another_way(tmp_path: Path, text: Any):
    refusal(sentence_bert(tmp_path, modality_config={"text": text}), "modality_config is", "last_hidden_state")
    refusal(sentence_bert(tmp_path, modality_config={"image": text}), "modality_config is", "text to be")


@pytest.mark.parametrize("template", ["", "{{ messages }}", [{"name": "default", "template": "x"}]])
def test_a_plain_model_with_a_template_in_its_tokenizers_settings(tmp_path: Path, template: Any):
    tiny.write_json(tiny.save(tmp_path, tiny.gpt2_config()) / "tokenizer_config.json", {"chat_template": template})
    refusal(tmp_path, "has a chat template and no modules.json", "tokenizer_config.json", "embed the bare texts")
    tiny.write_json(tmp_path / "tokenizer_config.json", {"chat_template": None})
    assert load_checkpoint(tmp_path).modules


def test_a_plain_model_with_a_template_in_a_file_of_its_own(tmp_path: Path):
    (tiny.save(tmp_path, tiny.gpt2_config()) / "chat_template.jinja").write_text("{{ messages }}")
    refusal(tmp_path, "has a chat template and no modules.json", "chat_template.jinja")
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "additional_chat_templates").mkdir()
    refusal(tmp_path, "additional_chat_templates")


# --- arguments of sentence_bert_config.json


@pytest.mark.parametrize("name", ["config_kwargs", "config_args"])
def test_fields_of_the_configuration_that_are_overridden(tmp_path: Path, name: str):
    changes = {"hidden_act": "relu", "layer_norm_eps": 1, "trust_remote_code": True, "revision": "main"}
    c = load_checkpoint(sentence_bert(tmp_path, **{name: changes}))
    assert (c.config.activation, c.config.eps) == ("relu", 1.0)
    assert isinstance(c.config.eps, float)


def test_an_overridden_number_of_heads_wins_whatever_its_name(tmp_path: Path):
    config = tiny.gpt2_config(num_attention_heads=8, n_head=2)
    tiny.sentence_model(tmp_path, config)
    assert load_checkpoint(tmp_path).config.heads == 8  # as in transformers, whose common names win
    tiny.write_json(tmp_path / "sentence_bert_config.json", {"config_kwargs": {"n_head": 4}})
    assert load_checkpoint(tmp_path).config.heads == 4


@pytest.mark.parametrize("name", ["tokenizer_args", "processor_kwargs"])
def test_arguments_of_the_tokenizer_are_handed_on(tmp_path: Path, name: str):
    given = {"do_lower_case": False, "truncation_side": "left", "token": None, "local_files_only": True}
    c = load_checkpoint(sentence_bert(tmp_path, **{name: given}))
    assert c.tokenizer_arguments == {"do_lower_case": False, "truncation_side": "left"}
    both = {"tokenizer_args": {"do_lower_case": False}, "processor_kwargs": {"do_lower_case": True}}
    assert load_checkpoint(sentence_bert(tmp_path, **both)).tokenizer_arguments == both["tokenizer_args"]


def test_a_length_among_the_arguments_of_the_tokenizer_wins(tmp_path: Path):
    folder = sentence_bert(tmp_path, max_seq_length=7, processor_kwargs={"model_max_length": 5})
    assert load_checkpoint(folder).max_seq_length == 5
    sentence_bert(tmp_path, max_seq_length=7, processor_kwargs={"model_max_length": 1e30})
    assert load_checkpoint(folder).max_seq_length == 9
    sentence_bert(tmp_path, processor_kwargs={"model_max_length": "5"})
    refusal(tmp_path, "model_max_length is '5'", "a positive integer")


def test_the_old_name_of_the_tokenizers_length(tmp_path: Path):
    tiny.write_json(tiny.sentence_model(tmp_path) / "tokenizer_config.json", {"max_len": 4})
    assert load_checkpoint(tmp_path).max_seq_length == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"config_kwargs": {"num_hidden_layers": 1}}, ("config_kwargs", "num_hidden_layers", "config.json instead")),
        ({"config_kwargs": {"hidden_act": "mish"}}, ("config.json", "hidden_act is 'mish'")),
        ({"config_kwargs": {"norm_eps": 1e-3}}, ("config.json", "'norm_eps' is 0.001", "not known here")),
        ({"model_kwargs": {"variant": "fp16"}}, ("model_kwargs", "variant", "not supported")),
        ({"model_args": {"quantization_config": {}}}, ("model_kwargs", "quantization_config")),
        ({"model_args": [1]}, ("model_args is [1]", "an object")),
        ({"tokenizer_args": "x"}, ("tokenizer_args is 'x'", "an object")),
        ({"tokenizer_name_or_path": "bert-base-uncased"}, ("tokenizer_name_or_path is", "in the folder")),
        ({"a_field_of_tomorrow": 1}, ("'a_field_of_tomorrow' is 1", "not known here")),
    ],
)
def test_arguments_that_are_refused(tmp_path: Path, content: dict[str, Any], words: tuple[str, ...]):
    refusal(sentence_bert(tmp_path, **content), *words)


def test_arguments_that_change_no_vector(tmp_path: Path):
    model = {"attn_implementation": "sdpa", "torch_dtype": "float16", "device_map": "auto", "trust_remote_code": True}
    settings = {"model_kwargs": model, "unpad_inputs": False, "processing_kwargs": {"chat_template": {"a": 1}}}
    assert load_checkpoint(sentence_bert(tmp_path, **settings)).tokenizer_arguments == {}


def test_the_first_length_file_that_says_anything(tmp_path: Path):
    tiny.write_json(sentence_bert(tmp_path) / "sentence_roberta_config.json", {"max_seq_length": 5})
    assert load_checkpoint(tmp_path).max_seq_length == 5


# --- lengths and prompts


@pytest.mark.parametrize(
    ("sentence", "tokenizer", "expected"),
    [
        ({"max_seq_length": 4}, {"model_max_length": 6}, 4),
        ({"max_seq_length": None}, {"model_max_length": 6}, 6),
        (None, {"model_max_length": 6}, 6),
        (None, {"model_max_length": 6.0}, 6),
        (None, {"model_max_length": 6, "max_len": 4}, 6),
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
    assert load_checkpoint(tmp_path).max_seq_length == expected


def test_max_seq_length_of_a_plain_model(tmp_path: Path):
    tiny.save(tmp_path, tiny.bert_config(model_type="roberta", pad_token_id=1))
    assert load_checkpoint(tmp_path).max_seq_length == 7
    tiny.write_json(tmp_path / "tokenizer_config.json", {"model_max_length": 5})
    tiny.write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 3, "do_lower_case": True})
    c = load_checkpoint(tmp_path)  # without modules.json sentence-transformers does not read its other files
    assert (c.max_seq_length, c.lower_case) == (5, False)


@pytest.mark.parametrize("name", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_old_names_of_the_length_file(tmp_path: Path, name: str):
    tiny.write_json(tiny.sentence_model(tmp_path) / f"sentence_{name}_config.json", {"max_seq_length": 5})
    assert load_checkpoint(tmp_path).max_seq_length == 5


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("sentence_bert_config.json", {"max_seq_length": 0}, ("max_seq_length is 0", "a positive integer")),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, ("max_seq_length is 'long'",)),
        ("sentence_bert_config.json", {"do_lower_case": "no"}, ("do_lower_case is 'no'", "true or false")),
        ("sentence_bert_config.json", {"query_expansion": {"length": 32}}, ("query_expansion is",)),
        ("sentence_bert_config.json", {"query_length": 32}, ("query_length is 32",)),
        ("sentence_bert_config.json", {"document_length": 32}, ("document_length is 32",)),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, ("transformer_task is 'fill-mask'",)),
        ("sentence_bert_config.json", {"module_output_name": "sentence_embedding"}, ("module_output_name is",)),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 4}}}, ("processing_kwargs is",)),
        ("sentence_bert_config.json", [], ("expected a JSON object",)),
        ("tokenizer_config.json", {"model_max_length": -1}, ("model_max_length is -1", "a positive integer")),
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
    c = load_checkpoint(tmp_path)
    assert (c.prompts, c.default_prompt_name) == ({"query": ""}, "query")


# --- modules and settings


def test_fields_that_nobody_knows_are_refused(tmp_path: Path):
    tiny.sentence_model(tmp_path, None, "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
    tiny.save_dense(tmp_path / "2_Dense", 8, 8)
    tiny.save_layer_norm(tmp_path / "3_LayerNorm", 8)
    for file in ("1_Pooling", "2_Dense", "3_LayerNorm", "4_Normalize", "5_Dropout", "."):
        path = tmp_path / file / ("config_sentence_transformers.json" if file == "." else "config.json")
        before = json.loads(path.read_text()) if path.exists() else {}
        tiny.write_json(path, {**before, "tomorrow": "x"})
        refusal(tmp_path, path, "'tomorrow' is 'x'", "not known here")
        tiny.write_json(path, before)
    assert len(load_checkpoint(tmp_path).modules) == 4


@pytest.mark.parametrize(("given", "expected"), [(1, True), (0, False), (True, True)])
def test_one_and_zero_for_true_and_false(tmp_path: Path, given: object, expected: bool):
    tiny.write_json(tiny.sentence_model(tmp_path, include_prompt=given) / "sentence_bert_config.json", {"do_lower_case": given})
    c = load_checkpoint(tmp_path)
    assert c.modules[0].include_prompt is c.lower_case is expected


def test_a_pooling_whose_width_is_wrong(tmp_path: Path):
    """It is what sentence-transformers reports; it computes with what comes in."""
    tiny.sentence_model(tmp_path, None, "Pooling", "Dense", word_embedding_dimension=99)
    tiny.save_dense(tmp_path / "2_Dense", 8, 3)
    assert load_checkpoint(tmp_path).modules[1].inputs == 8


@pytest.mark.parametrize(
    ("config", "words"),
    [({"dimension": 9}, ("dimension is 9", "8")), ({}, ("dimension is missing",)), ({"dimension": 8}, ("norm.bias is missing",))],
)
def test_layer_norms_that_are_refused(tmp_path: Path, config: dict[str, Any], words: tuple[str, ...]):
    tiny.sentence_model(tmp_path, None, "Pooling", "LayerNorm")
    tiny.save_layer_norm(tmp_path / "2_LayerNorm", 8, "norm.weight")
    tiny.write_json(tmp_path / "2_LayerNorm" / "config.json", config)
    refusal(tmp_path, "2_LayerNorm", *words)


def test_entries_of_modules_that_are_refused(tmp_path: Path):
    tiny.sentence_model(tmp_path, None, "Pooling", "Normalize")
    entries = json.loads((tmp_path / "modules.json").read_text())
    tiny.write_json(tmp_path / "modules.json", [{**entry, "name": "0"} for entry in entries])
    refusal(tmp_path, "modules.json", "name is '0'", "another name")
    tiny.write_json(tmp_path / "modules.json", [{**entry, "tomorrow": i} for i, entry in enumerate(entries)])
    refusal(tmp_path, "modules.json", "'tomorrow' is 0", "not known here")


@pytest.mark.parametrize("name", ["processor_kwargs", "tokenizer_args"])
def test_a_limit_that_is_saved_wins_over_an_argument_of_the_tokenizer(tmp_path: Path, name: str):
    given = {"max_seq_length": 9, name: {"model_max_length": 4, "truncation_side": "left"}, "do_lower_case": True}
    changed = set_length(given, 7)
    assert changed == {"max_seq_length": 7, name: {"model_max_length": 7, "truncation_side": "left"}, "do_lower_case": True}
    tiny.write_json(tiny.sentence_model(tmp_path) / "sentence_bert_config.json", changed)
    c = load_checkpoint(tmp_path)
    assert c.max_seq_length == 7
    saved = json.loads(make_template(c, max_seq_length=3, dtype="float32").files["sentence_bert_config.json"])
    assert saved["max_seq_length"] == saved[name]["model_max_length"] == 3


@pytest.mark.parametrize("plain", [False, True])
def test_what_a_folder_says_of_texts_is_saved(tmp_path: Path, plain: bool):
    """In the file that was read, whatever its name; what was not read stays out, as it would be read with a modules.json."""
    folder = bert_folder(tiny.sentence_model(tmp_path / "model", tiny.bert_config(vocab_size=len(WORDS))))
    arguments = {"do_lower_case": False, "cls_token": "[PAD]"}
    tiny.write_json(folder / "sentence_bert_config.json", {})
    tiny.write_json(folder / "sentence_roberta_config.json", {"max_seq_length": 5, "tokenizer_args": arguments})
    tiny.write_json(folder / "config_sentence_transformers.json", {"prompts": {"a": "q"}, "default_prompt_name": "a"})
    if plain:
        (folder / "modules.json").unlink()
    before = Encoder(folder, device="numpy")
    c = before.checkpoint
    assert c.tokenizer_arguments == ({} if plain else arguments)
    before.save_pretrained(tmp_path / "saved")
    write_checkpoint(tmp_path, make_template(c, max_seq_length=c.max_seq_length, dtype="float32"), "", weights_of(c), {})
    for name in ("saved", "model"):
        after = Encoder(tmp_path / name, device="numpy")
        assert (after.max_seq_length, after.prompts) == (before.max_seq_length, before.prompts)
        np.testing.assert_array_equal(after.encode("Hello hello"), before.encode("Hello hello"))


def weights_of(c: Checkpoint) -> dict[str, Array]:
    graph = build_graph(c, c.config.layers, "f32", c.modules)
    return {f"weight/{t.name}": c.weights(t) for t in schedule(graph) if t.is_weight and t.name not in c.absent()}


def test_a_trained_model_keeps_modules_in_folders_inside_each_other(tmp_path: Path):
    tiny.sentence_model(tmp_path)
    entries = json.loads((tmp_path / "modules.json").read_text())
    (tmp_path / "after" / "all").mkdir(parents=True)
    (tmp_path / "1_Pooling").rename(tmp_path / "after" / "all" / "pooling")
    tiny.write_json(tmp_path / "modules.json", [entries[0], {**entries[1], "path": "after/all/pooling"}])
    template = make_template(load_checkpoint(tmp_path), max_seq_length=9, dtype="float32")
    assert "after/all/pooling/config.json" in template.files
