"""What training learns from and in which order, its settings, and what does not fit together."""

from dataclasses import MISSING, fields
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from refusals import one_line
from vocabularies import ID, WORDS, bert_folder

from gpt2wgpu.checkpoint import load_checkpoint
from gpt2wgpu.cli.train import train_command
from gpt2wgpu.diagnose.token_report import find_tokenizer
from gpt2wgpu.errors import UserError
from gpt2wgpu.train import data
from gpt2wgpu.train.settings import SIZES, TrainSettings, check_same, frozen_weights
from gpt2wgpu.train.start import expected_prompts, open_model
from gpt2wgpu.train.vocabulary import make_byte_tokenizer, save_tokenizer

LABELS = "sentence1\tsentence2\tlabel\nab\tcd\t1\nef\tgh\t0\nij\tkl\t1\n"
SCORES = "5\tab\tcd\n1\tef\tgh\n2\tij\tkl\n"
BARE = "ab\tcd\nef\tgh\n"


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_bytes(text.encode())
    return str(folder / name)


# --- order


def test_an_epoch_has_every_example_once_within_the_budget():
    tokens = np.random.default_rng(0).integers(1, 50, 1000)
    for budget in (60, 100, 1000, 10**6):
        found = data.epoch_batches(tokens, budget, seed=3, epoch=1)
        assert sorted(np.concatenate(found).tolist()) == [*range(1000)]
        assert max(int(tokens[b].sum()) for b in found) <= budget
        assert len(found) < 1.1 * tokens.sum() / (budget - 50) + 2  # and they are well filled
    assert len(data.epoch_batches(tokens, 1, seed=3, epoch=1)) == 1000  # what is longer than the budget goes alone


def test_order_depends_on_seed_and_epoch_alone():
    tokens = np.random.default_rng(0).integers(1, 50, 300)
    orders = [data.epoch_batches(tokens, 200, seed, epoch) for seed, epoch in ((0, 1), (0, 2), (1, 1), (0, 1))]
    flat = [[b.tolist() for b in order] for order in orders]
    assert flat[0] == flat[3] and flat[0] != flat[1] != flat[2] != flat[0]


def test_a_batch_holds_texts_of_like_length():
    tokens = np.random.default_rng(0).integers(1, 100, 5000)
    order = data.epoch_batches(tokens, 1000, seed=0, epoch=1)
    spread = np.mean([np.ptp(tokens[b]) for b in order])
    assert spread < 20 < np.ptp(tokens)
    means = [tokens[b].mean() for b in order]
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.4  # but batches come in no order of length


def test_dropout_seeds():
    seeds = {data.dropout_seed(seed, epoch, batch) for seed in range(3) for epoch in range(3) for batch in range(20)}
    assert len(seeds) == 180 and all(0 <= s < 1 << 32 for s in seeds)


# --- tokens


def test_examples(tmp_path: Path):
    save_tokenizer(make_byte_tokenizer(lower_case=False), tmp_path)
    tokenizer = find_tokenizer(tmp_path)
    with pytest.warns(UserWarning, match="1 of 6 texts have more than 4 tokens"):
        texts = data.tokenize_texts(tokenizer, ["a", "bc", "def", "ghij", "klmno", ""], 4)
    assert [bytes(texts[i].tolist()).decode() for i in range(5)] == ["a", "bc", "def", "ghij", "klmn"]
    assert texts[5].tolist() == [256] and len(texts) == 6
    pairs = data.Examples(texts, data.starts_of(0, 3), np.array([1, 0, 1]), [(3, 1.0)])
    assert len(pairs) == 3 and str(pairs) == "3 pairs" and pairs.tokens.tolist() == [3, 7, 5]
    batch = pairs.batch(np.array([2, 0]), None)
    assert batch["ids"].tolist() == [*b"klmn", 256, *b"abc"] and batch["spans"].tolist() == [[0, 4], [4, 5], [5, 6], [6, 8]]
    assert batch["positions"].tolist() == [0, 1, 2, 3, 0, 0, 0, 1]
    mixed = data.Examples(texts, data.starts_of(2, 2), None, [(2, 1.0), (2, 1.0)])
    assert str(mixed) == "2 texts and 2 pairs" and mixed.tokens.tolist() == [1, 2, 7, 5]
    batch = mixed.batch(np.array([3, 1, 2]), 1)
    assert bytes(batch["ids"][:4].tolist()) == b"klmn" and bytes(batch["ids"][5:].tolist()) == b"bcdefghij"
    assert batch["positions"].tolist() == [2, 3, 4, 5, 2, 2, 3, 2, 3, 4, 2, 3, 4, 5]  # RoBERTa counts from pad + 1
    assert mixed.pair_rows(np.array([3, 1, 2])).tolist() == [0, 3]
    assert str(data.Examples(texts, data.starts_of(1, 0), None, [])) == "1 text"


# --- files and losses


