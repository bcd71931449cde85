"""Run a graph in numpy, f32: the definition of correct, and the fallback where there is no GPU."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Event, Lock, Thread

import numpy as np
from threadpoolctl import ThreadpoolController

from .packing import split_batch
from .tensor import Array, Tensor, schedule


class NumpyProgram:
    """A graph and its weights, ready for batches. `weights(tensor)` gives the array of a named weight."""

    def __init__(self, output: Tensor, weights: Callable[[Tensor], Array]) -> None:
        self.output, self.tensors = output, schedule(output)
        self.weights = {t: widen(weights(t)) for t in self.tensors if t.is_weight}
        self.bytes = sum(a.nbytes for a in self.weights.values())
        self.last_reader = {x: t for t in self.tensors for x in t.inputs}
        # glibc keeps freed blocks for the next layer only up to the size of the largest it has seen come and go;
        # others go back to the system and cost page faults: 15 % of a batch's time
        np.empty(24 << 20, np.uint8)

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
        """Start computing the rows (B, C) of a packed batch. The call that is returned waits for them.

        Every core takes some of the sequences through the whole graph, with a BLAS of one thread: no core ever waits
        for another, while the threads of a BLAS meet after every matrix and spin in between. A batch that is submitted
        before this one is collected begins on the core that is done first.
        """
        parts = split_batch(batch, os.cpu_count() or 1)
        if len(parts) == 1:
            result = self.run(batch)
            return lambda: result
        running = [(rows, threads().submit(self._run_on_one_core, arrays)) for rows, arrays in parts]

        def wait() -> Array:
            found = np.empty((len(batch["spans"]), int(self.output.shape[1])), np.float32)
            for rows, future in running:
                found[rows] = future.result()
            return found

        return wait

    def _run_on_one_core(self, batch: Mapping[str, Array]) -> Array:
        with ONE_THREAD_BLAS:
            return self.run(batch)


class OneThreadBLAS:
    """While any thread is inside, BLAS has one thread.

    The setting is the whole process's, and threadpoolctl ignores all threads but the one that changed it first: so the
    first one in starts a thread that changes it, and the last one out has the same thread change it back.
    """

    def __init__(self) -> None:
        self.lock, self.inside = Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                entered, self.left = Event(), Event()
                self.holder = Thread(target=self._hold, args=(entered, self.left), name="gpt2wgpu-blas", daemon=True)
                self.holder.start()
                entered.wait()
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.left.set()
                self.holder.join()

    def _hold(self, entered: Event, left: Event) -> None:
        with blas().limit(limits=1, user_api="blas"):
            entered.set()
            left.wait()


ONE_THREAD_BLAS = OneThreadBLAS()


@cache
def blas() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="gpt2wgpu")


def forget_threads() -> None:
    threads.cache_clear()
    ONE_THREAD_BLAS.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):  # a forked child has the pool but not its threads, and would wait for them for ever
    os.register_at_fork(after_in_child=forget_threads)


def widen(array: Array) -> Array:
    """What a graph stores as f16 is computed with in f32."""
    return array.astype(np.float32) if array.dtype == np.float16 else array
