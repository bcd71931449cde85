"""What a batch brings to the device: its arrays and the uniform values of its steps, in one buffer and one write."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import wgpu

from ..graph import memory
from ..graph.tensor import DTYPES, Array, Tensor
from .buffers import Buffers
from .kernels import uniform_bits

ROW_BYTES = 256  # of uniform values: a multiple of every alignment that WebGPU may require
TILE = 128  # the most rows of a tile: row counts are rounded up to it, so that no tile reaches past a buffer

Row = tuple[Sequence[tuple[str, str]], Mapping[str, Any]]  # the fields of a uniform block, and their values


def round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def next_size(size: int, smallest: int, largest: int) -> int:
    """The smallest of smallest, 2 smallest, 4 smallest, ... and `largest` that is not less than `size`."""
    return min(smallest << (-(-size // smallest) - 1).bit_length(), largest)


class Upload:
    """The buffer, laid out anew for the sizes of each batch: first the rows of uniform values, then the arrays, each in a
    section whose size is a power of two. So a short text takes a few kilobytes, and there are few layouts.

    rows: of uniform values; a string among the values names a size of the batch. sections: (offset, bytes) of each array of
    the batch that was written last, or of the smallest one. layout: their bytes alone.
    """

    def __init__(self, buffers: Buffers, inputs: Sequence[Tensor], rows: Sequence[Row], capacity: Mapping[str, int]) -> None:
        self.first = ROW_BYTES * len(rows)  # where arrays begin
        self.most = {t: round_up(memory.tensor_bytes(t, capacity), ROW_BYTES) for t in inputs}
        self.host = np.zeros(self.first + sum(self.most.values()), np.uint8)
        self.uniforms = self.host[: self.first].view(np.uint32).reshape(len(rows), -1)
        self._set_uniforms(rows)
        self.row_bytes = {t: math.prod(d for d in t.shape[1:] if isinstance(d, int)) * DTYPES[t.dtype].itemsize for t in inputs}
        self.sections: dict[Tensor, tuple[int, int]] = {}
        self.layout: list[int] = []
        self.place({})
        self.written: dict[str, int] | None = None  # the sizes in the uniform values on the device
        self.device = buffers.device
        usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST
        made = self.device.raw.create_buffer(label="batch", size=self.host.nbytes, usage=usage)
        self.buffer = buffers.add(made)

    def _set_uniforms(self, rows: Sequence[Row]) -> None:
        """Set the uniform values that are the same for all batches; note where the others are: {symbol: (rows, columns)}."""
        varying: dict[str, list[tuple[int, int]]] = {}
        for i, (fields, values) in enumerate(rows):
            for column, (name, kind) in enumerate(fields):
                if isinstance(values[name], str):
                    varying.setdefault(values[name], []).append((i, column))
                else:
                    self.uniforms[i, column] = uniform_bits(values[name], kind)
        self.varying = {symbol: tuple(np.transpose(at)) for symbol, at in varying.items()}

    def uniform_row(self, i: int) -> tuple[Any, int, int]:
        """Buffer, offset and bytes."""
        return self.buffer, i * ROW_BYTES, ROW_BYTES

    def place(self, batch: Mapping[str, Array]) -> None:
        """Lay the arrays of a batch out; those that it lacks take the least. Of numbers, kernels may read whole tiles of rows."""
        layout = []
        for t, row in self.row_bytes.items():
            rows = len(batch[t.name]) if t.name in batch else 1
            if t.dtype != "u32":
                rows = round_up(rows, TILE)
            layout.append(next_size(rows * row, ROW_BYTES, self.most[t]))
        if layout != self.layout:
            self.layout = layout
            begins = itertools.accumulate(layout, initial=self.first)
            self.sections = {t: (at, size) for t, at, size in zip(self.row_bytes, begins, layout, strict=False)}

    def write(self, batch: Mapping[str, Array], sizes: Mapping[str, int]) -> None:
        """Lay the arrays out and write them, and the uniform values if they changed, at once."""
        self.place(batch)
        end = self.first
        for t, (at, _) in self.sections.items():
            data = batch[t.name].reshape(-1)
            end = at + data.size * DTYPES[t.dtype].itemsize
            self.host[at:end].view(DTYPES[t.dtype])[:] = data
        begin, varying = self.first, {symbol: sizes[symbol] for symbol in self.varying}
        if varying != self.written:
            begin, self.written = 0, varying
            for symbol, places in self.varying.items():
                self.uniforms[places] = sizes[symbol]
        self.device.raw.queue.write_buffer(self.buffer, begin, self.host[begin : round_up(end, 4)])

    def put(self, t: Tensor, array: Array) -> None:
        """Write one array of the batch again."""
        self.device.raw.queue.write_buffer(self.buffer, self.sections[t][0], np.ascontiguousarray(array, DTYPES[t.dtype]))
