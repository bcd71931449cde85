"""Which of a folder's files wins, and what a tokenizer must not do. Fields one by one: test_tokenizer_fields.py."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Rust
from vocabularies import ID, bert, bert_folder, gpt2, ids, refusal

from gpt2wgpu import Encoder
from gpt2wgpu.tokenizer import Tokenizer
from gpt2wgpu.train.vocabulary import make_byte_tokenizer, save_tokenizer, train_tokenizer

GOLDEN = Path(__file__).parent / "golden"


def plain(folder: Path, kind: str = "", **options: Any) -> Tokenizer:
    return Tokenizer(folder, kind=kind, vocab=1 << 31, lower_case=False, **options)


def test_a_token_before_texts_that_is_also_the_unknown_one(tmp_path: Path):
    """As in GPT-2, whose unknown token is also the one that separates texts."""
    rust = Rust(models.WordLevel({"<|endoftext|>": 0, "b": 1}, unk_token="<|endoftext|>"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    rust.save(str(tmp_path / "tokenizer.json"))
    assert ids(plain(tmp_path), "b b c b") == [0, 1, 1, 0, 1]
    assert ids(plain(tmp_path), "b b c b", 3) == [0, 1, 1]
    rust.post_processor = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)])
    rust.save(str(tmp_path / "tokenizer.json"))
    assert ids(plain(tmp_path), "a b c", 3) == [0, 1, 0]
    rust.pre_tokenizer = pre_tokenizers.Split("b", "isolated")  # what is tried becomes several tokens
    rust.model = models.WordLevel({"<|endoftext|>": 0, "b": 1, "a": 2}, unk_token="<|endoftext|>")
    rust.normalizer = normalizers.Replace("a", "ab")
    rust.save(str(tmp_path / "tokenizer.json"))
    assert ids(plain(tmp_path), "ab") == [2, 1, 1, 0]


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


PARTS = {
    "always": pre_tokenizers.Metaspace(prepend_scheme="always"),
    "first": pre_tokenizers.Metaspace(prepend_scheme="first"),
    "never": pre_tokenizers.Metaspace(prepend_scheme="never"),
    "with": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "without": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "splits": pre_tokenizers.WhitespaceSplit(),
}


@pytest.mark.parametrize(
    ("parts", "prepends"),
    [("always", True), ("first", True), ("never", False), ("splits with", True), ("with without", True), ("splits", None)],
)
def test_a_space_before_texts_that_contradicts_tokenizer_json(tmp_path: Path, parts: str, prepends: bool | None):
    rust = Rust(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    steps = [PARTS[part] for part in parts.split()]
    rust.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    rust.save(str(tmp_path / "tokenizer.json"))
    for value in (True, False, None):
        tiny.write_json(tmp_path / "tokenizer_config.json", {"add_prefix_space": value})
        if None in (value, prepends) or value == prepends:
            assert ids(plain(tmp_path), "a") == [0]
        else:
            refusal(lambda: plain(tmp_path), f"add_prefix_space is {value}", str(prepends).lower(), "as in tokenizer.json")


@pytest.mark.parametrize("kind", ["xlm-roberta", "camembert", "bert", "mpnet", "roberta"])
def test_special_tokens_around_texts_are_those_of_tokenizer_json(tmp_path: Path, kind: str):
    """The class's defaults apply only without a tokenizer.json; tokens that the folder names must agree with it."""
    rust = Rust(models.WordLevel({"<x>": 0, "a": 1, "<y>": 2, "<s>": 3, "[CLS]": 4}, unk_token="<x>"))
    rust.post_processor = processors.TemplateProcessing(single="<x> $A <y>", special_tokens=[("<x>", 0), ("<y>", 2)])
    rust.save(str(tmp_path / "tokenizer.json"))
    assert ids(plain(tmp_path, kind), "a") == [0, 1, 2]
    names = ("bos_token", "eos_token") if kind in ("xlm-roberta", "camembert") else ("cls_token", "sep_token")
    tiny.write_json(tmp_path / "tokenizer_config.json", dict(zip(names, ("<x>", "<y>"), strict=True)))
    assert ids(plain(tmp_path, kind), "a") == [0, 1, 2]
    for name, other, side in zip(names, ("<y>", "<x>"), ("before", "after"), strict=True):
        tiny.write_json(tmp_path / "tokenizer_config.json", {name: other})
        refusal(lambda: plain(tmp_path, kind), f"{name} is '{other}'", f"what tokenizer.json puts {side} texts")


