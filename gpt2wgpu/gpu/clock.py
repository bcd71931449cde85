"""When compute passes began and ended, by the device's clock."""

from typing import Any

import numpy as np
import wgpu

from ..graph.tensor import Array
from .device import Device
from .failures import named_failures


class Clock:
    """Timestamps of `passes` compute passes: give `around(i)` to pass i, submit them, then call `seconds`."""

    @named_failures
    def __init__(self, device: Device, passes: int) -> None:
        self.device, self.passes = device, passes
        self.queries = device.raw.create_query_set(type="timestamp", count=2 * passes)
        usage = wgpu.BufferUsage.QUERY_RESOLVE | wgpu.BufferUsage.COPY_SRC
        self.buffer = device.raw.create_buffer(label="timestamps", size=16 * passes, usage=usage)

    def around(self, i: int) -> dict[str, Any]:
        return {"query_set": self.queries, "beginning_of_pass_write_index": 2 * i, "end_of_pass_write_index": 2 * i + 1}

    @named_failures
    def seconds(self) -> Array:
        """The duration of each pass, float64 (passes,), in seconds; 0 if the clock shows none. Waits for the device.

        The timestamps are resolved in a submission of their own, once the passes are done: queued together with them, Metal
        resolves most of them to zero or to stale values (gfx-rs/wgpu#9414).
        """
        library = self.device.library
        library.flush_writes(self.device.raw)
        encoder = self.device.raw.create_command_encoder()
        encoder.resolve_query_set(self.queries, 0, 2 * self.passes, self.buffer, 0)
        self.device.raw.queue.submit([encoder.finish()])
        ticks = np.frombuffer(library.read_buffer(self.device.raw, self.buffer, 16 * self.passes), np.int64).reshape(-1, 2)
        return np.maximum(ticks[:, 1] - ticks[:, 0], 0) * library.timestamp_period(self.device.raw) / 1e9
