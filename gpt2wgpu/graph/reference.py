"""Run a graph in numpy, in f32: the definition of correct, and the runner for machines without a GPU."""

from collections.abc import Callable, Mapping

import numpy as np

from ..errors import UserError
from . import cores
from .crew import Crew
from .one_text import compute_op, compute_text, free_inputs
from .packing import split_batch
from .program import CLOSED, CompiledGraph
from .tensor import Array, Tensor, schedule


class NumpyProgram(CompiledGraph):
    """A graph and its weights, ready for batches. `weights(tensor)` gives the array of a named weight."""

    def __init__(self, output: Tensor, weights: Callable[[Tensor], Array]) -> None:
        self.output, self.tensors = output, schedule(output)
        self.weights = {t: widen(weights(t)) for t in self.tensors if t.is_weight}
        self.bytes = sum(a.nbytes for a in self.weights.values())
        self.last_reader = {x: t for t in self.tensors for x in t.inputs}
        self.closed = False
        # glibc keeps freed blocks only up to the size of the largest that was freed before; larger ones go back to the
        # system, and the page faults cost 15 % of a batch's time
        np.empty(24 << 20, np.uint8)

    def run(self, batch: Mapping[str, Array]) -> Array:
        """The output for a batch of named arrays, computed on this thread. A tensor is freed after its last reader."""
        self._check_open()
        with cores.ONE_THREAD_BLAS:
            return self._run(batch)

    def _run(self, batch: Mapping[str, Array]) -> Array:
        values = {t: widen(batch[t.name]) for t in self.tensors if t.op is None and not t.is_weight}
        values |= self.weights
        with np.errstate(all="ignore"):  # an overflow shows in the output, which the engine checks
            for t in self.tensors:
                if t.op is None:
                    continue
                values[t] = compute_op(t, [values[x] for x in t.inputs])
                free_inputs(t, values, self.last_reader)
        return values[self.output]

    def submit(self, batch: Mapping[str, Array]) -> Callable[[], Array]:
        """Start computing the output of a packed batch, (B, C) or (T, C). The returned call waits for it.

        Each core computes the whole graph for some of the sequences, with a BLAS of one thread, so no core waits for another;
        a BLAS's own threads would meet after every matrix and spin in between. The next batch may be submitted before this
        one is collected: it starts on the first free core. A single sequence is computed before this returns, by a crew of
        threads (one_text.py).
        """
        self._check_open()
        if len(batch["spans"]) == 1 and cores.usable_cores() > 1:
            result = self._compute_text(batch, Crew())
            return lambda: result
        parts = split_batch(batch, cores.usable_cores())
        spans = batch["spans"].tolist()
        per_token = self.output.shape[0] == "T"
        count = spans[-1][1] if per_token else len(spans)
        running = []
        for sequences, arrays in parts:
            rows = np.concatenate([np.arange(*spans[b]) for b in sequences]) if per_token else np.array(sequences)
            running.append((rows, cores.core_threads().submit(self.run, arrays)))

        def wait() -> Array:
            found = np.empty((count, int(self.output.shape[1])), np.float32)
            while running:
                rows = running[-1][0]
                found[rows] = running.pop()[1].result()  # without a name: an error holds this frame, and would be held by it
            return found

        return wait

    def submit_on_one_core(self, batch: Mapping[str, Array]) -> Callable[[], Array]:
        """`submit` for a batch of one sequence that leaves the other cores to other batches. The bits are the same."""
        if cores.usable_cores() == 1:
            return self.submit(batch)
        self._check_open()
        return cores.core_threads().submit(self._compute_text, batch, Crew(alone=True)).result

    def _compute_text(self, batch: Mapping[str, Array], crew: Crew) -> Array:
        with crew:
            return compute_text(self.tensors, self.weights, batch, crew)

    def _check_open(self) -> None:
        if self.closed:
            raise UserError(CLOSED)

    def close(self) -> None:
        """Free the weights."""
        self.closed, self.bytes = True, 0
        self.weights.clear()


def widen(array: Array) -> Array:
    """f16 arrays as f32, in which numpy computes."""
    return array.astype(np.float32) if array.dtype == np.float16 else array
