"""LangChain."""

import asyncio
import pickle
from pathlib import Path

from encoders import refusal
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from gpt2wgpu import Encoder
from gpt2wgpu.adapters.langchain import Gpt2WgpuEmbeddings

TEXTS = ["t3 t4", "t5", "", "t6 t7 t8"]


def test_vectors_are_the_encoders(folder: Path, encoder: Encoder):
    for normalize in (False, True):
        embeddings = Gpt2WgpuEmbeddings(folder, normalize=normalize)
        assert isinstance(embeddings, Embeddings)
        assert embeddings.embed_documents(TEXTS) == encoder.encode_document(TEXTS, normalize_embeddings=normalize).tolist()
        assert embeddings.embed_query("t3") == encoder.encode_query("t3", normalize_embeddings=normalize).tolist()
        assert asyncio.run(embeddings.aembed_documents(TEXTS)) == embeddings.embed_documents(TEXTS)
        assert asyncio.run(embeddings.aembed_query("t3")) == embeddings.embed_query("t3")
    assert embeddings.embed_query("t3") != embeddings.embed_documents(["t3"])[0]  # prompts
    assert embeddings.embed_documents([]) == []


def test_a_vector_store(folder: Path):
    store = InMemoryVectorStore(Gpt2WgpuEmbeddings(folder))
    store.add_texts(TEXTS)
    found = store.as_retriever(search_kwargs={"k": 4}).invoke("t5")
    assert sorted(document.page_content for document in found) == sorted(TEXTS)


def test_a_pickle_holds_the_options_alone(folder: Path):
    embeddings = Gpt2WgpuEmbeddings(folder, normalize=True)
    before = embeddings.embed_query("t3")
    copy = pickle.loads(pickle.dumps(embeddings))
    assert (copy.model, copy.normalize) == (folder, True)
    assert copy.embed_query("t3") == before


def test_the_keywords_of_langchains_own_class(folder: Path, encoder: Encoder):
    """HuggingFaceEmbeddings' model_name, model_kwargs, encode_kwargs, query_encode_kwargs, show_progress."""
    options = {"normalize_embeddings": True, "batch_size": 2}
    embeddings = Gpt2WgpuEmbeddings(model_name=str(folder), model_kwargs={"device": "cpu"}, encode_kwargs=options)
    assert embeddings.embed_documents(TEXTS) == encoder.encode_document(TEXTS, **options).tolist()
    assert embeddings.embed_query("t3") == encoder.encode_query("t3", **options).tolist()
    plain = Gpt2WgpuEmbeddings(folder, encode_kwargs=options, query_encode_kwargs={"truncate_dim": 3})
    assert plain.embed_query("t3") == encoder.encode_query("t3", truncate_dim=3).tolist()
    for name, value in {"dtype": "float12", "revision": "main"}.items():  # over options of its own
        wrong = Gpt2WgpuEmbeddings(folder, model_kwargs={name: value})
        assert value in refusal(lambda wrong=wrong: wrong.embed_query("t3"))
    assert "model_name" in refusal(lambda: Gpt2WgpuEmbeddings(folder, model_name="b"))
    assert repr(Gpt2WgpuEmbeddings("a", normalize=True)) == (
        "Gpt2WgpuEmbeddings('a', device='auto', dtype='auto', revision=None, normalize=True)"
    )


def test_one_text_is_no_list_of_letters(folder: Path):
    embeddings = Gpt2WgpuEmbeddings(folder)
    assert "embed_documents takes several texts" in refusal(lambda: embeddings.embed_documents("alpha"))
    assert "embed_query takes one text" in refusal(lambda: embeddings.embed_query(["t3"]))


def test_errors_are_the_encoders():
    assert "no-such-folder" in refusal(lambda: Gpt2WgpuEmbeddings("./no-such-folder").embed_query("a"))
    assert "dtype" in refusal(lambda: Gpt2WgpuEmbeddings(dtype="float12").embed_documents(["a"]))
    assert "'main'" in refusal(lambda: Gpt2WgpuEmbeddings(revision="main").embed_query("a"))
