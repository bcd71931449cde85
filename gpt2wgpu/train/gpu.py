"""A training step on a device: as train/program.py, with weights, gradients and moments staying there."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from ..gpu import Device, Dispatch, GPUProgram, InPlace, new_buffer, read_buffer, write_buffer
from ..graph.ops.blocks import cdiv
from ..graph.tensor import Array, Tensor
from . import adamw
from .gradients import TrainGraph
from .program import Loss, check_state

CHUNK = 4096  # numbers of a workgroup of square_sum.wgsl and adamw.wgsl


class GPUTrainProgram:
    """The same interface as TrainProgram, for batches of up to `capacity`. Same weights, batches and seeds: same bits.

    A micro-batch is two submissions: up to the vectors, which the host's loss needs, and from their gradient on.
    """

    def __init__(
        self,
        device: Device,
        output: Tensor,
        weights: Callable[[Tensor], Array],
        capacity: Mapping[str, int],
        *,
        dropout: float = 0.0,
        frozen: Collection[str] = (),
    ) -> None:
        self.device = device
        self.graph = TrainGraph(output, dropout, frozen)
        self.program = GPUProgram(device, self.graph.output, weights, capacity, self.graph.gradients.values())
        self.inference = GPUProgram(device, output, lambda t: self.program.weights[t], capacity)
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
            [(_, weight)] = self.program.weights[t]  # in one piece, as its gradient is
            changed = [weight, self.m[t], self.v[t]]
            updates.append(Dispatch([buffer, *changed], {**params, **undecayed}, (groups[t], 1, 1)))
            first += groups[t]
        self.square_sum = InPlace(device, ["square_sum", "row_sum"], squares, written=1)
        self.adamw = InPlace(device, ["adamw"], updates, written=3)

    def vectors(self, batch: Mapping[str, Array]) -> Array:
        """The output for a packed batch, without dropout."""
        return self.inference.run(batch)

    def gradients(self, batch: Mapping[str, Array], loss: Loss, seed: int) -> float:
        """The loss of one micro-batch; its gradient is added to what `step` will use. seed: of the dropout, a u32."""
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
        """AdamW with the mean gradient of the micro-batches since the last step, clipped to the norm `clip`.

        Returns the norm before clipping. If that is not finite, the weights stay as they are.
        """
        self.square_sum.run()
        squares = read_buffer(self.device, self.sums, self.partial_sums).astype(np.float64)
        norm = math.sqrt(squares.sum()) / self.micro_batches
        factor = adamw.clipping(norm, clip) / self.micro_batches
        self.micro_batches = 0
        if math.isfinite(norm):
            self.steps += 1
            self.adamw.run(**vars(adamw.Update.of_step(self.steps, lr, weight_decay, factor)))
        return norm

    def state(self) -> dict[str, Array]:
        """A copy of all that training continues from, by name: "weight/NAME", "m/NAME", "v/NAME" and "step"."""
        found = {}
        for name, (t, pieces) in self._state().items():
            width = square_size(t) // int(t.shape[0])
            parts = [read_buffer(self.device, buffer, rows * width) for rows, buffer in pieces]
            found[name] = np.concatenate(parts).reshape([int(d) for d in t.shape])
        return found | {"step": np.array(self.steps)}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Go on from a `state`. Raises ValueError if it is another model's."""
        check_state({name: t.shape for name, (t, _) in self._state().items()}, state)
        for name, (_, pieces) in self._state().items():
            first = 0
            for rows, buffer in pieces:
                write_buffer(self.device, buffer, state[name][first : first + rows])
                first += rows
        self.steps = int(state["step"])

    def _state(self) -> dict[str, tuple[Tensor, list[tuple[int, Any]]]]:
        """The tensor and the buffers of every entry, each with its number of rows."""
        found = {f"weight/{t.name}": (t, self.program.weights[t]) for t in self.graph.weights}
        for kind, buffers in (("m", self.m), ("v", self.v)):
            found |= {f"{kind}/{t.name}": (t, [(int(t.shape[0]), b)]) for t, b in buffers.items()}
        return found


def square_size(t: Tensor) -> int:
    return math.prod(int(d) for d in t.shape)
