"""A forward graph -> its trainable form, and the gradients of its weights: one table of derivatives, one walk."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from ..errors import UserError
from ..graph.memory import MemoryNeed, plan_buffers, tensor_bytes
from ..graph.ops import attention, concat, embed, l2_normalize, layer_norm, linear, linear_add, pool
from ..graph.tensor import Array, Tensor, schedule
from . import ops
from .sums import MOST_PARTS, count_parts

TOKENS, SEED = Tensor(("T",), "u32", "tokens"), Tensor((1,), "u32", "seed")
Gradients = Sequence[Tensor | None]  # one for each input of an op; None for an input without gradient


def trainable(output: Tensor, dropout: float = 0.0) -> Tensor:
    """The same graph, with the input of every activation as a separate tensor, and with dropout.

    Dropout (a probability) follows the embedding and ends every residual branch; attention probabilities get none.
    Raises ValueError unless everything is f32.
    """
    sites = itertools.count()

    def drop(x: Tensor) -> Tensor:
        """x with dropout. The probability is the share of all u32 below the threshold."""
        if not dropout:
            return x
        return ops.dropout(x, TOKENS, SEED, threshold=int(dropout * 2**32), scale=1 / (1 - dropout), site=next(sites))

    new: dict[Tensor, Tensor] = {}
    for t in schedule(output):
        if t.dtype == "f16":
            raise ValueError("only a graph in f32 can be trained")
        inputs = [new[x] for x in t.inputs]
        if t.op is None:
            new[t] = t
        elif t.op is linear and t.attrs["activation"] != "none":
            new[t] = ops.activate(linear(*inputs), activation=t.attrs["activation"])
        elif t.op is linear_add and dropout:
            new[t] = ops.add(drop(linear(*inputs[:3])), inputs[3])
        elif t.op is embed:
            new[t] = drop(embed(*inputs, **t.attrs))
        else:
            new[t] = t.op(*inputs, **t.attrs)
    return new[output]


def gradients(output: Tensor, seed: Tensor, of: Collection[Tensor]) -> dict[Tensor, Tensor]:
    """The gradient of sum(seed * output) with respect to each leaf of `of` that the output depends on (reverse accumulation).

    Raises UserError if an op in between has no gradient, or if a weight is used twice.
    """
    wanted = set(of)
    for t in schedule(output):
        if any(x in wanted for x in t.inputs):
            wanted.add(t)
    found = {output: seed}
    for t in reversed(schedule(output)):
        if t.op is not None and t in found:
            if t.op.name not in VJP:
                raise UserError(f"a model with {t.op.name} cannot be trained: this op has no gradient")
            for x, g in zip(t.inputs, VJP[t.op.name](t, found[t]), strict=True):
                if g is None or x not in wanted:
                    continue
                if x.is_weight and x in found:  # micro-batches accumulate in a gradient's buffer, and a sum of two has none
                    raise UserError(f"a model that uses the weight {x.name} twice cannot be trained: freeze it")
                found[x] = ops.add(found[x], g) if x in found else g
    return {t: found[t] for t in of if t in found}


# --- the table: an op's output and the gradient with respect to it -> the gradients with respect to the op's inputs


def linear_vjp(t: Tensor, dout: Tensor) -> Gradients:
    x, weight = t.inputs[:2]
    dx = ops.matmul(dout, ops.transpose(weight))
    parts = ops.linear_dweight(x, dout, P=count_parts(*map(int, weight.shape)))
    return dx, ops.sum_parts(parts, T="T", onto="ONTO"), bias_gradient(dout)


def bias_gradient(dout: Tensor) -> Tensor:
    return ops.sum_vectors(ops.sum_rows(dout, P=MOST_PARTS), T="T", onto="ONTO")


def layer_norm_vjp(t: Tensor, dout: Tensor) -> Gradients:
    x, weight, _ = t.inputs
    stats = ops.layer_norm_stats(x, **t.attrs)
    dx = ops.layer_norm_dx(x, stats, weight, dout)
    parts = ops.layer_norm_dweight(x, stats, dout, P=MOST_PARTS)
    return dx, ops.sum_vectors(parts, T="T", onto="ONTO"), bias_gradient(dout)


def attention_vjp(t: Tensor, dout: Tensor) -> Gradients:
    qkv, spans, tiles = t.inputs
    lse = ops.attention_lse(qkv, spans, tiles, **t.attrs)
    return ops.attention_dqkv(qkv, t, dout, lse, spans, tiles, **t.attrs), None, None


def embed_vjp(t: Tensor, dout: Tensor) -> Gradients:
    def table(x: Tensor, taken: Tensor) -> Tensor:
        order = Tensor(("T",), "u32", f"{taken.name}_order")
        return ops.scatter_rows(dout, order, Tensor((x.shape[0], 2), "u32", f"{taken.name}_rows"), onto="ONTO")

    ids, positions, wte, wpe = t.inputs
    return None, None, table(wte, ids), table(wpe, positions)


def concat_vjp(t: Tensor, dout: Tensor) -> Gradients:
    j, k = int(t.dims["J"]), int(t.dims["K"])
    return ops.columns(dout, M=j, first=0), ops.columns(dout, M=k, first=j)


VJP: dict[str, Callable[[Tensor, Tensor], Gradients]] = {
    linear.name: linear_vjp,
    linear_add.name: lambda t, dout: (*linear_vjp(t, dout), dout),
    layer_norm.name: layer_norm_vjp,
    attention.name: attention_vjp,
    embed.name: embed_vjp,
    concat.name: concat_vjp,
    pool.name: lambda t, dout: (ops.pool_dx(t.inputs[0], dout, *t.inputs[1:], **t.attrs), None, None),
    l2_normalize.name: lambda t, dout: (ops.l2_normalize_dx(t.inputs[0], dout),),
    ops.activate.name: lambda t, dout: (ops.activate_dx(t.inputs[0], t, dout, **t.attrs),),
    ops.dropout.name: lambda t, dout: (ops.dropout(dout, *t.inputs[1:], **t.attrs), None, None),
    ops.add.name: lambda t, dout: (dout, dout),
}


class TrainGraph:
    """A graph to train: the trainable form of an output, and the gradients of its weights.

    dropout: a probability. frozen: names of weights that are not trained. averaged: whether a program keeps a moving average
    of the trained weights.
    Raises ValueError if the graph has no weight of a frozen name, or if all are frozen; UserError if it cannot be trained.
    """

    def __init__(self, output: Tensor, dropout: float = 0.0, frozen: Collection[str] = (), averaged: bool = False) -> None:
        self.averaged = averaged
        self.inference = output  # without dropout
        self.output = trainable(output, dropout)
        self.weights = [t for t in schedule(self.output) if t.is_weight]
        unknown = set(frozen) - {t.name for t in self.weights}
        if unknown:
            raise ValueError(f"no weight is called {sorted(unknown)[0]!r}")
        self.trained = [t for t in self.weights if t.name not in frozen]
        if not self.trained:
            raise ValueError("every weight is frozen: there is nothing to train")
        self.seed = Tensor(self.output.shape, name="doutput")
        self.gradients = gradients(self.output, self.seed, self.trained)
        self.forward = schedule(self.output)
        known = set(self.forward)
        self.backward = [t for t in schedule(self.output, *self.gradients.values()) if t not in known]
        self.inputs = [t for t in (*self.forward, *self.backward) if t.op is None and not t.is_weight and t is not self.seed]
        self.tables = {t.name: int(t.shape[0]) for t in self.inputs if t.name.endswith("_rows")}

    def memory_needed(self, capacity: Mapping[str, int]) -> MemoryNeed:
        """Bytes: of weights, gradients, both moments of AdamW and the average; and of the arrays and results of a batch of size
        `capacity`."""

        def size(t: Tensor) -> int:
            return tensor_bytes(t, capacity)

        trained = sum(map(size, self.trained))
        _, results = plan_buffers([*self.forward, *self.backward], size, set(self.gradients.values()))
        batch = sum(map(size, (*self.inputs, self.seed)))
        return MemoryNeed(sum(map(size, self.weights)) + (3 + self.averaged) * trained, sum(results) - trained + batch)

    def arrays(self, batch: Mapping[str, Array], seed: int, tokens: Array) -> dict[str, Array]:
        """A batch, and the other arrays that the graph reads. tokens: which of the micro-batch's tokens these are, int (T,)."""
        found = dict(batch) | {"tokens": tokens.astype(np.uint32), "seed": np.array([seed & 0xFFFFFFFF], np.uint32)}
        for name, count in self.tables.items():
            taken = name.removesuffix("_rows")
            found[f"{taken}_order"], found[name] = ops.sorted_rows(batch[taken], count)
        return found
