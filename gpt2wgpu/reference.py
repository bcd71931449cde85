"""Run a graph in numpy, f32: the definition of correct, and the fallback where there is no GPU."""

from collections.abc import Callable, Mapping

import numpy as np

from .graph import Tensor, schedule
from .ops import Array


class Program:
    """A graph and its weights, ready for batches. `weights(tensor)` gives the array of a named weight."""

    def __init__(self, output: Tensor, weights: Callable[[Tensor], Array]) -> None:
        self.output, self.tensors = output, schedule(output)
        self.weights = {t: widen(weights(t)) for t in self.tensors if t.is_weight}
        self.bytes = sum(a.nbytes for a in self.weights.values())
        self.last_reader = {x: t for t in self.tensors for x in t.inputs}

    def run(self, batch: Mapping[str, Array]) -> Array:
        """The output for a batch of named arrays. A tensor is let go after its last reader."""
        values = {t: widen(batch[t.name]) for t in self.tensors if t.op is None and not t.is_weight}
        values |= self.weights
        for t in self.tensors:
            if t.op is None:
                continue
            result = t.op.reference(*(values[x] for x in t.inputs), **t.attrs)
            values[t] = result.astype(np.float16).astype(np.float32) if t.dtype == "f16" else result
            for x in set(t.inputs):
                if self.last_reader[x] is t:
                    del values[x]
        return values[self.output]

    def submit(self, batch: Mapping[str, Array]) -> Callable[[], Array]:
        """`run`, its result behind a call: the GPU's program computes in between."""
        result = self.run(batch)
        return lambda: result


def widen(array: Array) -> Array:
    """What a graph stores as f16 is computed with in f32."""
    return array.astype(np.float32) if array.dtype == np.float16 else array
