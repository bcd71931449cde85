"""The storage buffers of one program on a device: made, filled, counted and destroyed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import wgpu

from ..errors import UserError
from ..graph import memory
from ..graph.tensor import DTYPES, Array, Tensor
from .device import Device

Pieces = list[tuple[int, Any]]  # a weight as (rows, buffer): one, or several for a table larger than one binding
UPLOAD_BYTES = 16 << 20  # of weights in flight to the device at a time
PADDING = 256  # bytes after a weight, as kernels load whole tiles of columns


class Buffers:
    """The buffers that a program has made and not destroyed. bytes: how much the results and weights among them take."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.in_flight = 0
        self.open: dict[Any, int] = {}  # each buffer, and what of it counts

    @property
    def bytes(self) -> int:
        return sum(self.open.values())

    def add(self, buffer: Any, counted: int = 0) -> Any:
        """Take over a buffer, to destroy it in time."""
        self.open[buffer] = counted
        return buffer

    def check_size(self, label: str, size: int) -> None:
        """Raises UserError if a buffer of so many bytes is larger than one binding of the device."""
        limit = self.device.adapter.limit
        if size > limit:
            raise UserError(
                f"{label} needs {size / 2**20:.0f} MiB in one piece, {self.device.adapter.name} allows "
                f"{limit / 2**20:.0f}: use a smaller max_tokens, or device='numpy'"
            )

    def make(self, label: str, size: int) -> Any:
        self.check_size(label, size)
        usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
        return self.add(self.device.raw.create_buffer(label=label, size=-(-size // 4) * 4, usage=usage), size)

    def drop(self, buffer: Any) -> None:
        del self.open[buffer]
        buffer.destroy()

    def close(self) -> None:
        for buffer in list(self.open):
            self.drop(buffer)

    def check_weights(self, tensors: Sequence[Tensor]) -> None:
        """Raise UserError for a weight larger than one binding. A token table may be: it is split into pieces."""
        limit = self.device.adapter.limit - PADDING
        for t in tensors:
            tables = t.inputs[2:3] if t.op is not None and t.op.name.startswith("embed") else ()
            for x in t.inputs:
                if x.is_weight and (size := memory.tensor_bytes(x, {})) > limit and x not in tables:
                    raise UserError(
                        f"{x.name} needs {size / 2**20:.0f} MiB in one piece, {self.device.adapter.name} binds "
                        f"{limit / 2**20:.0f}: use a smaller dtype (float16, int8), or device='numpy'"
                    )

    def upload(self, t: Tensor, array: Array) -> Pieces:
        """A weight on the device."""
        limit = self.device.adapter.limit - PADDING
        step = max(1, limit // max(1, array[:1].nbytes))
        pieces = []
        for i in range(0, len(array), step):
            data = np.ascontiguousarray(array[i : i + step], DTYPES[t.dtype]).reshape(-1).view(np.uint8)
            if data.nbytes % 4:  # an odd number of f16, or int8
                data = np.append(data, np.zeros(-data.nbytes % 4, np.uint8))
            buffer = self.make(t.name, data.nbytes + PADDING)
            self._write(buffer, data)
            pieces.append((len(array[i : i + step]), buffer))
        return pieces

    def _write(self, buffer: Any, data: Array) -> None:
        """Write in parts: wgpu copies each write and keeps the copy until something is submitted."""
        for at in range(0, data.nbytes, UPLOAD_BYTES):
            part = data[at : at + UPLOAD_BYTES]
            self.device.raw.queue.write_buffer(buffer, at, part)
            self.in_flight += part.nbytes
            if self.in_flight >= UPLOAD_BYTES:
                self.device.library.flush_writes(self.device.raw)
                self.in_flight = 0
