"""Scores on pairs of sentences: the measures against scipy and scikit-learn, the command against the encoder."""

import builtins
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from process import Run, command, environment

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.evaluation import scores as scores_module
from gpt2wgpu.evaluation.scores import evaluate_layers, evaluate_pairs, pair_measures, parse_layers
from gpt2wgpu.files.pairs import Pairs, read_pairs
from gpt2wgpu.train.data import take_pairs

DATA = Path(__file__).parent.parent / "data_sets" / "test.tsv"
SIMILARITY = np.array([0.91, 0.3, 0.55, 0.55, -0.2, 0.7, 0.3, 0.12, 0.55, 0.99, 0.05, 0.41, 0.3, 0.62])  # with ties
LABELS = np.array([1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1.0])
SCORES = np.array([5, 1.5, 3, 2, 0, 4, 1.5, 0.5, 2, 4.8, 0, 2, 1, 5])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(device="numpy")


def test_measures_of_scores():
    """scipy 1.17: spearmanr, pearsonr"""
    found = pair_measures(SIMILARITY, SCORES, labelled=False)
    assert found == pytest.approx({"spearman": 0.9608944545393431, "pearson": 0.9188607411871904})


def test_measures_of_labels():
    """scipy 1.17, scikit-learn 1.9 (average_precision_score, roc_auc_score), and for accuracy and threshold
    sentence-transformers 6.2 (BinaryClassificationEvaluator.find_best_acc_and_threshold)"""
    expected = {"spearman": 0.6863699104634178, "pearson": 0.6585528162475847, "accuracy": 12 / 14, "threshold": 0.585}
    expected |= {"average_precision": 0.8766233766233766, "auc": 0.8958333333333334}
    assert pair_measures(SIMILARITY, LABELS, labelled=True) == pytest.approx(expected)


def test_accuracy_is_what_the_threshold_gives():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(2, 40))
        similarity, labels = np.round(rng.standard_normal(n), int(rng.integers(0, 3))), rng.integers(0, 2, n).astype(np.float64)
        labels[:2] = 0, 1
        found = pair_measures(similarity, labels, labelled=True)
        best = max(np.mean((similarity >= t) == labels) for t in [*similarity, np.inf])
        assert found["accuracy"] == best == np.mean((similarity >= found["threshold"]) == labels)
        pairs = [(a > b) + (a == b) / 2 for a in similarity[labels == 1] for b in similarity[labels == 0]]
        assert found["auc"] == pytest.approx(np.mean(pairs))


def test_similarities_that_are_all_the_same():
    """Nothing can be told: no correlation, and no NaN that would be no JSON."""
    found = pair_measures(np.full(4, 0.5, np.float32), np.array([0, 1, 1, 1.0]), labelled=True)
    expected = {"spearman": 0, "pearson": 0, "accuracy": 0.75, "threshold": 0.5, "average_precision": 0.75, "auc": 0.5}
    assert found == expected


def test_distances_are_negated_and_every_sentence_is_encoded_once(encoder: Encoder, monkeypatch: pytest.MonkeyPatch):
    pairs = read_pairs(str(DATA))
    asked: list[str] = []

    def encode(texts: list[str], **options: object) -> np.ndarray:
        asked.extend(texts)
        return original(texts, **options)

    original: Callable[..., np.ndarray] = encoder.encode
    monkeypatch.setattr(encoder, "encode", encode)
    pairs.sentences1[3] = pairs.sentences2[5] = pairs.sentences1[7]
    found = evaluate_pairs(encoder, pairs)
    assert len(asked) == len(set(asked)) == 718
    # of vectors of length 1 all but manhattan give the same order
    assert found["cosine"]["auc"] == pytest.approx(found["euclidean"]["auc"], abs=1e-3)
    assert found["cosine"]["auc"] == pytest.approx(found["manhattan"]["auc"], abs=0.02)


