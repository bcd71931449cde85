"""A graph and its weights on a device: buffers, bind groups and dispatches, made once and used for every batch."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import wgpu

from ..errors import UserError
from ..graph import memory
from ..graph.program import CLOSED, CompiledGraph
from ..graph.tensor import DTYPES, Array, Grid, Tensor, schedule
from .clock import Clock
from .device import Device
from .failures import named_failures
from .kernels import Kernel, bind_group_layout, find_kernel, uniform_bits
from .library import DispatchHandles, Readback
from .tiles import tile_ladder
from .tuning import prepare_tiles

Pieces = list[tuple[int, Any]]  # a weight as (rows, buffer): one, or several for a table larger than one binding
ROW_BYTES = 256  # of uniform values per dispatch: a multiple of every alignment that WebGPU may require
TILE = 128  # capacities are rounded up to it, so that no tile reaches past a buffer
UPLOAD_BYTES = 16 << 20  # of weights in flight to the device at a time
PADDING = 256  # bytes after a weight, as kernels load whole tiles of columns


@dataclass
class Step:
    """One dispatch.

    kernels: (most rows T, the kernel for up to that many), ascending. params: the uniform values; a string names a size of
    the batch. kind: a number that steps with the same kernels and values share.
    """

    tensor: Tensor
    kernels: tuple[tuple[float, Kernel], ...]
    params: dict[str, Any]
    kind: int
    bind_group: Any = None

    def choose(self, sizes: Mapping[str, int]) -> tuple[Kernel, Grid]:
        """The kernel and its grid for a batch. sizes: of each symbol."""
        params = {name: sizes[v] if isinstance(v, str) and v in sizes else v for name, v in self.params.items()}
        chosen = next(k for most, k in self.kernels if params.get("T", 0) <= most)
        return chosen, chosen.grid(self.tensor, params)


class GPUProgram(CompiledGraph):
    """A graph compiled for one device, for batches of up to `capacity` (a size for each symbol in the graph).

    `weights(tensor)` gives the array of a named weight, or its buffers in another program. All batch arrays and uniform
    values are in one buffer, so a batch takes one upload, one compute pass and one readback.
    keep: extra outputs; each gets a private buffer, see `kept`.
    """

    @named_failures
    def __init__(
        self,
        device: Device,
        output: Tensor,
        weights: Callable[[Tensor], Array | Pieces],
        capacity: Mapping[str, int],
        keep: Collection[Tensor] = (),
    ) -> None:
        """Raises UserError if the device has no room for something, GPUError if a shader does not compile."""
        self.device, self.output = device, output
        self.capacity = {symbol: -(-max(size, 1) // TILE) * TILE for symbol, size in capacity.items()}
        self.bytes = 0
        self.in_flight = 0
        self.closed = False
        self.buffers: list[Any] = []  # its own, which `close` destroys
        self.readbacks: list[Readback] = []
        self.steps: list[Step] = []
        self.weights: dict[Tensor, Pieces] = {}
        self.kept: dict[Tensor, Any] = {}
        tensors = schedule(output, *keep)
        self.inputs = [t for t in tensors if t.op is None and not t.is_weight]
        prepare_tiles(device, tensors)
        try:
            bindings = self._plan(tensors, weights, set(keep))
            sections = self._make_batch_buffer()
            self._set_uniforms()
            self._bind(bindings, sections)
        except BaseException:
            self.close()  # whoever keeps the error keeps this alive
            raise

    def _make_batch_buffer(self) -> dict[Tensor, tuple[int, int]]:
        """Make one buffer: a row of uniform values per step, then the batch's arrays. Returns (offset, bytes) of these."""
        offset = ROW_BYTES * len(self.steps)
        sections = {}
        for t in self.inputs:
            sections[t] = offset, self._bytes(t)
            offset += -(-self._bytes(t) // ROW_BYTES) * ROW_BYTES
        self.host = np.zeros(offset, np.uint8)
        self.host_views = {t: self.host[at : at + size].view(DTYPES[t.dtype]) for t, (at, size) in sections.items()}
        self.uniforms = self.host[: ROW_BYTES * len(self.steps)].view(np.uint32).reshape(len(self.steps), -1)
        usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST
        self.batch_buffer = self.device.raw.create_buffer(label="batch", size=offset, usage=usage)
        self.buffers.append(self.batch_buffer)
        return sections

    def _set_uniforms(self) -> None:
        """Set the uniform values that are the same for all batches; note where the others are: {symbol: (rows, columns)}."""
        varying: dict[str, list[tuple[int, int]]] = {}
        for i, step in enumerate(self.steps):
            for column, (name, kind) in enumerate(step.kernels[0][1].fields):
                value = step.params[name]
                if isinstance(value, str):
                    varying.setdefault(value, []).append((i, column))
                else:
                    self.uniforms[i, column] = uniform_bits(value, kind)
        self.varying = {symbol: tuple(np.transpose(at)) for symbol, at in varying.items()}

    def _bind(self, bindings: Sequence[Sequence[Any]], sections: Mapping[Tensor, tuple[int, int]]) -> None:
        """Make the bind group of each step: its row of uniform values, then what it reads and writes."""
        for i, (step, bound) in enumerate(zip(self.steps, bindings, strict=True)):
            resources = [{"buffer": self.batch_buffer, "offset": i * ROW_BYTES, "size": ROW_BYTES}]
            for x in bound:
                if isinstance(x, Tensor):
                    at, size = sections[x]
                    resources.append({"buffer": self.batch_buffer, "offset": at, "size": size})
                else:
                    resources.append({"buffer": x})
            step.bind_group = self.device.raw.create_bind_group(
                label=step.tensor.op.name if step.tensor.op else "",
                layout=bind_group_layout(self.device, len(resources)),
                entries=[{"binding": b, "resource": r} for b, r in enumerate(resources)],
            )

    def _bytes(self, t: Tensor) -> int:
        return memory.tensor_bytes(t, self.capacity)

    def _buffer(self, label: str, size: int) -> Any:
        limit = self.device.adapter.limit
        if size > limit:
            raise UserError(
                f"{label} needs {size / 2**20:.0f} MiB in one piece, {self.device.adapter.name} allows "
                f"{limit / 2**20:.0f}: use a smaller max_tokens, or device='numpy'"
            )
        self.bytes += size
        usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
        buffer = self.device.raw.create_buffer(label=label, size=-(-size // 4) * 4, usage=usage)
        self.buffers.append(buffer)
        return buffer

    def _check_weights(self, tensors: Sequence[Tensor]) -> None:
        """Raise UserError for a weight larger than one binding. A token table may be: it is split into pieces."""
        limit = self.device.adapter.limit - PADDING
        for t in tensors:
            tables = t.inputs[2:3] if t.op is not None and t.op.name.startswith("embed") else ()
            for x in t.inputs:
                if x.is_weight and self._bytes(x) > limit and x not in tables:
                    raise UserError(
                        f"{x.name} needs {self._bytes(x) / 2**20:.0f} MiB in one piece, {self.device.adapter.name} binds "
                        f"{limit / 2**20:.0f}: use a smaller dtype (float16, int8), or device='numpy'"
                    )

    def _upload(self, t: Tensor, array: Array) -> Pieces:
        limit = self.device.adapter.limit - PADDING
        step = max(1, limit // max(1, array[:1].nbytes))
        pieces = []
        for i in range(0, len(array), step):
            data = np.ascontiguousarray(array[i : i + step], DTYPES[t.dtype]).reshape(-1).view(np.uint8)
            if data.nbytes % 4:  # an odd number of f16, or int8
                data = np.append(data, np.zeros(-data.nbytes % 4, np.uint8))
            buffer = self._buffer(t.name, data.nbytes + PADDING)
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

    def _plan(
        self, tensors: list[Tensor], weights: Callable[[Tensor], Array | Pieces], keep: Collection[Tensor]
    ) -> list[list[Any]]:
        """Make the steps. Returns what each one binds: a buffer, or a Tensor that stands for an array of the batch.

        Results share buffers, except those of `keep`.
        """
        self._check_weights(tensors)
        pieces = self.weights
        results: dict[Tensor, Any] = {}
        place, sizes = memory.plan_buffers(tensors, self._bytes, keep)
        shared: dict[int, Any] = {}
        bindings = []
        kinds: dict[Any, int] = {}
        for t in tensors:
            if t.is_weight:
                found = weights(t)
                pieces[t] = found if isinstance(found, list) else self._upload(t, found)
            if t.op is None:
                continue
            if place[t] not in shared:
                shared[place[t]] = self._buffer(f"result of {t.op.name}", sizes[place[t]])
            results[t] = shared[place[t]]
            kernels = tuple((most, find_kernel(self.device, t, tile)) for most, tile in tile_ladder(self.device, t))
            if len(kernels) == 1:  # if there are several, each is compiled when a batch first needs it
                kernels[0][1].compile(self.device)
            for params, table in self._dispatches(t, pieces):
                kind = kinds.setdefault((kernels, *params.items()), len(kinds))
                bound = [table.get(x) or results.get(x) or (pieces[x][0][1] if x in pieces else x) for x in t.inputs]
                self.steps.append(Step(t, kernels, params, kind))
                bindings.append([*bound, results[t]])
        self.result = results[self.output]
        self.kept.update((t, results[t]) for t in keep)
        return bindings

    def _dispatches(self, t: Tensor, pieces: Mapping[Tensor, Any]) -> Iterator[tuple[dict[str, Any], dict[Tensor, Any]]]:
        """The uniform values of each dispatch of an op: one, or for an embedding one per piece of its table, with that piece."""
        params = {**t.dims, **t.attrs}
        parted = [x for x in t.inputs if len(pieces.get(x, [])) > 1]
        if not parted:
            yield params, {}
            return
        first = 0
        for rows, buffer in pieces[parted[0]]:
            yield params | {"V": rows, "first": first}, {parted[0]: buffer}
            first += rows

    @named_failures
    def submit(self, batch: Mapping[str, Array], clock: Clock | None = None) -> Callable[[], Array]:
        """Start computing one batch of named arrays. The returned call waits for the output.

        clock: with one pass it times the whole batch, otherwise each step, in a pass of its own.
        """
        sizes = self.write(batch)
        return self.read(self.compute(self.steps, sizes, clock), sizes)

    @named_failures
    def write(self, batch: Mapping[str, Array], **symbols: int) -> dict[str, int]:
        """Upload a batch and its uniform values. Returns the size of each symbol. symbols: sizes that no array has."""
        if self.closed:
            raise UserError(CLOSED)
        sizes = dict(symbols)
        for t in self.inputs:
            array = batch[t.name]
            for dim, size in zip(t.shape, array.shape, strict=True):
                known = sizes.setdefault(dim, size) if isinstance(dim, str) else dim
                if size != known:
                    raise ValueError(f"{t.name}: {dim} is {size} here, {known} elsewhere")
                if isinstance(dim, str) and size > self.capacity[dim]:
                    raise ValueError(f"{t.name}: {dim} is {size}, over the program's capacity of {self.capacity[dim]}")
            self.host_views[t][: array.size] = array.reshape(-1)
        for symbol, at in self.varying.items():
            self.uniforms[at] = sizes[symbol]
        self.device.raw.queue.write_buffer(self.batch_buffer, 0, self.host)
        return sizes

    @named_failures
    def put(self, t: Tensor, array: Array) -> None:
        """Upload one array of the batch again."""
        at = self.host_views[t].ctypes.data - self.host.ctypes.data
        self.device.raw.queue.write_buffer(self.batch_buffer, at, np.ascontiguousarray(array, DTYPES[t.dtype]))

    @named_failures
    def compute(self, steps: Sequence[Step], sizes: Mapping[str, int], clock: Clock | None = None) -> Any:
        """A command encoder with these steps, for the batch that was written last."""
        encoder = self.device.raw.create_command_encoder()
        dispatches = self._dispatch_list(sizes, steps)
        passes = [dispatches] if clock is None or clock.passes == 1 else [[d] for d in dispatches]
        for i, part in enumerate(passes):
            compute = encoder.begin_compute_pass(timestamp_writes=clock and clock.around(i))
            self.device.library.record_dispatches(compute, part)
            compute.end()
        return encoder

    @named_failures
    def start(self, encoder: Any) -> None:
        """Submit a command encoder."""
        self.device.raw.queue.submit([encoder.finish()])

    @named_failures
    def read(self, encoder: Any, sizes: Mapping[str, int]) -> Callable[[], Array]:
        """Submit a command encoder. The returned call waits for the output."""
        shape = tuple(sizes[d] if isinstance(d, str) else d for d in self.output.shape)
        size = -(-math.prod(shape) * DTYPES[self.output.dtype].itemsize // 4) * 4
        readback = self.readbacks.pop() if self.readbacks else self._readback()
        encoder.copy_buffer_to_buffer(self.result, 0, readback.buffer, 0, size)
        readback.submit(encoder.finish(), size)

        return lambda: self._collect(readback, shape)

    @named_failures
    def _collect(self, readback: Readback, shape: tuple[int, ...]) -> Array:
        array = np.frombuffer(readback.wait(), DTYPES[self.output.dtype])[: math.prod(shape)].reshape(shape)
        self.readbacks.append(readback)
        return array

    def _readback(self) -> Readback:
        made = self.device.library.readback(self.device.raw, self._bytes(self.output))
        self.buffers.append(made.buffer)
        return made

    def _dispatch_list(self, sizes: Mapping[str, int], steps: Sequence[Step]) -> list[DispatchHandles]:
        """The dispatches of these steps for a batch. A model has many layers but few kinds of steps, so kinds are cached."""
        chosen: dict[int, tuple[Any, Grid]] = {}
        found = []
        for step in steps:
            if step.kind not in chosen:
                found_kernel, grid = step.choose(sizes)
                chosen[step.kind] = found_kernel.compile(self.device)._internal, grid
            pipeline, grid = chosen[step.kind]
            found.append((pipeline, step.bind_group._internal, grid))
        return found

    def run(self, batch: Mapping[str, Array]) -> Array:
        """The output for one batch of named arrays."""
        return self.submit(batch)()

    def close(self) -> None:
        """Destroy the buffers, except for those of another program (see `weights`)."""
        self.closed, self.bytes = True, 0
        for buffer in self.buffers:
            buffer.destroy()
        for made in (self.buffers, self.readbacks, self.steps, self.weights, self.kept):
            made.clear()


def fitting_tokens(device: Device, output: Tensor, wanted: int) -> int:
    """The most tokens of a batch, up to about `wanted`, for which each result fits one binding of the device."""
    widest = max(
        math.prod(d for d in t.shape if isinstance(d, int)) * DTYPES[t.dtype].itemsize
        for t in schedule(output)
        if t.op is not None
    )
    rows = device.adapter.limits["max-compute-workgroups-per-dimension"]  # norms have one workgroup a row
    return max(TILE, min(wanted, device.adapter.limit // widest // TILE * TILE, rows // TILE * TILE))
