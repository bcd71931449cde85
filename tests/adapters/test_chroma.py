"""Chroma."""

import json
from collections.abc import Iterator
from pathlib import Path

import chromadb
import numpy as np
import pytest
from chromadb.config import Settings
from encoders import refusal

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.adapters.chroma import Gpt2WgpuEmbeddingFunction, _build

TEXTS = ["t3 t4", "t5", "", "t6 t7 t8"]


def open_store(folder: Path) -> chromadb.ClientAPI:
    return chromadb.PersistentClient(str(folder), Settings(anonymized_telemetry=False))


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    yield
    _build.cache_clear()


def test_vectors_are_the_encoders(folder: Path, encoder: Encoder):
    for normalize in (False, True):
        function = Gpt2WgpuEmbeddingFunction(folder, normalize=normalize)
        np.testing.assert_array_equal(function(TEXTS), encoder.encode_document(TEXTS, normalize_embeddings=normalize))
        np.testing.assert_array_equal(function.embed_query(TEXTS), encoder.encode_query(TEXTS, normalize_embeddings=normalize))
    assert function.embed_query([]) == []
    with pytest.raises(ValueError, match="non-empty"):  # Chroma's own rule
        function([])


def test_a_collection_holds_the_encoders_vectors(folder: Path, encoder: Encoder, tmp_path: Path):
    """In its space "cosine" Chroma scales what it holds, which may change last bits."""
    for space in ("l2", "ip"):
        options = {"configuration": {"hnsw": {"space": space}}, "embedding_function": Gpt2WgpuEmbeddingFunction(folder)}
        collection = open_store(tmp_path).create_collection(space * 2, **options)
        collection.add(ids=["a", "b", "c", "d"], documents=TEXTS)
        stored = collection.get(include=["embeddings"])["embeddings"]
        np.testing.assert_array_equal(np.asarray(stored), encoder.encode_document(TEXTS))


def test_a_stored_collection_finds_its_function_again(folder: Path, encoder: Encoder, tmp_path: Path, monkeypatch):
    function = Gpt2WgpuEmbeddingFunction(folder, device="numpy", normalize=True)
    collection = open_store(tmp_path).create_collection("texts", embedding_function=function)
    assert collection.configuration["hnsw"]["space"] == "cosine"
    collection.add(ids=["a", "b", "c"], documents=["t3 t4", "t5", "t6 t7 t8"])
    expected = encoder.encode_document(["t3 t4", "t5", "t6 t7 t8"], normalize_embeddings=True)
    loaded = []
    monkeypatch.setattr("gpt2wgpu.encoder.Encoder", lambda **options: loaded.append(options) or Encoder(**options))
    again = open_store(tmp_path).get_collection("texts")  # nobody says which function
    for _ in range(2):
        found = again.query(query_texts=["t5"], n_results=3)
    assert len(loaded) == 1  # not anew for every query
    assert loaded[0] == {"model": str(folder), "device": "numpy", "dtype": "auto", "revision": None}
    query = encoder.encode_query("t5", normalize_embeddings=True)
    distances = dict(zip(found["ids"][0], found["distances"][0], strict=True))
    np.testing.assert_allclose([distances[i] for i in "abc"], 1 - expected @ query, atol=1e-6)


def test_the_configuration_comes_back(folder: Path):
    for function in (Gpt2WgpuEmbeddingFunction(), Gpt2WgpuEmbeddingFunction(folder, device=1, dtype="float32", normalize=True)):
        config = json.loads(json.dumps(function.get_config()))
        copy = Gpt2WgpuEmbeddingFunction.build_from_config(config)
        assert copy.get_config() == function.get_config()
        assert not function.is_legacy()


def test_a_configuration_that_is_not_understood_is_refused():
    """It may come from a newer version, or be written by hand."""
    good = Gpt2WgpuEmbeddingFunction().get_config()
    assert "'pooling'" in refusal(lambda: Gpt2WgpuEmbeddingFunction.build_from_config({**good, "pooling": "mean"}))
    for name, value in {"model": 5, "dtype": None, "normalize": "yes", "device": True, "revision": 1}.items():
        found = refusal(lambda name=name, value=value: Gpt2WgpuEmbeddingFunction.build_from_config({**good, name: value}))
        assert f"{name}={value!r}" in found


def test_a_collection_keeps_its_model(folder: Path, tmp_path: Path):
    """Its stored vectors would not compare with new ones. The device may change."""
    collection = open_store(tmp_path).create_collection("texts", embedding_function=Gpt2WgpuEmbeddingFunction(folder))
    collection.modify(configuration={"embedding_function": Gpt2WgpuEmbeddingFunction(folder, device="numpy")})
    for options in ({"model": "built-in"}, {"model": folder, "normalize": True}, {"model": folder, "revision": "v2"}):
        other = Gpt2WgpuEmbeddingFunction(**options)
        with pytest.raises(UserError, match="make a new collection"):
            other.validate_config_update(Gpt2WgpuEmbeddingFunction(folder).get_config(), other.get_config())
        with pytest.raises(Exception, match="make a new collection"):
            collection.modify(configuration={"embedding_function": other})


def test_a_relative_folder_is_stored_whole(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    config = Gpt2WgpuEmbeddingFunction(folder.name).get_config()
    assert config["model"] == str(folder)
    assert Gpt2WgpuEmbeddingFunction("gpt2").get_config()["model"] == "gpt2"


def test_one_text_is_no_list_of_letters(folder: Path):
    function = Gpt2WgpuEmbeddingFunction(folder)
    for call in (function, function.embed_query):
        assert "several texts" in refusal(lambda call=call: call("alpha"))


def test_errors_are_the_encoders(tmp_path: Path):
    assert "no-such-folder" in refusal(lambda: Gpt2WgpuEmbeddingFunction("./no-such-folder")(["a"]))
    function = Gpt2WgpuEmbeddingFunction(dtype="float12")
    collection = open_store(tmp_path).create_collection("texts", embedding_function=function)
    assert "dtype" in refusal(lambda: collection.add(ids=["a"], documents=["a"]))