def test_the_loss_that_data_suggest(tmp_path: Path):
    for text, loss in {LABELS: "contrastive", SCORES: "cosine", BARE: "info_nce"}.items():
        assert data.choose_loss(None, [write(tmp_path, "a.tsv", text)], None) == loss
    assert data.choose_loss(None, ["never.txt"], "teacher") == data.choose_loss("distillation", [], "teacher") == "distillation"
    assert data.choose_loss("info_nce", ["never.tsv"], None) == "info_nce"


def test_pairs_as_a_loss_takes_them(tmp_path: Path):
    labels, scores, bare = (write(tmp_path, f"{i}.tsv", text) for i, text in enumerate((LABELS, SCORES, BARE)))
    assert data.read_training([labels], "info_nce", None)[0].sentences1 == ["ab", "ij"]
    assert data.read_training([bare, bare], "info_nce", 3)[0].sentences2 == ["cd", "gh", "cd"]
    assert data.read_training([bare, bare], "info_nce", 3)[1] == [2, 1] and data.read_training([labels], "info_nce", None)[1] == [
        2
    ]
    targets = data.read_training([scores, scores], "cosine", 5)[0].targets
    assert targets is not None and targets.tolist() == [1, 0, 0.25, 1, 0]
    targets = data.read_training([labels], "cosine", None)[0].targets
    assert targets is not None and targets.tolist() == [1, 0, 1]  # within 0 and 1 they stay as they are
    assert len(data.read_training([labels], "contrastive", 2)[0]) == 2
    text = write(tmp_path, "a.txt", "one\n\n  \ntwo\nthree\n")
    assert data.read_training_texts([text, labels], 5) == (["one", "two", "three", "ab", "cd"], [3, 2])


@pytest.mark.parametrize(
    "names, loss, words",
    [
        (["scores"], "contrastive", ["scores.tsv", "loss cosine"]),
        (["scores"], "info_nce", ["scores.tsv", "loss cosine"]),
        (["bare"], "contrastive", ["bare.tsv", "neither a label nor a score"]),
        (["labels", "bare"], "info_nce", ["bare.tsv", "labels.tsv", "one of the two"]),
        (["zeros"], "info_nce", ["zeros.tsv", "label 1"]),
        (["fives"], "cosine", ["fives.tsv", "all scores are 5"]),
        (["labels", "scores"], "contrastive", ["scores.tsv", "loss cosine"]),
        (["labels", "scores"], "cosine", ["scores.tsv", "labels.tsv", "one scale"]),
    ],
)
def test_pairs_that_a_loss_does_not_take(tmp_path: Path, names: list[str], loss: str, words: list[str]):
    texts = {
        "scores": SCORES,
        "labels": LABELS,
        "bare": BARE,
        "zeros": LABELS.replace("\t1", "\t0"),
        "fives": "5\ta\tb\n5\tc\td\n",
    }
    paths = [write(tmp_path, f"{name}.tsv", texts[name]) for name in names]
    with pytest.raises(UserError) as caught:
        data.read_training(paths, loss, None)
    one_line(caught.value, *words)


@pytest.mark.parametrize(
    "loss, teacher, word", [("hinge", None, "contrastive"), ("distillation", None, "teacher"), ("cosine", "t", "pairs")]
)
def test_losses_that_are_refused(loss: str, teacher: str | None, word: str):
    with pytest.raises(UserError, match=word):
        data.choose_loss(loss, ["never.tsv"], teacher)


def test_digest(tmp_path: Path):
    a, b = write(tmp_path, "a", "one"), write(tmp_path, "b", "one")
    assert data.digest_data([a, b]) == data.digest_data([b, a]) != data.digest_data([a])
    write(tmp_path, "b", "two")
    assert data.digest_data([a, b]) != data.digest_data([b, a])


# --- settings


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"batch_tokens": 0},
        {"accumulate": -1},
        {"save_every": 0},
        {"warmup": -1},
        {"limit_train": 0},
        {"seed": -1},
        {"margin": 0.0},
        {"margin": 2.1},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"lr": 0.0},
        {"lr": float("inf")},
        {"weight_decay": 1.0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"clip": 0.0},
        {"dtype": "int8"},
        {"model": "m", "layers": 2},
        {"model": "m", "tokenizer": "t"},
        {"vocab": 300, "tokenizer": "t"},
        {"data": ["a", "b"], "weight": [1.0]},
        {"data": ["a"], "weight": [0.0]},
        {"data": ["a"], "weight": [float("nan")]},
        {"data": ["a", "b"], "teacher_vectors": ["a.npy"]},
        {"data": ["a"], "hard_pairs": "p", "teacher_vectors": ["a.npy"]},
    ],
)
def test_settings_that_are_refused(options: dict[str, Any]):
    with pytest.raises(UserError) as caught:
        TrainSettings(**options)
    one_line(caught.value, [*options][-1])


