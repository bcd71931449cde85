"""A graph as JSON: its tensors, and the kernels, grids and uniform values that a page replays."""

import math
from collections.abc import Mapping
from typing import Any

from ..gpu import paper_device, paper_kernels, uniform_bits
from ..graph import memory
from ..graph.packing import max_tiles
from ..graph.tensor import Tensor, schedule
from .grids import Letter, write_grid

BATCH_TOKENS = 2048  # of a batch, unless a text may be longer
BATCH_SEQUENCES = 256
TILE_ROWS = 128  # sizes of a batch are rounded up to it, so that no tile reaches past a buffer

JsonObject = dict[str, Any]


def page_capacity(longest: int) -> dict[str, int]:
    """The most tokens, sequences and query tiles of a batch. longest: tokens of the longest text."""
    tokens = max(BATCH_TOKENS, longest)
    return {"T": tokens, "B": BATCH_SEQUENCES, "G": max_tiles(tokens, BATCH_SEQUENCES)}


def graph_form(output: Tensor, capacity: Mapping[str, int]) -> JsonObject:
    """The graph for one dtype of computation.

    tensors: in order of execution; inputs and output are indices into it. kinds: steps with the same kernels and uniform
    values share one. sources: WGSL. A kind's kernels are [most rows or null, source, grid]; rows is their number, or a letter.
    """
    device = paper_device()
    tensors = schedule(output)
    index = {t: i for i, t in enumerate(tensors)}
    rounded = {symbol: -(-size // TILE_ROWS) * TILE_ROWS for symbol, size in capacity.items()}
    places, _ = memory.plan_buffers(tensors, lambda t: memory.tensor_bytes(t, rounded))
    sources: dict[str, int] = {}
    kinds: dict[str, int] = {}
    listed: list[JsonObject] = []
    found: list[JsonObject] = []
    for t in tensors:
        if t.op is None:
            leaf: JsonObject = {"name": t.name, "dtype": t.dtype, "shape": [*t.shape]}
            found.append({**leaf, "weight": True} if t.is_weight else leaf)
            continue
        params = {**t.dims, **t.attrs}
        letters = {name: Letter(value) if value in capacity else value for name, value in params.items()}
        ladder = paper_kernels(device, t)
        kernels = [
            [None if most == math.inf else most, sources.setdefault(k.source, len(sources)), write_grid(k.grid(t, letters))]
            for most, k in ladder
        ]
        fields = ladder[0][1].fields
        uniforms = {n: params[n] if params[n] in capacity else uniform_bits(params[n], dtype) for n, dtype in fields}
        kind = {"rows": params.get("T", 0), "kernels": kernels, "uniforms": uniforms}
        if (number := kinds.setdefault(repr(kind), len(kinds))) == len(listed):
            listed.append(kind)
        found.append(
            {
                "op": t.op.name,
                "inputs": [index[x] for x in t.inputs],
                "dtype": t.dtype,
                "shape": [*t.shape],
                "dims": t.dims,
                "attrs": t.attrs,
                "kind": number,
                "buffer": places[t],
            }
        )
    return {"tensors": found, "output": index[output], "kinds": listed, "sources": [*sources]}
