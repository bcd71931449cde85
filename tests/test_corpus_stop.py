"""Corpora in processes of their own: killed, interrupted, out of disk space, resumed; and how much memory they take."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import tiny
from corpora import make_texts, tiny_model
from encoders import add_tokenizer
from process import environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and resource limits")
N = 4000
SETTINGS = """
from gpt2wgpu.cli import process
from gpt2wgpu.corpus import job
job.COMMIT_SECONDS, job.SHARD_BYTES = 0, 30_000  # a kill meets much of the work
process.GRACE = 3000  # saving may take long on a busy machine, and a hang must not pass for an end
"""


def process(args: list[str], before: str = "") -> list[str]:
    return [sys.executable, "-c", f"{before}\n{SETTINGS}\nfrom gpt2wgpu.cli import main; main({args!r})"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of some twenty windows, and a model."""
    folder = tmp_path_factory.mktemp("corpus")
    tiny_model(folder)
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in make_texts(N)))
    return folder / "a.jsonl"


def arguments(source: Path, output: object) -> list[str]:
    return ["embed", "-i", str(source), "-o", str(output), "-m", str(source.parent / "model"), "--max-tokens", "64"]


def finish(args: list[str], before: str = "", code: int = 0) -> str:
    done = subprocess.run(process(args, before), env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    return done.stderr


def stop(args: list[str], part: Path, more: int, number: int) -> tuple[int, str, int]:
    """Start a process and send a signal a moment after `more` further texts are saved. Exit code, stderr, texts saved then."""
    first = saved(part)
    with subprocess.Popen(process(args), env=environment(), stderr=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 300
        while running.poll() is None and saved(part) < first + more:
            assert time.monotonic() < until
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.03))
        running.send_signal(number)
        err = running.communicate(timeout=300)[1]
        return running.returncode, err, saved(part)


def saved(part: Path) -> int:
    try:
        return json.loads((part / "state.json").read_text())["rows"]
    except (FileNotFoundError, NotADirectoryError):
        return 0


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(source: Path) -> dict[str, bytes]:
    """Outputs that were never stopped."""
    folder = source.parent / "whole"
    folder.mkdir()
    for output in ("o.npy", "o.jsonl", "shards/"):
        finish(arguments(source, f"{folder}/{output}"))
    return contents(folder)


@pytest.mark.parametrize("output", ["o.npy", "o.jsonl", "shards/"])
def test_killed_again_and_again(source: Path, whole: dict[str, bytes], tmp_path: Path, output: str):
    part = tmp_path / f"{output.rstrip('/')}.part"
    kept = []
    args = [*arguments(source, f"{tmp_path}/{output}"), "--resume"]
    for _ in range(3):  # any moment will do
        code, err, rows = stop(args, part, random.randrange(1, 900), signal.SIGKILL)
        kept.append(rows)
        if code == 0:  # it was faster
            break
        assert code == -signal.SIGKILL, err
        assert output.endswith("/") or not (tmp_path / output).exists()
    assert kept == sorted(kept) and 0 < kept[0] < N
    finish(args)
    assert contents(tmp_path) == {name: data for name, data in whole.items() if name.startswith(output)}


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_stop(source: Path, whole: dict[str, bytes], tmp_path: Path, number: int, code: int):
    """What is done is saved, and one line says how to resume."""
    found, err, rows = stop(arguments(source, tmp_path / "o.npy"), tmp_path / "o.npy.part", 500, number)
    assert found == code and err.count("\n") == 1 and 0 < rows < N, err
    line, _, command = err.strip().partition("; to resume: ")
    assert line == f"stopped: {rows:,} texts are saved in {tmp_path / 'o.npy.part'}"
    name, *args = shlex.split(command)
    assert name == "gpt2wgpu" and args == [*arguments(source, tmp_path / "o.npy"), "--resume"]
    assert np.load(tmp_path / "o.npy.part/vectors.npy", mmap_mode="r").shape == (rows, 8)
    assert finish(args) == f"resuming after {rows:,} texts\n"
    assert (tmp_path / "o.npy").read_bytes() == whole["o.npy"]
    assert [p.name for p in tmp_path.iterdir()] == ["o.npy"]


