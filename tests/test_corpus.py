"""Corpora into outputs of every kind: what is written, and the command with its errors."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from corpora import OUTPUTS, WITHOUT_TEXTS, embed, make_texts, read_output, tiny_model, write_texts
from process import Run

from gpt2wgpu import Encoder, UserError, corpus, quantize_embeddings

pytestmark = pytest.mark.usefixtures("small_corpora")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(tiny_model(tmp_path_factory.mktemp("model")), device="numpy", max_tokens=64)


# --- what is written


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("n", [1, 3, 20])
def test_every_output(encoder: Encoder, tmp_path: Path, output: str, n: int):
    texts = make_texts(n)
    source = write_texts(tmp_path / "a.txt", texts)
    report = embed(encoder, source, f"{tmp_path}/{output}")
    assert report.rows[0] == 0 and report.rows[-1] == n and sorted(set(report.rows)) == report.rows
    found, vectors = read_output(tmp_path / output)
    assert found == (None if output.endswith(WITHOUT_TEXTS) else texts)
    np.testing.assert_allclose(vectors, encoder.encode(texts), atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.txt", output.rstrip("/")])
    if output.endswith("/"):
        assert len([*(tmp_path / output).iterdir()]) == -(-n // 9)  # whole windows


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_precision(encoder: Encoder, tmp_path: Path, output: str, precision: str):
    """The steps of int8 are those of the whole corpus, or of a folder's first shard, and are kept."""
    texts = make_texts(20)
    source = write_texts(tmp_path / "a.txt", texts)
    embed(encoder, source, f"{tmp_path}/exact.npy", normalize_embeddings=True)
    exact = np.load(tmp_path / "exact.npy")
    embed(encoder, source, f"{tmp_path}/{output}", normalize_embeddings=True, precision=precision)
    calibration = exact[:9] if output.endswith("/") else exact
    expected = quantize_embeddings(exact, precision, calibration_embeddings=calibration)
    _, found = read_output(tmp_path / output)
    assert np.array_equal(found, expected)
    ranges = np.stack([calibration.min(axis=0), calibration.max(axis=0)])
    kept = tmp_path / f"{output}.ranges.npy"
    if precision.endswith("int8") and not output.endswith((".parquet", ".arrow", ".sqlite", "/")):
        assert np.array_equal(np.load(kept), ranges)
    else:
        assert not kept.exists()
    if output == "shards/" and precision == "int8":
        import pyarrow.parquet as pq

        for part in (tmp_path / output).iterdir():
            facts = json.loads(pq.read_schema(part).metadata[b"gpt2wgpu"])
            assert np.array_equal(np.float32(facts["ranges"]), ranges)
            assert (facts["precision"], facts["dimensions"], facts["normalize"]) == ("int8", 8, True)


def test_options_reach_the_encoder(encoder: Encoder, tmp_path: Path):
    texts = ["t1 t2", "t3", "t4 t5 t6"]
    source = write_texts(tmp_path / "a.txt", texts)
    short = Encoder(encoder.checkpoint.path, device="numpy", truncate_dim=3)
    embed(short, source, f"{tmp_path}/o.npy", prompt="t7 ", normalize_embeddings=True)
    expected = short.encode(texts, prompt="t7 ", normalize_embeddings=True)
    assert expected.shape == (3, 3)
    np.testing.assert_allclose(np.load(tmp_path / "o.npy"), expected, atol=1e-6)


def test_messages_count_from_the_first_text(encoder: Encoder, tmp_path: Path):
    source = write_texts(tmp_path / "a.txt", ["t1"] * 10 + ["t1 " * 40])
    with pytest.raises(UserError, match="text 10 has at least 40 tokens"):
        embed(encoder, source, f"{tmp_path}/o.npy", truncate=False)
    with pytest.raises(UserError, match="text 10 has at least 40 tokens"):
        embed(encoder, source, f"{tmp_path}/o.npy", truncate=False, resume=True)


def test_what_is_missing_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for output in ("o.parquet", "o.arrow", "shards/"):
        with (
            pytest.raises(UserError, match="Parquet or Arrow needs pyarrow"),
            corpus.open_workspace(f"{tmp_path}/{output}", resume=False),
        ):
            pytest.fail("the work was begun")
    assert [*tmp_path.iterdir()] == []


