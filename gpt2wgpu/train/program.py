"""A training step in numpy: forward, loss, backward and AdamW, on all cores."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Condition
from typing import Any, Protocol

import numpy as np

from ..graph import cores, packing, reference
from ..graph.tensor import Array, Tensor
from . import adamw, ops
from .gradients import TrainGraph

Loss = Callable[[Array], tuple[float, Array]]  # vectors (B, C) -> loss, and its gradient with respect to them, (B, C)
Block = tuple[Tensor, slice]  # a part of a weight, flattened
BLOCK_SIZE = 1 << 16  # numbers that are updated together, so that they stay in the cache


class TrainProgram(Protocol):
    """A graph in training. Implemented by NumpyTrainProgram and gpu.GPUTrainProgram.

    The same weights, batches and seeds give the same bits on the same device. A batch is what packing.pack_batch makes.
    """

    graph: TrainGraph

    def vectors(self, batch: Mapping[str, Array]) -> Array:
        """The output for a packed batch, float32 (B, C), without dropout."""
        ...

    def gradients(self, batch: Mapping[str, Array], loss: Loss, seed: int) -> float:
        """The loss of one micro-batch. Its gradient is added to what `step` will use. seed: for dropout, a u32."""
        ...

    def step(self, lr: float, *, weight_decay: float, clip: float) -> float:
        """AdamW with the mean gradient of the micro-batches since the last step, clipped to the norm `clip`.

        Returns the norm before clipping. If that is not finite, the weights do not change.
        """
        ...

    def state(self) -> dict[str, Array]:
        """A copy of everything that training continues from, by name: "weight/NAME", "m/NAME", "v/NAME" and "step"; with an
        average, "average/NAME"."""
        ...

    def move_average(self, share: float) -> None:
        """Move the average of the trained weights by this share of its distance to them; 1 makes it equal to them."""
        ...

    def exchange_average(self) -> None:
        """Let the trained weights and their average change places, bit by bit."""
        ...

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Continue from a `state`. Raises ValueError if it belongs to another model."""
        ...


