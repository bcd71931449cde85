"""Prompts of the folder, the model's family and the user; encode_query and encode_document."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from encoders import add_tokenizer, refusal, tiny_gpt2
from process import Run

from gpt2wgpu import Encoder
from gpt2wgpu.checkpoint import prompts
from gpt2wgpu.hub.cache import Storage

BGE = "Represent this sentence for searching relevant passages: "


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are tokenised, prompt included."""
    from gpt2wgpu.tokenizer import Tokenizer

    seen: list[str] = []
    encode = Tokenizer.encode

    def recording(self: Tokenizer, texts: list[str], *args: Any) -> Any:
        seen.extend(texts)
        return encode(self, texts, *args)

    monkeypatch.setattr(Tokenizer, "encode", recording)
    return seen


def model(folder: Path, **config: Any) -> Path:
    return tiny_gpt2(folder, **config)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("intfloat/e5-small-v2", {"query": "query: ", "passage": "passage: "}),
        ("e5-base", {"query": "query: ", "passage": "passage: "}),
        ("intfloat/multilingual-e5-small", {"query": "query: ", "passage": "passage: "}),
        ("/models/BGE-small-en-v1.5/", {"query": BGE, "document": ""}),
        ("C:\\models\\bge-large-en", {"query": BGE, "document": ""}),
        ("WhereIsAI/UAE-Large-V1", {"query": BGE, "document": ""}),
        ("nomic-ai/nomic-embed-text-v1.5", None),
        ("intfloat/multilingual-e5-large-instruct", {}),
        ("someone/e5-small-v2-german", {}),
        ("/models/e5-small-v2/all-MiniLM-L6-v2", {}),
        ("BAAI/bge-m3", {}),
        ("gpt2", {}),
    ],
)
def test_families(name: str, expected: dict[str, str] | None):
    found = prompts.family_prompts([None, "x", name])
    if expected is None:
        expected = {"query": "search_query: ", "document": "search_document: "}
        found = {key: found[key] for key in expected}
    assert found == expected


def test_a_folder_is_known_by_its_name_its_cache_or_its_config(tmp_path: Path):
    cached = Storage(tmp_path, "intfloat/e5-small-v2").snapshot("0" * 40)
    for folder, config in (
        (tmp_path / "e5-small-v2", {}),
        (cached, {}),
        (tmp_path / "mine", {"_name_or_path": "intfloat/e5-small-v2"}),
    ):
        assert Encoder(model(folder, **config), device="numpy").prompts == {"query": "query: ", "passage": "passage: "}
    assert Encoder(model(tmp_path / "other", _name_or_path=5), device="numpy").prompts == {}


def test_queries_and_documents(tmp_path: Path, record: list[str]):
    encoder = Encoder(model(tmp_path / "e5-small-v2"), device="numpy")
    np.testing.assert_array_equal(encoder.encode_query("t1"), encoder.encode("t1", prompt_name="query"))
    assert encoder.encode_document(["t1", "t2"], normalize_embeddings=True).shape == (2, 8)
    assert encoder.encode_document("t3", prompt="given: ").shape == (8,)
    encoder.encode_query("t4", "passage")
    assert record == ["query: t1", "query: t1", "passage: t1", "passage: t2", "given: t3", "passage: t4"]


def test_document_passage_corpus_in_this_order(tmp_path: Path, record: list[str]):
    folder = model(tmp_path / "m")
    for given in ({"corpus": "c "}, {"corpus": "c ", "passage": "p "}, {"passage": "p ", "document": "d "}, {"other": "o "}):
        Encoder(folder, device="numpy", prompts=given).encode_document("t1")
    assert record == ["c t1", "p t1", "d t1", "t1"]


def test_without_a_query_prompt_the_default_one_is_not_taken(tmp_path: Path, record: list[str]):
    """As in sentence-transformers, where every model has the prompts query and document, even if they are empty."""
    encoder = Encoder(model(tmp_path / "m"), device="numpy", prompts={"mine": "m "}, default_prompt_name="mine")
    encoder.encode("t1")
    encoder.encode_query("t1")
    encoder.encode_document("t1")
    assert record == ["m t1", "t1", "t1"]


def test_the_folder_comes_before_the_family_and_the_user_before_both(tmp_path: Path):
    folder = tmp_path / "e5-small-v2"
    tiny.sentence_model(folder)
    add_tokenizer(folder, 13)
    tiny.write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "q: "}})
    assert Encoder(folder, device="numpy").prompts == {"query": "q: "}
    assert Encoder(folder, device="numpy", prompts={"query": "mine: "}).prompts == {"query": "mine: "}
    shutil.copytree(folder, tmp_path / "e5-base")
    file = tmp_path / "e5-base" / "config_sentence_transformers.json"
    tiny.write_json(file, {"prompts": {"query": "", "document": ""}})  # as sentence-transformers saves a model without prompts
    assert Encoder(tmp_path / "e5-base", device="numpy").prompts == {"query": "query: ", "passage": "passage: "}
    file.unlink()
    found = Encoder(tmp_path / "e5-base", device="numpy", prompts={"query": ""}).prompts
    assert found == {"query": "", "passage": "passage: "}


def test_a_prompt_that_is_expected_and_not_given_is_missed_once(tmp_path: Path):
    encoder = Encoder(model(tmp_path / "e5-small-v2"), device="numpy")
    with pytest.warns(UserWarning, match=r"trained with prompts .*\(query, passage\), and none is given") as caught:
        encoder.encode("t1")
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode("t1")
        for options in ({"prompt": ""}, {"prompt_name": "query"}):
            Encoder(tmp_path / "e5-small-v2", device="numpy").encode("t1", **options)
        for options in ({"prompts": {"query": ""}}, {"default_prompt_name": "query"}):
            Encoder(tmp_path / "e5-small-v2", device="numpy", **options).encode("t1")
        fresh = Encoder(tmp_path / "e5-small-v2", device="numpy")
        fresh.encode_query("t1")
        fresh.encode_document("t1")
    assert "'nope' is not among the model's prompts (query, passage)" in refusal(lambda: encoder.encode("t1", "nope"))


def test_on_the_command_line(run: Run, tmp_path: Path):
    folder = model(tmp_path / "bge-small-en-v1.5")
    code, plain, err = run("embed", "t1", "--model", folder)
    assert code == 0 and err.startswith("warning: ") and "was trained with prompts before its texts (query)" in err
    assert err.count("\n") == 1
    code, asked, err = run("embed", "t1", "--model", folder, "--prompt-name", "query")
    assert code == 0 and "warning" not in err
    assert json.loads(plain)["embedding"] != json.loads(asked)["embedding"]
    assert run("embed", "t1", "--model", folder, "--prompt", BGE)[1] == asked