def test_pairs_that_nothing_can_be_measured_with(encoder: Encoder):
    for targets, message in {
        None: "have neither labels nor scores",
        (1.0, float("nan")): "the target of pair 1 is nan, expected a finite number",
        (1.0, 1.0): "all 2 pairs have the same target",
    }.items():
        pairs = Pairs(["a", "b"], ["c", "d"], None if targets is None else np.array(targets))
        with pytest.raises(UserError, match=message):
            evaluate_pairs(encoder, pairs)
        with pytest.raises(UserError, match=message):
            next(evaluate_layers(encoder, [0], pairs))


def test_layers(encoder: Encoder):
    assert parse_layers("all", 3) == [0, 1, 2, 3] and parse_layers("3, 1,3", 3) == [1, 3]
    for wrong in ("", "1-3", "4", "one", "-1", "1,,2"):
        with pytest.raises(UserError, match="layer"):
            parse_layers(wrong, 3)


# --- the command


def test_the_command(run: Run, encoder: Encoder):
    expected = evaluate_pairs(encoder, read_pairs(str(DATA)))
    code, out, err = run("evaluate", "--data", DATA)
    assert (code, err) == (0, "") and "360 pairs with labels, 180 of them 1\n" in out
    assert f"layer {encoder.layers} of {encoder.layers}" in out
    rows = {line.split()[0]: [float(x) for x in line.split()[1:]] for line in out.splitlines()[-4:]}
    for name, values in expected.items():
        assert rows[name] == pytest.approx([*values.values()], abs=5.1e-5)
    found = json.loads(run("evaluate", "--data", DATA, "--json")[1])
    assert (
        found["scores"] == expected
        and found["pairs"] == 360
        and found["targets"] == "labels"
        and found["layer"] == encoder.layers
    )


def test_scores_and_options(run: Run, tmp_path: Path):
    (tmp_path / "sts.tsv").write_text("5\ta cat\tthe cat\n0.5\ta cat\tstock markets\n3\tdogs\ta dog barks loudly today\n")
    code, out, _ = run("evaluate", "--data", tmp_path / "sts.tsv")
    assert code == 0 and "3 pairs with scores from 0.5 to 5\n" in out and "accuracy" not in out
    options = "--layer", "2", "--pooling", "max", "--prompt", "query: ", "--normalize"
    found = json.loads(run("evaluate", "--data", tmp_path / "sts.tsv", "--json", *options)[1])
    other = Encoder(device="numpy", layer=2, pooling="max")
    expected = evaluate_pairs(other, read_pairs(str(tmp_path / "sts.tsv")), prompt="query: ", normalize_embeddings=True)
    assert found["scores"] == expected and found["layer"] == 2
    code, out, err = run("evaluate", "--data", tmp_path / "sts.tsv", "--max-seq-length", "3", "--no-truncate")
    assert (code, out) == (1, "") and "tokens" in err


def test_all_layers(run: Run, tmp_path: Path):
    (tmp_path / "a.tsv").write_text("".join(DATA.read_text(encoding="utf-8").splitlines(True)[:31]), encoding="utf-8")
    pairs = read_pairs(str(tmp_path / "a.tsv"))
    expected = {n: evaluate_pairs(Encoder(device="numpy", layer=n), pairs) for n in range(7)}
    plot = tmp_path / "layers.png"
    code, out, err = run("evaluate", "--data", tmp_path / "a.tsv", "--layers", "all", "--plot", plot)
    assert (code, err) == (0, "") and plot.read_bytes().startswith(b"\x89PNG")
    rows = [line.split() for line in out.splitlines() if re.match(r" +\d ", line)]
    assert [int(row[0]) for row in rows] == [*range(7)]
    for j, name in enumerate(expected[0], 1):
        column = [expected[n][name]["spearman"] for n in range(7)]
        assert [row[j] for row in rows] == [f"{x:.4f}" + "*" * (x == max(column)) for x in column]
    found = json.loads(run("evaluate", "--data", tmp_path / "a.tsv", "--layers", "5,0", "--json")[1])
    assert [row["layer"] for row in found["layers"]] == [0, 5] and found["layers"][1]["scores"] == expected[5]
    assert found["best_layer"] == max((0, 5), key=lambda n: expected[n]["cosine"]["spearman"])


