"""One text on several cores: the same vector as on one, the same bits every time, and BLAS never on threads of its own."""

import os
import threading
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from encoders import GOLDEN
from threadpoolctl import threadpool_info

from gpt2wgpu import Encoder
from gpt2wgpu.checkpoint import load_checkpoint
from gpt2wgpu.devices import choose
from gpt2wgpu.evaluation import scores
from gpt2wgpu.files.pairs import Pairs
from gpt2wgpu.graph import cores, one_text, ops, packing
from gpt2wgpu.graph.crew import Crew
from gpt2wgpu.graph.reference import NumpyProgram
from gpt2wgpu.graph.tensor import Array, Tensor
from gpt2wgpu.models.architecture import SPANS, Architecture
from gpt2wgpu.train import loop
from gpt2wgpu.vectors import pairwise

MODELS = sorted(p.name for p in (GOLDEN / "models").iterdir() if p.is_dir())
SKIP = Tensor(("B",), "u32", "skip")


@pytest.fixture
def three_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores, "usable_cores", lambda: 3)
    monkeypatch.setattr(cores, "machine_crowded", lambda: False)
    cores.core_threads.cache_clear()
    yield
    cores.core_threads.cache_clear()


def one_text_batch(config: Architecture, tokens: int) -> dict[str, Array]:
    ids = np.random.default_rng(tokens).integers(1, config.vocab, min(tokens, config.usable_length)).astype(np.uint32)
    return packing.pack_batch([ids], [packing.position_ids(ids, config.pad)], [0])


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_a_text_on_three_cores_is_the_same_text(name: str, pooled: bool, three_cores: None, monkeypatch: pytest.MonkeyPatch):
    """By columns and by rows, its vector and its tokens. The limits are lowered, so that tiny models are cut too."""
    monkeypatch.setattr(one_text, "CHUNK_FLOPS", 1)
    monkeypatch.setattr(one_text, "FEWEST_ROWS", 4)
    found = load_checkpoint(GOLDEN / "models" / name)
    output = found.config.hidden(found.config.layers, "f32")
    output = ops.pool(output, SPANS, SKIP, mode="mean") if pooled else output
    program = NumpyProgram(output, found.weights)
    for tokens in (1, 7, 29):
        batch = one_text_batch(found.config, tokens)
        expected = program.run(batch)
        for few in (0, 1000):
            monkeypatch.setattr(one_text, "FEW_TOKENS", few)
            once, again = (program.submit(batch)() for _ in range(2))
            np.testing.assert_allclose(once, expected, atol=2e-6 * np.abs(expected).max())
            np.testing.assert_array_equal(again, once)
            np.testing.assert_array_equal(program.submit_on_one_core(batch)(), once)


def test_equal_cuts_whatever_the_timing():
    """They cover everything, in order, and depend on sizes only."""
    for tokens in range(48, 600):
        for count in (1, 2, 3, 16):
            blocks = one_text.row_blocks_of(tokens, count)
            assert [*range(tokens)] == [i for b in blocks for i in range(b.start, b.stop)]
            assert len(blocks) == 1 or blocks[0].stop >= one_text.FEWEST_ROWS
    assert [b.stop for b in one_text.row_blocks_of(512, 2)] == [256, 512]
    assert [b.stop for b in one_text.row_blocks_of(2048, 2)] == [*range(256, 2049, 256)]
    assert one_text.column_chunks(24, 768, 3072, 2) == [slice(0, 1536), slice(1536, 3072)]
    assert one_text.column_chunks(24, 384, 1536, 2) == [slice(0, 1536)]
    assert one_text.column_chunks(1, 8, 32, 2) == [slice(0, 32)]


def test_a_crew_computes_every_chunk_once_on_several_threads(three_cores: None):
    taken: list[int] = []
    threads = set()
    together = threading.Barrier(3, timeout=60)  # passed only if three threads work at the same time

    def work(i: int) -> None:
        taken.append(i)
        if i < 3:
            together.wait()
        threads.add(threading.get_ident())

    with Crew() as crew:
        for _ in range(2):
            crew.share(work, 50)
        crew.share(taken.append, 0)
    assert sorted(taken) == sorted([*range(50)] * 2)
    assert threading.get_ident() in threads and len(threads) == 3
    assert all(helper.done() for helper in crew.helpers)


def test_on_a_crowded_machine_the_calling_thread_works_alone(three_cores: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores, "machine_crowded", lambda: True)
    threads = set()
    with Crew() as crew:
        crew.share(lambda i: threads.add(threading.get_ident()), 100)
    assert threads == {threading.get_ident()} and not crew.helpers


