"""Training from the command line: it learns, from labels and from a teacher, on every device, and shows it."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from process import Run
from rich.console import Console
from rich.progress import Progress, TextColumn
from safetensors.numpy import load_file
from training import SCRATCH, WORDS, gpt2_teacher, losses, metrics, model_files

from gpt2wgpu import Encoder
from gpt2wgpu.cli.progress import TrainProgress
from gpt2wgpu.gpu import Device
from gpt2wgpu.progress import Bar, Lines, duration
from gpt2wgpu.train import loop, teacher
from gpt2wgpu.train.vocabulary import make_byte_tokenizer, save_tokenizer

# --- it learns


@pytest.mark.parametrize(
    "name, loss, better",
    [("labels", "contrastive", 0.5), ("scores", "cosine", 0.5), ("bare", "info_nce", 0.6)],
)
def test_it_learns(run: Run, data: Path, tmp_path: Path, name: str, loss: str, better: float):
    out = tmp_path / "run"
    args = ("--data", data / f"{name}.tsv", "--validation", data / "labels.tsv", "--epochs", 20, "--lr", 0.01)
    code, said, err = run("train", *args, *SCRATCH, "-o", out, "--batch-tokens", 256)
    assert code == 0 and f"loss {loss}, on" in err, err
    found = losses(out)
    assert np.mean(found[-5:]) < better * np.mean(found[:5])
    checks = [line for line in metrics(out) if "spearman" in line]
    assert len(checks) == 21 and checks[0]["step"] == 0 and checks[-1]["step"] == len(found)
    assert checks[-1]["accuracy"] > 0.95 > 0.8 > checks[0]["accuracy"] and checks[-1]["spearman"] > 0.8
    expected = f"{out / 'model'}: {len(found)} steps, spearman {checks[-1]['spearman']:.4f}, accuracy "
    assert said.startswith(expected) and said.count("\n") == 1
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in out.iterdir()) == ["loss.png", "metrics.jsonl", "model"]
    score = json.loads(run("evaluate", "--data", data / "labels.tsv", "--model", out / "model", "--json")[1])
    assert score["scores"]["cosine"]["spearman"] == pytest.approx(checks[-1]["spearman"], abs=0.01)  # near ties


def test_a_line_of_metrics(run: Run, data: Path, tmp_path: Path):
    run(
        "train",
        "--data",
        data / "labels.tsv",
        *SCRATCH,
        "-o",
        tmp_path / "run",
        "--epochs",
        2,
        "--warmup",
        4,
        "--batch-tokens",
        128,
    )
    found = metrics(tmp_path / "run")
    assert [line["step"] for line in found] == [*range(1, len(found) + 1)] and {line["epoch"] for line in found} == {1, 2}
    names = ["step", "epoch", "loss", "lr", "norm", "cosine_mean", "cosine_std", "texts", "seconds"]
    assert all([*line] == names for line in found)
    assert [line["lr"] for line in found[:4]] == pytest.approx([0.00025, 0.0005, 0.00075, 0.001])
    assert sum(line["texts"] for line in found) == 2 * 120


def test_the_card(run: Run, data: Path, tmp_path: Path):
    args = ("--data", data / "labels.tsv", "--validation", data / "scores.tsv", "--epochs", 1, "--freeze", "wpe")
    run("train", *args, *SCRATCH, "-o", tmp_path / "run")
    card = (tmp_path / "run/model/README.md").read_text()
    assert str(tmp_path) not in card and all(word in card for word in ("labels.tsv: 60 pairs", "scores.tsv: spearman", "wpe"))
    assert "margin 0.5" in card and "random weights" in card


def test_fine_tuning_with_frozen_weights(run: Run, data: Path, tmp_path: Path):
    source = bert(tmp_path / "bert")
    tiny.write_json(source / "config_sentence_transformers.json", {"prompts": {"query": "and "}})
    out = tmp_path / "run"
    args = ("--model", source, "--freeze", "embeddings", "--freeze", "layers:1", "--dropout", 0.2, "--accumulate", 2)
    code, _, err = run(
        "train", "--data", data / "labels.tsv", *args, "-o", out, "--epochs", 2, "--lr", 0.01, "--batch-tokens", 128
    )
    assert code == 0 and "warning: the model expects prompts (query), and training puts none before texts" in err, err
    before, after = (load_file(path / "model.safetensors") for path in (source, out / "model"))
    assert before.keys() == after.keys()
    same = {name for name in before if np.array_equal(before[name], after[name])}
    frozen = {name for name in before if name.startswith(("embeddings.LayerNorm", "embeddings.word", "encoder.layer.1."))}
    assert same == frozen and len(frozen) == 3 + 16
    positions = (before, after)
    a, b = ((t["embeddings.position_embeddings.weight"] + t["embeddings.token_type_embeddings.weight"][0]) for t in positions)
    assert np.array_equal(a, b)
    assert not np.array_equal(*(Encoder(path, device="numpy").encode(["the sun"]) for path in (source, out / "model")))


def bert(folder: Path) -> Path:
    """A little BERT with a tokenizer, as a sentence-transformers folder."""
    config = tiny.bert_config(vocab_size=30, max_position_embeddings=40)
    weights = {name: 0.2 * a if a.ndim == 2 else a for name, a in tiny.tensors(config).items()}
    tiny.sentence_model(folder, config)
    tiny.save(folder, config, weights)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "and", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


def test_seeds(run: Run, data: Path, tmp_path: Path):
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        args = ("--data", data / "labels.tsv", *SCRATCH, "--epochs", 1, "--dropout", 0.1, "--seed", seed)
        assert run("train", *args, "-o", tmp_path / name)[0] == 0
    a, b, c = (model_files(tmp_path / name) for name in "abc")
    assert a == b and a["model/model.safetensors"] != c["model/model.safetensors"]


def test_limits_float16_and_a_given_tokenizer(run: Run, data: Path, tmp_path: Path):
    save_tokenizer(make_byte_tokenizer(lower_case=False), tmp_path)
    args = ("--data", data / "labels.tsv", "--limit-train", 7, "--validation", data / "labels.tsv", "--limit-validation", 5)
    sizes = ("--tokenizer", tmp_path, "--layers", 1, "--heads", 1, "--width", 8, "--context", 64, "--max-seq-length", 12)
    code, _, err = run("train", *args, *sizes, "--dtype", "float16", "--epochs", 1, "-o", tmp_path / "run")
    assert code == 0 and "on 7 pairs" in err and "texts have more than 12 tokens" in err
    assert {a.dtype for a in load_file(tmp_path / "run/model/model.safetensors").values()} == {np.dtype(np.float16)}
    encoder = Encoder(tmp_path / "run/model", device="numpy")
    assert encoder.max_seq_length == 12 and encoder.dimensions == 8 and encoder.checkpoint.config.vocab == 257


def test_both_directions(run: Run, data: Path, tmp_path: Path):
    """Only then does the state of the first token depend on the tokens after it; sentence-transformers reads `is_causal`, too."""
    states = []
    for name, option in {"causal": (), "both": ("--bidirectional",)}.items():
        assert run("train", "--data", data / "labels.tsv", *SCRATCH, "--epochs", 2, *option, "-o", tmp_path / name)[0] == 0
        config = json.loads((tmp_path / name / "model/config.json").read_text())
        assert config.get("is_causal", True) == (not option)
        encoder = Encoder(tmp_path / name / "model", device="numpy")
        states.append([encoder.encode(text, output_value="token_embeddings")[0] for text in ("the sun", "the moon")])
        encoder.save_pretrained(tmp_path / f"saved-{name}")
        assert json.loads((tmp_path / f"saved-{name}/config.json").read_text()).get("is_causal", True) == (not option)
    (a, b), (c, d) = states
    assert np.array_equal(a, b) and np.abs(c - d).max() > 1e-3
    again = ("--data", data / "labels.tsv", "--model", tmp_path / "both/model", "--bidirectional", "-o", tmp_path / "tuned")
    code, _, err = run("train", *again)
    assert code == 1 and "bidirectional is for a model from scratch" in err


# --- a teacher


def test_a_teacher_that_is_wider(data: Path, tmp_path: Path):
    source = gpt2_teacher(tmp_path / "teacher")
    texts = (data / "texts.txt").read_text().splitlines()
    every = np.arange(len(texts))
    encoder = Encoder(source, device="numpy")
    expected = encoder.encode(texts, normalize_embeddings=True).astype(np.float16).astype(np.float32)
    whole = teacher.ask_teacher(tmp_path, encoder, texts, 8)
    assert np.array_equal(whole[every], expected) and whole.directions is None and whole.files[0].dtype == np.float16
    asked = teacher.ask_teacher(tmp_path, encoder, texts, 3)
    assert asked.directions is not None and np.allclose(asked.directions.T @ asked.directions, np.eye(3), atol=1e-5)
    found = asked[every]
    assert np.array_equal(found, expected @ asked.directions)
    singular = np.linalg.svd(expected.astype(np.float64))[1]
    assert found.shape == (len(texts), 3) and np.square(found).sum() == pytest.approx(np.square(singular[:3]).sum(), rel=1e-3)
    assert np.abs(found @ found.T - expected @ expected.T).max() < 1.1 * singular[3] ** 2
    files = {p: p.stat().st_mtime_ns for p in tmp_path.glob("teacher-*.npy")}
    again = teacher.ask_teacher(tmp_path, encoder, texts, 3)
    assert np.array_equal(again[every], found) and np.array_equal(again.directions, asked.directions)
    assert len(files) == 2 and {p: p.stat().st_mtime_ns for p in tmp_path.glob("teacher-*.npy")} == files  # made once
    teacher.ask_teacher(tmp_path, encoder, texts[:-1], 8)
    assert len([*tmp_path.glob("teacher-*.npy")]) == 3
    pooling = source / "1_Pooling" / "config.json"  # the same weights, other vectors
    modes = {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | modes))
    other = teacher.ask_teacher(tmp_path, Encoder(source, device="numpy"), texts, 8)
    assert len([*tmp_path.glob("teacher-*.npy")]) == 4 and not np.allclose(other[every], expected)


def test_tokens_begin_with_the_teachers_vectors(run: Run, data: Path, tmp_path: Path):
    """Without a step of training, a text's vector already points where the teacher's does."""
    source = gpt2_teacher(tmp_path / "teacher")
    texts = (data / "texts.txt").read_text().splitlines()
    save_tokenizer(make_byte_tokenizer(lower_case=False), tmp_path / "characters")
    sizes = ("--tokenizer", tmp_path / "characters", "--layers", 1, "--heads", 1, "--width", 4)
    args = ("--data", data / "texts.txt", "--teacher", source, *sizes, "--epochs", 1, "--lr", 1e-12, "--batch-tokens", 512)
    for name, options in {"with": (), "without": ("--no-token-vectors",)}.items():
        assert run("train", *args, *options, "-o", tmp_path / name)[0] == 0
    weights = load_file(tmp_path / "with/model/model.safetensors")
    found, position = weights["wte.weight"], weights["wpe.weight"][0]
    assert np.abs(weights["wpe.weight"] - position).max() < 1e-6 and np.abs(weights["ln_f.bias"] + position).max() < 1e-6
    encoder = Encoder(source, device="numpy")
    asked = teacher.ask_teacher(tmp_path / "with", encoder, texts, 4)
    letters = "".join(texts)
    for letter in "aeloqZ":
        vector = asked.projected(encoder.encode(letter, normalize_embeddings=True))
        length = 1e-3 / (1e-3 + letters.count(letter) / len(letters)) * np.linalg.norm(position) / 4
        assert np.abs(found[ord(letter)] - vector * length).max() < 1e-5
    assert losses(tmp_path / "with")[0] < losses(tmp_path / "without")[0]


def test_distillation(run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.progress.EVERY", 1e-9)
    source = gpt2_teacher(tmp_path / "teacher")
    args = ("--data", data / "texts.txt", "--teacher", source, "--layers", 1, "--heads", 1, "--width", 8, "--vocab", 300)
    out = tmp_path / "run"
    code, _, err = run("train", *args, "--epochs", 20, "--lr", 0.01, "--batch-tokens", 256, "-o", out)
    assert code == 0 and "loss distillation, on 120 texts" in err and re.search(r"^encoded \d+ of 120 texts, ", err, re.M), err
    found = losses(out)
    assert np.mean(found[-5:]) < 0.5 * np.mean(found[:5])
    texts = (data / "texts.txt").read_text().splitlines()
    a, b = (Encoder(path, device="numpy").encode(texts, normalize_embeddings=True) for path in (source, out / "model"))
    assert (a * b).sum(1).mean() > 0.9


# --- on a device


def test_a_device_trains_like_numpy(device: Device, run: Run, data: Path, tmp_path: Path):
    args = ("--data", data / "labels.tsv", "--validation", data / "labels.tsv", *SCRATCH, "--dropout", 0.1, "--accumulate", 2)
    for name in ("numpy", device.adapter.index):
        code, _, err = run("train", *args, "--epochs", 2, "--batch-tokens", 96, "--device", name, "-o", tmp_path / f"on_{name}")
        assert code == 0, err
    here, there = tmp_path / "on_numpy", tmp_path / f"on_{device.adapter.index}"
    assert losses(there) == pytest.approx(losses(here), rel=1e-3)
    a, b = (load_file(folder / "model/model.safetensors") for folder in (here, there))
    assert a.keys() == b.keys() and max(float(np.abs(a[name] - b[name]).max()) for name in a) < 1e-3
    code, _, err = run("train", "--resume", "--device", "numpy", "-o", there)
    assert code == 0 and re.search(r"^the run began on .* and continues on numpy: its result will have other bits", err, re.M), (
        err
    )


# --- how it is shown


def show_steps(shown: Lines) -> TrainProgress:
    report = TrainProgress(shown)
    report.begin(0, 4)
    for step in range(1, 5):
        report.step({"step": step, "loss": 1 / step, "lr": 1e-3, "texts": 8})
    report.validated({"step": 4, "spearman": 0.5, "accuracy": 0.75})
    return report


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]):
    show_steps(Lines())
    out, err = capsys.readouterr()
    assert out == "" and re.match(r"step 4 of 4: loss 0\.\d{4}, learning rate 1\.00e-03, [\d,]+ texts/s, 0:00 left\n", err)
    assert err.endswith("step 4: validation Spearman 0.5000, accuracy 0.7500\n")
    assert [duration(s) for s in (0, 61.4, 3600, 7325)] == ["0:00", "1:01", "1:00:00", "2:02:05"]


def test_a_bar_on_a_terminal():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with Progress(TextColumn("{task.fields[text]}"), console=console, auto_refresh=False) as bar:
        report = show_steps(Bar(bar))
        report.step({"step": 3, "loss": 0.1, "lr": 1e-3, "texts": 8})
        report.say("[red] a line\nof text")
        bar.refresh()
    text = screen.getvalue()
    assert "validation Spearman 0.5000" in text and r"[red] a line\nof text" in text
    shown = r"step 3 of 4: loss 0\.\d{4}, Spearman 0\.5000, accuracy 0\.7500, learning rate 1\.00e-03, [\d,]+ texts/s, 0:0\d left"
    assert re.search(shown, text)


def test_metrics_that_end_in_the_middle_of_a_line(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n{"step": 3, "lo')
    assert [line["step"] for line in loop.read_metrics(tmp_path)] == [1, 2]
    with loop.metrics_file(tmp_path, 1) as file:
        file.write('{"step": 2, "loss": 3}\n')
    assert [line["loss"] for line in loop.read_metrics(tmp_path)] == [2, 3]
    for text in ('{"step": 1}\n[1]\n{"step": 2}\n', '{"step": 1}\n{"loss": 1}\n', '{"step": 1}\n\n{"step": 2}'):
        (tmp_path / "metrics.jsonl").write_text(text)
        assert loop.read_metrics(tmp_path) == [{"step": 1}]
    (tmp_path / "metrics.jsonl").unlink()
    assert loop.read_metrics(tmp_path) == []
