"""The cores that numpy may use, BLAS with one thread, and what a fork leaves of both."""

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
from threadpoolctl import threadpool_info

from gpt2wgpu.graph import cores
from gpt2wgpu.graph.cores import OneThreadBLAS, container_cores, usable_cores
from gpt2wgpu.graph.fork_lock import ForkSafeLock

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


@pytest.fixture
def quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`quota("200000 100000")`: what a container's group says."""

    def change(text: str) -> None:
        container_cores.cache_clear()
        (tmp_path / "cpu.max").write_text(text)

    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    container_cores.cache_clear()
    yield change
    container_cores.cache_clear()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_one_allowed_core_is_one_core(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("text", "count"), [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("9900000 100000", 8)]
)
def test_a_containers_quota(text: str, count: int, quota, monkeypatch: pytest.MonkeyPatch):
    for name in ("process_cpu_count", "cpu_count"):
        monkeypatch.setattr(os, name, lambda: 8, raising=False)
    quota(text)
    assert usable_cores() == count


def test_without_a_container(quota):
    assert container_cores() is None


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_blas_has_one_thread_while_anyone_is_inside():
    before, blas = blas_threads(), OneThreadBLAS()
    with blas:
        with blas:
            assert set(blas_threads()) <= {1}
        assert set(blas_threads()) <= {1}
    assert blas_threads() == before


def test_a_limit_that_fails_is_raised_and_hangs_nobody(monkeypatch: pytest.MonkeyPatch):
    blas = OneThreadBLAS()

    def fail() -> None:
        raise OSError("no such library")

    with monkeypatch.context() as patch:
        patch.setattr(cores, "blas_libraries", fail)
        for _ in range(2):
            with pytest.raises(OSError, match="no such library"), blas:
                pytest.fail("is inside")
    with blas:
        assert set(blas_threads()) <= {1}


@forks
def test_a_lock_is_free_in_a_forked_child():
    """Where a thread of the parent holds it. The thread that forks may hold it, too."""
    lock = ForkSafeLock()
    with lock:
        child = os.fork()
        if child == 0:
            taken = []
            thread = Thread(target=lambda: taken.append(lock.__enter__()), daemon=True)
            thread.start()
            thread.join(60)
            os._exit(0 if taken else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@forks
def test_a_lock_taken_before_a_fork_is_not_given_back_after_it():
    """A block that began in the parent ends in the child, where another thread may hold the lock by then."""
    lock = ForkSafeLock()
    lock.__enter__()
    child = os.fork()
    if child == 0:
        lock.__exit__()
        with lock:
            os._exit(0)
    lock.__exit__()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with lock:
        pass


FORK = """
import os, signal, threading
from threadpoolctl import threadpool_info
from gpt2wgpu import Encoder
from gpt2wgpu.graph import cores

def limits():
    return [x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"]

texts = ["a", "b", "c"] * 30
model = Encoder(device="numpy", layer=1)
expected, before = model.encode(texts), limits()
inside, done = threading.Event(), threading.Event()

class Slow:  # another thread is in the middle of a batch, which holds the model and has set BLAS to one thread
    def run(self, batch):
        inside.set()
        done.wait()
        return original(batch)

original, model.engine.program.run = model.engine.program.run, Slow().run
thread = threading.Thread(target=model.encode, args=[texts], daemon=True)
thread.start()
inside.wait()
child = os.fork()
if child:
    done.set()
    thread.join()
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(60)  # ends it if it waits for ever
model.engine.program.run = original
assert (model.encode(texts) == expected).all()
assert limits() == before, (limits(), before)
os._exit(0)
"""


@forks
def test_a_fork_while_another_thread_encodes():
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    command = [sys.executable, "-c", FORK]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], timeout=180, stderr=subprocess.PIPE, env=environment)
    assert done.returncode == 0, done.stderr.decode()
