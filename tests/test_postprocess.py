"""Repairs fitted on unlabelled texts: what they do to vectors, in an Encoder, in a saved folder, and on the command line."""

import copy
import errno
import json
import pickle
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import GOLDEN
from process import Run
from safetensors import SafetensorError

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.checkpoint import saving
from gpt2wgpu.corpus.fingerprint import fingerprint
from gpt2wgpu.vectors.postprocess import FitStep, fit_steps, parse_steps

TEXTS = [f"{a} {b} {c}" for a in ("cat", "dog", "rain") for b in ("is", "on", "up") for c in ("a", "in", "it")]
STEPS = ("centre", "standardise", "whiten:4", "remove_top:2", "remove_top:1,standardise")


def cone(n: int = 400, width: int = 12) -> np.ndarray:
    """Vectors with a mean far from zero and variances from 1 to 10,000."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((n, width)) * 10 ** np.linspace(0, 2, width)
    return (mixed @ np.linalg.qr(rng.standard_normal((width, width)))[0] + 50).astype(np.float32)


def test_what_each_step_does():
    x = cone()
    centred = fit_steps(x, parse_steps("centre")).apply(x)
    assert np.abs(centred.mean(0)).max() < 1e-3 and np.allclose(centred, x - x.mean(0), atol=1e-3)
    standard = fit_steps(x, parse_steps("standardise")).apply(x)
    assert np.allclose(standard.mean(0), 0, atol=1e-3) and np.allclose(standard.std(0), 1, atol=1e-3)
    white = fit_steps(x, parse_steps("whiten:5")).apply(x)
    assert white.shape == (400, 5) and np.allclose(np.cov(white.T, bias=True), np.eye(5), atol=1e-3)
    less = fit_steps(x, parse_steps("remove_top:2")).apply(x)
    variances = np.linalg.eigvalsh(np.cov(x.T.astype(np.float64), bias=True))
    found = np.linalg.eigvalsh(np.cov(less.T.astype(np.float64), bias=True))
    assert np.allclose(found[2:], variances[:-2], rtol=1e-3) and np.abs(found[:2]).max() < 1e-4
    both = fit_steps(x, parse_steps("remove_top:2,standardise"))
    assert np.allclose(both.apply(x), fit_steps(less, parse_steps("standardise")).apply(less), atol=1e-3)


def test_whitening_keeps_the_largest_directions():
    x = cone()
    whole = np.linalg.eigh(np.cov(x.T.astype(np.float64), bias=True))
    kept = (x - x.mean(0)) @ whole[1][:, ::-1][:, :3] / np.sqrt(whole[0][::-1][:3])
    assert np.allclose(np.abs(fit_steps(x, parse_steps("whiten:3")).apply(x)), np.abs(kept), atol=1e-3)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("center", "must be of centre, standardise, whiten:K, remove_top:K"),
        ("whiten", "K a number from 1, not 'whiten'"),
        ("whiten:0", "not 'whiten:0'"),
        ("centre:2", "not 'centre:2'"),
        ("whiten:13", "vectors of 12 dimensions allow whiten:12 at most"),
        ("remove_top:12", "allow remove_top:11 at most"),
        ("", "not ''"),
    ],
)
def test_refusals(steps: str, message: str):
    with pytest.raises(UserError, match=message):
        fit_steps(cone(), parse_steps(steps))


def test_too_few_vectors():
    with pytest.raises(UserError, match="the 5 vectors span only 4 directions: fit on more texts, or with a smaller K"):
        fit_steps(cone()[:5], (FitStep("whiten", 5),))
    with pytest.raises(UserError, match="at least 2 texts, got 1"):
        fit_steps(cone()[:1], (FitStep("centre"),))
    constant = np.full((3, 2), 7, np.float32)
    assert fit_steps(constant, (FitStep("standardise"),)).apply(constant).tolist() == [[0, 0]] * 3


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", ["old_bert_mean", "new_gpt2_weighted", "new_bert_sqrt_dense"])
def test_an_encoder_and_its_saved_folder(name: str, steps: str, tmp_path: Path):
    """The Encoder applies what was fitted; so does the folder that it saves, with any pooling, and a copy or pickle of it."""
    model = Encoder(GOLDEN / "sentence_models" / name, device="numpy", pooling="max" if name == "new_bert_sqrt_dense" else None)
    fixed = model.with_postprocessing(steps, TEXTS)
    expected = fit_steps(model.encode(TEXTS), parse_steps(steps)).apply(model.encode(TEXTS))
    if is_normalised(model):
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    scale = np.abs(expected).max()
    assert np.allclose(fixed.encode(TEXTS), expected, atol=1e-3 * scale)
    fixed.save_pretrained(tmp_path / "saved")
    saved = Encoder(tmp_path / "saved", device="numpy")
    assert np.allclose(saved.encode(TEXTS), fixed.encode(TEXTS), atol=1e-5 * scale)
    for other in (copy.copy(fixed), pickle.loads(pickle.dumps(fixed))):
        assert np.array_equal(other.encode(TEXTS), fixed.encode(TEXTS))
    assert np.array_equal(
        model.encode("the cat"), Encoder(model.checkpoint.path, device="numpy", pooling=model.pooling).encode("the cat")
    )


def is_normalised(model: Encoder) -> bool:
    return type(model.modules[-1]).__name__ == "Normalize"


def test_normalised_vectors_stay_normalised(built_in: Encoder, tmp_path: Path):
    fixed = built_in.with_postprocessing("whiten:8", TEXTS)
    assert fixed.dimensions == 8 and np.allclose(np.linalg.norm(fixed.encode(TEXTS), axis=1), 1, atol=1e-5)
    again = fixed.with_postprocessing("centre", TEXTS)
    again.save_pretrained(tmp_path / "m", dtype="float32")
    names = [m["type"].rsplit(".", 1)[1] for m in json.loads((tmp_path / "m" / "modules.json").read_text())]
    assert names == ["Transformer", "Pooling", "Normalize", "Dense", "Normalize", "Dense", "Normalize"]
    assert np.allclose(Encoder(tmp_path / "m", device="numpy").encode(TEXTS), again.encode(TEXTS), atol=1e-5)


def test_on_a_device(make: Callable[..., Encoder]):
    model = make(GOLDEN / "sentence_models" / "old_bert_mean")
    fixed = model.with_postprocessing("standardise", TEXTS)
    expected = fit_steps(model.encode(TEXTS), parse_steps("standardise")).apply(model.encode(TEXTS))
    found = fixed.encode(TEXTS)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.9999


def test_a_corpus_is_not_resumed_with_another_fit(built_in: Encoder):
    prints = []
    for model in (built_in, built_in.with_postprocessing("centre", TEXTS), built_in.with_postprocessing("centre", TEXTS[:9])):
        prints.append(fingerprint(model, model.options(), "float32", {})["model"])
    assert len(set(prints)) == 3


def test_explanations_split_what_was_fitted(built_in: Encoder):
    """The map is linear, so nothing is held for it but the length before it; the mean that it subtracts is no token's share."""
    e = built_in.with_postprocessing("remove_top:1", TEXTS).explain("the cat sleeps", "a dog sings")
    assert e.shares.constant_a and abs(e.shares.tokens_a.sum() + e.shares.constant_a - e.cosine) < 1e-9


