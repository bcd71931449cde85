"""The gradients of weights as sums over parts of a micro-batch's tokens: how it is cut, and that nothing is left of others.
And what the host does between two submissions of a large micro-batch."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from test_train_program import batch, error, gradient, in_numpy, pull, random_weights, small, vectors_of

from gpt2wgpu.devices.graph_check import graph_case, graph_kernels
from gpt2wgpu.devices.selftest import Case, case_arrays, run_numpy
from gpt2wgpu.gpu import Device, GPUProgram
from gpt2wgpu.graph import packing
from gpt2wgpu.graph.tensor import Tensor, schedule
from gpt2wgpu.models.gpt2 import GPT2Config
from gpt2wgpu.train import ops as train_ops
from gpt2wgpu.train import selftest
from gpt2wgpu.train.gpu import GPUTrainProgram
from gpt2wgpu.train.gradients import TrainGraph
from gpt2wgpu.train.loop import WATCHED, Watch
from gpt2wgpu.train.selftest import given_cases
from gpt2wgpu.train.sums import PART_STEP, SHORTEST_PART, VECTOR_PART, count_parts, part_length, token_parts

# 600 tokens are three parts for a matrix and ten for a vector, 512 just two and eight, 280 two and five
LONG, EVEN, SHORT = (40,) * 15, (32,) * 16, (40,) * 7


@pytest.mark.parametrize("shortest", [SHORTEST_PART, VECTOR_PART])
@pytest.mark.parametrize("parts", [1, 2, 14, 56, 64])
@pytest.mark.parametrize("tokens", [1, 255, 256, 257, 4000, 16384, 65535])
def test_parts_are_even(parts: int, tokens: int, shortest: int):
    length = part_length(tokens, parts, shortest)
    assert length >= shortest and length % PART_STEP == 0
    assert parts * length >= tokens
    assert length == shortest or parts * (length - PART_STEP) < tokens
    found = [range(tokens)[at] for at in token_parts(tokens, parts, shortest)]
    assert len(found) <= parts and [t for part in found for t in part] == [*range(tokens)]


@pytest.mark.parametrize("k", [1, 12, 64, 384, 768, 1024, 4096])
@pytest.mark.parametrize("n", [1, 65, 1152, 3072, 8192])
def test_parts_take_little_memory(k: int, n: int):
    """Or as much as the weight itself, where that is large."""
    parts = count_parts(k, n)
    assert parts >= 1
    assert parts == 1 or 4 * parts * k * n <= 34e6
    if k % 64 == n % 64 == 0:
        assert parts * k * n // 4096 >= 1024 or parts == 64  # enough workgroups for a large GPU


def test_memory_needed_counts_the_parts():
    capacity = {"T": 64, "B": 2, "G": packing.max_tiles(64, 2)}
    graph = TrainGraph(small())
    widest = max(4 * int(np.prod(t.shape)) for t in schedule(*graph.gradients.values()) if t.op and t.op.name == "linear_dweight")
    assert graph.memory_needed(capacity).activations > widest > 4 * 50 * 12 * 36


def test_micro_batches_of_several_parts_add_up(device_form: Device):
    """The later ones have fewer parts: what the first one left in the others does not count. And the bits are the same again."""
    capacity = {"T": 640, "B": 16, "G": packing.max_tiles(640, 16)}
    programs = [in_numpy(small(), random_weights)]
    programs += [GPUTrainProgram(device_form, TrainGraph(small()), random_weights, capacity) for _ in range(2)]
    for program in programs:
        for seed, lengths in enumerate((LONG, EVEN, SHORT)):
            program.gradients(batch(seed, lengths), pull, 0)
    numpy, first, again = programs
    for t in numpy.graph.trained:
        assert error(gradient(first, t.name), gradient(numpy, t.name)) < 2e-5, t.name
        assert gradient(first, t.name).tobytes() == gradient(again, t.name).tobytes()


ONTO = [
    (selftest.dweight_cases(5, 7, 64, (300,))[1], "parts", 2),
    (selftest.vector_cases(20, 64, (300,))[1], "parts", 5),
    *((selftest.scatter_rows_case(count, 33, (1, 70)), "", 0) for count in (300, 601)),
]


@pytest.mark.parametrize("onto", [0, 1])
@pytest.mark.parametrize(("case", "parts", "count"), ONTO, ids=lambda v: str(v) if isinstance(v, Case) else "")
def test_a_sum_replaces_the_one_before_or_is_added_to_it(
    case: Case, parts: str, count: int, onto: int, each_form: Callable[[Tensor], list[Device]]
):
    """And parts past the last token, which an earlier micro-batch left, do not count."""
    output, values = case_arrays(replace(case, attrs=case.attrs | {"onto": onto}))
    expected = run_numpy(output, values)
    if parts:
        values[parts] = values[parts].copy()
        values[parts][count:] = 1000
    for device in each_form(output):
        program = GPUProgram(device, output, lambda t: values[t.name], {"T": sum(case.lengths)})
        sizes = program.write(values)
        for times in (1, 1 + onto):
            found = program.read(program.compute(program.steps, sizes), sizes)()
            np.testing.assert_allclose(found, times * expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("vocab", "width"), [(600, 12), (30, 12), (600, 384), (600, 10)])
def test_every_kernel_of_a_graph_has_a_case(vocab: int, width: int, device_form: Device):
    """That the start of a training tries: with large tables and small ones, in fours and not."""
    config = GPT2Config(layers=1, heads=2, width=width, inner=2 * width, context=40, vocab=vocab)
    graph = TrainGraph(vectors_of(config.hidden(1)), dropout=0.1)
    found = graph_kernels(device_form, [*graph.forward, *graph.backward])
    cases = [graph_case(device_form, t, rows, given_cases(t)) for t, rows in found.values()]
    expected = {"scatter_rows", "linear_dweight", "sum_parts", "sum_rows", "layer_norm_dweight", "sum_vectors"}
    assert expected <= {case.op.name for case in cases}
    parted = [case for case in cases if case.op.name in expected - {"scatter_rows"}]
    assert all(len(token_parts(sum(case.lengths), 64)) > 1 for case in parted)


def test_numpy_sums_all_tokens_of_a_core_in_one_part():
    """It has one thread for them, which many small products would only keep from large ones."""
    program = in_numpy(small(), random_weights)
    for op in (train_ops.linear_dweight, train_ops.sum_rows, train_ops.layer_norm_dweight):
        t = next(t for t in program.graph.backward if t.op is op)
        assert t.shape[0] == 64
        inputs = [np.ones((600, int(x.shape[1])), np.float32) for x in t.inputs]
        if op is train_ops.layer_norm_dweight:
            inputs[1][:, 0] = 0  # means
        np.testing.assert_array_equal(program._compute(t, inputs), np.full((1, *t.shape[1:]), 600))


@pytest.mark.parametrize("count", [1, 300, 1 << 16, (1 << 16) + 1, 1 << 18])
def test_tokens_are_sorted_by_the_row_they_took(count: int):
    """Each row's tokens in their order, in tables of more rows than 16 bits count, too."""
    taken = np.random.default_rng(0).integers(count, size=3000, dtype=np.uint32)
    taken[::3] = count - 1
    order, rows = train_ops.sorted_rows(taken, count)
    np.testing.assert_array_equal(order, np.argsort(taken, kind="stable"))
    assert order.dtype == rows.dtype == np.uint32 and rows.shape == (count, 2)
    for row in (0, int(taken[1]), count - 1):
        np.testing.assert_array_equal(order[slice(*rows[row])], np.flatnonzero(taken == row))


def test_the_watch_looks_at_some_texts_of_a_large_batch():
    """Their cosines are like those of all, and it takes no longer however many there are."""
    vectors = np.random.default_rng(0).standard_normal((4000, 24), dtype=np.float32) + 0.5
    all_units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (all_units @ all_units.T)[np.triu_indices(len(vectors), 1)]
    watch = Watch(0, False)
    watch.look(vectors)
    assert watch.values["cosine_mean"] == pytest.approx(cosines.mean(), abs=0.02)
    assert watch.values["cosine_std"] == pytest.approx(cosines.std(), rel=0.05)
    watch.look(vectors[:WATCHED])
    few = (all_units[:WATCHED] @ all_units[:WATCHED].T)[np.triu_indices(WATCHED, 1)]
    assert watch.values["cosine_mean"] == pytest.approx(few.mean(), abs=1e-6)  # of all, as there are no more
    unseen = vectors.copy()
    unseen[1:14] = np.nan  # between two that are looked at
    before = dict(watch.values)
    watch.look(vectors)
    seen = dict(watch.values)
    watch.look(unseen)
    assert watch.values == seen != before
