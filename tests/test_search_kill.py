"""An index whose process is killed by SIGKILL: at each step that changes the disk, at the same step again and again, and from
outside at any moment."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process import environment
from searching import Quiet, tiny_encoder, update, write_folder

from gpt2wgpu import Encoder
from gpt2wgpu.search import update as updating
from gpt2wgpu.search.exchange import export_index
from gpt2wgpu.search.reader import Index, check_index, open_index
from gpt2wgpu.search.store import INDEX_PARTS, read_index_state
from gpt2wgpu.search.taking_in import import_index

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
BEFORE = {"1.txt": "t1 t2 t3", "gone.txt": "t9 " * 500}
AFTER = {f"{i}.txt": "\n\n".join(f"t{(i * j) % 15 + 1} t{j + 1} " * 12 for j in range(1, 5)) for i in range(1, 4)}
# Each line of input is a process of its own, which kills itself at a step: forked, as importing takes longer than all the rest.
# Without fsync: what a process has written outlives it.
FORKING = """
import json, os, signal, sys
from pathlib import Path
import pyarrow.parquet
from gpt2wgpu import Encoder
from gpt2wgpu.search import store, update
from gpt2wgpu.search.taking_in import import_index
from searching import Quiet

update.PASSAGES_TOGETHER, update.SAVED_SECONDS, update.DEAD_ROWS = 4, 0, 0  # a kill meets much of the work
os.fsync = lambda fd: None