def test_commands(run: Run, tmp_path: Path, built_in: Encoder):
    texts, pairs, saved = tmp_path / "texts.txt", tmp_path / "pairs.tsv", tmp_path / "saved"
    texts.write_text("\n".join(TEXTS))
    pairs.write_text("".join(f"{i % 3}\t{a}\t{b}\n" for i, (a, b) in enumerate(pairwise(TEXTS))))
    code, out, err = run("postprocess", "whiten:8", "--fit", texts, "-o", saved)
    assert code == 0 and out == f"{saved}: 8 dimensions, mean then Normalize then Dense 8 then Normalize\n", err
    expected = Encoder(saved, device="numpy").encode("the cat sleeps")
    for more in (("--postprocess", "whiten:8", "--fit", texts), ("--model", saved)):
        code, out, err = run("embed", "the cat sleeps", *more)
        assert np.allclose(json.loads(out)["embedding"], expected, atol=1e-3), err  # saved in float16
    scores = [
        json.loads(run("evaluate", "--data", pairs, "--json", *more)[1])["scores"]["cosine"]["pearson"]
        for more in (("--postprocess", "whiten:8", "--fit", texts), ("--model", saved), ())
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3) and abs(scores[0] - scores[2]) > 0.01
    assert run("embed", "a", "--postprocess", "centre")[0] == 2
    assert run("evaluate", "--data", pairs, "--layers", "all", "--postprocess", "centre", "--fit", texts)[0] == 2
    code, _, err = run("postprocess", "whiten", "--fit", texts, "-o", tmp_path / "x")
    assert code == 1 and "K a number from 1" in err and not (tmp_path / "x").exists()