@pytest.mark.parametrize("kind", ["", "roberta"])
def test_a_token_that_is_only_named_keeps_its_flags(tmp_path: Path, kind: str):
    """Those of tokenizer.json, where <mask> takes the spaces before it along."""
    rust = Rust.from_file(str(GOLDEN / "tokenizer_fields" / "roberta.json"))
    spaced = rust.encode("the  <mask>").ids
    rust.add_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    rust.save(str(tmp_path / "tokenizer.json"))
    tiny.write_json(tmp_path / "tokenizer_config.json", {"mask_token": "<mask>", "additional_special_tokens": ["<mask>"]})
    assert ids(plain(tmp_path, kind), "the  <mask>") == rust.encode("the  <mask>").ids != spaced


def test_a_named_token_is_special_whatever_its_flags_say(tmp_path: Path):
    token = {"content": "hello world", "special": False}
    folder = bert_folder(tmp_path, mask_token=token)
    assert ids(bert(folder, vocab=15), "hello world")[1:-1] == [len(ID)]
    bert_folder(folder, mask_token=token, split_special_tokens=True)
    assert ids(bert(folder, vocab=15), "hello world")[1:-1] == [ID["hello"], ID["world"]]
    bert_folder(folder, mask_token=None)  # none, and not that of the class
    assert ids(bert(folder), "a [MASK]")[1:-1] == [ID["a"], *[ID["[UNK]"]] * 3]


def test_a_named_token_for_padding_replaces_that_of_tokenizer_json(tmp_path: Path):
    rust = Rust(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rust.enable_padding(pad_token="b a")
    rust.save(str(tmp_path / "tokenizer.json"))
    assert ids(plain(tmp_path), "b a a b") == [3, 1, 2]
    tiny.write_json(tmp_path / "tokenizer_config.json", {"pad_token": "a b"})
    assert ids(plain(tmp_path), "b a a b") == [2, 1, 3]


def test_code_of_the_repository_is_refused(tmp_path: Path):
    """auto_map was a list once; null is none."""
    for code in (["own.Tokenizer", None], {"AutoTokenizer": ["own.Tokenizer", None]}):
        refusal(lambda code=code: bert(bert_folder(tmp_path, auto_map=code)), "auto_map is", "repository's own code")
    assert ids(bert(bert_folder(tmp_path, auto_map={"AutoTokenizer": None, "AutoConfig": "own.Config"})), "q")[1:-1] == [ID["q"]]


def test_special_tokens_map_overrides_the_configuration(tmp_path: Path):
    folder = bert_folder(tmp_path, cls_token="[CLS]", sep_token="[SEP]")
    tiny.write_json(folder / "special_tokens_map.json", {"cls_token": "[PAD]"})
    assert ids(bert(folder), "hello") == [ID[w] for w in ("[PAD]", "hello", "[SEP]")]


def test_arguments_override_the_files(tmp_path: Path):
    folder = bert_folder(tmp_path, do_lower_case=True, truncation_side="right", cls_token="[CLS]")
    arguments = {"do_lower_case": False, "truncation_side": "left", "cls_token": "[PAD]", "padding_side": "left"}
    assert ids(bert(folder, arguments=arguments), "world Hello é", 4) == [ID[w] for w in ("[PAD]", "Hello", "é", "[SEP]")]
    named = "sentence_bert_config.json"
    files = ("config", "vocab_file", "tokenizer_file", "fast_tokenizer_files", "added_tokens_decoder", "revision")
    for name in (*files, "tokenizer_class", "auto_map", "init_inputs"):  # other files, another class
        refusal(lambda name=name: bert(folder, arguments={name: "x"}), named, f"'{name}'")
    for name in ("add_bos_token", "add_eos_token"):
        refusal(lambda name=name: gpt2(arguments={name: True}), named, name)
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
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast" and config["model_max_length"] == built_in.max_seq_length
    (pieces,) = built_in.tokenizer.describe(["Hello, kittens"])
    assert [piece["text"] for piece in pieces] == ["[CLS]", "Hello", ",", "kitten", "s", "[SEP]"]
