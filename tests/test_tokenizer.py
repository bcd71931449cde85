"""Texts to token ids: GPT-2's own vocabulary, tiny BERT and RoBERTa ones."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from vocabularies import GPT2, ID, bert, bert_folder, gpt2, ids, refusal

from gpt2wgpu.tokenizer import BATCH, Tokenizer

TEXTS = [
    "Hello world",
    "",
    " ",
    "\n\n\t  indented",
    "The quick brown fox jumps over the lazy dog. " * 20,
    "Die Katze schläft; кошка спит; 猫が寝ている; القطة نائمة;고양이",
    "🐈‍⬛ 👩🏽‍🚀 e\u0301 \u200b\ufeff \x00 \x7f",
    "a" * 300,
    "<|endoftext|> in the middle <|endoftext|>",
    "don't I'll we've 3.14159 1e-10",
]


def roberta_folder(folder: Path, **config: Any) -> Path:
    vocab = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "hel", "Ġhe", "<mask>"]
    tiny.write_json(folder / "vocab.json", {token: i for i, token in enumerate(vocab)})
    (folder / "merges.txt").write_text("#version: 0.2\nh e\nĠ he\nhe l\n", "utf-8")
    tiny.write_json(folder / "tokenizer_config.json", config)
    return folder


# --- GPT-2


def test_gpt2():
    found, counts = gpt2().encode(["Hello world", " Hello world", "Hello"], 1024)
    assert [f.tolist() for f in found] == [[15496, 995], [18435, 995], [15496]]
    assert all(f.dtype == np.uint32 for f in found)
    assert counts == [2, 2, 1]


def test_gpt2_registers_its_special_token():
    assert ids(gpt2(), "a<|endoftext|>b") == [64, 50256, 65]


def test_gpt2_empty_text_is_end_of_text():
    found, counts = gpt2().encode(["", "Hello", ""], 4)
    assert [f.tolist() for f in found] == [[50256], [15496], [50256]]
    assert counts == [1, 1, 1]


def test_gpt2_from_hugging_face_names(tmp_path: Path):
    (tmp_path / "vocab.json").write_bytes((GPT2 / "encoder.json").read_bytes())
    (tmp_path / "merges.txt").write_bytes((GPT2 / "vocab.bpe").read_bytes())
    ours, theirs = gpt2(tmp_path), gpt2()
    for text in TEXTS:
        assert ids(ours, text) == ids(theirs, text)


def test_gpt2_from_tokenizer_json(tmp_path: Path):
    rust = gpt2()._tokenizer
    rust.enable_truncation(3)
    rust.enable_padding(length=9)
    rust.save(str(tmp_path / "tokenizer.json"))
    ours, theirs = gpt2(tmp_path), gpt2()
    for text in TEXTS:
        assert ids(ours, text) == ids(theirs, text)


def test_prefix_space(tmp_path: Path):
    for name in ("encoder.json", "vocab.bpe"):
        (tmp_path / name).write_bytes((GPT2 / name).read_bytes())
    tiny.write_json(tmp_path / "tokenizer_config.json", {"add_prefix_space": True})
    assert ids(gpt2(tmp_path), "Hello world") == [18435, 995]
    gpt2()._tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert ids(gpt2(tmp_path), "Hello world") == [18435, 995]


def test_tokens_that_gpt2_adds_on_request(tmp_path: Path):
    for name in ("encoder.json", "vocab.bpe"):
        (tmp_path / name).write_bytes((GPT2 / name).read_bytes())
    config: dict[str, Any] = {"add_bos_token": True, "add_eos_token": False}
    tiny.write_json(tmp_path / "tokenizer_config.json", config)
    assert ids(gpt2(tmp_path), "Hello world", 2) == [50256, 15496]
    tiny.write_json(tmp_path / "tokenizer_config.json", config | {"add_eos_token": True})
    assert ids(gpt2(tmp_path), "Hello world") == [50256, 15496, 995, 50256]
    assert ids(gpt2(tmp_path), "") == [50256, 50256]
    gpt2()._tokenizer.save(str(tmp_path / "tokenizer.json"))  # says otherwise, and comes first for `transformers` too
    assert ids(gpt2(tmp_path), "Hello world") == [15496, 995]


def test_every_byte_survives():
    tokenizer = gpt2()
    for text in TEXTS[3:]:
        tokens = [tokenizer._tokenizer.id_to_token(i) for i in ids(tokenizer, text)]
        assert decoders.ByteLevel().decode(tokens) == text


@pytest.mark.parametrize("max_length", [1, 2, 5, 1024])
def test_gpt2_truncation(max_length: int):
    tokenizer = gpt2()
    found, counts = tokenizer.encode(TEXTS, max_length)
    for text, cut, count in zip(TEXTS, found, counts, strict=True):
        whole = ids(tokenizer, text)
        assert count == len(whole)
        assert cut.tolist() == whole[:max_length]


def test_no_texts():
    assert gpt2().encode([], 5) == ([], [])


def test_many_texts_are_like_each_alone():
    tokenizer = gpt2()
    texts = [f"text {i} " * (i % 7) for i in range(BATCH + 50)]
    found, counts = tokenizer.encode(texts, 9)
    for i in (0, 1, 500, BATCH - 1, BATCH, BATCH + 49):
        alone, count = tokenizer.encode([texts[i]], 9)
        assert found[i].tolist() == alone[0].tolist()
        assert counts[i] == count[0]


def test_tuples_and_numpy_strings():
    texts = np.array(["Hello world", "Hello"])
    assert [f.tolist() for f in gpt2().encode(tuple(texts), 9)[0]] == [[15496, 995], [15496]]


def test_threads():
    tokenizer = gpt2()
    expected = {n: [f.tolist() for f in tokenizer.encode(TEXTS, n)[0]] for n in (1, 3, 8, 50)}
    wrong: list[int] = []

    def work(n: int) -> None:
        for _ in range(20):
            if [f.tolist() for f in tokenizer.encode(TEXTS, n)[0]] != expected[n]:
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in expected]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_the_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    gpt2().encode(TEXTS, 9)
    import os

    assert "TOKENIZERS_PARALLELISM" not in os.environ


def test_end_of_text_by_other_names(tmp_path: Path):
    tiny.write_json(tmp_path / "vocab.json", {"a": 0, "<end>": 1, "<begin>": 2})
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    refusal(lambda: ids(gpt2(tmp_path, vocab=3), ""), "text 0 has no tokens", "eos_token")
    tiny.write_json(tmp_path / "config.json", {"bos_token_id": 2, "eos_token_id": None})
    assert ids(gpt2(tmp_path, vocab=3), "") == [2]
    tiny.write_json(tmp_path / "tokenizer_config.json", {"bos_token": "<begin>"})
    assert ids(gpt2(tmp_path, vocab=3), "") == [2]
    tiny.write_json(tmp_path / "tokenizer_config.json", {"eos_token": {"content": "<end>", "lstrip": False}})
    assert ids(gpt2(tmp_path, vocab=3), "") == [1]
    refusal(lambda: ids(gpt2(tmp_path, vocab=1), ""), "text 0", "'<end>' (id 1)", "1 tokens of the model")


def test_the_built_in_model():
    folder = Path(__file__).parents[1] / "gpt2wgpu" / "model"
    vocab = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    found, _ = gpt2(folder, vocab=vocab).encode(TEXTS, 64)
    assert all(0 < len(f) <= 64 for f in found)
    assert found[1].tolist() == [2, 3]  # [CLS] and [SEP]


# --- BERT


def test_bert(tmp_path: Path):
    found, counts = bert(bert_folder(tmp_path)).encode(["Hello worlds", "", "q: xyz"], 9)
    assert found[0].tolist() == [ID[w] for w in ("[CLS]", "hello", "world", "##s", "[SEP]")]
    assert found[1].tolist() == [ID["[CLS]"], ID["[SEP]"]]
    assert found[2].tolist() == [ID[w] for w in ("[CLS]", "q", ":", "[UNK]", "[SEP]")]
    assert counts == [5, 2, 5]


def test_bert_truncation_keeps_the_special_tokens(tmp_path: Path):
    tokenizer = bert(bert_folder(tmp_path))
    found, counts = tokenizer.encode(["hello world hello world", "hello"], 4)
    assert found[0].tolist() == [ID[w] for w in ("[CLS]", "hello", "world", "[SEP]")]
    assert found[1].tolist() == [ID[w] for w in ("[CLS]", "hello", "[SEP]")]
    assert counts == [6, 3]
    refusal(lambda: tokenizer.encode(["hello"], 2), "max_seq_length 2", "2 special tokens")


def test_truncation_on_the_left(tmp_path: Path):
    tokenizer = bert(bert_folder(tmp_path, truncation_side="left"))
    assert ids(tokenizer, "q hello world", 4) == [ID[w] for w in ("[CLS]", "hello", "world", "[SEP]")]
    assert ids(tokenizer, "hello", 4) == [ID[w] for w in ("[CLS]", "hello", "[SEP]")]


def test_bert_options(tmp_path: Path):
    assert ids(bert(bert_folder(tmp_path)), "Hello É")[1:-1] == [ID["hello"], ID["[UNK]"]]
    assert ids(bert(bert_folder(tmp_path, do_lower_case=False)), "Hello é")[1:-1] == [ID["Hello"], ID["é"]]
    assert ids(bert(bert_folder(tmp_path, strip_accents=False)), "Hello É")[1:-1] == [ID["hello"], ID["é"]]
    folder = bert_folder(tmp_path, cls_token={"content": "[PAD]"}, sep_token="[MASK]")
    assert ids(bert(folder), "hello") == [ID["[PAD]"], ID["hello"], ID["[MASK]"]]


def test_bert_special_tokens_in_texts(tmp_path: Path):
    assert ids(bert(bert_folder(tmp_path)), "hello [MASK] [SEP]")[1:-1] == [ID["hello"], ID["[MASK]"], ID["[SEP]"]]


def test_bert_from_tokenizer_json(tmp_path: Path):
    rust = bert(bert_folder(tmp_path))._tokenizer
    rust.enable_truncation(3)
    rust.enable_padding(length=9)
    rust.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.txt").unlink()
    assert ids(bert(tmp_path), "Hello worlds") == [ID[w] for w in ("[CLS]", "hello", "world", "##s", "[SEP]")]
    tiny.write_json(tmp_path / "tokenizer_config.json", {"do_lower_case": False, "tokenizer_class": "BertTokenizer"})
    assert ids(bert(tmp_path), "Hello")[1:-1] == [ID["Hello"]]
    tiny.write_json(tmp_path / "tokenizer_config.json", {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"})
    assert ids(bert(tmp_path), "Hello")[1:-1] == [ID["hello"]]


@pytest.mark.parametrize("config", [None, {"tokenizer_class": "BertTokenizer"}, {"strip_accents": None}])
def test_bert_from_tokenizer_json_with_settings_missing_beside_it(tmp_path: Path, config: dict[str, Any] | None):
    """BERT's own settings, whatever tokenizer.json says, as `transformers` takes them."""
    rust = bert(bert_folder(tmp_path, do_lower_case=False, tokenize_chinese_chars=False, strip_accents=False))._tokenizer
    rust.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").unlink()
    if config:
        tiny.write_json(tmp_path / "tokenizer_config.json", config)
    assert ids(bert(tmp_path), "Hello É")[1:-1] == [ID["hello"], ID["[UNK]"]]
    if config is None:  # an architecture that has no tokenizer of BERT's keeps what tokenizer.json says
        assert ids(Tokenizer(tmp_path, kind="", vocab=len(ID), lower_case=False), "Hello é")[1:-1] == [ID["Hello"], ID["é"]]