def unread(pipe: BinaryIO) -> int:
    import fcntl  # not on Windows
    import termios

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_stop_while_nothing_can_be_read(source: Path, tmp_path: Path, number: int, code: int):
    """The writer of a pipe waits for ever, and so would whoever waits for the reader."""
    os.mkfifo(tmp_path / "a.jsonl")
    args = [*arguments(source, tmp_path / "o.npy"), "-i", str(tmp_path / "a.jsonl")]
    with subprocess.Popen(process(args), env=environment(), stderr=subprocess.PIPE, text=True) as running:
        with (tmp_path / "a.jsonl").open("wb") as pipe:
            pipe.write(source.read_bytes()[:100_000].rpartition(b"\n")[0] + b'\n{"text": "' + b"t1 " * 10_000)
            pipe.flush()
            until = time.monotonic() + 300
            while running.poll() is None and (unread(pipe) or not saved(tmp_path / "o.npy.part")):  # it waits in this line
                assert time.monotonic() < until
                time.sleep(0.001)
            running.send_signal(number)
            err = running.communicate(timeout=300)[1]
        assert running.returncode == code and err.startswith("stopped: ") and err.count("\n") == 1, err


def test_an_input_of_blank_lines_without_end(source: Path, tmp_path: Path):
    """No text follows, but the reader never stops: SIGTERM ends the process all the same."""
    os.mkfifo(tmp_path / "a.jsonl")
    args = [*arguments(source, tmp_path / "o.npy"), "-i", str(tmp_path / "a.jsonl")]
    with subprocess.Popen(process(args), env=environment(), stderr=subprocess.PIPE, text=True) as running:
        with suppress(BrokenPipeError), (tmp_path / "a.jsonl").open("wb") as pipe:
            pipe.write(source.read_bytes()[:100_000].rpartition(b"\n")[0])
            told = False
            until = time.monotonic() + 300
            while running.poll() is None:
                assert time.monotonic() < until
                pipe.write(b"\n" * 10_000)
                if not told and saved(tmp_path / "o.npy.part"):
                    running.send_signal(signal.SIGTERM)
                    told = True
        assert running.wait(300) == 143


@pytest.mark.parametrize("output, limit", [("o.npy", 60_000), ("o.jsonl", 200_000)])
def test_a_disk_that_fills_up(source: Path, whole: dict[str, bytes], tmp_path: Path, output: str, limit: int):
    """While vectors are saved, or while the output is made of them: a limit on the size of files is met alike."""
    full = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({limit},) * 2)"
    args = arguments(source, tmp_path / output)
    err = finish(args, full, code=1).splitlines()
    rows = saved(tmp_path / f"{output}.part")
    assert err[-1] == f"error: {tmp_path / output}: File too large" and err[0].startswith(f"stopped: {rows:,} texts are saved")
    assert 0 < rows <= N and (rows == N) == (output == "o.jsonl") and not (tmp_path / output).exists()
    finish([*args, "--resume"])
    assert contents(tmp_path) == {output: whole[output]}


def test_a_bad_line_far_down(source: Path, whole: dict[str, bytes], tmp_path: Path):
    """It is named, the rows before it are kept, and after a correction the work can be resumed."""
    lines = source.read_bytes().splitlines(keepends=True)
    bad = tmp_path / "b.jsonl"
    bad.write_bytes(b"".join([*lines[:3000], b'{"text": 5}\n', *lines[3001:]]))
    args = arguments(bad, tmp_path / "o.npy")
    args[args.index("-m") + 1] = str(source.parent / "model")
    err = finish(args, code=1).splitlines()
    assert len(err) == 2 and err[-1] == f"error: {bad}: line 3001: 'text' is 5, expected a text"
    assert 0 < saved(tmp_path / "o.npy.part") <= 3000
    bad.write_bytes(b"".join(lines))
    finish([*args, "--resume"])
    assert (tmp_path / "o.npy").read_bytes() == whole["o.npy"]


@pytest.mark.skipif(sys.platform != "linux", reason="others tell the memory of a process in other units")
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path):
    """Four times the texts, whose vectors take 180 MB more, in about the same memory; both are more than fit in a block."""
    model = tmp_path / "model"
    model.mkdir()
    config = tiny.gpt2_config(vocab_size=16, n_positions=8, n_embd=256, n_layer=1)
    tiny.save(model, config)
    add_tokenizer(model, 16)
    peaks = []
    for n in (60_000, 240_000):
        source = tmp_path / f"{n}.txt"
        source.write_text("".join(f"t{i % 13} t{i % 11} t{i % 7}\n" for i in range(n)))
        args = ["embed", "-i", str(source), "-o", f"{tmp_path}/{n}.parquet", "-m", str(model), "--layer", "0"]
        code = "import atexit, re, pathlib; status = pathlib.Path('/proc/self/status')\n"  # getrusage tells the parent's peak too
        code += r"atexit.register(lambda: print(re.search(r'VmHWM:\s+(\d+)', status.read_text())[1]))" + "\n"
        done = subprocess.run(
            [sys.executable, "-c", f"{code}from gpt2wgpu.cli import main; main({args!r})"],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0 and done.stderr == "", done.stderr
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 60, peaks
