"""Sequences of tokens become packed batches: the sequences of a batch lie end to end on one token axis, without padding."""

from collections.abc import Mapping, Sequence

import numpy as np

from .tensor import Array

QUERY_TILE = 32  # queries per workgroup of the attention kernels: QUERIES in the shaders


def plan_batches(lengths: Sequence[int], max_tokens: int, max_sequences: int) -> list[list[int]]:
    """Cut texts into batches of at most `max_tokens` tokens (a longer text is a batch of its own) and `max_sequences` texts.

    lengths: tokens of each text. Returns the indices of each batch, the longest texts first, so texts of similar length
    share a batch.
    """
    batches: list[list[int]] = []
    tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or tokens + lengths[i] > max_tokens or len(batches[-1]) == max_sequences:
            batches.append([])
            tokens = 0
        batches[-1].append(i)
        tokens += lengths[i]
    return batches


def find_equal(sequences: Sequence[Array]) -> tuple[list[int], list[int]]:
    """For each sequence the first one that equals it, and these first ones: equal texts are computed once."""
    seen: dict[bytes, int] = {}
    return [seen.setdefault(s.tobytes(), i) for i, s in enumerate(sequences)], [*seen.values()]


def pack_batch(sequences: Sequence[Array], positions: Sequence[Array], skip: Sequence[int] | Array) -> dict[str, Array]:
    """The arrays of one batch, all uint32.

    ids, positions, types (T,): of each token; every type is 0. spans (B, 2): first and one-past-last token of each sequence.
    tiles (G, 2): a sequence and the first query of a tile in it, the work list of attention. skip (B,): leading tokens that
    pooling leaves out.
    """
    lengths = np.array([len(s) for s in sequences])
    return packed_arrays(np.concatenate(sequences), np.concatenate(positions), lengths, skip)


def pack_ids(ids: Array, lengths: Array, pad: int | None) -> dict[str, Array]:
    """The arrays of one batch, as of `pack_batch`, from the concatenated ids of sequences of these lengths (B,). No token is
    skipped. pad: see `position_ids`."""
    ends = np.cumsum(lengths)
    if pad is None:
        return packed_arrays(ids, range_indices(np.zeros_like(lengths), lengths), lengths, np.zeros(len(lengths)))
    real = ids != pad
    counted = np.cumsum(real)
    before = (counted - real)[ends - lengths]
    return packed_arrays(ids, (counted - np.repeat(before, lengths)) * real + pad, lengths, np.zeros(len(lengths)))


def packed_arrays(ids: Array, positions: Array, lengths: Array, skip: Sequence[int] | Array) -> dict[str, Array]:
    """The arrays of `pack_batch`, from the concatenated ids and positions of sequences of these lengths (B,)."""
    ends = np.cumsum(lengths)
    tiles = -(-lengths // QUERY_TILE)
    arrays = {
        "ids": ids,
        "positions": positions,
        "types": np.zeros(ends[-1]),
        "spans": np.stack([ends - lengths, ends], axis=1),
        "tiles": np.stack(
            [np.repeat(np.arange(len(lengths)), tiles), QUERY_TILE * range_indices(np.zeros_like(tiles), tiles)], axis=1
        ),
        "skip": np.array(skip),
    }
    return {name: a.astype(np.uint32) for name, a in arrays.items()}


def range_indices(begins: Array, ends: Array) -> Array:
    """begins[0], ..., ends[0] - 1, begins[1], ..., ends[1] - 1, and so on, int64."""
    lengths = ends - begins
    return np.arange(lengths.sum()) + np.repeat(begins - np.cumsum(lengths) + lengths, lengths)


def split_batch(batch: Mapping[str, Array], parts: int) -> list[tuple[list[int], dict[str, Array]]]:
    """Up to `parts` batches with about as many tokens each, and the indices of the sequences in each.

    Each sequence goes to the part with the fewest tokens so far.
    """
    spans = batch["spans"].tolist()
    rows: list[list[int]] = [[] for _ in range(min(parts, len(spans)))]
    tokens = [0] * len(rows)
    for b, (start, end) in enumerate(spans):
        lightest = tokens.index(min(tokens))
        rows[lightest].append(b)
        tokens[lightest] += end - start

    def cut(name: str, part: list[int]) -> list[Array]:
        return [batch[name][slice(*spans[b])] for b in part]

    return [(part, pack_batch(cut("ids", part), cut("positions", part), batch["skip"][part])) for part in rows]


def max_tiles(max_tokens: int, max_sequences: int) -> int:
    """The most tiles that a batch can have: each sequence may end in a partly filled one."""
    return max_tokens // QUERY_TILE + max_sequences


def position_ids(ids: Array, pad: int | None) -> Array:
    """The position ids (n,) of one sequence: 0, 1, ... With `pad`, as in RoBERTa: pad + 1, pad + 2, ...;
    a token with the id `pad` gets the position `pad` and is not counted.
    """
    if pad is None:
        return np.arange(len(ids))
    real = ids != pad
    return np.cumsum(real) * real + pad
