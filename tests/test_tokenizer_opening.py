"""Which of a folder's files counts, and what a tokenizer must not do. Fields one by one: test_tokenizer_fields.py."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from tokenizers import Tokenizer as Rust
from tokenizers import models, pre_tokenizers, processors
from vocabularies import ID, bert, bert_folder, gpt2, ids, refusal

from gpt2wgpu import Encoder
from gpt2wgpu.tokenizer import Tokenizer
from gpt2wgpu.train.vocabulary import make_byte_tokenizer, save_tokenizer, train_tokenizer

GOLDEN = Path(__file__).parent / "golden"


def plain(folder: Path, kind: str = "", **options: Any) -> Tokenizer:
    return Tokenizer(folder, kind=kind, vocab=1 << 31, lower_case=False, **options)


def test_a_token_before_texts_that_is_also_the_unknown_one(tmp_path: Path):
    """As in GPT-2, whose unknown token is that which separates texts."""
    rust = Rust(models.WordLevel({"<|endoftext|>": 0, "b": 1}, unk_token="<|endoftext|>"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    rust.save(str(tmp_path / "tokenizer.json"))
    assert ids(plain(tmp_path), "b b c b") == [0, 1, 1, 0, 1]
    assert ids(plain(tmp_path), "b b c b", 3) == [0, 1, 1]
    rust.post_processor = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)])
    rust.save(str(tmp_path / "tokenizer.json"))
    assert ids(plain(tmp_path), "a b c", 3) == [0, 1, 0]


def test_two_spaces_of_xlm_roberta_are_as_in_tokenizer_json(tmp_path: Path):
    """`transformers` 5 ignores these parts of the file; version 4, with which such models were measured, does not."""
    file = GOLDEN / "tokenizer_fields" / "xlm_roberta.json"
    rust = Rust.from_file(str(file))
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    rust.save(str(tmp_path / "tokenizer.json"))
    for text in ("the cat ", "the  cat"):
        found = ids(plain(tmp_path, "xlm-roberta"), text)
        assert found == rust.encode(text).ids != ids(plain(tmp_path, "xlm-roberta"), "the cat")


def test_merges_are_not_dropped_at_random(tmp_path: Path):
    rust = Rust(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], dropout=0.5))
    rust.save(str(tmp_path / "tokenizer.json"))
    assert {tuple(ids(plain(tmp_path), "abab" * 5)) for _ in range(20)} == {(2,) * 10}


def test_a_class_decides_whose_vocabulary_files_are_read(tmp_path: Path):
    folder = bert_folder(tmp_path, tokenizer_class="BertTokenizerFast")
    assert ids(plain(folder, "roberta"), "hello")[1:-1] == [ID["hello"]]
    for change in ({"tokenizer_class": "BertJapaneseTokenizer"}, {"tokenizer_class": None}):
        tiny.write_json(folder / "tokenizer_config.json", change)
        tiny.write_json(folder / "config.json", {"tokenizer_class": "BertJapaneseTokenizer"})
        refusal(lambda: bert(folder), "config.json: tokenizer_class is 'BertJapaneseTokenizer'", "BertTokenizer")


def test_arguments_override_the_files(tmp_path: Path):
    folder = bert_folder(tmp_path, do_lower_case=True, truncation_side="right", cls_token="[CLS]")
    arguments = {"do_lower_case": False, "truncation_side": "left", "cls_token": "[PAD]", "padding_side": "left"}
    assert ids(bert(folder, arguments=arguments), "world Hello é", 4) == [ID[w] for w in ("[PAD]", "Hello", "é", "[SEP]")]
    named = "sentence_bert_config.json"
    for name in ("config", "tokenizer_class", "vocab_file", "tokenizer_file", "revision"):  # other files, another class
        refusal(lambda name=name: bert(folder, arguments={name: "x"}), named, f"'{name}'")
    refusal(lambda: gpt2(arguments={"add_eos_token": True}), named, "add_eos_token")
    assert ids(gpt2(arguments={"add_eos_token": False, "add_prefix_space": True}), "Hello world") == [18435, 995]


@pytest.mark.parametrize("make", ["bpe", "characters"])
def test_folders_say_whether_a_space_comes_before_texts(tmp_path: Path, make: str):
    """transformers 4.45 to 4.57 takes a missing add_prefix_space as false, whatever tokenizer.json says."""
    if make == "characters":
        save_tokenizer(make_byte_tokenizer(lower_case=False), tmp_path)
    else:
        save_tokenizer(train_tokenizer(["a b"] * 3, vocab=260, min_frequency=2, lower_case=False), tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["add_prefix_space"] is (make == "bpe")
    assert plain(tmp_path).plain(["b"])[0].tolist() == Rust.from_file(str(tmp_path / "tokenizer.json")).encode("b").ids


def test_the_built_in_folder_says_what_other_readers_need(built_in: Encoder):
    config = json.loads((built_in.tokenizer.folder / "tokenizer_config.json").read_text())
    assert config["add_prefix_space"] is True and config["model_max_length"] == built_in.max_seq_length
    assert built_in.tokenizer.encode(["hello world"], 9)[0][0].tolist() == [13480, 1036]
