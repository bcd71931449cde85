"""The study: each number is what evaluate or a hand computes; nothing is fitted on the pairs; files and reports."""

import gzip
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from encoders import GOLDEN
from matplotlib.figure import Figure
from process import Run

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.evaluation.plots import draw_study
from gpt2wgpu.evaluation.scores import evaluate_layers
from gpt2wgpu.evaluation.static_vectors import plain_words, token_means, word_means
from gpt2wgpu.evaluation.study import Study, layer_vectors, leave_out_first, run_study, spearman_cosine, treat_vectors
from gpt2wgpu.evaluation.study_report import study_page, study_table
from gpt2wgpu.files.pairs import Pairs
from gpt2wgpu.graph.tensor import Tensor
from gpt2wgpu.vectors.postprocess import fit_steps, parse_steps

WORDS = ("cat", "dog", "rain", "is", "on", "up", "it", "in", "a")
MODEL = GOLDEN / "sentence_models" / "old_bert_mean"


def some_pairs(count: int = 14) -> Pairs:
    rng = np.random.default_rng(1)
    first, second = ([" ".join(rng.choice(WORDS, 3)) for _ in range(count)] for _ in range(2))
    return Pairs(first, second, rng.permutation(count).astype(np.float64))


def some_texts(count: int = 60) -> list[str]:
    rng = np.random.default_rng(2)
    return [" ".join(rng.choice(WORDS, 4)) for _ in range(count)]


@pytest.fixture(scope="module")
def model() -> Encoder:
    return Encoder(MODEL, device="numpy")


@pytest.fixture(scope="module")
def study(model: Encoder) -> Study:
    return run_study([model], some_pairs(), some_texts())


def test_raw_scores_are_those_of_evaluate(model: Encoder, study: Study):
    for layer, scores in evaluate_layers(model, [0, 1, 2], some_pairs()):
        (row,) = (r for r in study.rows if (r.layer, r.pooling, r.asked) == (layer, "mean", "raw"))
        assert abs(row.spearman - scores["cosine"]["spearman"]) < 1e-9


def test_every_combination_is_there_once(study: Study):
    keys = [(r.layer, r.pooling, r.asked) for r in study.rows]
    assert len(keys) == len(set(keys)) == 3 * 6 * 6 + 6
    assert {r.pooling for r in study.rows if r.layer is None} == {"tokens"}


@pytest.mark.parametrize("name", ["old_bert_mean", "new_gpt2_weighted"])
def test_vectors_of_each_pooling(name: str):
    texts = some_texts(5)
    poolings = ("mean", "mean_without_first", "last", "cls", "max")
    found = {
        (n, p): v
        for n, p, v in layer_vectors(Encoder(GOLDEN / "sentence_models" / name, device="numpy"), [1, 2], poolings, texts)
    }
    assert len(found) == 10
    for layer in (1, 2):
        states = Encoder(GOLDEN / "sentence_models" / name, device="numpy", layer=layer).encode(
            texts, prompt="", output_value="token_embeddings"
        )
        by_hand = {"mean": lambda s: s.mean(0), "mean_without_first": lambda s: s[1:].mean(0), "last": lambda s: s[-1]}
        by_hand |= {"cls": lambda s: s[0], "max": lambda s: s.max(0)}
        for pooling in poolings:
            expected = np.stack([by_hand[pooling](s) for s in states])
            assert np.allclose(found[layer, pooling], expected, atol=1e-4 * np.abs(expected).max()), (layer, pooling)


def test_a_mean_without_the_first_token_beside_a_giant():
    """GPT-2's first token has a number of 3,000. A text of one token keeps it."""
    rng = np.random.default_rng(3)
    texts = [rng.standard_normal((n, 8)).astype(np.float32) for n in (1, 2, 9, 70)]
    for states in texts:
        states[0, 5] = 3000
    vectors = {"mean": np.stack([s.mean(0) for s in texts]), "cls": np.stack([s[0] for s in texts])}
    found = leave_out_first(vectors, np.array([len(s) for s in texts]))
    assert found.dtype == np.float32 and np.array_equal(found[0], texts[0][0])
    assert np.allclose(found[1:], [s[1:].mean(0) for s in texts[1:]], atol=1e-3)
    assert np.allclose(np.delete(found[1:], 5, 1), [np.delete(s[1:].mean(0), 5) for s in texts[1:]], atol=1e-5)


