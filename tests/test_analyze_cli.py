"""The commands `duplicates`, `cluster`, `classify` and `map`, and everything that they read."""

import json
from pathlib import Path

import numpy as np
import pytest
from process import Run
from pyarrow import parquet

from gpt2wgpu import Encoder, UserError, files
from gpt2wgpu.analyze import layout
from gpt2wgpu.analyze.records import write_record_lines
from gpt2wgpu.analyze.table import read_table

TEXTS = [
    "The cat sleeps on the sofa",
    "A kitten is napping on the couch",
    "Loans cost more",
    "The cat sleeps on the sofa",
    "\u2028<b>",
]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labelled") / "labelled.csv"
    animals = [f"The {a} {v} in the garden" for a in ("cat", "dog", "rabbit", "horse") for v in ("sleeps", "runs", "eats")]
    money = [f"The {a} of the loan {v}" for a in ("rate", "cost", "bank", "price") for v in ("rises", "falls", "stays")]
    rows = [f"{t},animal,{i}" for i, t in enumerate(animals)] + [f"{t},money,{i}" for i, t in enumerate(money)]
    path.write_text("text,label,n\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [*files.VECTOR_FORMATS])
def test_vectors_that_embed_writes_are_read(suffix: str, tmp_path: Path):
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    path = str(tmp_path / f"v{suffix}")
    with files.open_output(path, files.VECTOR_FORMATS) as (file, write):
        write(file, zip(["a", "b c", "日本"], vectors, strict=True), files.OutputFacts(0, {"model": "m", "precision": "float32"}))
    found = read_table(path)
    assert found.vectors is not None and np.array_equal(found.vectors, vectors)
    without = suffix in files.WITHOUT_TEXTS
    assert found.texts == (["row 0", "row 1", "row 2"] if without else ["a", "b c", "日本"])
    if suffix in files.HOLD_FACTS:
        assert found.facts["model"] == "m"


def test_a_folder_of_shards(tmp_path: Path):
    for i in range(2):
        with files.open_output(str(tmp_path / f"{i}.parquet"), files.VECTOR_FORMATS) as (file, write):
            write(file, [(f"text {i}", np.full(3, i, np.float32))], files.OutputFacts(i))
    found = read_table(str(tmp_path))
    assert found.texts == ["text 0", "text 1"] and found.vectors is not None and found.vectors[:, 0].tolist() == [0, 1]


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".sqlite"])
def test_quantised_vectors_are_refused(suffix: str, tmp_path: Path):
    path = str(tmp_path / f"v{suffix}")
    with files.open_output(path, files.VECTOR_FORMATS) as (file, write):
        write(file, [("a", np.ones(4, np.int8))], files.OutputFacts(0, {"precision": "int8"}))
    with pytest.raises(UserError, match=r"holds int8.*without --precision"):
        read_table(path)


