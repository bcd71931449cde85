"""The buffers that the steps of a program write to: shared by results that take turns, and grown with the batches."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..graph import memory
from ..graph.tensor import Tensor
from .buffers import Buffers
from .upload import TILE, next_size


class Results:
    """Result buffers, made for the smallest batches and grown up to `capacity`.

    places: the number of each result's buffer. A result in `keep` has a buffer of its own; if its size is fixed, the buffer
    never changes. made: the buffers. grown: the sizes that they have room for, None
    before they are made.

    Raises UserError if a result of the largest batch does not fit in one binding.
    """

    def __init__(
        self, buffers: Buffers, tensors: Sequence[Tensor], capacity: Mapping[str, int], keep: Collection[Tensor]
    ) -> None:
        self.buffers, self.capacity, self.keep = buffers, capacity, keep
        self.places, sizes = memory.plan_buffers(tensors, lambda t: memory.tensor_bytes(t, capacity), keep)
        self.sharers: list[list[Tensor]] = [[] for _ in sizes]
        for t, place in self.places.items():
            self.sharers[place].append(t)
        for found, size in zip(self.sharers, sizes, strict=True):
            buffers.check_size(result_label(found), size)
        self.made: list[Any] = [None] * len(sizes)
        self.grown: dict[str, int] | None = None

    def __getitem__(self, t: Tensor) -> Any:
        """The buffer of a result."""
        return self.made[self.places[t]]

    def fit(self, sizes: Mapping[str, int]) -> bool:
        """Whether the buffers hold a batch of these sizes."""
        return self.grown is not None and all(sizes.get(symbol, 1) <= most for symbol, most in self.grown.items())

    def sizes_for(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The sizes to make buffers for, so that they hold a batch of these sizes and grow rarely."""
        return {
            symbol: max(next_size(sizes.get(symbol, 1), TILE, most), (self.grown or {}).get(symbol, 0))
            for symbol, most in self.capacity.items()
        }

    def grow(self, sizes: Mapping[str, int]) -> None:
        """Make the buffers large enough for batches of these sizes.

        Larger ones replace them once the batches under way are done, so old and new never take memory at the same time.
        """
        grown = self.sizes_for(sizes)
        needed = [max(memory.tensor_bytes(t, grown) for t in found) for found in self.sharers]
        if self.grown is not None:
            self.buffers.device.library.flush_writes(self.buffers.device.raw)
        small = [i for i, size in enumerate(needed) if self.made[i] is None or self.made[i].size < size]
        for i in small:
            self._drop(i)
        self.grown = None  # until all are made
        try:
            for i in small:
                self.made[i] = self.buffers.make(result_label(self.sharers[i]), needed[i])
        except BaseException:
            for i, found in enumerate(self.sharers):
                if not self.keep or found[0] not in self.keep:
                    self._drop(i)  # so that a smaller batch has room
            raise
        self.grown = grown

    def _drop(self, i: int) -> None:
        if self.made[i] is not None:
            self.buffers.drop(self.made[i])
            self.made[i] = None


def result_label(sharers: Sequence[Tensor]) -> str:
    op = sharers[0].op
    return f"result of {op.name if op else sharers[0].name}"