def test_treatments(model: Encoder):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((50, 8)) * np.arange(1, 9) + 20).astype(np.float32)
    for asked, expected in {
        "centre": "centre",
        "whiten": "whiten:4",
        "remove_top": "remove_top:1",
        "remove_top:2+standardise": "remove_top:2,standardise",
    }.items():
        name, found = treat_vectors(x, 10, asked)
        assert name == expected and np.array_equal(found, fit_steps(x[10:], parse_steps(expected)).apply(x[:10]))
    assert np.array_equal(treat_vectors(x, 10, "raw")[1], x[:10])
    assert treat_vectors(x, 2, "ranks")[1].tolist() == (x[:2].argsort(1).argsort(1) - 3.5).tolist()
    same = np.ones((20, 8), np.float32)  # such as the first token of every text at layer 0
    assert treat_vectors(same, 5, "whiten")[0] == "centre" and np.isfinite(treat_vectors(same, 5, "whiten")[1]).all()


def test_nothing_is_fitted_on_the_pairs(model: Encoder, study: Study):
    pairs = some_pairs()
    again = run_study([model], pairs, [*pairs.sentences1, *some_texts(), *pairs.sentences2])
    assert again.rows == study.rows and again.texts == study.texts
    other = run_study([model], pairs, some_texts(30))
    assert [r for r in other.rows if r.asked == "raw"] == [r for r in study.rows if r.asked == "raw"]
    assert [r.spearman for r in other.rows if r.asked == "whiten"] != [r.spearman for r in study.rows if r.asked == "whiten"]


def test_the_token_table_alone(model: Encoder):
    table = model.checkpoint.weights(
        Tensor((model.checkpoint.config.vocab, model.checkpoint.config.width), "f32", model.checkpoint.config.table)
    )
    (ids,) = model.tokenizer.plain(["cat is up"])
    assert np.allclose(token_means(model, ["cat is up", ""]), [table[ids].mean(0), np.zeros(16)])
    swapped = token_means(model, ["cat is up", "up is cat"])
    assert np.allclose(swapped[0], swapped[1])


