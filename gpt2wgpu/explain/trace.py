"""Every value of a graph for one text, in float64, and the residual stream that runs through it.

The values are what the model computes without rounding to float32; the same ops compute them as in graph/reference.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..graph import ops
from ..graph.ops.quantized import dequantize
from ..graph.ops.self_attention import count_heads, masked_scores, query_blocks, split_qkv
from ..graph.tensor import Array, Op, Tensor, schedule

EMBEDS: tuple[Op, ...] = (ops.embed, ops.embed_int8)
ADDS: tuple[Op, ...] = (ops.linear_add, ops.linear_add_int8)
NORMS: tuple[Op, ...] = (ops.layer_norm, ops.rms_norm)
ATTENTIONS: tuple[Op, ...] = (ops.attention, ops.attention_bias)
AFTER_POOLING: tuple[Op, ...] = (ops.linear, ops.layer_norm, ops.l2_normalize)


class Trace:
    """The values of all tensors of a graph for a batch of one text; `trace[t]` is float64, or uint32 for token ids and the like.

    read: gives the values of a weight, as `Checkpoint.weights` or a numpy program does.
    """

    def __init__(self, output: Tensor, read: Callable[[Tensor], Array], batch: Mapping[str, Array]) -> None:
        self.tensors, self._read = schedule(output), read
        self.values: dict[Tensor, Array] = {}
        self.token_vectors, self.position_vectors = np.empty((0, 0)), np.empty((0, 0))
        with np.errstate(all="ignore"):  # an overflow shows in the vector, which the caller checks
            for t in self.tensors:
                if t.op is None:
                    if not t.is_weight:
                        self.values[t] = batch[t.name]
                elif t.op in EMBEDS:
                    self.values[t] = self._embed(t)
                else:
                    found = t.op.reference(*(self[x] for x in t.inputs), **t.attrs).astype(np.float64)
                    self.values[t] = found.astype(np.float16).astype(np.float64) if t.dtype == "f16" else found

    def __getitem__(self, t: Tensor) -> Array:
        if t in self.values:
            return self.values[t]
        found = self._read(t)
        return found if found.dtype == np.int8 else found.astype(np.float64)

    def _embed(self, t: Tensor) -> Array:
        """An embedding, whose two rows are kept; the table of tokens is not widened as a whole."""
        rows, positions, table, *scale, second = t.inputs
        ids = self[rows]
        tokens = self._read(table)[ids]
        if scale:
            tokens = dequantize(tokens.T, self._read(scale[0])[ids].T).T
        self.token_vectors = tokens.astype(np.float64)
        self.position_vectors = self._read(second)[self[positions]].astype(np.float64)
        return self.token_vectors + self.position_vectors

    def matrix(self, t: Tensor) -> Array:
        """The matrix (K, N) of a linear layer."""
        if t.op is not None and t.op.name.endswith("int8"):
            return dequantize(self[t.inputs[1]], self[t.inputs[2]]).astype(np.float64)
        return self[t.inputs[1]]

    def linear_bias(self, t: Tensor) -> Array:
        """The bias (N,) of a linear layer."""
        return self[t.inputs[-2 if t.op in ADDS else -1]]


class BlockWrite(NamedTuple):
    """What a block adds to the residual stream: `added` is the tensor after the addition, `source` (T, K) what its linear layer
    reads. block: from 1. attention: the op whose heads lie side by side in `source`; None for an MLP."""

    block: int
    added: Tensor
    source: Tensor
    attention: Tensor | None


@dataclass(frozen=True)
class Anatomy:
    """The parts of an embedding model's graph.

    stages: the residual stream from the embedding to the state that is pooled: an embedding, then additions and the norms that
    stand on the stream itself. writes: the additions, in order. states: hidden states 0, 1, ... as `transformers` counts them.
    pools: the poolings of the last state, side by side. modules: what follows the pooling, in order. final_norm: a norm on the
    stream of a model that has none inside its blocks.
    """

    stages: tuple[Tensor, ...]
    writes: tuple[BlockWrite, ...]
    states: tuple[Tensor, ...]
    pools: tuple[Tensor, ...]
    modules: tuple[Tensor, ...]
    final_norm: Tensor | None

    @property
    def blocks(self) -> int:
        return len(self.states) - 1


def find_anatomy(output: Tensor) -> Anatomy:
    """The parts of a graph that checkpoint/graph.py built. Raises ValueError for a graph of another shape."""
    modules: list[Tensor] = []
    t = output
    while t.op in AFTER_POOLING:
        modules.append(t)
        t = t.inputs[0]
    pools: list[Tensor] = []
    while t.op is ops.concat:
        pools.append(t.inputs[1])
        t = t.inputs[0]
    pools.append(t)
    if any(p.op is not ops.pool or p.inputs[0] is not t.inputs[0] for p in pools):
        raise ValueError("expected poolings of one hidden state")
    stages = walk_stream(t.inputs[0])
    writes: list[BlockWrite] = []
    for stage in stages:
        if stage.op in ADDS:
            attention = find_attention(stage.inputs[0], stop=set(stages))
            block = (writes[-1].block if writes else 0) + (attention is not None)
            writes.append(BlockWrite(block, stage, stage.inputs[0], attention))
    written = {w.added: w.attention is not None for w in writes}
    states = [w.added.inputs[-1] for w in writes if w.attention is not None]
    inside = any(b.op in NORMS and written[a] for a, b in pairwise(stages) if a in written)
    final = stages[-1] if stages[-1].op in NORMS and writes and not inside else None
    return Anatomy(tuple(stages), tuple(writes), (*states, stages[-1]), tuple(pools[::-1]), tuple(modules[::-1]), final)


def walk_stream(state: Tensor) -> list[Tensor]:
    """The residual stream that ends in a hidden state, from the embedding on."""
    stages = [state]
    while (t := stages[-1]).op not in EMBEDS:
        if t.op in NORMS:
            stages.append(t.inputs[0])
        elif t.op in ADDS:
            stages.append(t.inputs[-1])
        else:
            raise ValueError(f"expected a norm, an addition or an embedding on the residual stream, not {t.op and t.op.name}")
    return stages[::-1]


def find_attention(t: Tensor, stop: set[Tensor]) -> Tensor | None:
    """The attention that a branch holds, from its end back to the residual stream; None for an MLP."""
    while t not in stop:
        if t.op in ATTENTIONS:
            return t
        t = t.inputs[0]
    return None


def attention_maps(trace: Trace, t: Tensor) -> Array:
    """The probabilities (H, n, n) of an attention: [h, i, j] is how much token i takes from token j in head h."""
    qkv, a = trace[t.inputs[0]], t.attrs
    n, window = len(qkv), a.get("window", 0)
    heads = count_heads(qkv.shape[1], a["head_size"], a.get("kv_heads", 0))
    q, k, _ = split_qkv(qkv, 1, n, heads, a["head_size"])
    bias = trace[t.inputs[3]] if t.op is ops.attention_bias else None
    maps = np.zeros((heads.queries, n, n))
    for queries, keys in query_blocks(0, n, n, a["causal"], window):
        scores = masked_scores(q, k, a["scale"], queries, keys, a["causal"], window, bias)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        maps[:, queries, keys] = scores.reshape(heads.queries, queries.stop - queries.start, -1)
    return maps
