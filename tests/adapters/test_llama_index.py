"""LlamaIndex."""

import asyncio
import pickle
from pathlib import Path

import pytest
from encoders import refusal
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from gpt2wgpu import Encoder
from gpt2wgpu.adapters.llama_index import Gpt2WgpuEmbedding

TEXTS = ["t3 t4", "t5", "", "t6 t7 t8"]


def test_vectors_are_the_encoders(folder: Path, encoder: Encoder):
    for normalize in (False, True):
        embedding = Gpt2WgpuEmbedding(model=folder, normalize=normalize)
        documents = encoder.encode_document(TEXTS, normalize_embeddings=normalize).tolist()
        assert embedding.get_text_embedding_batch(TEXTS) == documents
        assert asyncio.run(embedding.aget_text_embedding_batch(TEXTS)) == documents
        query = encoder.encode_query("t3", normalize_embeddings=normalize).tolist()
        assert embedding.get_query_embedding("t3") == query
        assert asyncio.run(embedding.aget_query_embedding("t3")) == query
        document = encoder.encode_document("t3", normalize_embeddings=normalize).tolist()
        assert document != query
        assert embedding.get_text_embedding("t3") == document
        assert asyncio.run(embedding.aget_text_embedding("t3")) == document
    assert embedding.get_text_embedding_batch([]) == []


def test_an_index(folder: Path, encoder: Encoder):
    nodes = [TextNode(text=text) for text in ("t3 t4", "t5", "t6")]
    index = VectorStoreIndex(nodes, embed_model=Gpt2WgpuEmbedding(model=folder))
    found = index.as_retriever(similarity_top_k=3).retrieve("t5")
    assert sorted(f.node.get_content() for f in found) == ["t3 t4", "t5", "t6"]
    a, b = encoder.encode_query("t5", normalize_embeddings=True), encoder.encode_document("t5", normalize_embeddings=True)
    score = next(f.score for f in found if f.node.get_content() == "t5")
    assert abs(score - float(a @ b)) < 1e-6


def test_options_come_back_from_every_kind_of_copy(folder: Path):
    embedding = Gpt2WgpuEmbedding(model=folder, device="numpy", dtype="float32", normalize=True, embed_batch_size=7)
    before = embedding.get_query_embedding("t3")
    copies = [Gpt2WgpuEmbedding.from_dict(embedding.to_dict()), Gpt2WgpuEmbedding.from_json(embedding.to_json())]
    copies += [embedding.model_copy(deep=True), pickle.loads(pickle.dumps(embedding))]
    for copy in copies:
        assert copy.to_dict() == embedding.to_dict()
        assert (copy.model_name, copy.embed_batch_size, copy.class_name()) == (str(folder), 7, "Gpt2WgpuEmbedding")
        assert copy.get_query_embedding("t3") == before
    assert Gpt2WgpuEmbedding().model_name == Gpt2WgpuEmbedding(model=None).model_name == "built-in"


def test_options_that_do_not_exist_are_refused():
    """They were ignored, silently: query_instruction is another class's name for a prompt."""
    for options in ({"normalise": True}, {"query_instruction": "query: "}):
        with pytest.raises(ValueError, match=next(iter(options))):
            Gpt2WgpuEmbedding(**options)


def test_one_text_is_no_list_of_letters(folder: Path):
    embedding = Gpt2WgpuEmbedding(model=folder)
    assert "several texts" in refusal(lambda: embedding.get_text_embedding_batch("alpha"))
    assert "several texts" in refusal(lambda: asyncio.run(embedding.aget_text_embedding_batch("alpha")))
    assert "None" in refusal(lambda: embedding.get_text_embedding(None))
    assert "text 1" in refusal(lambda: embedding.get_text_embedding_batch(["t3", None]))


def test_errors_are_the_encoders():
    assert "no-such-folder" in refusal(lambda: Gpt2WgpuEmbedding(model="./no-such-folder").get_text_embedding("a"))
    assert "dtype" in refusal(lambda: Gpt2WgpuEmbedding(dtype="float12").get_query_embedding("a"))
