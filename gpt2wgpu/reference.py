"""Run a graph in numpy, f32: the definition of correct, and the fallback where there is no GPU."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock

import numpy as np
from threadpoolctl import ThreadpoolController

from .graph import Tensor, schedule
from .ops import Array
from .packing import split


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
        with np.errstate(all="ignore"):  # what overflows shows in the output, which the encoder checks
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
        """The rows (B, C) of a packed batch, behind a call as in the GPU's program, which computes in between.

        Every core takes some of the sequences through the whole graph, with a BLAS of one thread: no core ever waits
        for another, while the threads of a BLAS meet after every matrix and spin in between.
        """
        parts = split(batch, os.cpu_count() or 1)
        if len(parts) == 1:
            result = self.run(batch)
            return lambda: result
        rows = np.empty((len(batch["spans"]), int(self.output.shape[1])), np.float32)
        with BLAS_LIMIT, blas().limit(limits=1, user_api="blas"):
            for (part, _), result in zip(parts, threads().map(self.run, [arrays for _, arrays in parts]), strict=True):
                rows[part] = result
        return lambda: rows


BLAS_LIMIT = Lock()  # it is the whole process's: two that set and restore it crosswise would leave it at 1


@cache
def blas() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="gpt2wgpu")


if hasattr(os, "register_at_fork"):  # a forked child has the pool but not its threads, and would wait for them for ever
    os.register_at_fork(after_in_child=threads.cache_clear)


def widen(array: Array) -> Array:
    """What a graph stores as f16 is computed with in f32."""
    return array.astype(np.float32) if array.dtype == np.float16 else array
