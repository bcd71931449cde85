"""A training step on a device: what train/program.py computes in numpy."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import UserError
from ..gpu import Device, Dispatch, GPUProgram, InPlace, copy_buffer, new_buffer, read_buffer, write_buffer
from ..graph.ops.blocks import cdiv
from ..graph.tensor import DTYPES, Array, Tensor
from . import adamw
from .gradients import TrainGraph
from .program import Loss, TrainProgram, check_state

CHUNK = 4096  # numbers per workgroup of square_sum.wgsl and adamw.wgsl
TOKEN_MULTIPLE = 128  # the largest allowed batch is a multiple of this many tokens


class GPUTrainProgram(TrainProgram):
    """A graph in training on a device, for batches of up to `capacity`. Weights, gradients and moments stay there.

    `weights(tensor)` gives the array of a named weight. A micro-batch takes two submissions: the forward pass up to the
    vectors, whose loss the host computes, and the backward pass from their gradient on.
    """

    def __init__(
        self, device: Device, graph: TrainGraph, weights: Callable[[Tensor], Array], capacity: Mapping[str, int]
    ) -> None:
        self.device = device
        self.graph = graph
        self.program = GPUProgram(device, graph.output, weights, capacity, graph.gradients.values())
        self.inference = GPUProgram(device, graph.inference, lambda t: self.program.weights[t], capacity)
        for p in (self.program, self.inference):
            p.grow(capacity)  # so that a lack of memory is known now
        known = set(self.graph.forward)
        self.forward = [s for s in self.program.steps if s.tensor in known]
        self.backward = [s for s in self.program.steps if s.tensor not in known]
        self.steps = 0
        self.micro_batches = 0

        self.m, self.v = (
            {t: new_buffer(device, f"{kind} of {t.name}", square_size(t)) for t in self.graph.trained} for kind in "mv"
        )
        groups = {t: cdiv(square_size(t), CHUNK) for t in self.graph.trained}
        self.partial_sums = sum(groups.values())
        self.sums = new_buffer(device, "sums of squares", self.partial_sums)
        squares, updates = [], []
        first = 0
        for t, gradient in self.graph.gradients.items():
            buffer, params = self.program.kept[gradient], {"N": square_size(t)}
            squares.append(Dispatch([buffer, self.sums], {**params, "first": first}, (groups[t], 1, 1)))
            undecayed = {} if len(t.shape) == 2 else {"decay": 1.0}
            changed = [self._weight(t), self.m[t], self.v[t]]
            updates.append(Dispatch([buffer, *changed], {**params, **undecayed}, (groups[t], 1, 1)))
            first += groups[t]
        self.square_sum = InPlace(device, ["square_sum", "row_sum"], squares, written=1)
        self.adamw = InPlace(device, ["adamw"], updates, written=3)
        self.average = {t: new_buffer(device, f"average of {t.name}", square_size(t)) for t in graph.trained if graph.averaged}
        if graph.averaged:
            moves = [
                Dispatch([self._weight(t), buffer], {"N": square_size(t)}, (groups[t], 1, 1))
                for t, buffer in self.average.items()
            ]
            self.moves = InPlace(device, ["average"], moves, written=1)
            self.spare = new_buffer(device, "exchange", max(map(square_size, graph.trained)))
            self.move_average(1)

    def vectors(self, batch: Mapping[str, Array]) -> Array:
        return self.inference.run(batch)

    def gradients(self, batch: Mapping[str, Array], loss: Loss, seed: int) -> float:
        arrays = self.graph.arrays(batch, seed, np.arange(len(batch["ids"])))
        arrays[self.graph.seed.name] = np.zeros((len(batch["spans"]), int(self.graph.output.shape[1])), np.float32)
        sizes = self.program.write(arrays, ONTO=min(self.micro_batches, 1))
        vectors = self.program.read(self.program.compute(self.forward, sizes), sizes)()
        value, dvectors = loss(vectors)
        self.program.put(self.graph.seed, dvectors)
        self.program.start(self.program.compute(self.backward, sizes))
        self.micro_batches += 1
        return value

    def step(self, lr: float, *, weight_decay: float, clip: float) -> float:
        self.square_sum.run()
        squares = read_buffer(self.device, self.sums, self.partial_sums).astype(np.float64)
        norm = math.sqrt(squares.sum()) / self.micro_batches
        factor = adamw.clip_factor(norm, clip) / self.micro_batches
        self.micro_batches = 0
        if math.isfinite(norm):
            self.steps += 1
            self.adamw.run(**vars(adamw.Update.of_step(self.steps, lr, weight_decay, factor)))
        return norm

    def move_average(self, share: float) -> None:
        self.moves.run(share=share)

    def exchange_average(self) -> None:
        for t, average in self.average.items():
            weight = self._weight(t)
            for source, target in ((weight, self.spare), (average, weight), (self.spare, average)):
                copy_buffer(self.device, source, target, square_size(t))

    def state(self) -> dict[str, Array]:
        found = {}
        for name, (t, pieces) in self._state().items():
            width = square_size(t) // int(t.shape[0])
            parts = [read_buffer(self.device, buffer, rows * width) for rows, buffer in pieces]
            found[name] = np.concatenate(parts).reshape([int(d) for d in t.shape])
        return found | {"step": np.array(self.steps)}

    def load_state(self, state: Mapping[str, Array]) -> None:
        check_state({name: t.shape for name, (t, _) in self._state().items()}, state)
        for name, (_, pieces) in self._state().items():
            first = 0
            for rows, buffer in pieces:
                write_buffer(self.device, buffer, state[name][first : first + rows])
                first += rows
        self.steps = int(state["step"])

    def _weight(self, t: Tensor) -> Any:
        """The buffer of a trained weight: one, because its gradient is one."""
        [(_, weight)] = self.program.weights[t]
        return weight

    def _state(self) -> dict[str, tuple[Tensor, list[tuple[int, Any]]]]:
        """The tensor and the buffers of every entry, each with its number of rows."""
        found = {f"weight/{t.name}": (t, self.program.weights[t]) for t in self.graph.weights}
        for kind, buffers in (("m", self.m), ("v", self.v), ("average", self.average)):
            found |= {f"{kind}/{t.name}": (t, [(int(t.shape[0]), b)]) for t, b in buffers.items()}
        return found


def check_bindings(device: Device, graph: TrainGraph, tokens: int) -> None:
    """Raises UserError if a gradient, or a result of a batch of `tokens` tokens, does not fit in one binding of the device."""
    adapter = device.adapter
    for t in graph.trained:
        if square_size(t) * DTYPES[t.dtype].itemsize > adapter.limit:
            raise UserError(f"{t.name} is too large to be trained on {adapter}: use --freeze {t.name}, or --device numpy")
    per_token = [t for t in (*graph.forward, *graph.backward) if t.op is not None and t.shape[0] == "T"]
    widest = max(math.prod(int(d) for d in t.shape[1:]) * DTYPES[t.dtype].itemsize for t in per_token)
    rows = adapter.limits["max-compute-workgroups-per-dimension"]  # some kernels have one workgroup a token
    most = min(adapter.limit // widest, rows) // TOKEN_MULTIPLE * TOKEN_MULTIPLE
    if tokens > most:
        raise UserError(f"{adapter} cannot train on batches of {tokens:,} tokens: lower --batch-tokens to {most}")


def square_size(t: Tensor) -> int:
    """How many numbers a tensor of fixed shape has."""
    return math.prod(int(d) for d in t.shape)
