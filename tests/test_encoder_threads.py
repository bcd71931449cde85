"""An Encoder in several threads and processes."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from encoders import TEXTS

from gpt2wgpu import Encoder


def test_four_threads_share_an_encoder(make: Callable[..., Encoder]):
    model = make(layer=1, max_tokens=64)
    texts = [f"{t} number {i}" for i in range(4) for t in TEXTS]
    expected = model.encode(texts)
    matrix = model.similarity(expected, expected)

    def work(seed: int) -> None:
        for _ in range(2):
            order = np.random.default_rng(seed).permutation(len(texts)).tolist()
            found = model.encode([texts[i] for i in order])
            if model.device != "numpy":
                np.testing.assert_array_equal(found, expected[order])
            np.testing.assert_allclose(found, expected[order], atol=1e-6)
            np.testing.assert_allclose(model.similarity(found, found), matrix[order][:, order], atol=1e-5)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_two_encoders_at_once_leave_the_threads_of_blas_as_they_were():
    """The limit that a numpy batch sets is the whole process's."""
    from threadpoolctl import threadpool_info

    def limits() -> list[int]:
        return [library["num_threads"] for library in threadpool_info()]

    before = limits()
    models = [Encoder(device="numpy", layer=1) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda m: [m.encode(TEXTS * 10) for _ in range(20)], models))
    assert limits() == before


FORK = """
import os, signal
from gpt2wgpu import Encoder
model = Encoder(device="numpy", layer=1)
long = "one text that all cores share, in blocks of rows " * 9
expected, alone = model.encode(["a", "b"] * 9), model.encode(long)
if child := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(30)  # ends it if it waits for ever
same = (model.encode(["a", "b"] * 9) == expected).all() and (model.encode(long) == alone).all()
os._exit(0 if same else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_may_go_on_with_the_encoder():
    """As with multiprocessing on Linux: threads stay behind in the parent."""
    done = subprocess.run([sys.executable, "-c", FORK], cwd=Path(__file__).parents[1], timeout=60, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()
