"""How much memory a graph needs, and how much there is."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path

from ..errors import UserError
from .tensor import DTYPES, Tensor, schedule

ALWAYS_FITS = 1 << 28  # bytes; a smaller result is not checked against free memory


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes: of a graph's weights, and of the arrays and results of one batch."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.activations

    def __str__(self) -> str:
        total, weights, activations = map(readable_bytes, (self.total, self.weights, self.activations))
        return f"{total} (weights {weights}, activations {activations})"


def memory_needed(output: Tensor, capacity: Mapping[str, int]) -> MemoryNeed:
    """The memory a graph needs for batches of up to `capacity`: the largest size of each symbol in the graph."""
    tensors = schedule(output)
    weights = sum(tensor_bytes(t, capacity) for t in tensors if t.is_weight)
    arrays = sum(tensor_bytes(t, capacity) for t in tensors if t.op is None and not t.is_weight)
    _, results = plan_buffers(tensors, lambda t: tensor_bytes(t, capacity))
    return MemoryNeed(weights, arrays + sum(results))


def tensor_bytes(t: Tensor, capacity: Mapping[str, int]) -> int:
    """Bytes of a tensor where each symbol in its shape has the size in `capacity`."""
    return prod(d if isinstance(d, int) else capacity[d] for d in t.shape) * DTYPES[t.dtype].itemsize


def plan_buffers(
    tensors: Sequence[Tensor], size: Callable[[Tensor], int], keep: Collection[Tensor] = ()
) -> tuple[dict[Tensor, int], list[int]]:
    """The index of the buffer that each result is written to, and the sizes of the buffers.

    A result reuses the smallest free buffer that is large enough; a buffer is free after the last reader of its result.
    keep: results that get a buffer of their own, which is never reused. tensors: in the order of execution.
    """
    last_reader = {x: t for t in tensors for x in t.inputs}
    buffers: dict[Tensor, int] = {}
    sizes: list[int] = []
    free: list[int] = []
    for t in tensors:
        if t.op is None:
            continue
        wanted = size(t)
        fitting = [] if t in keep else [i for i in free if sizes[i] >= wanted]
        if fitting:
            buffers[t] = min(fitting, key=lambda i: sizes[i])
            free.remove(buffers[t])
        else:
            buffers[t] = len(sizes)
            sizes.append(wanted)
        free += [buffers[x] for x in dict.fromkeys(t.inputs) if x in buffers and last_reader[x] is t and x not in keep]
    return buffers, sizes


def too_large_error(model: str, need: MemoryNeed, dtype: str, room: str, *, half: bool, shorter: bool) -> UserError:
    """The error that says what a model needs, how much memory there is (`room`, a phrase), and which options need less.

    half: whether the device computes in f16. shorter: whether a smaller max_tokens would help.
    """
    smaller = ["dtype='float16'"] if dtype == "float32" and half else []
    smaller += ["dtype='int8'"] if dtype != "int8" else []
    smaller += ["a smaller max_tokens"] if shorter else []
    return UserError(f"{model} needs {need} in {dtype}, {room}: use {' or '.join(smaller) or 'a smaller model'}")


def check_result_fits(need: int, what: str, advice: str) -> None:
    """Raises UserError if a result needs more bytes of main memory than are available."""
    if need < ALWAYS_FITS:
        return
    free = available_memory()
    if free is not None and need > free:
        raise UserError(f"{what} take {readable_bytes(need)} of memory, this machine has {readable_bytes(free)} free: {advice}")


def available_memory() -> int | None:
    """Bytes of main memory that are available (where the system does not say, installed); None if unknown."""
    found = []
    with suppress(OSError, ValueError):
        found.append(1024 * proc_field(Path("/proc/meminfo"), "MemAvailable:"))
    with suppress(OSError, ValueError):  # a container's limit
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text("utf-8")) - proc_field(group / "memory.stat", "anon"))
    with suppress(AttributeError, OSError, ValueError):  # not on Windows
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(found, default=None)


def proc_field(path: Path, name: str) -> int:
    """The number after `name` in a file of lines such as "MemFree: 1024 kB". Raises ValueError if there is none."""
    for line in path.read_text("utf-8").splitlines():
        if line.split()[:1] == [name]:
            return int(line.split()[1])
    raise ValueError(name)


def readable_bytes(count: int) -> str:
    """ "6.2 GB", "154 MB" """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{-(-count // 10**6)} MB"