@pytest.mark.skipif(not hasattr(os, "getloadavg"), reason="this system has no load average")
@pytest.mark.parametrize(("load", "crowded"), [(3.0, False), (15.9, False), (16.1, True)])
def test_a_machine_with_four_threads_a_core_is_crowded(load: float, crowded: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert cores.machine_crowded() == crowded


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_chunk_that_fails_ends_the_work(kind: type[BaseException], three_cores: None):
    taken = []

    def work(i: int) -> None:
        taken.append(i)
        if i == 2:
            raise kind("chunk 2")

    with Crew() as crew:
        with pytest.raises(kind, match="chunk 2"):
            crew.share(work, 10_000)
        assert len(taken) < 10_000
        done: list[int] = []
        crew.share(done.append, 5)
        assert sorted(done) == [*range(5)]


def test_an_interrupt_between_chunks_leaves_no_thread(three_cores: None):
    """Ctrl-C may arrive while the calling thread waits: helpers finish their chunk and take no other."""
    taken, release = [], threading.Event()

    def work(i: int) -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        taken.append(i)
        release.wait(60)

    crew = Crew()
    threading.Timer(0.2, release.set).start()
    with pytest.raises(KeyboardInterrupt), crew:
        crew.share(work, 1000)
    assert len(taken) <= 2 and all(helper.done() for helper in crew.helpers)


# --- BLAS has one thread, whatever is computed


@pytest.fixture
def blas_seen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[..., object]]:
    """`blas_seen(function)` is the function, noting how many threads BLAS has in `blas_seen.threads`."""
    threads: list[int] = []

    def record(function: Callable[..., object]) -> Callable[..., object]:
        def recorded(*args: object, **kwargs: object) -> object:
            threads.extend(x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas")
            return function(*args, **kwargs)

        return recorded

    record.threads = threads  # type: ignore[attr-defined]
    return record


def one_text_alone(record: Callable, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(one_text, "compute_op", record(one_text.compute_op))
    Encoder(device="numpy", layer=1).encode("one text alone")


def run_of_a_program(record: Callable, patch: pytest.MonkeyPatch) -> None:
    model = Encoder(device="numpy", layer=1)
    patch.setattr(NumpyProgram, "_run", record(NumpyProgram._run))
    model.engine.program.run(one_text_batch(model.checkpoint.config, 5))


def similarity_matrix(record: Callable, patch: pytest.MonkeyPatch) -> None:
    kind = SimpleNamespace(l2_normalize=pairwise.ops.l2_normalize)
    kind.similarity = SimpleNamespace(reference=record(pairwise.ops.similarity.reference))
    patch.setattr(pairwise, "ops", kind)
    vectors = np.ones((600, 64), np.float32)
    assert np.allclose(pairwise.all_pairs(vectors, vectors, "cosine"), 1)


def evaluation(record: Callable, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scores, "pearson_correlation", record(scores.pearson_correlation))
    vectors = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    scores.pair_scores(vectors, ["a", "b", "c", "d"], Pairs(["a", "b"], ["c", "d"], np.array([0.0, 1.0])))


def watch_of_training(record: Callable, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(loop.np.linalg, "norm", record(np.linalg.norm))
    loop.Watch(0, False).look(np.ones((8, 4), np.float32))


@pytest.mark.parametrize("compute", [one_text_alone, run_of_a_program, similarity_matrix, evaluation, watch_of_training])
def test_blas_has_one_thread(compute: Callable, blas_seen: Callable, three_cores: None, monkeypatch: pytest.MonkeyPatch):
    before = [x["num_threads"] for x in threadpool_info()]
    compute(blas_seen, monkeypatch)
    assert set(blas_seen.threads) == {1}  # type: ignore[attr-defined]
    assert [x["num_threads"] for x in threadpool_info()] == before


def test_similarities_do_not_depend_on_the_cores(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, 48)).astype(np.float32) for n in (1100, 2100))
    found = []
    for count in (1, 2, 16):
        monkeypatch.setattr(cores, "usable_cores", lambda count=count: count)
        found.append([pairwise.all_pairs(a, b, name) for name in pairwise.SIMILARITIES])
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    np.testing.assert_allclose(found[0][1], a @ b.T, atol=1e-4)
    np.testing.assert_allclose(found[0][0], cosine(a, b), atol=1e-5)


def cosine(a: Array, b: Array) -> Array:
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    return units[0] @ units[1].T


@pytest.mark.parametrize(("count", "tokens"), [(1, 2048), (2, 2048), (3, 3072), (16, 16384)])
def test_the_budget_of_a_batch_grows_with_the_cores(count: int, tokens: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choose, "usable_cores", lambda: count)
    assert choose.default_tokens(None) == tokens
    assert Encoder(device="numpy", layer=1).engine.max_tokens == tokens