@pytest.mark.parametrize("numbers", [1 << 28, 2 * 60 * 384, 1])
def test_layers_in_one_pass_or_several(numbers: int, encoder: Encoder, monkeypatch: pytest.MonkeyPatch):
    """Vectors cut and normalised layer by layer."""
    monkeypatch.setattr(scores_module, "LAYER_NUMBERS", numbers)
    pairs = read_pairs(str(DATA))
    pairs = take_pairs(pairs, np.arange(75, 105))
    compiled: list[int] = []
    with_layers = Encoder.with_layers
    monkeypatch.setattr(Encoder, "with_layers", lambda self, layers: compiled.append(len(layers)) or with_layers(self, layers))
    cut = Encoder(device="numpy", truncate_dim=100)
    found = dict(evaluate_layers(cut, [1, 4, 5], pairs, normalize_embeddings=True, prompt="query: "))
    assert compiled == {1 << 28: [3], 2 * 60 * 384: [2, 1], 1: [1, 1, 1]}[numbers]
    for layer, scores in found.items():
        alone = Encoder(device="numpy", layer=layer, truncate_dim=100)
        assert scores == evaluate_pairs(alone, pairs, normalize_embeddings=True, prompt="query: ")


def test_a_cut_text_is_told_once(run: Run, tmp_path: Path):
    (tmp_path / "a.tsv").write_text(f"5\ta cat\t{'word ' * 600}\n1\ta\tb\n")
    code, out, err = run("evaluate", "--data", tmp_path / "a.tsv", "--layers", "0,1,2")
    assert code == 0 and out and re.fullmatch(r"warning: 1 of 4 texts [^\n]*\n", err)


@pytest.mark.parametrize(
    "args, code, message",
    [
        ([], 2, "--data"),
        (["--data", "nope.tsv"], 1, "nope.tsv: No such file or directory"),
        (["--data", "one.tsv"], 1, "all 2 pairs have the same target"),
        (["--data", "bad.tsv"], 1, "bad.tsv: row 2: score is 'high'"),
        (["--data", "good.tsv", "--layers", "7"], 1, "layer must be a whole number from 0 to 6"),
        (["--data", "good.tsv", "--layers", "1", "--layer", "1"], 2, "--layers"),
        (["--data", "good.tsv", "--plot", "a.png"], 2, "--layers"),
        (["--data", "good.tsv", "--layers", "1", "--plot", "a.jpg"], 1, "a.jpg: the name must end in one of .png"),
        (["--data", "good.tsv", "--layers", "1", "--plot", "nope/a.png"], 1, "no folder"),
    ],
)
def test_errors(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, message: str):
    monkeypatch.chdir(tmp_path)
    files = {"good.tsv": "1\ta\tb\n0\tc\td\n", "one.tsv": "1\ta\tb\n1\tc\td\n", "bad.tsv": "1\ta\tb\nhigh\tc\td\n"}
    for name, text in files.items():
        Path(name).write_text(text)
    found, out, err = run("evaluate", *args)
    assert (found, out) == (code, "") and message in err and (code == 2 or err.count("\n") == 1)
    assert {p.name for p in tmp_path.iterdir()} == set(files)


def test_without_matplotlib_one_line_says_what_to_install(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    original = builtins.__import__

    def refuse(name: str, *args: object, **keywords: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    code, out, err = run("evaluate", "--data", DATA, "--layers", "all", "--plot", tmp_path / "a.png")
    assert (code, out) == (1, "") and re.fullmatch(r"error: [^\n]*pip install matplotlib\n", err)
    assert [*tmp_path.iterdir()] == []


def test_a_real_process(tmp_path: Path):
    args = command("evaluate", "--data", DATA, "--layers", "4,5", "--plot", tmp_path / "a.png")
    done = subprocess.run(args, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "best by cosine: layer " in done.stdout, done.stderr
    assert (tmp_path / "a.png").stat().st_size > 1000