def test_lower_case_of_sentence_transformers(tmp_path: Path):
    folder = bert_folder(tmp_path, do_lower_case=False)
    assert ids(bert(folder, lower_case=True), "Hello")[1:-1] == [ID["hello"]]
    assert ids(gpt2(lower_case=True), "Hello") == ids(gpt2(), "hello")


# --- RoBERTa and others


def test_roberta(tmp_path: Path):
    tokenizer = Tokenizer(roberta_folder(tmp_path), kind="roberta", vocab=265, lower_case=False)
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    assert ids(tokenizer, "hel hel") == [0, vocab["hel"], vocab["Ġhe"], vocab["l"], 2]
    assert ids(tokenizer, "") == [0, 2]
    assert ids(tokenizer, "hel <mask>") == [0, vocab["hel"], vocab["<mask>"], 2]
    assert ids(tokenizer, "hel hel", 4) == [0, vocab["hel"], vocab["Ġhe"], 2]


def test_special_tokens_that_also_occur_in_texts(tmp_path: Path):
    rust = Rust(models.WordLevel({"a": 0, "b": 1, "<s>": 2}, unk_token="b"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.post_processor = processors.TemplateProcessing(single="b <s> $A b b", special_tokens=[("b", 1), ("<s>", 2)])
    rust.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path, kind="", vocab=3, lower_case=False)
    assert ids(tokenizer, "a a b", 6) == [1, 2, 0, 0, 1, 1]
    assert ids(tokenizer, "") == [1, 2, 1, 1]


def test_special_tokens_where_the_letter_a_is_nothing(tmp_path: Path):
    rust = Rust(models.BPE({"b": 0, "<s>": 1, "</s>": 2}, []))
    rust.normalizer = normalizers.Strip()
    rust.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    rust.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path, kind="roberta", vocab=3, lower_case=False)
    assert ids(tokenizer, "bb") == [1, 0, 0, 2]
    assert ids(tokenizer, "a") == [1, 2]


# --- prompts


def test_prompt_length(tmp_path: Path):
    assert gpt2().prompt_length("query: ") == len(ids(gpt2(), "query: ")) == 3
    assert gpt2().prompt_length("query<|endoftext|>") == 1
    tokenizer = bert(bert_folder(tmp_path))
    assert tokenizer.prompt_length("q: ") == 3  # [CLS] q :
    assert tokenizer.prompt_length("") == 1