class NumpyTrainProgram(TrainProgram):
    """A graph in training in numpy. `weights(tensor)` gives the array of a named weight, which is copied.

    As in inference, every core computes the whole graph for its share of a micro-batch's sequences. How a sum is rounded
    depends on the shares, so the same bits need the same number of cores.
    """

    def __init__(self, graph: TrainGraph, weights: Callable[[Tensor], Array]) -> None:
        self.graph = graph
        self.steps = 0
        self.micro_batches = 0  # since the last step; `total` holds the sums of their gradients
        self.total: dict[Tensor, Array] = {}
        self.weights = {t: np.array(weights(t), np.float32) for t in self.graph.weights}
        self.m, self.v = ({t: np.zeros_like(self.weights[t]) for t in self.graph.trained} for _ in range(2))
        self.average = {t: self.weights[t].copy() for t in self.graph.trained if graph.averaged}
        self.inference = reference.NumpyProgram(graph.inference, lambda t: self.weights[t])
        self.weight_of = {gradient: t for t, gradient in self.graph.gradients.items()}
        self.last_reader = {x: t for t in (*self.graph.forward, *self.graph.backward) for x in t.inputs}

    def vectors(self, batch: Mapping[str, Array]) -> Array:
        return self.inference.submit(batch)()

    def gradients(self, batch: Mapping[str, Array], loss: Loss, seed: int) -> float:
        spans = batch["spans"].tolist()
        rows, shares = [], []
        for part, arrays in packing.split_batch(batch, cores.usable_cores()):
            named = self.graph.arrays(arrays, seed, np.concatenate([np.arange(*spans[b]) for b in part]))
            rows.append(part)
            shares.append({t: named[t.name] for t in self.graph.inputs})
        vectors = np.empty((len(spans), int(self.graph.output.shape[1])), np.float32)
        with cores.ONE_THREAD_BLAS:  # also for the loss: a BLAS's own threads keep spinning when they are done
            for part, result in zip(rows, on_all_cores(self._forward, shares), strict=True):
                vectors[part] = result
            value, dvectors = loss(vectors)
            turns = Turns()
            on_all_cores(lambda i: self._backward(i, shares[i], dvectors[rows[i]], turns), range(len(shares)))
        self.micro_batches += 1
        return value

    def _forward(self, values: dict[Tensor, Array]) -> Array:
        """The vectors of a share. `values` are its batch arrays; what the backward pass needs is added to them."""
        with np.errstate(all="ignore"):  # an overflow shows in the loss
            for t in self.graph.forward:
                if t.op is not None:
                    values[t] = t.op.reference(*self._inputs(t, values), **t.attrs)
                    self._free_inputs(t, values)
        return values[self.graph.output]

    def _backward(self, share: int, values: dict[Tensor, Array], dvectors: Array, turns: "Turns") -> None:
        """The gradients of a share, added to `total`."""
        values[self.graph.seed] = dvectors
        with np.errstate(all="ignore"), turns.ended_by_failure():
            for t in self.graph.backward:
                if t.op is None:
                    continue
                inputs = self._inputs(t, values)
                if t not in self.weight_of:
                    values[t] = self._compute(t, inputs)
                else:
                    # most rows of a table have no gradient
                    rows, result = ops.row_sums(*inputs) if t.op is ops.scatter_rows else (..., self._compute(t, inputs))
                    with turns.of(t, share):
                        self._add(self.weight_of[t], rows, result)
                self._free_inputs(t, values)

    def _compute(self, t: Tensor, inputs: Sequence[Array]) -> Array:
        assert t.op is not None
        one_part = {"P": 1} if "P" in t.attrs else {}  # the parts of tokens are for GPUs; a core has one
        return t.op.reference(*inputs, **(t.attrs | one_part))

    def _inputs(self, t: Tensor, values: Mapping[Tensor, Array]) -> list[Array]:
        return [self.weights[x] if x in self.weights else values[x] for x in t.inputs]

    def _free_inputs(self, t: Tensor, values: dict[Tensor, Array]) -> None:
        """Free the inputs that nothing reads after t."""
        for x in set(t.inputs):
            if self.last_reader[x] is t and x not in self.weights:
                del values[x]

    def _add(self, weight: Tensor, rows: Any, gradient: Array) -> None:
        if rows is ... and weight not in self.total:
            self.total[weight] = gradient
            return
        if weight not in self.total:
            self.total[weight] = np.zeros_like(self.weights[weight])
        self.total[weight][rows] += gradient

    def step(self, lr: float, *, weight_decay: float, clip: float) -> float:
        blocks = [(t, slice(i, i + BLOCK_SIZE)) for t in self.graph.trained for i in range(0, self.weights[t].size, BLOCK_SIZE)]
        count = -(-len(blocks) // cores.usable_cores())
        parts = [blocks[i : i + count] for i in range(0, len(blocks), count)]
        with cores.ONE_THREAD_BLAS:
            squares = on_all_cores(self._squares, parts)
            norm = math.sqrt(sum(square for part in squares for square in part)) / self.micro_batches
            if math.isfinite(norm):
                self.steps += 1
                factor = adamw.clip_factor(norm, clip) / self.micro_batches
                update = adamw.Update.of_step(self.steps, lr, weight_decay, factor)
                on_all_cores(lambda part: self._update(part, update), parts)
        self.total, self.micro_batches = {}, 0
        return norm

    def _squares(self, blocks: Sequence[Block]) -> list[float]:
        with np.errstate(all="ignore"):
            return [float(np.dot(g, g)) for g in (self.total[t].reshape(-1)[at] for t, at in blocks)]

    def _update(self, blocks: Sequence[Block], update: adamw.Update) -> None:
        scratch = np.empty(BLOCK_SIZE, np.float32)
        for t, at in blocks:
            w, m, v, g = (a[t].reshape(-1)[at] for a in (self.weights, self.m, self.v, self.total))
            adamw.adamw(w, m, v, g, update, len(t.shape) == 2, scratch)

    def move_average(self, share: float) -> None:
        for t, average in self.average.items():
            if share == 1:
                average[...] = self.weights[t]
            else:
                average += np.float32(share) * (self.weights[t] - average)

    def exchange_average(self) -> None:
        for t, average in self.average.items():
            weight = self.weights[t].copy()
            self.weights[t][...] = average
            average[...] = weight

    def state(self) -> dict[str, Array]:
        return {name: a.copy() for name, a in self._state().items()} | {"step": np.array(self.steps)}

    def load_state(self, state: Mapping[str, Array]) -> None:
        arrays = self._state()
        check_state({name: a.shape for name, a in arrays.items()}, state)
        for name, a in arrays.items():
            a[...] = state[name]
        self.steps = int(state["step"])

    def _state(self) -> dict[str, Array]:
        kinds = {"weight": self.weights, "m": self.m, "v": self.v, "average": self.average}
        return {f"{kind}/{t.name}": a for kind, arrays in kinds.items() for t, a in arrays.items()}


def check_state(shapes: Mapping[str, Sequence[Any]], state: Mapping[str, Array]) -> None:
    """Raises ValueError if a state lacks an array or has it in another shape."""
    for name, shape in shapes.items():
        found = state.get(name)
        if found is None or found.shape != tuple(shape):
            raise ValueError(f"{name} must be {tuple(shape)}, got {'nothing' if found is None else found.shape}")


# --- all cores


def on_all_cores(work: Callable[[Any], Any], parts: Iterable[Any]) -> list[Any]:
    """The results of `work` for all parts, each in a thread of its own. Call it inside ONE_THREAD_BLAS."""
    return list(cores.core_threads().map(work, parts))


class Turns:
    """Makes the shares of a micro-batch add to a gradient in their order, so that the sum has the same bits every time.

    All shares compute the same list of ops at the same pace, so they hardly ever wait for each other.
    """

    def __init__(self) -> None:
        self.done: dict[Tensor, int] = {}  # how many shares have added to it
        self.failed = False
        self.changed = Condition()

    @contextmanager
    def of(self, gradient: Tensor, share: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: self.failed or self.done.get(gradient, 0) == share)
        yield
        with self.changed:
            self.done[gradient] = share + 1
            self.changed.notify_all()

    @contextmanager
    def ended_by_failure(self) -> Iterator[None]:
        """If this share fails, the others stop waiting for it."""
        try:
            yield
        except BaseException:
            with self.changed:
                self.failed = True
                self.changed.notify_all()
            raise