def test_columns_beside_the_texts(tmp_path: Path, labelled: Path):
    assert read_table(str(labelled)).columns["label"][0] == "animal"
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"text": "a", "label": "x", "year": 1999, "tags": ["t"]}\n{"text": "b", "label": null}\n')
    assert dict(read_table(str(lines)).columns) == {"label": ["x", None], "year": [1999, None]}
    parquet.write_table(
        __import__("pyarrow").table({"text": ["a", "b"], "n": [1, None], "l": [[1], [2]]}), tmp_path / "a.parquet"
    )
    assert dict(read_table(str(tmp_path / "a.parquet")).columns) == {"n": [1, None]}
    lines.write_text('{"text": "a", "label": NaN}\n{"text": "b", "label": 1.5}\n')
    assert dict(read_table(str(lines)).columns) == {"label": [None, 1.5]}
    parquet.write_table(__import__("pyarrow").table({"text": ["a", "b"], "n": [1.0, float("nan")]}), tmp_path / "a.parquet")
    assert dict(read_table(str(tmp_path / "a.parquet")).columns) == {"n": [1.0, None]}
    numbered = tmp_path / "a.tsv"
    numbered.write_text("title\tyear\none\t1\n")
    assert read_table(str(numbered), "title").texts == ["one"] and dict(read_table(str(numbered), "title").columns) == {
        "year": ["1"]
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "there are no texts"),
        ("a.jsonl", b"", "there are no texts"),
        ("a.csv", b"text\n", "there are no texts"),
        ("a.npy", b"junk", "cannot be read"),
        ("a.npz", b"junk", "cannot be read"),
        ("a.safetensors", b"junk" * 9, "cannot be read"),
        ("a.sqlite", b"junk" * 900, "cannot be read"),
        ("a.json", b"{}", "expected an array of objects"),
        ("a.json", b"[", "is not JSON"),
        ("a.jsonl", b'{"text": "a", "embedding": [1]}\n{"text": "b", "embedding": [1, 2]}\n', "all of one length"),
        ("a.parquet", b"junk", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(run: Run, name: str, content: bytes, message: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    code, out, err = run("duplicates", tmp_path / name)
    assert (code, out) == (1, "") and message in err and err.count("\n") == 1


def test_duplicates(run: Run, texts: Path, tmp_path: Path):
    code, out, err = run("duplicates", texts, "--threshold", 0.6)
    assert code == 0 and out.splitlines()[0] == "group 0: 3 texts" and "1.0000  3  The cat sleeps" in out
    assert "5 texts: 2 pairs" in err and "3 texts without their duplicates" in err
    for name in ("d.tsv", "d.jsonl", "d.parquet"):
        assert run("duplicates", texts, "-o", tmp_path / name)[:2] == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(r["group"], r["row"], r["text"]) for r in rows] == [(0, 0, TEXTS[0]), (0, 3, TEXTS[3])]
    assert parquet.read_table(tmp_path / "d.parquet").column_names == ["group", "row", "similarity", "text"]
    assert (tmp_path / "d.tsv").read_text().splitlines()[0] == "group\trow\tsimilarity\ttext"
    code, out, _ = run("duplicates", texts, "--pairs")
    assert out == f"1.0000  0  {TEXTS[0]}  |  3  {TEXTS[0]}\n"
    assert run("duplicates", texts, "--threshold", 1.5)[0] == 1


def test_no_duplicates_is_a_file_too(run: Run, tmp_path: Path):
    (tmp_path / "one.txt").write_text("alone\n")
    for name in ("d.tsv", "d.jsonl", "d.parquet"):
        for more in ([], ["--pairs"]):
            assert run("duplicates", tmp_path / "one.txt", "-o", tmp_path / name, *more)[0] == 0


def test_cluster(run: Run, labelled: Path, tmp_path: Path):
    code, out, _ = run("cluster", labelled, "--method", "kmeans", "--clusters", 2, "-o", tmp_path / "c.jsonl", "--json")
    found = json.loads(out)
    assert code == 0 and [c["size"] for c in found] == [12, 12] and len(found[0]["central"]) == 3
    rows = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert [*rows[0]] == ["text", "cluster", "label", "central", "n"]
    assert len({(r["cluster"]) for r in rows[:12]}) == len({(r["cluster"]) for r in rows[12:]}) == 1
    assert sum(r["central"] for r in rows) == 6
    code, out, err = run("cluster", labelled, "--threshold", 0.4)
    assert code == 0 and out.startswith("cluster 0: ") and "24 texts: " in err
    assert run("cluster", labelled, "--method", "kmeans")[0] == 2


@pytest.mark.parametrize("method", ["logistic", "centroid", "knn"])
def test_classify(run: Run, labelled: Path, method: str, tmp_path: Path):
    code, out, _ = run("classify", "train", labelled, "-o", tmp_path / "c", "--method", method)
    assert code == 0 and "animal " in out and "accuracy 1.0000, macro F1 1.0000" in out
    (tmp_path / "new.txt").write_text("A horse stands on the field\nInterest went up\n")
    code, out, _ = run("classify", "predict", tmp_path / "new.txt", "-c", tmp_path / "c")
    assert code == 0 and [line.split("\t")[0] for line in out.splitlines()] == ["animal", "money"]
    assert run("classify", "predict", labelled, "-c", tmp_path / "c", "-o", tmp_path / "p.parquet")[:2] == (0, "")
    table = parquet.read_table(tmp_path / "p.parquet")
    assert table.column_names == ["text", "class", "probability", "label", "n"]
    assert table.column("class").to_pylist() == table.column("label").to_pylist()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_of_one_name_are_left_out_and_named(suffix: str, tmp_path: Path):
    path = tmp_path / f"a{suffix}"
    if suffix == ".csv":
        path.write_text("text,label,label,year,,\na,x,z,1,,\n")
    else:
        pyarrow = __import__("pyarrow")
        names = ["text", "label", "label", "year"]
        parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array([v]) for v in ("a", "x", "z", "1")], names=names), path)
    with pytest.warns(UserWarning, match=f"a{suffix}: 2 columns are called 'label' and are left out: rename all but one"):
        assert dict(read_table(str(path)).columns) == {"year": ["1"]}


