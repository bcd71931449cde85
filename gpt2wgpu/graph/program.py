"""What a compiled graph offers, whatever computes it."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .tensor import Array, Tensor

CLOSED = "this model was closed: open it again"


class CompiledGraph(Protocol):
    """A graph and its weights, ready for batches. Implemented by reference.NumpyProgram and gpu.GPUProgram.

    A batch maps the names of the graph's batch arrays to their values, as packing.pack_batch makes them. The output of a
    batch has its own T and B in place of those in `output.shape`: one row per sequence for an output ("B", C), one row per
    token, in the batch's order, for an output ("T", C).

    output: the tensor that is computed. bytes: memory of the weights and, on a device, of the buffers for a batch.
    weights: the value of each weight, an array or a device's buffers; another program on the same device can share them.
    """

    output: Tensor
    bytes: int
    weights: dict[Tensor, Any]

    def submit(self, batch: Mapping[str, Array]) -> Callable[[], Array]:
        """Start computing a batch. The returned call waits for the output; several batches may be under way.

        Raises UserError after `close`, and on a device in a process that was forked after the device was opened.
        """
        ...

    def run(self, batch: Mapping[str, Array]) -> Array:
        """The output for a batch."""
        ...

    def close(self) -> None:
        """Give the memory back now. Every batch must have been waited for. A second call does nothing."""
        ...