def test_a_saved_model_can_be_trained(run: Run, tmp_path: Path):
    """Its Dense is a layer like any other; frozen, it keeps its bits."""
    texts, saved = tmp_path / "texts.txt", tmp_path / "saved"
    texts.write_text("\n".join(TEXTS))
    model = Encoder(GOLDEN / "sentence_models" / "old_bert_mean", device="numpy")
    model.with_postprocessing("standardise", TEXTS).save_pretrained(saved)
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text(
        "sentence1\tsentence2\tlabel\n" + "".join(f"{a}\t{b}\t{i % 2}\n" for i, (a, b) in enumerate(pairwise(TEXTS)))
    )
    (added,) = [m.name for m in Encoder(saved, device="numpy").modules if type(m).__name__ == "Dense"]
    code, _, err = run(
        "train", "--model", saved, "--data", pairs, "--epochs", 1, "--freeze", f"{added}.*", "-o", tmp_path / "run"
    )
    assert code == 0, err
    from safetensors.numpy import load_file

    before, after = (load_file(f / added / "model.safetensors") for f in (saved, tmp_path / "run" / "model"))
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert not np.allclose(
        Encoder(tmp_path / "run" / "model", device="numpy").encode(TEXTS), Encoder(saved, device="numpy").encode(TEXTS)
    )


def test_training_can_end_with_it(run: Run, tmp_path: Path):
    """RUN/postprocessed is RUN/model with the steps fitted on the texts of the data."""
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text(
        "sentence1\tsentence2\tlabel\n" + "".join(f"{a}\t{b}\t{i % 2}\n" for i, (a, b) in enumerate(pairwise(TEXTS)))
    )
    more = ("--data", pairs, "--epochs", 1, "--postprocess", "whiten:4", "-o", tmp_path / "run")
    code, _, err = run("train", "--model", GOLDEN / "sentence_models" / "old_bert_mean", *more)
    assert code == 0, err
    trained, fixed = (Encoder(tmp_path / "run" / name, device="numpy") for name in ("model", "postprocessed"))
    assert fixed.dimensions == 4
    assert np.allclose(fixed.encode(TEXTS), trained.with_postprocessing("whiten:4", TEXTS).encode(TEXTS), atol=1e-3)
    code, _, err = run("train", "--data", pairs, "--postprocess", "whiten", "-o", tmp_path / "other")
    assert code == 1 and "K a number from 1" in err and not (tmp_path / "other").exists()
    more = ("--data", pairs, "--epochs", 1, "--postprocess", "whiten:4,remove_top:4", "-o", tmp_path / "other")
    code, _, err = run("train", "--model", GOLDEN / "sentence_models" / "old_bert_mean", *more)
    assert code == 1 and "remove_top:4: vectors of 4 dimensions allow remove_top:3 at most" in err
    assert "step 1" not in err and not (tmp_path / "other" / "model").exists()


@pytest.mark.parametrize("step", ["copied", "written"])
def test_a_full_disk_names_the_folder(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not the model that is copied, which is what Linux's error names, nor a hidden folder."""
    model = Encoder(GOLDEN / "sentence_models" / "old_bert_mean", device="numpy").with_postprocessing("centre", TEXTS)

    def fail(*given: Any, **options: Any) -> Any:
        if step == "copied":
            raise OSError(errno.ENOSPC, "No space left on device", str(given[0]), None, str(given[1]))
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(*((shutil, "copyfile", fail) if step == "copied" else (saving, "save_file", fail)))
    with pytest.raises(OSError, match="No space left on device") as caught:
        model.save_pretrained(tmp_path / "new")
    assert caught.value.filename == str(tmp_path / "new") and not [*tmp_path.iterdir()]


def test_training_on_a_full_disk_is_one_line(run: Run, tmp_path: Path):
    """safetensors has an exception of its own for that. The file that is too large for the limit is the model."""
    resource = pytest.importorskip("resource")
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("a cat\ta kitten\n" * 9)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sizes = ("--width", 64, "--layers", 1, "--heads", 2, "--context", 32, "--vocab", 257)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        code, _, err = run("train", "--data", pairs, *sizes, "-o", tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1 and "model.safetensors: File too large" in err and "Traceback" not in err
