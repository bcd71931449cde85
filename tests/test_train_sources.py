"""What training learns from: files with weights, stored vectors of a teacher, hard pairs."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from process import Run
from training import SCRATCH, gpt2_teacher, losses, metrics, model_files, without_times

from gpt2wgpu import Encoder
from gpt2wgpu.errors import UserError
from gpt2wgpu.graph.tensor import Array
from gpt2wgpu.train import data as train_data
from gpt2wgpu.train import loop, start, stored
from gpt2wgpu.train import losses as losses_module

TAUGHT = ("--layers", 1, "--heads", 1, "--width", 8, "--vocab", 300, "--context", 40, "--batch-tokens", 128, "--lr", 0.01)


@pytest.fixture
def taught(data: Path) -> Path:
    """The data, a teacher, hard.tsv, and vectors of texts.txt and hard.tsv by the teacher."""
    encoder = Encoder(gpt2_teacher(data / "teacher"), device="numpy")
    (data / "hard.tsv").write_text("".join(f"the {a} hit the {b}\tthe {b} hit the {a}\n" for a in ("sun", "moon") for b in "xyz"))
    texts = (data / "texts.txt").read_text().splitlines()
    np.save(data / "texts.npy", encoder.encode(texts))
    np.save(
        data / "hard.npy", encoder.encode((data / "hard.tsv").read_text().replace("\t", "\n").splitlines()).astype(np.float16)
    )
    return data


# --- weights


def counts(shares: train_data.Shares, epochs: int, seed: int = 0) -> Array:
    total = sum(n for n, _ in shares)
    taken = [train_data.epoch_examples(shares, seed, epoch) for epoch in range(1, epochs + 1)]
    assert all((np.diff(rows) >= 0).all() for rows in taken)
    return np.stack([np.bincount(rows, minlength=total) for rows in taken])


def test_the_share_that_an_epoch_takes():
    found = counts([(10, 0.5), (4, 2.0), (7, 1.0), (6, 1.5)], 4)
    assert found[:, 10:14].tolist() == [[2] * 4] * 4 and found[:, 14:21].tolist() == [[1] * 7] * 4
    assert found[:, :10].sum(1).tolist() == [5] * 4 and found[:, 21:].sum(1).tolist() == [9] * 4
    assert (found[0, :10] + found[1, :10] == 1).all() and (found[2, :10] + found[3, :10] == 1).all()  # one half, then the other
    assert found[0, :10].tolist() != found[2, :10].tolist()
    assert (found[0, 21:] + found[1, 21:] == 3).all() and found[:, 21:].max() == 2
    other = counts([(10, 0.5), (10, 0.5)], 1, seed=1)[0]
    assert other.tolist() != found[0, :10].tolist() and other[:10].tolist() != other[10:].tolist()
    assert counts([(100, 0.29)], 1).sum() == 29 and counts([(1, 1.0), (0, 1.0)], 1).tolist() == [[1]]


def test_weights_of_one_change_nothing():
    tokens = np.random.default_rng(0).integers(1, 50, 100)
    plain = train_data.epoch_batches(tokens, 200, 0, 2)
    weighted = train_data.epoch_batches(tokens, 200, 0, 2, [(60, 1.0), (40, 1.0)])
    assert [b.tolist() for b in plain] == [b.tolist() for b in weighted]
    twice = train_data.epoch_batches(tokens, 200, 0, 2, [(60, 1.0), (40, 2.0)])
    assert max(int(tokens[b].sum()) for b in twice) <= 200 and sum(map(len, twice)) == 140


@pytest.mark.parametrize("name, loss", [("labels", "contrastive"), ("scores", "cosine"), ("bare", "info_nce")])
def test_weights_with_every_loss_of_pairs(run: Run, data: Path, tmp_path: Path, name: str, loss: str):
    shutil.copyfile(data / f"{name}.tsv", data / "other.tsv")
    files = ("--data", data / f"{name}.tsv", "--weight", 0.5, "--data", data / "other.tsv", "--weight", 2)
    code, _, err = run("train", *files, *SCRATCH, "--epochs", 2, "--batch-tokens", 128, "-o", tmp_path / "run")
    pairs = 30 if loss == "info_nce" else 60
    assert code == 0 and f"loss {loss}, on {2 * pairs} pairs" in err, err
    for epoch in (1, 2):
        assert sum(line["texts"] for line in metrics(tmp_path / "run") if line["epoch"] == epoch) == 2 * pairs * 2.5
    assert "| weights | 0.5, 2 |" in (tmp_path / "run/model/README.md").read_text()


# --- stored vectors


def test_stored_vectors_train_like_the_teacher_that_made_them(run: Run, taught: Path, tmp_path: Path):
    """Here they are those that a run with the teacher leaves; also cut into a file for each file of texts, as float32."""
    teacher = ("--teacher", taught / "teacher")
    assert (
        run("train", "--data", taught / "texts.txt", *teacher, *TAUGHT, "--width", 4, "--epochs", 1, "-o", tmp_path / "asked")[0]
        == 0
    )
    [made] = [p for p in (tmp_path / "asked").glob("teacher-*.npy") if not p.stem.endswith("-4")]
    vectors, lines = np.load(made), (taught / "texts.txt").read_text().splitlines(keepends=True)
    for name, part in (("a", slice(70)), ("b", slice(70, None))):
        np.save(taught / f"{name}.npy", vectors[part].astype(np.float32))
        (taught / f"{name}.txt").write_text("".join(lines[part]))
    whole = ("--data", taught / "texts.txt", "--teacher-vectors", made)
    parts = [word for name in "ab" for word in ("--data", taught / f"{name}.txt", "--teacher-vectors", taught / f"{name}.npy")]
    for name, files in (("whole", whole), ("parts", parts)):
        assert run("train", *files, *teacher, *TAUGHT, "--width", 4, "--epochs", 1, "-o", tmp_path / name)[0] == 0
        assert losses(tmp_path / name) == losses(tmp_path / "asked")
    bits = {(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("asked", "whole", "parts")}
    assert len(bits) == 1
    alone = tmp_path / "alone"  # without the teacher: from random weights
    assert run("train", *whole, *TAUGHT, "--width", 4, "--epochs", 1, "-o", alone)[0] == 0
    assert losses(alone)[0] > losses(tmp_path / "asked")[0]
    assert made.name in (alone / "model/README.md").read_text()


def test_rows_of_several_files_are_gathered(tmp_path: Path):
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((9, 6)).astype(np.float16)
    np.save(tmp_path / "a.npy", whole[:5])
    np.save(tmp_path / "b.npy", whole[5:].astype(np.float32))
    files = [stored.map_vectors(str(tmp_path / f"{name}.npy")) for name in "ab"]
    assert all(isinstance(file, np.memmap) for file in files)
    rows = np.array([8, 0, 5, 4, 4])
    found = stored.StoredVectors(files)[rows]
    assert found.dtype == np.float32 and np.array_equal(found, whole[rows].astype(np.float32))
    directions = stored.leading_directions(files, 2)
    assert np.allclose(stored.StoredVectors(files, directions)[rows], found @ directions)
    units = whole / np.linalg.norm(whole.astype(np.float64), axis=1, keepdims=True)
    assert np.allclose(np.abs(np.linalg.svd(units)[2][:2] @ directions), np.eye(2), atol=1e-3)


def test_float16_is_enough():
    """A cosine of two of the teacher's vectors changes by about 1e-5."""
    rng = np.random.default_rng(0)
    units = rng.standard_normal((300, 384)) + rng.standard_normal(384)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    halves = units.astype(np.float16).astype(np.float64)
    halves /= np.linalg.norm(halves, axis=1, keepdims=True)
    assert np.abs(halves @ halves.T - units @ units.T).max() < 1e-4 and (1 - (halves * units).sum(1)).max() < 1e-6