def test_the_command_shows_the_defaults_that_a_run_gets():
    parameters = signature(train_command).parameters
    for field in fields(TrainSettings):
        shown = parameters[field.name]
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        assert (shown.default or default) == default, field.name
        if field.name in SIZES:
            assert shown.annotation.__metadata__[0].show_default == str(SIZES[field.name])


def test_settings_survive_the_file_and_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    settings = TrainSettings.from_options(
        {"data": ["a.tsv"], "model": "built-in", "freeze": ["wte"], "lr": 0.1, "loss": "cosine"}
    )
    assert settings.data == [str(tmp_path / "a.tsv")] and settings.model == "built-in"
    assert TrainSettings.from_json(settings.as_json(tmp_path), tmp_path) == settings
    with pytest.raises(UserError, match="another version"):
        TrainSettings.from_json({**settings.as_json(tmp_path), "more": 1}, tmp_path)
    check_same(settings, {"data": ["a.tsv"], "lr": 0.1})
    with pytest.raises(UserError, match=r"--lr is 0\.2 here and 0\.1 in the run"):
        check_same(settings, {"lr": 0.2})


def test_settings_hold_paths_as_seen_from_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    options = {"data": ["data/a.tsv", "run/b.tsv", "../c.tsv"], "validation": "d.tsv", "teacher": "run", "lr": 0.1}
    options["loss"] = "distillation"
    settings = TrainSettings.from_options(options)
    values = settings.as_json(Path("run"))
    assert values["data"] == ["../data/a.tsv", "./b.tsv", "../../c.tsv"]
    assert values["validation"] == "../d.tsv" and values["teacher"] == "./." and values["model"] is None
    for folder in (Path("run"), tmp_path / "run", Path("other/../run")):
        assert TrainSettings.from_json(values, folder) == settings
    moved = TrainSettings.from_json(values, tmp_path / "there/run")
    assert moved.validation == str(tmp_path / "there" / "d.tsv")
    elsewhere = {**values, "data": [str(tmp_path / "e.tsv")], "model": "built-in"}  # as runs of before had it
    found = TrainSettings.from_json(elsewhere, tmp_path / "there/run")
    assert found.data == [str(tmp_path / "e.tsv")] and found.model == "built-in"


def test_frozen_weights():
    names = ["wte.weight", "wpe.weight", "h.0.ln_1.bias", "h.1.ln_1.bias", "h.11.ln_1.bias", "ln_f.bias"]
    cases = {
        ("wte",): {"wte.weight"},
        ("wte.weight", "h.1"): {"wte.weight", "h.1.ln_1.bias"},
        ("layers:0-1",): {"h.0.ln_1.bias", "h.1.ln_1.bias"},
        ("layers:11",): {"h.11.ln_1.bias"},
        ("*.bias",): {"h.0.ln_1.bias", "h.1.ln_1.bias", "h.11.ln_1.bias", "ln_f.bias"},
        (): set(),
    }
    for patterns, expected in cases.items():
        assert frozen_weights(patterns, names, "h.{}.ln_1.bias") == expected
    of_bert = "encoder.layer.1.output.dense.bias"
    assert frozen_weights(["layers:1-9"], [of_bert, "other"], "encoder.layer.{}.output.dense.bias") == {of_bert}
    for wrong in (["nothing"], ["layers:2-9"], ["layers:one"], ["*"], ["w"]):
        with pytest.raises(UserError, match="freeze"):
            frozen_weights(wrong, names, "h.{}.ln_1.bias")


def test_prompts_that_a_model_expects(tmp_path: Path):
    folder = tiny.sentence_model(tmp_path / "model", tiny.bert_config())
    assert expected_prompts("model", load_checkpoint(folder)) == []
    assert expected_prompts("intfloat/e5-small-v2", load_checkpoint(folder)) == ["query", "passage"]
    tiny.write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "find: ", "document": ""}})
    assert expected_prompts("intfloat/e5-small-v2", load_checkpoint(folder)) == ["query"]


@pytest.mark.parametrize("settings", [{"do_lower_case": True}, {"tokenizer_args": {"do_lower_case": True}}])
def test_texts_are_tokenized_as_the_folder_says(settings: dict[str, Any], tmp_path: Path):
    folder = bert_folder(tiny.sentence_model(tmp_path, tiny.bert_config(vocab_size=len(WORDS))), do_lower_case=False)
    for given, word in (({}, "Hello"), (settings, "hello")):
        tiny.write_json(folder / "sentence_bert_config.json", given)
        model = open_model(TrainSettings(loss="info_nce"), folder, "numpy")
        assert model.tokenize(["Hello"]).ids.tolist() == [ID["[CLS]"], ID[word], ID["[SEP]"]]
        assert find_tokenizer(folder, None).encode(["Hello"], 9)[0][0].tolist() == [ID["[CLS]"], ID[word], ID["[SEP]"]]
