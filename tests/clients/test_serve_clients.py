"""The real clients of four APIs against a live server: nothing is changed in them but the address."""

import gc
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import LiveServer

from gpt2wgpu import Encoder

TEXTS = ["The cat is sleeping", "A feline is resting", "Über den Wolken, 東京", "x"]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer() as running:
        yield running


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return Encoder(device="numpy").encode(TEXTS, normalize_embeddings=True)


@pytest.fixture(autouse=True)
def foreign_warnings() -> Iterator[None]:
    """What the clients say of themselves; some never close their connections."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        gc.collect()


def close_to(expected: np.ndarray, found: Any) -> None:
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=1e-6)


def test_openai(server: LiveServer, expected: np.ndarray):
    import openai

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        answer = client.embeddings.create(model="any", input=TEXTS)  # asks for base64
        close_to(expected, [item.embedding for item in answer.data])
        assert answer.usage.prompt_tokens > 0 and answer.model == "built-in"
        floats = client.embeddings.create(model="any", input=TEXTS[0], encoding_format="float")
        close_to(expected[:1], [item.embedding for item in floats.data])
        assert [len(client.embeddings.create(model="m", input="a", dimensions=9).data[0].embedding)] == [9]
        assert next(m.id for m in client.models.list()) == "built-in"
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            client.embeddings.create(model="any", input=[[1, 2]])
        with pytest.raises(openai.NotFoundError) as missing:
            client.models.retrieve("gpt-4")
        assert missing.value.code == "model_not_found"


def test_openai_obeys_retry_after(expected: np.ndarray):
    import openai

    with (
        LiveServer("--max-requests", "1") as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=20) as client,
    ):
        answers = run_together(8, lambda i: client.embeddings.create(model="any", input=TEXTS).data[i % 4].embedding)
        close_to(expected[[i % 4 for i in range(8)]], answers)


def run_together(count: int, work: Any) -> list[Any]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(work, range(count))]


def test_openai_in_node(server: LiveServer, expected: np.ndarray, tmp_path_factory: pytest.TempPathFactory):
    """It decodes whatever comes as base64, so floats would give a quarter of the width."""
    if shutil.which("npm") is None:
        assert not os.environ.get("CI"), "CI has npm"
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("node")
    subprocess.run(
        ["npm", "install", "--silent", "--no-fund", "--no-audit", "openai@6"], cwd=folder, check=True, capture_output=True
    )
    script = (
        "import OpenAI from 'openai'; const [,, url, texts] = process.argv;"
        "const client = new OpenAI({baseURL: url + '/v1', apiKey: 'none'});"
        "const answer = await client.embeddings.create({model: 'any', input: JSON.parse(texts)});"
        "console.log(JSON.stringify(answer.data.map((item) => item.embedding)));"
    )
    (folder / "ask.mjs").write_text(script, encoding="utf-8")
    done = subprocess.run(
        ["node", "ask.mjs", server.url, json.dumps(TEXTS)], cwd=folder, check=True, capture_output=True, text=True
    )
    close_to(expected, json.loads(done.stdout))


def test_langchain_openai(server: LiveServer, expected: np.ndarray):
    import openai
    from langchain_openai import OpenAIEmbeddings

    options = {"base_url": f"{server.url}/v1", "api_key": "none", "model": "any"}
    found = OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    close_to(expected, found.embed_documents(TEXTS))
    close_to(expected[0], found.embed_query(TEXTS[0]))
    with pytest.raises((openai.BadRequestError, OSError, ValueError)):
        OpenAIEmbeddings(**options).embed_documents(TEXTS)  # token ids: refused, or tiktoken's file is not here


def test_langchain_hugging_face(server: LiveServer, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    """Its newest version refuses a URL as the model, but takes a client that has one."""
    from huggingface_hub import InferenceClient, constants
    from langchain_huggingface import HuggingFaceEndpointEmbeddings

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # loopback is no hub
    found = HuggingFaceEndpointEmbeddings(model="any/model")
    found.client = InferenceClient(model=server.url)
    close_to(expected, found.embed_documents(TEXTS))
    close_to(expected[0], found.embed_query(TEXTS[0]))


def test_llama_index(server: LiveServer, expected: np.ndarray):
    from llama_index.embeddings.openai import OpenAIEmbedding
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    found = OpenAIEmbedding(api_base=f"{server.url}/v1", api_key="none", model_name="any")
    close_to(expected, found.get_text_embedding_batch(TEXTS))
    tei = TextEmbeddingsInference(base_url=server.url, model_name="any", text_instruction=" ", query_instruction=" ")
    close_to(expected, tei.get_text_embedding_batch(TEXTS))


def test_huggingface_hub(server: LiveServer, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import InferenceClient, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # loopback is no hub
    client = InferenceClient(model=server.url)
    close_to(expected[:1], client.feature_extraction(TEXTS[0]))
    found = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:])
    np.testing.assert_allclose(found, expected[1:] @ expected[0], atol=2e-6)


def test_chroma(server: LiveServer, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    from chromadb.utils import embedding_functions as functions

    monkeypatch.setenv("CHROMA_OPENAI_API_KEY", "none")
    close_to(expected, functions.HuggingFaceEmbeddingServer(url=f"{server.url}/embed")(TEXTS))
    openai = functions.OpenAIEmbeddingFunction(api_base=f"{server.url}/v1", model_name="any", api_key="none")
    close_to(expected, openai(TEXTS))
    ollama = functions.OllamaEmbeddingFunction(url=server.url, model_name="any")
    close_to(expected, ollama(TEXTS))


def test_litellm(server: LiveServer, expected: np.ndarray):
    import litellm

    found = litellm.embedding("openai/any", input=TEXTS, api_base=f"{server.url}/v1", api_key="none")
    close_to(expected, [item["embedding"] for item in found.data])
    null = litellm.embedding("openai/any", input=TEXTS, api_base=f"{server.url}/v1", api_key="none", encoding_format=None)
    close_to(expected, [item["embedding"] for item in null.data])
    ollama = litellm.embedding("ollama/any", input=TEXTS, api_base=server.url)
    close_to(expected, [item["embedding"] for item in ollama.data])


def test_ollama(server: LiveServer, expected: np.ndarray):
    import ollama

    client = ollama.Client(server.url)
    close_to(expected, client.embed(model="any", input=TEXTS).embeddings)
    assert next(m.model for m in client.list().models) == "built-in:latest"
    assert client.show("built-in:latest").capabilities == ["embedding"]
    assert len(client.embeddings(model="any", prompt=TEXTS[0]).embedding) == 384
    with pytest.raises(ollama.ResponseError, match="at least"):
        client.embed(model="any", input="word " * 3000, truncate=False)


def test_the_schema_against_the_server(server: LiveServer, tmp_path: Path):
    """schemathesis makes requests from /openapi.json and compares the answers with it."""
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{server.url}/openapi.json",
        "--max-examples",
        "5",
        "--workers",
        "2",
        "--seed",
        "1",
    ]
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    done = subprocess.run([*command, "--checks", checks], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