@pytest.mark.parametrize(
    "made, message",
    [
        (np.ones((119, 8), np.float32), "holds 119 vectors, and texts.txt has 120 texts (blank ones are left out)"),
        (np.ones((121, 8), np.float32), "holds 121 vectors, and texts.txt has 120 texts"),
        (np.ones((120, 7), np.float32), "have 7 dimensions, the model's 8: choose a teacher"),
        (np.ones((120, 8)), "holds float64 (120, 8): expected the vectors of texts"),
        (np.ones(120, np.float32), "holds float32 (120,): expected"),
        (np.where(np.arange(960).reshape(120, 8) == 803, np.nan, 1).astype(np.float16), "row 100 holds NaN or infinity"),
        (np.arange(120, dtype=np.float32)[::-1, None].repeat(8, 1), "row 119 holds only zeros"),
        (np.ones((120, 9), np.float32), "the teacher's vectors have 8 dimensions, those of --teacher-vectors 9"),
        (b"no numpy", "cannot be read as .npy"),
        (None, "made.npy: No such file"),
    ],
)
def test_vectors_that_are_refused(run: Run, taught: Path, monkeypatch: pytest.MonkeyPatch, made: Any, message: str):
    monkeypatch.chdir(taught)
    if isinstance(made, bytes):
        Path("made.npy").write_bytes(made)
    elif made is not None:
        np.save("made.npy", made)
    args = ("--data", "texts.txt", "--teacher-vectors", "made.npy", "--teacher", "teacher", *TAUGHT, "-o", "out")
    code, out, err = run("train", *args)
    last = err.splitlines()[-1].replace(f"{taught}/", "")
    assert (code, out) == (1, "") and message in last and "Traceback" not in err, err
    assert not Path("out/model").exists()


