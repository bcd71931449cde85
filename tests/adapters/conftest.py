"""What the tests of the adapters share. They run against the real packages, which the extra `adapters-test` installs; where
one is missing its tests are left out, but not in CI."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from encoders import tiny_gpt2

from gpt2wgpu import Encoder

PACKAGES = {"langchain": "langchain_core", "llama_index": "llama_index", "chroma": "chromadb", "sklearn": "sklearn"}
PACKAGES |= {"llm": "llm", "ray": "ray", "mteb": "mteb", "sentence_transformers": "sentence_transformers"}
PACKAGES |= {"wrapped_encoder": "sentence_transformers", "retrieval_peers": "sentence_transformers"}
PACKAGES |= {"exchange": "usearch", "map_files": "tensorboard"}

collect_ignore = [] if os.environ.get("CI") else [f"test_{n}.py" for n, p in PACKAGES.items() if find_spec(p) is None]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a prompt for queries and another for documents. Its vectors are not of length 1."""
    folder = tiny_gpt2(tmp_path_factory.mktemp("model"))
    pooling = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    transformer = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    prompts = {"prompts": {"query": "t1 t1 ", "document": "t2 "}}
    (folder / "1_Pooling").mkdir()
    for name, content in {
        "modules.json": [transformer, pooling],
        "1_Pooling/config.json": {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True},
        "config_sentence_transformers.json": prompts,
    }.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def encoder(folder: Path) -> Encoder:
    """What the adapters are compared with."""
    return Encoder(folder, device="numpy")


@pytest.fixture(autouse=True)
def in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A software GPU would be chosen by nobody."""
    monkeypatch.setenv("GPT2WGPU_DEVICE", "numpy")