def kill_at(last):
    steps = 0

    def is_last():
        nonlocal steps
        steps += 1
        return steps == last

    def end():
        os.kill(os.getpid(), signal.SIGKILL)

    def wrap(owner, name):
        original = getattr(owner, name)

        def wrapped(*args, **options):
            if is_last():
                if name == "open_file":  # which empties a file
                    original(*args, **options)
                end()
            return original(*args, **options)

        setattr(owner, name, wrapped)

    write = store.write_at

    def half_a_write(file, position, data):
        if is_last():
            write(file, position, data[: len(data) // 2])
            end()
        write(file, position, data)

    store.write_at = half_a_write
    for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (store, "open_to_append"), (store, "open_file")):
        wrap(owner, name)

for line in sys.stdin:
    step, model, index, source = json.loads(line)
    if not (child := os.fork()):
        kill_at(step)
        encoder = Encoder(model, device="numpy")
        if source.endswith(".parquet"):
            import_index(encoder, Path(index), Path(source), Quiet())
        else:
            update.update_index(encoder, Path(index), [source], Quiet())
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
KilledRun = Callable[[int, Path, Path], bool]  # step, index, folder or file -> whether it came to its end before


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return tiny_encoder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def run_killed(encoder: Encoder) -> Iterator[KilledRun]:
    paths = {"PYTHONPATH": f"{environment()['PYTHONPATH']}:{Path(__file__).parent}"}
    command, pipe = [sys.executable, "-c", FORKING], subprocess.PIPE
    with subprocess.Popen(command, env=environment() | paths, stdin=pipe, stdout=pipe, text=True) as running:
        assert running.stdin and running.stdout

        def run(step: int, index: Path, source: Path) -> bool:
            running.stdin.write(f"{json.dumps([step, str(encoder.checkpoint.path), str(index), str(source)])}\n")
            running.stdin.flush()
            code = int(running.stdout.readline())
            assert code in (0, -signal.SIGKILL)
            return code == 0

        yield run


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs that are not killed do the same as those that are."""
    for name, value in (("PASSAGES_TOGETHER", 4), ("SAVED_SECONDS", 0), ("DEAD_ROWS", 0)):
        monkeypatch.setattr(updating, name, value)
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(params=["folder", "import"])
def source(request: pytest.FixtureRequest, encoder: Encoder, tmp_path: Path) -> Path:
    """What an index is brought up to date with; tmp_path/start is what it was before."""
    folder = write_folder(tmp_path / "f", BEFORE)
    update(encoder, tmp_path / "start", folder)
    write_folder(folder, AFTER)
    (folder / "gone.txt").unlink()
    if request.param == "folder":
        return folder
    export_index(update(encoder, tmp_path / "exported", folder), tmp_path / "x.parquet", "tiny")
    return tmp_path / "x.parquet"


def begin_again(tmp_path: Path) -> Path:
    shutil.rmtree(tmp_path / "index", ignore_errors=True)
    return Path(shutil.copytree(tmp_path / "start", tmp_path / "index"))


def finish(encoder: Encoder, index: Path, source: Path) -> tuple[object, ...]:
    """Bring an index up to date; everything that it holds then, but for the order of its log."""
    if source.suffix:
        return contents(import_index(encoder, index, source, Quiet()))
    return contents(update(encoder, index, source))


def contents(index: Index) -> tuple[object, ...]:
    check_index(index)
    state, folder = index.state, index.folder
    files = {part: state.path(folder, part) for part in INDEX_PARTS}
    assert not state.unfinished and {*folder.iterdir()} == {folder / "state.json", folder / "lock", *files.values()}
    data = {part: path.read_bytes() for part, path in files.items() if part != "log"}
    return state.rows, state.generation, data, index.catalogue


def test_killed_at_any_step(encoder: Encoder, run_killed: KilledRun, source: Path, tmp_path: Path):
    """The index opens, and the next run gives the bytes of one that was never killed."""
    index = begin_again(tmp_path)
    expected = finish(encoder, index, source)
    left = set()
    for step in range(1, 1000):
        begin_again(tmp_path)
        finished = run_killed(step, index, source)
        found = open_index(index)
        check_index(found)
        left.add((found.state.generation, found.state.rows))
        assert finish(encoder, index, source) == expected, step
        if finished:
            break
    assert 40 < step < 1000 and len(left) > 1


@pytest.mark.parametrize("source", ["folder"], indirect=True)
def test_killed_again_and_again(encoder: Encoder, run_killed: KilledRun, source: Path, tmp_path: Path):
    """Each run keeps what the one before had committed, and is killed a little later than that."""
    index = begin_again(tmp_path)
    expected, kept = finish(encoder, index, source), []
    begin_again(tmp_path)
    for step in range(24, 1000, 4):
        finished = run_killed(step, index, source)
        kept.append((open_index(index).state.generation, open_index(index).state.rows))
        if finished:
            break
    assert finished and len(kept) > 3 and kept == sorted(kept) and contents(open_index(index)) == expected


def test_killed_from_outside(encoder: Encoder, tmp_path: Path):
    """The command itself, at a moment after it has saved more passages."""
    folder, index = (
        write_folder(tmp_path / "f", {f"{i}.txt": f"t{i % 15 + 1} t{i % 7 + 1} {i}" for i in range(400)}),
        tmp_path / "index",
    )
    expected = finish(encoder, tmp_path / "whole", folder)
    args = ["search", "--index", str(index), str(folder), "t3", "-m", str(encoder.checkpoint.path)]
    settings = "from gpt2wgpu.search import update; update.PASSAGES_TOGETHER, update.SAVED_SECONDS = 4, 0"
    command = [sys.executable, "-c", f"{settings}; from gpt2wgpu.cli import main; main({args!r})"]
    saved = [0]
    for _ in range(3):
        with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as running:
            wanted, until = saved[-1] + random.randrange(1, 100), time.monotonic() + 300
            while running.poll() is None and saved_rows(index) < wanted:
                assert time.monotonic() < until
                time.sleep(0.001)
            running.kill()
        assert running.returncode in (0, -signal.SIGKILL)
        saved.append(saved_rows(index))
        check_index(open_index(index))
    assert saved == sorted(saved) and 0 < saved[1] < 400
    assert finish(encoder, index, folder) == expected


def saved_rows(index: Path) -> int:
    state = read_index_state(index)
    return state.rows if state else 0
