"""A stopped run is resumed with the same bits, and an error says what went wrong."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from process import Run, command, environment
from safetensors.numpy import load_file, save_file
from training import SCRATCH, gpt2_teacher, metrics, model_files, save_characters, without_times, write_data

from gpt2wgpu import Encoder

# --- stopping and resuming


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and a run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    write_data(folder / "data")
    done = subprocess.run(arguments(folder, folder / "run"), env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def arguments(whole: Path, out: Path) -> list[str]:
    labels = whole / "data" / "labels.tsv"
    steps = ("--epochs", 3, "--batch-tokens", 64, "--accumulate", 2, "--dropout", 0.1, "--save-every", 4, "--lr", 0.01)
    return command("train", "--data", labels, "--validation", labels, *SCRATCH, *steps, "-o", out)


def interrupt(args: list[str], folder: Path, lines: int, number: int) -> tuple[int, str]:
    """Start a process, send a signal when the metrics have so many lines, and give exit code and stderr."""
    with subprocess.Popen(args, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 300
        path = folder / "metrics.jsonl"
        while process.poll() is None and (not path.exists() or path.read_text().count("\n") < lines):
            assert time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(number)
        err = process.communicate(timeout=300)[1]
        return process.returncode, err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_run_is_resumed_with_the_same_bits(whole: Path, tmp_path: Path):
    out = tmp_path / "run"
    total = len(metrics(whole / "run"))
    for lines in (6, random.randrange(10, total - 8)):  # any moment will do
        code, err = interrupt([*arguments(whole, out), "--resume"], out, lines, signal.SIGKILL)
        assert code == -signal.SIGKILL, err
    done = subprocess.run(command("train", "--resume", "-o", out), env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and re.search(r"^resuming after step \d+$", done.stderr, re.M), done.stderr
    assert model_files(out) == model_files(whole / "run")
    assert without_times(out) == without_times(whole / "run")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal it could answer")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_a_signal_stops_is_saved(whole: Path, tmp_path: Path, number: int, code: int):
    args, out = arguments(whole, tmp_path / "run"), tmp_path / "run"
    found, err = interrupt(args, out, 7, number)
    assert found == code and "Traceback" not in err, err
    last = re.fullmatch(r"stopped after step (\d+), which is saved: resume with --resume", err.splitlines()[-1])
    assert last is not None and int(last[1]) >= 6
    assert json.loads((out / "model/training/state.json").read_text())["step"] == int(last[1])
    assert max(line["step"] for line in metrics(out)) == int(last[1])
    assert Encoder(out / "model", device="numpy").encode("a text").shape == (16,)
    assert subprocess.run([*args, "--resume"], env=environment(), capture_output=True, timeout=300).returncode == 0
    assert model_files(out) == model_files(whole / "run")


def test_resuming_a_finished_run_changes_nothing(run: Run, data: Path, tmp_path: Path):
    args = ("--data", data / "labels.tsv", *SCRATCH, "--epochs", 1, "-o", tmp_path / "run")
    code, said, err = run("train", *args, "--resume")
    assert code == 0 and "there is no run to resume in" in err
    before = model_files(tmp_path / "run"), metrics(tmp_path / "run")
    code, again, err = run("train", "--resume", "-o", tmp_path / "run")
    assert (code, again) == (0, said) and "resuming after step" in err
    assert (model_files(tmp_path / "run"), metrics(tmp_path / "run")) == before


def test_what_keeps_a_run_from_being_resumed(run: Run, data: Path, tmp_path: Path):
    files = ("--data", data / "labels.tsv", "--validation", data / "scores.tsv")
    args = (*files, *SCRATCH, "--epochs", 1, "-o", tmp_path / "run")
    assert run("train", *args)[0] == 0
    before = model_files(tmp_path / "run")

    def refused(*given: object) -> str:
        code, out, err = run("train", *given)
        assert (code, out) == (1, "") and err.count("\n") == 1 and model_files(tmp_path / "run") == before, err
        return err

    assert "already holds a run: resume it with --resume" in refused(*args)
    assert "--lr is 0.5 here and 0.001 in the run" in refused(*args, "--resume", "--lr", 0.5)
    assert "--epochs is 2" in refused("--resume", "-o", tmp_path / "run", "--epochs", 2)
    for name in ("scores.tsv", "labels.tsv"):
        text = (data / name).read_text()
        (data / name).write_text("sentence1\tsentence2\tlabel\na\tb\t1\nc\td\t0\n")
        assert "changed since the run began" in refused("--resume", "-o", tmp_path / "run")
        (data / name).write_text(text)


def test_a_run_that_was_moved(run: Run, data: Path, tmp_path: Path):
    """It is resumed if its data moved with it, or if options say where the same data are."""
    source = gpt2_teacher(data / "teacher")
    sizes = ("--layers", 1, "--heads", 1, "--width", 8, "--vocab", 300, "--epochs", 1)
    args = ("--data", data / "texts.txt", "--teacher", source, "--validation", data / "labels.tsv", *sizes)
    assert run("train", *args, "-o", data / "run")[0] == 0
    assert str(tmp_path).encode() not in b"".join(model_files(data / "run").values())
    data.rename(tmp_path / "there")
    there = tmp_path / "there"
    code, _, err = run("train", "--resume", "-o", there / "run")
    assert code == 0 and "resuming after step" in err, err
    (tmp_path / "deeper" / "still").mkdir(parents=True)
    alone = tmp_path / "deeper" / "still" / "run"
    (there / "run").rename(alone)
    code, _, err = run("train", "--resume", "-o", alone)
    assert code == 1 and "texts.txt: No such file or directory" in err, err
    options = {"--data": there / "texts.txt", "--validation": there / "labels.tsv", "--teacher": there / "teacher"}
    given = [part for pair in options.items() for part in pair]
    code, _, err = run("train", "--resume", "-o", alone, *given)
    assert code == 0 and "resuming after step" in err, err
    code, _, err = run("train", "--resume", "-o", alone, *given, "--data", there / "labels.tsv")
    assert code == 1 and "changed since the run began" in err
    weights = load_file(there / "teacher" / "model.safetensors")
    save_file({name: a + 1 for name, a in weights.items()}, there / "teacher" / "model.safetensors")
    code, _, err = run("train", "--resume", "-o", alone, *given)
    assert code == 1 and "the teacher is not the one that it began with" in err, err


# --- errors


def test_a_loss_that_is_not_finite(run: Run, data: Path, tmp_path: Path):
    """The residual stream overflows in the first step."""
    source = tmp_path / "large"
    config = tiny.gpt2_config(vocab_size=257, n_positions=60)
    tiny.sentence_model(source, config)
    weights = tiny.tensors(config)
    for name in ("h.0.attn.c_proj.bias", "h.0.mlp.c_proj.bias"):
        weights[name][:] = 3e38
    tiny.save(source, config, weights)
    save_characters(source)
    args = ("--data", data / "labels.tsv", "--model", source)
    code, out, err = run("train", *args, "-o", tmp_path / "a", "--lr", 0.125)
    last = err.splitlines()[-1]
    assert (code, out) == (1, "") and re.match(
        r"error: step 1: the (loss|norm of the gradient) is nan at a learning rate of .*: lower --lr", last
    ), err
    assert json.loads((tmp_path / "a/model/training/state.json").read_text())["step"] == 0
    code, _, err = run("train", *args, "-o", tmp_path / "b", "--validation", data / "labels.tsv")
    assert code == 1 and re.match(r"error: step 0: a vector of the validation file holds NaN", err.splitlines()[-1]), err


def test_a_collapse_is_noticed(run: Run, data: Path, tmp_path: Path):
    """Without pairs that differ, the same vector for all texts is what the loss asks for."""
    lines = (data / "labels.tsv").read_text().splitlines()
    (data / "ones.tsv").write_text("\n".join([lines[0], *(line for line in lines if line.endswith("1"))]))
    args = ("--data", data / "ones.tsv", *SCRATCH, "--epochs", 40, "--batch-tokens", 256, "--lr", 0.01)
    code, _, err = run("train", *args, "-o", tmp_path / "run")
    warnings = [line for line in err.splitlines() if line.startswith("warning:")]
    assert code == 0 and len(warnings) == 1, err
    assert re.match(
        r"warning: step \d+: the embeddings have collapsed, .* (0\.99\d|1\.000) on average.*--loss info_nce", warnings[0]
    )
    code, _, err = run("train", "--data", data / "labels.tsv", *args[2:], "-o", tmp_path / "other")
    assert code == 0 and "collapsed" not in err


@pytest.mark.parametrize(
    "args, code, message",
    [
        (["--data", "labels.tsv"], 2, "--output"),
        (["-o", "out"], 1, "nothing to learn from"),
        (["-o", "out", "--resume"], 1, "nothing to learn from"),
        (["-o", "no/out", "--data", "labels.tsv"], 1, "there is no folder"),
        (["-o", "labels.tsv", "--data", "labels.tsv"], 1, "labels.tsv"),
        (["-o", "out", "--data", "nope.tsv"], 1, "nope.tsv: No such file"),
        (["-o", "out", "--data", "texts.txt"], 1, "texts.txt: pairs are read from"),
        (["-o", "out", "--data", "labels.tsv", "--loss", "hinge"], 1, "loss must be one of"),
        (["-o", "out", "--data", "scores.tsv", "--loss", "contrastive"], 1, "loss cosine"),
        (["-o", "out", "--data", "labels.tsv", "--lr", "0"], 1, "lr must be"),
        (["-o", "out", "--data", "labels.tsv", "--model", "nope"], 1, "no folder"),
        (["-o", "out", "--data", "labels.tsv", "--model", "built-in", "--layers", "2"], 1, "from scratch"),
        (["-o", "out", "--data", "labels.tsv", "--width", "10", "--heads", "4"], 1, "10 cannot be divided among 4 heads"),
        (["-o", "out", "--data", "labels.tsv", "--tokenizer", "."], 1, "has no tokenizer.json"),
        (["-o", "out", "--data", "labels.tsv", "--batch-tokens", "60"], 1, "2 texts of 128 tokens must fit"),
        (["-o", "out", "--data", "labels.tsv", "--freeze", "attention"], 1, "no weight is called 'attention'"),
        (["-o", "out", "--data", "labels.tsv", "--validation", "ones.tsv"], 1, "same target"),
        (["-o", "out", "--data", "texts.txt", "--teacher", "nope"], 1, "no folder"),
        (["-o", "out", "--data", "labels.tsv", "--device", "no such device"], 1, "no such device"),
    ],
)
def test_errors(run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, message: str):
    monkeypatch.chdir(data)
    (data / "ones.tsv").write_text("1\ta\tb\n1\tc\td\n")
    found, out, err = run("train", *args)
    assert (found, out) == (code, "") and message in err, err
    assert code == 2 or (len(re.findall("^error: ", err, re.M)) == 1 and err.splitlines()[-1].startswith("error: "))
    assert not (data / "out/model").exists() and not (data / "out/.start").exists()


def test_a_teacher_that_is_too_narrow(run: Run, data: Path, tmp_path: Path):
    source = gpt2_teacher(tmp_path / "teacher")
    args = ("--data", data / "texts.txt", "--teacher", source, *SCRATCH, "-o", tmp_path / "run")
    code, _, err = run("train", *args)
    assert code == 1 and "vectors have 8 dimensions, the model's 16" in err