@pytest.mark.parametrize("header", ["", "3 2\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_word_vectors(tmp_path: Path, header: str, packed: bool):
    text = f"{header}the 9 9\nCat 1 2\ncat 7 7\ndog's 3 4 \n"
    path = tmp_path / ("v.txt.gz" if packed else "v.txt")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found, known = word_means(str(path), ["A cat, CAT!", "The dog's", "?", "none"])
    assert found.tolist() == [[1, 2], [6, 6.5], [0, 0], [0, 0]]
    assert known == 4 / 6  # of a, cat, cat, the, dog's, none
    assert plain_words("It's 12 °C; naïve_x") == ["it's", "12", "c", "naïve", "x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat 1 2\ndog 3\n", "line 2: expected a word and 2 numbers"),
        ("cat one two\n", "line 1: expected numbers after the word"),
        ("x 1 2\n", "has a vector for none of the words"),
        ("cat\n", "line 1: expected a word and some numbers"),
        ("dog 1 2\ncat 1 nan\n", "line 2: expected finite numbers after the word"),
        ("cat 1e39 2\n", "line 1: expected finite numbers after the word"),
    ],
)
def test_files_that_hold_no_word_vectors(tmp_path: Path, text: str, message: str):
    (tmp_path / "v.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        word_means(str(tmp_path / "v.txt"), ["cat dog"])


def test_refusals(model: Encoder):
    with pytest.raises(UserError, match=r"pooling must be one of .*mean_without_first, not 'median'"):
        run_study([model], some_pairs(), some_texts(), poolings=["median"])
    with pytest.raises(UserError, match=r"treatments are raw, .*, ranks, or steps.* not 'whitened'"):
        run_study([model], some_pairs(), some_texts(), treatments=["whitened"])
    with pytest.raises(UserError, match="0 texts are left without those of the pairs"):
        run_study([model], some_pairs(), some_pairs().sentences1)
    with pytest.raises(UserError, match="two models are called"):
        run_study([model, model], some_pairs(), some_texts(), poolings=["mean"], treatments=["raw"], layers="0")


def test_too_few_texts_are_reported(model: Encoder, study: Study):
    """Vectors of 16 dimensions: 60 texts are enough, 6 are not, and what scales nothing needs no warning."""
    assert study.notes == ()
    few = run_study([model], some_pairs(), some_texts(6))
    assert few.notes == ("too few texts: standardise, whiten fitted on 6, expected many more than the vectors' 16 dimensions",)
    assert few.notes[0] in study_table(few) and "too few texts" in study_page(few)
    assert run_study([model], some_pairs(), some_texts(6), treatments=["raw", "centre", "remove_top"]).notes == ()


def test_reports(study: Study):
    best = study.best()
    assert best is not None and best.spearman == max(r.spearman for r in study.rows)
    assert study.curve("old_bert_mean", "mean", "raw") == [
        (r.layer, r.spearman) for r in study.rows if (r.pooling, r.asked) == ("mean", "raw") and r.layer is not None
    ]
    table = study_table(study)
    assert f"{100 * best.spearman:.1f} @{best.layer}*" in table or f"{100 * best.spearman:.1f}*" in table
    evil = "<script>alert(1)</script>"
    page = study_page(Study(evil, evil, 1, 1, {}, tuple(type(r)(evil, *list(vars(r).values())[1:]) for r in study.rows), (evil,)))
    assert "<script" not in page and "&lt;script&gt;" in page and "http" not in page
    assert page.count("<svg") == 6 and page.count("<tr>") == 1 + 3 * 6 + 1


def test_a_table_of_long_names_and_without_texts(study: Study):
    """Columns stand apart and in line, and nothing is said of a file that was not given."""
    names = {"raw": "remove_top:2+standardise", "centre": "whiten:128"}
    rows = tuple(replace(r, model="a-model-of-a-long-name", asked=names[r.asked]) for r in study.rows if r.asked in names)
    alone = replace(study, fit="", texts=0, rows=rows, notes=())
    first, _, _, header, *lines = study_table(alone).splitlines()
    assert first == f"{study.data}: {study.pairs:,} pairs" and "fitted on 0" not in study_page(alone)
    assert header.split() == ["a-model-of-a-long-name", *names.values()]
    assert {len(line.rstrip("*")) for line in lines} <= {len(header), len(header) - 1}
    assert "fitted on 60 texts\n" in study_table(study) and "fitted on 60 texts." in study_page(study)


def test_command(run: Run, tmp_path: Path):
    pairs, texts, words = tmp_path / "pairs.tsv", tmp_path / "texts.txt", tmp_path / "v.txt"
    p = some_pairs()
    assert p.targets is not None
    pairs.write_text("".join(f"{t}\t{a}\t{b}\n" for t, a, b in zip(p.targets + 0.5, p.sentences1, p.sentences2, strict=True)))
    texts.write_text("\n".join(some_texts()))
    words.write_text("".join(f"{w} {i} {i * i}\n" for i, w in enumerate(WORDS)))
    page, plot = tmp_path / "report.html", tmp_path / "curves.png"
    code, out, err = run("study", "--data", pairs, "--fit", texts, "-m", MODEL, "--vectors", words, "-o", page, "--plot", plot)
    assert code == 0 and "old_bert_mean" in out and "v.txt has a vector for 100.0% of the words" in out, err
    assert page.read_text().startswith("<!doctype html>") and plot.read_bytes().startswith(b"\x89PNG")
    code, out, _ = run("study", "--data", pairs, "-m", MODEL, "--poolings", "mean", "--layers", "1,2", "--json")
    rows = json.loads(out)["rows"]
    assert [(r["layer"], r["asked"]) for r in rows] == [
        (1, "raw"),
        (1, "ranks"),
        (2, "raw"),
        (2, "ranks"),
        (None, "raw"),
        (None, "ranks"),
    ]
    code, out, _ = run("evaluate", "--data", pairs, "-m", MODEL, "--layer", 2, "--json")
    assert abs(json.loads(out)["scores"]["cosine"]["spearman"] - rows[2]["spearman"]) < 1e-9
    code, _, err = run("study", "--data", pairs, "--treatments", "raw,centre")
    assert code == 2 and "centre of --treatments must be fitted on texts" in err
    code, _, err = run("study", "--data", pairs, "--treatments", "foo")
    assert code == 1 and "not 'foo'" in err and "--fit" not in err
    code, _, err = run("study", "--data", pairs, "--poolings", "median", "-o", tmp_path / "x.html")
    assert code == 1 and "pooling must be one of" in err and not (tmp_path / "x.html").exists()


def test_a_plot_hides_no_curve(monkeypatch: pytest.MonkeyPatch):
    """Six curves that fill their panel, and the legend beside it, with the best layer of each."""
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    curves = {f"remove_top:{i}": [(layer, layer * i / 30) for layer in range(6)] for i in range(6)}
    draw_study(io.BytesIO(), {f"a model of a long name, pooling {i}": curves for i in range(4)}, "pairs.tsv: 9 pairs")
    (figure,) = drawn
    figure.draw_without_rendering()
    legends = [axes.get_legend().get_window_extent() for axes in figure.axes]
    assert [axes.get_legend().get_texts()[3].get_text() for axes in figure.axes] == ["remove_top:3 0.500 @5"] * 4
    assert not any(axes.bbox.overlaps(legend) for axes in figure.axes for legend in legends)
    assert all(legend.x0 >= 0 and legend.x1 <= figure.bbox.x1 for legend in legends)


def test_spearman_of_known_order():
    pairs = Pairs(["a", "a", "a"], ["b", "c", "d"], np.array([1.0, 2.0, 3.0]))
    vectors = np.array([[1, 0], [0, 1], [1, 1], [1, 0.1]], np.float32)
    assert spearman_cosine(vectors, ["a", "b", "c", "d"], pairs) == pytest.approx(1)
