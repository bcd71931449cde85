"""Every family of models: the commands, and texts as short and as long as it reads."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from process import Run

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.diagnose.doctor import check_model
from gpt2wgpu.diagnose.profile import profile_model
from gpt2wgpu.gpu import Device
from gpt2wgpu.graph.ops import attention, attention_bias

SENTENCE_MODELS = Path(__file__).parent / "golden" / "sentence_models"
FAMILIES = ("new_distilbert_mean", "old_mpnet_mean", "old_gpt_neo_weighted", "plain_gpt_neo", "old_roberta_weighted_last")
LIMIT = 64  # tokens of a text, in each of them


@pytest.mark.parametrize("name", FAMILIES)
def test_info(run: Run, name: str):
    code, out, err = run("info", "--json", "--model", SENTENCE_MODELS / name)
    assert code == 0, err
    found = json.loads(out)["model"]
    config = json.loads((SENTENCE_MODELS / name / "config.json").read_text())
    assert found["architecture"] == config["model_type"] and found["layers"] == 2 and found["width"] == found["heads"] * 8 == 16
    assert found["layer used"] == "2 of 2 (the last)"
    pooling = {"plain_gpt_neo": "last", "old_gpt_neo_weighted": "weighted_mean", "old_mpnet_mean": "mean then Normalize"}
    assert found["pooling"] == pooling.get(name, "weighted_mean + last" if "roberta" in name else "mean")


@pytest.mark.parametrize("name", FAMILIES)
def test_texts_as_long_as_the_context_longer_and_of_one_token(make: Callable[..., Encoder], name: str):
    model = make(SENTENCE_MODELS / name, max_seq_length=LIMIT)
    special = model.tokenizer.encode([""], 100)[1][0] if "gpt" not in name else 0
    words = ["a " * (LIMIT - special - 1) + "a", "a " * LIMIT + "b", "a"]
    (whole, cut, one), counts = model.tokenizer.encode(words, LIMIT)
    assert (len(whole), len(cut), len(one)) == (LIMIT, LIMIT, special + 1) and counts[1] > LIMIT
    with pytest.warns(UserWarning, match=f"^1 of 3 texts had more than {LIMIT} tokens"):
        found = model.encode(words)
    assert np.isfinite(found).all()
    assert np.array_equal(found[0], found[1]) == np.array_equal(whole, cut)
    assert np.allclose(found[2], model.encode("a"), atol=1e-6)
    with pytest.raises(UserError, match=f"text 1 has .* tokens, the model reads {LIMIT}"):
        model.encode(words, truncate=False)
    with pytest.raises(UserError, match=f"max_seq_length must be a whole number from 1 to {LIMIT}, not {LIMIT + 1}"):
        model.max_seq_length = LIMIT + 1


@pytest.mark.parametrize("name", ["old_roberta_weighted_last", "old_mpnet_mean"])
def test_padding_tokens_in_a_text(make: Callable[..., Encoder], name: str):
    """They have no position of their own."""
    model = make(SENTENCE_MODELS / name)
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        found = model.encode(["<pad>", "a<pad><pad>b", "<pad>" * 100])
    assert np.isfinite(found).all()
    assert not np.allclose(found[0], found[1])


@pytest.mark.parametrize("name", ["new_distilbert_mean", "old_mpnet_mean", "plain_gpt_neo"])
def test_doctor(monkeypatch: pytest.MonkeyPatch, device: Device, name: str):
    folder = SENTENCE_MODELS / name
    numpy_or = {"numpy": None}
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (numpy_or.get(wanted, device), "the tests'"))
    checks = list(check_model(Encoder(folder, device="gpu"), Encoder(folder, device="numpy")))
    assert [c.name for c in checks] == [f"{folder} model", "alone = in a batch"] and all(c.ok for c in checks), checks


@pytest.mark.parametrize(("name", "op"), [("old_mpnet_mean", attention_bias), ("old_gpt_neo_weighted", attention)])
def test_profile(production_device: Device, monkeypatch: pytest.MonkeyPatch, name: str, op: object):
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (production_device, "the tests'"))
    monkeypatch.setattr("gpt2wgpu.diagnose.profile.MEASURED_SECONDS", 0.05)
    model = Encoder(SENTENCE_MODELS / name, device="gpu")
    found = profile_model(model, texts=2, tokens=20)
    assert sum(line.calls for line in found.lines) == len(model.engine.program.steps)
    lines = [line for line in found.lines if line.op.startswith("attention")]
    assert {line.op for line in lines} == {op.name} and sum(line.calls for line in lines) == 2
    pairs = {"old_mpnet_mean": 2 * 2 * 20 * 20, "old_gpt_neo_weighted": 2 * (20 * 21 // 2 + 6 * 20 - 15)}[name]
    assert sum(line.flops for line in lines) == 4 * pairs * 16