def test_lines_of_results_are_json(tmp_path: Path):
    with (tmp_path / "a.jsonl").open("wb") as file:
        write_record_lines(file, {"x": [1.5, float("nan"), float("inf"), None]})
    assert (tmp_path / "a.jsonl").read_text() == '{"x": 1.5}\n{"x": null}\n{"x": null}\n{"x": null}\n'


def test_classify_refuses_what_it_cannot_learn(run: Run, labelled: Path, tmp_path: Path):
    def train(content: str, *more: object) -> str:
        (tmp_path / "a.csv").write_text(content)
        code, out, err = run("classify", "train", tmp_path / "a.csv", "-o", tmp_path / "c", "--method", "knn", *more)
        assert (code, out, err.count("\n")) == (1, "", 1) and not (tmp_path / "c").exists()
        return err

    assert "there is no column 'label'" in train("text,kind\na,x\n")
    assert "at least two classes, all 2 labels are 'x'" in train("text,label\na,x\nb,x\n")
    assert "row 1 has no 'kind'" in train("text,kind\na,x\nb,\n", "--label", "kind")
    code, _, err = run("classify", "predict", labelled, "-c", tmp_path)
    assert code == 1 and "classify train" in err


def test_one_example_of_each_class(run: Run, tmp_path: Path):
    (tmp_path / "a.csv").write_text("text,label\ncat,animal\nloan,money\n")
    code, out, err = run("classify", "train", tmp_path / "a.csv", "-o", tmp_path / "c", "--method", "centroid")
    assert (code, out) == (0, "") and "one example only" in err


def test_vectors_of_another_model_are_refused(run: Run, labelled: Path, tmp_path: Path):
    run("classify", "train", labelled, "-o", tmp_path / "c", "--method", "knn")
    vectors = Encoder(device="numpy").encode(["a cat"])
    with files.open_output(str(tmp_path / "v.parquet"), files.VECTOR_FORMATS) as (file, write):
        write(file, zip(["a cat"], vectors, strict=True), files.OutputFacts(0, {"model": "other", "precision": "float32"}))
    code, _, err = run("classify", "predict", tmp_path / "v.parquet", "-c", tmp_path / "c")
    assert code == 1 and "trained on vectors of built-in, these are of other" in err
    code, _, err = run("duplicates", tmp_path / "v.parquet", "--model", "gpt2")
    assert code == 1 and "those of other, not of gpt2" in err


def test_map(run: Run, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layout, "ROUNDS", (10, 10))
    for name in ("m.html", "m.png", "m.parquet", "m.jsonl", "m.tsv"):
        code, out, err = run("map", labelled, "-o", tmp_path / name, "--color-by", "label")
        assert (code, out) == (0, "") and "24 texts" in err and (tmp_path / name).stat().st_size > 500
    first = (tmp_path / "m.html").read_bytes()
    run("map", labelled, "-o", tmp_path / "m.html", "--color-by", "label")
    assert (tmp_path / "m.html").read_bytes() == first
    assert run("map", labelled, "-o", f"{tmp_path}/projector/")[0] == 0
    assert len([*(tmp_path / "projector").iterdir()]) == 3
    code, _, err = run("map", labelled, "-o", tmp_path / "m.pdf")
    assert code == 1 and ".html .png .parquet" in err
    code, _, err = run("map", labelled, "-o", tmp_path / "m.html", "--color-by", "colour")
    assert code == 1 and "no column 'colour' to colour by, there are: cluster, label, n" in err


def test_an_index_of_search_is_read(run: Run, tmp_path: Path):
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "a.md").write_text("The cat sleeps.\n\nThe dog barks.\n")
    (notes / "b.txt").write_text("Loans cost more.\n")
    assert run("search", notes, "cat", "--index", tmp_path / "index")[0] == 0
    found = read_table(str(tmp_path / "index"))
    assert any("cat" in text for text in found.texts) and "Loans cost more." in " ".join(found.texts)
    assert {Path(str(name)).name for name in found.columns["file"]} == {"a.md", "b.txt"}
    assert found.vectors is not None and found.vectors.shape == (len(found.texts), 384)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    assert run("duplicates", tmp_path / "index")[0] == 0