# --- the command


def test_the_command(run: Run, encoder: Encoder, tmp_path: Path):
    source = write_texts(tmp_path / "a.txt", make_texts(8))
    model = ("--model", encoder.checkpoint.path)
    args = ("embed", "-i", source, *model, "-o")
    assert run(*args, tmp_path / "o.parquet") == (0, "", "")
    assert run(*args, tmp_path / "o.parquet", "--precision", "int8") == (0, "", "")  # in its place
    code, out, err = run(*args, tmp_path / "o.parquet", "--resume")
    assert (code, out) == (0, "") and "nothing is unfinished: left as it is, unchecked" in err
    code, out, err = run(*args, tmp_path / "p.parquet", "--resume")
    assert (code, out) == (0, "") and "p.parquet.part: starting from the first text" in err
    assert run(*args, f"{tmp_path}/shards/") == (0, "", "")
    code, _, err = run(*args, f"{tmp_path}/shards/")
    assert code == 1 and "shards/: already holds part-00000.parquet" in err
    assert "nothing is unfinished" in run(*args, f"{tmp_path}/shards/", "--resume")[2]


@pytest.mark.parametrize(
    "args, code, message",
    [
        (("-i", "-", "-o", "o.npy", "--resume"), 2, "--resume needs --input"),
        (("-i", "a.txt", "--resume"), 2, "--resume needs --input"),
        (("t1", "--precision", "int8"), 2, "--precision needs --input"),
        (("-i", "a.txt", "-o", "o.npz", "--resume"), 1, "o.npz: .npz is written at once, without --resume"),
        (("-i", "a.txt", "-o", "o.npz", "--precision", "int8"), 1, "without --precision"),
        (("-i", "a.txt", "-o", "o.npy", "--precision", "int4"), 1, "precision must be one of float32, int8"),
        (("-i", "a.txt", "-o", "folder"), 1, "folder: is a folder; end the name with a slash"),
        (("-i", "a.txt", "-o", "nope/shards/"), 1, "there is no folder"),
        (("-i", "a.txt", "-o", "a.txt/"), 1, "is not a folder"),
        (("-i", "a.txt", "-o", "nope/o.npy"), 1, "there is no folder"),
        (("-i", "a.txt", "-o", "o.xls"), 1, "must end in one of"),
        (("-i", "a.txt", "-o", "o.npy", "--model", "nope"), 1, "nope"),
        (("-i", "bad.txt", "-o", "o.npy"), 1, "line 2 is not UTF-8"),
        (("-i", "folder", "-o", "o.npy"), 1, "folder: there are no files in this folder"),
        (("-i", "folder", "-o", "folder/o.npy"), 1, "would be read as texts the next time"),
        (("-i", "texts", "-o", "texts/"), 1, "would be read as texts the next time"),
        (("-i", "texts", "-o", "./texts/../texts/"), 1, "would be read as texts the next time"),
        (("-i", "a.jsonl", "-o", "a.jsonl"), 1, "a.jsonl: is the file of texts: write to another one"),
        (("-i", "a.jsonl", "-o", "link.jsonl"), 1, "link.jsonl: is the file of texts: write to another one"),
        (("-i", "a.txt", "-o", "p.npy"), 1, "p.npy.part: is not a folder, but its name is needed for unfinished work: rename it"),
    ],
)
def test_errors(run: Run, tmp_path: Path, args: tuple[str, ...], code: int, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")
    (tmp_path / "folder").mkdir()
    write_texts(tmp_path / "a.txt", ["t1"])
    (tmp_path / "texts").mkdir()
    write_texts(tmp_path / "texts/a.txt", ["t1"])
    (tmp_path / "a.jsonl").write_text('{"text": "t1"}\n')
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    (tmp_path / "p.npy.part").write_bytes(b"")
    (tmp_path / "bad.txt").write_bytes(b"a\n\xff\n")
    before = sorted(tmp_path.rglob("*"))
    found, out, err = run("embed", *args)
    assert (found, out) == (code, "") and message in err
    assert code == 2 or err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
