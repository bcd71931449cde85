"""The k best rows of a corpus on a device: those of numpy, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from encoders import refusal

from gpt2wgpu.gpu import Device
from gpt2wgpu.vectors import device_corpus
from gpt2wgpu.vectors.device_corpus import DeviceCorpus
from gpt2wgpu.vectors.top_k import top_k


def some_rows(n: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, width)) * rng.uniform(0.5, 2, (n, 1))).astype(np.float32)


def same(found, expected) -> None:
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize(("n", "width", "m", "k"), [(1, 4, 1, 1), (3000, 100, 3, 10), (513, 37, 1, 20), (700, 8, 140, 3)])
def test_the_device_finds_what_numpy_finds(n: int, width: int, m: int, k: int, cosine: bool, device: Device):
    corpus, queries = some_rows(n, width), some_rows(m, width, 1)
    resident = DeviceCorpus(device, corpus, k=k, cosine=cosine)
    same(resident.top_k(queries, k), top_k(queries, corpus, k, cosine=cosine))
    same(resident.top_k(queries[:1], 1), top_k(queries[:1], corpus, 1, cosine=cosine))
    resident.close()


def test_the_best_may_all_be_in_one_segment(device: Device):
    corpus, query = some_rows(2000, 16), some_rows(1, 16, 1)
    corpus[600:640] = query + 0.01 * some_rows(40, 16, 2)
    corpus[650:680] = query  # equal scores
    resident = DeviceCorpus(device, corpus, k=10, cosine=True)
    for k in (1, 20, 50, 60, 500, 3000):
        same(resident.top_k(query, k), top_k(query, corpus, k, cosine=True))
    resident.close()


def test_a_corpus_may_take_several_buffers_and_leave_out_rows(device: Device):
    limits = {**device.adapter.limits, "max-storage-buffer-binding-size": 1 << 18}
    small = replace(device, adapter=replace(device.adapter, limits=limits))
    corpus, queries = some_rows(4200, 24), some_rows(2, 24, 1)
    allowed = np.arange(4200) % 5 != 2
    resident = DeviceCorpus(small, corpus, cosine=True, ids=np.flatnonzero(allowed))
    assert len(resident.programs) > 2
    same(resident.top_k(queries, 12), top_k(queries, corpus, 12, cosine=True, allowed=allowed))
    resident.close()


def test_what_is_not_finite_is_refused(device: Device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_corpus, "COPIED_ROWS", 100)
    corpus = some_rows(300, 8)
    resident = DeviceCorpus(device, corpus, cosine=False)
    queries = some_rows(2, 8)
    queries[1, 3] = np.inf
    assert refusal(lambda: resident.top_k(queries, 5)).startswith("query 1 and vector")
    assert refusal(lambda: resident.top_k(queries, 0)).startswith("k must be a whole number from 1")
    resident.close()
    corpus[222, 1] = np.nan
    said = refusal(lambda: DeviceCorpus(device, corpus, cosine=False))
    assert said == "vector 222 holds NaN, Inf or too large numbers"


def test_no_rows_give_no_hits(device: Device):
    resident = DeviceCorpus(device, some_rows(5, 8)[:0], cosine=True)
    assert resident.top_k(some_rows(2, 8), 3).ids.shape == (2, 0)
