"""Cutting texts into batches, and the arrays of a batch."""

import re
from itertools import pairwise

import numpy as np
import pytest

from gpt2wgpu.gpu.kernels import read_shader
from gpt2wgpu.graph import packing
from gpt2wgpu.graph.tensor import Array


def random_lengths(rng: np.random.Generator, count: int, longest: int) -> list[int]:
    return rng.integers(1, longest + 1, count).tolist()


@pytest.mark.parametrize("seed", range(50))
def test_every_text_is_in_one_batch_within_budget(seed: int):
    rng = np.random.default_rng(seed)
    lengths = random_lengths(rng, int(rng.integers(1, 200)), int(rng.integers(1, 100)))
    budget, most = int(rng.integers(1, 150)), int(rng.integers(1, 20))
    batches = packing.plan_batches(lengths, budget, most)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= most
        assert sum(lengths[i] for i in batch) <= budget or len(batch) == 1
    in_order = [lengths[i] for batch in batches for i in batch]
    assert in_order == sorted(lengths, reverse=True)


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_is_closed_only_when_the_next_text_does_not_fit(seed: int):
    rng = np.random.default_rng(seed)
    lengths, budget, most = random_lengths(rng, 100, 40), 90, 5
    batches = packing.plan_batches(lengths, budget, most)
    for batch, following in pairwise(batches):
        tokens = sum(lengths[i] for i in batch)
        assert len(batch) == most or tokens + lengths[following[0]] > budget


def test_plan_by_hand():
    assert packing.plan_batches([], 10, 10) == []
    assert packing.plan_batches([3], 1, 1) == [[0]]
    assert packing.plan_batches([5, 200, 150, 5], 100, 9) == [[1], [2], [0, 3]]  # over the budget: alone
    assert packing.plan_batches([4, 4, 4, 4, 4], 8, 9) == [[0, 1], [2, 3], [4]]  # exactly the budget; equal ones keep their order
    assert packing.plan_batches([1, 2, 3], 100, 1) == [[2], [1], [0]]
    assert packing.plan_batches([1, 9, 5], 100, 2) == [[1, 2], [0]]


def test_pack_by_hand():
    sequences = [np.array([7, 8, 9]), np.array([5]), np.arange(33) + 100]
    arrays = packing.pack_batch(sequences, [np.array([0, 1, 2]), np.array([0]), np.arange(33)], [1, 0, 32])
    expected = {
        "ids": [7, 8, 9, 5, *range(100, 133)],
        "positions": [0, 1, 2, 0, *range(33)],
        "types": [0] * 37,
        "spans": [[0, 3], [3, 4], [4, 37]],
        "tiles": [[0, 0], [1, 0], [2, 0], [2, 32]],
        "skip": [1, 0, 32],
    }
    assert arrays.keys() == expected.keys()
    for name, values in expected.items():
        assert arrays[name].dtype == np.uint32
        np.testing.assert_array_equal(arrays[name], values)


def pack_lengths(lengths: list[int]) -> dict[str, Array]:
    return packing.pack_batch([np.arange(n) for n in lengths], [np.arange(n) for n in lengths], [0] * len(lengths))


@pytest.mark.parametrize("pad", [None, 1])
def test_concatenated_ids_pack_like_sequences(pad: int | None):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(4, size=n) for n in (1, 70, 32, 5, 33)]
    expected = packing.pack_batch(sequences, [packing.position_ids(s, pad) for s in sequences], [0] * 5)
    found = packing.pack_ids(np.concatenate(sequences), np.array([len(s) for s in sequences]), pad)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], a) and found[name].dtype == a.dtype for name, a in expected.items())
    assert expected["tiles"].tolist() == [[b, f] for b, n in enumerate((1, 70, 32, 5, 33)) for f in range(0, n, 32)]


@pytest.mark.parametrize("seed", range(30))
def test_spans_and_tiles_cover_every_token_once(seed: int):
    rng = np.random.default_rng(seed)
    lengths = random_lengths(rng, int(rng.integers(1, 60)), int(rng.integers(1, 150)))
    arrays = pack_lengths(lengths)
    spans, tiles = arrays["spans"].astype(int), arrays["tiles"].astype(int)
    assert spans[0, 0] == 0
    assert spans[-1, 1] == len(arrays["ids"]) == sum(lengths)
    np.testing.assert_array_equal(spans[1:, 0], spans[:-1, 1])
    np.testing.assert_array_equal(spans[:, 1] - spans[:, 0], lengths)
    queries = [spans[b, 0] + q for b, first in tiles for q in range(first, min(first + packing.QUERY_TILE, lengths[b]))]
    assert queries == list(range(sum(lengths)))
    np.testing.assert_array_equal(arrays["ids"], arrays["positions"])


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("parts", [1, 2, 5, 64])
def test_the_parts_of_a_batch_are_the_batch(parts: int, seed: int):
    rng = np.random.default_rng(seed)
    lengths = random_lengths(rng, int(rng.integers(1, 40)), int(rng.integers(1, 80)))
    sequences, positions = ([rng.integers(0, 1000, n) for n in lengths] for _ in range(2))
    skip = [int(rng.integers(n)) for n in lengths]
    found = packing.split_batch(packing.pack_batch(sequences, positions, skip), parts)
    assert len(found) == min(parts, len(lengths))
    assert sorted(b for rows, _ in found for b in rows) == list(range(len(lengths)))
    tokens = [len(part["ids"]) for _, part in found]
    assert max(tokens) - min(tokens) <= max(lengths)
    for rows, part in found:
        expected = packing.pack_batch([sequences[b] for b in rows], [positions[b] for b in rows], [skip[b] for b in rows])
        assert part.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(part[name], values)
            assert part[name].dtype == np.uint32


@pytest.mark.parametrize("seed", range(50))
def test_no_planned_batch_has_more_tiles_than_max_tiles(seed: int):
    rng = np.random.default_rng(seed)
    budget, most = int(rng.integers(1, 700)), int(rng.integers(1, 40))
    longest = int(rng.integers(1, budget + 1))
    lengths = random_lengths(rng, 150, longest)
    for batch in packing.plan_batches(lengths, budget, most):
        assert len(pack_lengths([lengths[i] for i in batch])["tiles"]) <= packing.max_tiles(budget, most)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 65])
@pytest.mark.parametrize("count", [1, 2, 31, 32, 33])
def test_max_tiles_at_its_worst(length: int, count: int):
    """One token past a tile wastes most; then the bound is met exactly or nearly so."""
    tiles = len(pack_lengths([length] * count)["tiles"])
    bound = packing.max_tiles(length * count, count)
    assert tiles <= bound
    if length % packing.QUERY_TILE == 1:
        assert bound - tiles <= count // packing.QUERY_TILE


def test_a_tile_is_what_the_attention_kernel_takes():
    found = re.search(r"^const QUERIES: u32 = (\d+)u;", read_shader("softmax_attention"), re.M)
    assert found is not None
    assert int(found[1]) == packing.QUERY_TILE
