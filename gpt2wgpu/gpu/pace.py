"""How much a device is given at a time: a submission that takes seconds freezes the screen, and a watchdog ends it.

Windows resets a GPU after two seconds, Linux drivers after half a second to ten. Long batches are therefore submitted in
parts, each of whole dispatches, and batches become smaller on a GPU that is slow.
"""

import math
from collections.abc import Sequence

from ..graph.tensor import Tensor
from .device import Device

SUBMISSION_SECONDS = 0.2
SMALLEST_BATCH = 512  # tokens; smaller batches waste a GPU, and a batch of several submissions resets none
TIMED_TOKENS = 256  # of the smallest batch whose time tells how fast a device is
# Operations per second before any batch was timed, by the kind of adapter: deliberately low. No watchdog minds a software driver.
FIRST_RATE = {"DiscreteGPU": 1e12, "CPU": math.inf}
SLOW_RATE = 5e10  # of other kinds


class Pace:
    """How fast a device has computed so far. Shared by the programs of a model."""

    def __init__(self, device: Device) -> None:
        self.operations = 0.0  # per second, of matrix products and attention; 0 if unknown
        self.tokens = 0.0  # per second
        self.first_rate = FIRST_RATE.get(device.adapter.kind, SLOW_RATE)

    def note_batch(self, tokens: int, operations: float, seconds: float) -> None:
        """A batch took so long, waiting for others included. The fastest one counts."""
        if tokens >= TIMED_TOKENS and seconds > 0:
            self.operations = max(self.operations, operations / seconds)
            self.tokens = max(self.tokens, tokens / seconds)

    def batch_tokens(self, most: int) -> int:
        """The most tokens of a batch, up to `most`, that take about SUBMISSION_SECONDS."""
        if not self.tokens or self.first_rate == math.inf:
            return most
        return min(most, max(SMALLEST_BATCH, int(self.tokens * SUBMISSION_SECONDS) // 128 * 128))

    def allows(self, operations: float) -> bool:
        """Whether so many operations may be one submission. On a software driver all may: the next one would wait for it."""
        return self.first_rate == math.inf or operations <= (self.operations or self.first_rate) * SUBMISSION_SECONDS

    def split_steps(self, operations: Sequence[float]) -> list[slice]:
        """Parts of a batch's steps, one after the other, that take about SUBMISSION_SECONDS each or are a single step."""
        parts, first, total = [], 0, 0.0
        for i, count in enumerate(operations):
            if i > first and not self.allows(total + count):
                parts.append(slice(first, i))
                first, total = i, 0.0
            total += count
        return [*parts, slice(first, len(operations))]


def count_operations(t: Tensor, rows: int, longest: int) -> float:
    """About how many floating-point operations a step takes; 0 for all but matrix products and attention.

    rows: of its input. longest: tokens of the longest text of the batch.
    """
    name = t.op.name if t.op else ""
    if name.startswith(("linear", "matmul")):
        return 2.0 * rows * int(t.dims["K"]) * int(t.dims["N"])
    if name.startswith("attention"):
        width = int(t.dims.get("C", t.dims["N"]))
        return 4.0 * rows * min(longest, t.attrs.get("window") or longest) * width
    return 0.0