@pytest.mark.parametrize(
    "args, message",
    [
        (("--weight", 2, "--weight", 1), "weight is given 2 times, and data 1 times: give one --weight for each --data"),
        (("--weight", 0.001), "has 120 examples, of which an epoch takes none at the weight 0.001: raise it"),
        (
            ("--teacher-vectors", "texts.npy", "--hard-pairs", "hard.tsv"),
            "data 1 times, with hard_pairs: give one --teacher-vectors",
        ),
        (("--teacher-vectors", "texts.npy", "--loss", "cosine"), "loss cosine learns from pairs"),
        (("--teacher", "teacher", "--hard-pairs", "texts.txt"), "pairs are read from .tsv, .csv and .jsonl files"),
        (("--loss", "info_nce", "--hard-pairs", "hard.tsv"), "--hard-pairs is for the loss distillation"),
    ],
)
def test_options_that_are_refused(run: Run, taught: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[Any, ...], message: str):
    monkeypatch.chdir(taught)
    teacher = () if any(word in args for word in ("--teacher-vectors", "--teacher", "--loss")) else ("--teacher", "teacher")
    code, out, err = run("train", "--data", "texts.txt", *teacher, *TAUGHT, *args, "-o", "out")
    assert (code, out) == (1, "") and message in err.splitlines()[-1] and "Traceback" not in err, err


# --- hard pairs


def test_both_texts_of_a_hard_pair_share_a_batch(run: Run, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[Array] = []  # the teacher's vectors of each pair
    original = losses_module.pair_distillation

    def note(vectors: Array, teacher: Array, first: Array) -> tuple[float, Array]:
        seen.extend(teacher[i : i + 2] for i in first)
        return original(vectors, teacher, first)

    monkeypatch.setattr(losses_module, "pair_distillation", note)
    files = ("--data", taught / "texts.txt", "--hard-pairs", taught / "hard.tsv")
    code, _, err = run("train", *files, "--teacher", taught / "teacher", *TAUGHT, "--epochs", 2, "-o", tmp_path / "run")
    assert code == 0 and "on 120 texts and 6 pairs" in err, err
    hard = np.load(taught / "hard.npy").astype(np.float32)
    expected = (hard / np.linalg.norm(hard, axis=1, keepdims=True)).reshape(-1, 2, 8)
    nearest = [int(np.abs(expected - both).max(axis=(1, 2)).argmin()) for both in seen]
    assert sorted(nearest[:6]) == sorted(nearest[6:]) == [*range(6)]  # each once in an epoch
    assert all(np.abs(expected[n] - both).max() < 2e-3 for n, both in zip(nearest, seen, strict=True))


def test_hard_pairs_come_closer_to_the_teachers_judgement(run: Run, taught: Path, tmp_path: Path):
    """Than the same texts, from the same vectors, among the data."""
    both = (taught / "hard.tsv").read_text().replace("\t", "\n")
    (taught / "both.txt").write_text(both)
    vectors = np.random.default_rng(0).standard_normal((12, 8), dtype=np.float32)
    np.save(taught / "both.npy", vectors)
    judged = pair_cosines(vectors)
    off = {}
    for name, given in {"hard": ("--hard-pairs", taught / "hard.tsv"), "plain": ("--data", taught / "both.txt")}.items():
        files = ("--data", taught / "texts.txt", *given, "--teacher-vectors", taught / "texts.npy")
        args = (*files, "--teacher-vectors", taught / "both.npy", *TAUGHT, "--epochs", 15)
        assert run("train", *args, "-o", tmp_path / name)[0] == 0
        found = pair_cosines(Encoder(tmp_path / name / "model", device="numpy").encode(both.splitlines()))
        off[name] = np.square(found - judged).mean()
    assert off["hard"] < 0.7 * off["plain"], off  # 0.56 when this was written, 1 without the term


def pair_cosines(vectors: Array) -> Array:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray((units[::2] * units[1::2]).sum(1))


# --- all of it, resumed


def test_a_run_with_all_of_it_is_resumed_with_the_same_bits(taught: Path, tmp_path: Path):
    given = {
        "data": [str(taught / "texts.txt"), str(taught / "texts.txt")],
        "weight": [0.5, 1.5],
        "hard_pairs": str(taught / "hard.tsv"),
        "teacher_vectors": [str(taught / name) for name in ("texts.npy", "texts.npy", "hard.npy")],
        "teacher": str(taught / "teacher"),
        **{
            "layers": 1,
            "heads": 1,
            "width": 4,
            "vocab": 300,
            "context": 40,
            "batch_tokens": 100,
            "epochs": 2,
            "dropout": 0.1,
            "average": True,
        },
    }
    with start.open_run(tmp_path / "whole", given, resume=False, device="numpy", say=print) as run:
        events = [*loop.run_training(run)]
    assert len(events) > 20
    for stop in (3, 14):
        with start.open_run(tmp_path / "parts", given if stop == 3 else {}, resume=stop > 3, device="numpy", say=print) as run:
            with closing(loop.run_training(run)) as steps:
                while run.step < stop:
                    next(steps)
            with (tmp_path / "parts/metrics.jsonl").open("a") as file:
                loop.save(run, file)
    with start.open_run(tmp_path / "parts", {}, resume=True, device="numpy", say=print) as run:
        assert run.step == 14
        [*loop.run_training(run)]
    assert without_times(tmp_path / "parts") == without_times(tmp_path / "whole")
    assert model_files(tmp_path / "parts") == model_files(tmp_path / "whole")
    np.save(taught / "hard.npy", np.load(taught / "hard.npy")[::-1])
    with (
        pytest.raises(UserError, match="changed since the run began"),
        start.open_run(tmp_path / "parts", {}, resume=True, device="numpy", say=print),
    ):
        pass
