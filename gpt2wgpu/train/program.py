"""A training step in numpy: forward, loss, backward, AdamW, on all cores."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Condition

import numpy as np

from .. import packing, reference
from ..graph import Tensor
from ..ops import Array
from . import adamw, ops
from .gradients import TrainGraph

Loss = Callable[[Array], tuple[float, Array]]
BLOCK = 1 << 15  # numbers of a weight that are updated together, so that they stay in the cache


class TrainProgram:
    """A graph that can be trained. `weights(tensor)` gives the array of a named weight, which is copied.

    frozen: names of weights that stay as they are. Same weights, batches and seeds, and as many cores: same bits.
    """

    def __init__(
        self,
        output: Tensor,
        weights: Callable[[Tensor], Array],
        *,
        dropout: float = 0.0,
        frozen: Collection[str] = (),
    ) -> None:
        self.graph = TrainGraph(output, dropout, frozen)
        self.steps = 0
        self.micro_batches = 0
        self.weights = {t: np.array(weights(t), np.float32) for t in self.graph.weights}
        self.total, self.m, self.v = ({t: np.zeros_like(self.weights[t]) for t in self.graph.trained} for _ in range(3))
        self.inference = reference.Program(output, lambda t: self.weights[t])
        self.weight_of = {g: t for t, g in self.graph.gradients.items()}
        everything = [*self.graph.forward, *self.graph.backward]
        self.last_reader = {x: t for t in everything for x in t.inputs}

    def vectors(self, batch: Mapping[str, Array]) -> Array:
        """The output for a packed batch, without dropout."""
        return self.inference.submit(batch)()

    def gradients(self, batch: Mapping[str, Array], loss: Loss, seed: int) -> float:
        """The loss of one micro-batch; its gradient is added to what `step` will use. seed: of the dropout, a u32."""
        parts = packing.split(batch, os.cpu_count() or 1)
        spans = batch["spans"].tolist()
        rows = [part for part, _ in parts]
        shares = []
        for part, arrays in parts:
            named = self.graph.arrays(arrays, seed, np.concatenate([np.arange(*spans[b]) for b in part]))
            shares.append({t: named[t.name] for t in self.graph.inputs})
        with reference.BLAS_LIMIT, reference.blas().limit(limits=1, user_api="blas"):
            vectors = np.empty((len(spans), int(self.graph.output.shape[1])), np.float32)
            for part, share in zip(rows, reference.threads().map(self._forward, shares), strict=True):
                vectors[part] = share
            value, dvectors = loss(vectors)
            turns = Turns()
            jobs = [(i, share, dvectors[part], turns) for i, (part, share) in enumerate(zip(rows, shares, strict=True))]
            for _ in reference.threads().map(self._backward, *zip(*jobs, strict=True)):
                pass
        self.micro_batches += 1
        return value

    def _forward(self, values: dict[Tensor, Array]) -> Array:
        """The vectors of a share; `values`, at first its batch arrays, afterwards has what the backward pass needs."""
        self._compute(self.graph.forward, values)
        return values[self.graph.output]

    def _backward(self, share: int, values: dict[Tensor, Array], dvectors: Array, turns: "Turns") -> None:
        values[self.graph.seed] = dvectors
        with turns.no_one_waits_for_a_failure():
            self._compute(self.graph.backward, values, share, turns)

    def _compute(
        self, tensors: Sequence[Tensor], values: dict[Tensor, Array], share: int = 0, turns: "Turns | None" = None
    ) -> None:
        with np.errstate(all="ignore"):  # what overflows shows in the loss or in the norm of the gradient
            for t in tensors:
                if t.op is None:
                    continue
                inputs = [self.weights[x] if x in self.weights else values[x] for x in t.inputs]
                weight = self.weight_of.get(t)
                if weight is None or turns is None:
                    values[t] = t.op.reference(*inputs, **t.attrs)
                elif t.op is ops.scatter_rows:  # most rows of a table are zero
                    taken, sums = ops.row_sums(*inputs)
                    with turns.of(weight, share):
                        self.total[weight][taken] += sums
                else:
                    result = t.op.reference(*inputs, **t.attrs)
                    with turns.of(weight, share):
                        self.total[weight] += result
                for x in set(t.inputs):
                    if self.last_reader[x] is t and x not in self.weights:
                        del values[x]

    def step(self, lr: float, *, weight_decay: float, clip: float) -> float:
        """AdamW with the mean gradient of the micro-batches since the last step, clipped to the norm `clip`.

        Returns the norm before clipping. If that is not finite, the weights stay as they are.
        """
        blocks = [(t, slice(i, i + BLOCK)) for t in self.graph.trained for i in range(0, self.weights[t].size, BLOCK)]

        def square(block: tuple[Tensor, slice]) -> float:
            g = self.total[block[0]].reshape(-1)[block[1]]
            return float(np.dot(g, g))

        def update(block: tuple[Tensor, slice]) -> None:
            t, at = block
            w, m, v, g = (a[t].reshape(-1)[at] for a in (self.weights, self.m, self.v, self.total))
            adamw.adamw(w, m, v, g, numbers, len(t.shape) == 2, np.empty(BLOCK, np.float32))

        norm = float(np.sqrt(sum(map(square, blocks)))) / self.micro_batches
        factor = adamw.clipping(norm, clip) / self.micro_batches
        self.micro_batches = 0
        if not np.isfinite(norm):
            for total in self.total.values():
                total[:] = 0
            return norm
        self.steps += 1
        numbers = adamw.Update.of_step(self.steps, lr, weight_decay, factor)
        for block in blocks:
            update(block)
        return norm

    def state(self) -> dict[str, Array]:
        """A copy of all that training continues from, by name: "weight/NAME", "m/NAME", "v/NAME" and "step"."""
        found = {f"weight/{t.name}": a.copy() for t, a in self.weights.items()}
        for kind, arrays in (("m", self.m), ("v", self.v)):
            found |= {f"{kind}/{t.name}": a.copy() for t, a in arrays.items()}
        return found | {"step": np.array(self.steps)}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Go on from a `state`. Raises ValueError if it is another model's."""
        for kind, arrays in (("weight", self.weights), ("m", self.m), ("v", self.v)):
            for t, a in arrays.items():
                found = state.get(f"{kind}/{t.name}")
                if found is None or found.shape != a.shape:
                    raise ValueError(f"{kind}/{t.name} must be {a.shape}, got {'none' if found is None else found.shape}")
        for kind, arrays in (("weight", self.weights), ("m", self.m), ("v", self.v)):
            for t, a in arrays.items():
                a[...] = state[f"{kind}/{t.name}"]
        self.steps = int(state["step"])


class Turns:
    """The shares of a micro-batch add to a weight's gradient in their order, so that a sum has the same bits every time.

    All compute the same list, so a share hardly ever waits for the one before.
    """

    def __init__(self) -> None:
        self.done: dict[Tensor, int] = {}
        self.failed = False
        self.changed = Condition()

    @contextmanager
    def of(self, weight: Tensor, share: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: self.failed or self.done.get(weight, 0) == share)
        yield
        with self.changed:
            self.done[weight] = share + 1
            self.changed.notify_all()

    @contextmanager
    def no_one_waits_for_a_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with self.changed:
                self.failed = True
                self.changed.notify_all()
            raise
