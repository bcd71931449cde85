"""Texts that every tokenizer refuses, and folders without a usable tokenizer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from vocabularies import ID, bert, bert_folder, gpt2, ids, refusal

from gpt2wgpu.tokenizer import BATCH, Tokenizer


@pytest.mark.parametrize("bad", [None, 3, b"bytes", ["a", "b"], ("a", "b"), np.float32(1), "x".encode])
def test_items_that_are_no_strings(bad: object):
    refusal(lambda: gpt2().encode(["a", bad], 9), "text 1 is ", type(bad).__name__, "expected a string")  # type: ignore[list-item]
    refusal(lambda: gpt2().encode(["a", "b", bad], 9, 4000), "text 4002 is ")  # type: ignore[list-item]


@pytest.mark.parametrize("bad", ["\ud800", "text \udfff text", "\udc80\ud800"])
def test_lone_surrogates(bad: str):
    refusal(lambda: gpt2().encode(["a", "b", "c", bad, "d"], 9), "text 3 ", "surrogate", "remove it")
    refusal(lambda: gpt2().encode(["a"] * BATCH + [bad], 9, 10), f"text {BATCH + 10} ", "surrogate")


def test_tokens_beyond_the_model():
    refusal(lambda: gpt2(vocab=900).encode(["a", "Hello world"], 9), "text 1: token 'Hello' (id 15496)", "900 tokens")
    assert ids(gpt2(vocab=900), "a Hello", 1) == [64]  # what is cut does not matter


def test_no_tokenizer(tmp_path: Path):
    refusal(lambda: gpt2(tmp_path), "tokenizer.json is missing", "vocab.json")
    refusal(lambda: bert(tmp_path), "tokenizer.json is missing", "vocab.txt")
    tiny.write_json(tmp_path / "vocab.json", {})
    refusal(lambda: gpt2(tmp_path), "tokenizer.json is missing", "merges.txt")
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"x")
    make = lambda: Tokenizer(tmp_path, kind="", vocab=9, lower_case=False)  # noqa: E731
    refusal(make, "tokenizer.json is missing", "save_pretrained")


def test_added_tokens_with_other_ids(tmp_path: Path):
    tiny.write_json(bert_folder(tmp_path) / "added_tokens.json", {"<new>": 15})
    refusal(
        lambda: bert(tmp_path), "added_tokens.json gives '<new>' the id 15, but the vocabulary gives it 14", "save_pretrained"
    )
    tiny.write_json(tmp_path / "added_tokens.json", {"<new>": 14})
    assert ids(bert(tmp_path, vocab=15), "hello <new>")[1:-1] == [ID["hello"], 14]
    tiny.write_json(tmp_path / "added_tokens.json", {"<z>": 14, "<b>": 15, "<A>": 16, "<C>": 17})  # by id, not by name
    tiny.write_json(tmp_path / "special_tokens_map.json", {"mask_token": "<A>"})  # special: matches before lower-casing
    expected = [14, 14, 15, 15, 16, ID["[UNK]"], ID["a"], ID["[UNK]"], 17, 17]
    assert ids(bert(tmp_path, vocab=18), "<z> <Z> <b> <B> <A> <a> <c> <C>")[1:-1] == expected


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b"[]", b"null", b"\xff", b'{"version": "1.0"}', b'{"model": {"type": "BPE"}}', b"[" * 10_000]
)
def test_broken_tokenizer_json(tmp_path: Path, content: bytes):
    (tmp_path / "tokenizer.json").write_bytes(content)
    refusal(lambda: gpt2(tmp_path), "tokenizer.json is not a tokenizer", "download the tokenizer again")


def test_broken_vocabularies(tmp_path: Path):
    (tmp_path / "vocab.json").write_text("[1]")
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    refusal(lambda: gpt2(tmp_path), "vocab.json", "merges.txt", "cannot be read")
    tiny.write_json(tmp_path / "vocab.json", {"a": 0, "b": 1})
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    refusal(lambda: gpt2(tmp_path), "cannot be read")  # "ab" is not in the vocabulary
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\n")
    refusal(lambda: bert(tmp_path), "vocab.txt cannot be read")
    (tmp_path / "vocab.txt").write_text("hello\n[UNK]\n[CLS]\n")
    refusal(lambda: bert(tmp_path), "vocab.txt lacks '[SEP]'")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"do_lower_case": "yes"}, ("do_lower_case is 'yes'", "true or false")),
        ({"cls_token": 3}, ("cls_token is 3", "a string")),
        ({"cls_token": "\ud800"}, ("cls_token is '\\ud800'", "a string")),
        ({"truncation_side": 1}, ("truncation_side is 1", "a string")),
    ],
)
def test_broken_tokenizer_config(tmp_path: Path, config: dict[str, Any], words: tuple[str, ...]):
    refusal(lambda: bert(bert_folder(tmp_path, **config)), "tokenizer_config.json", *words)
