"""A graph and its weights on a device: buffers, bind groups and dispatches, made once and used for every batch."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from ..graph import memory
from ..graph.program import CLOSED, CompiledGraph
from ..graph.tensor import DTYPES, Array, Grid, Tensor, schedule
from .buffers import Buffers, Pieces
from .clock import Clock
from .device import Device
from .failures import named_failures
from .kernels import Kernel, bind_group_layout, find_kernel
from .library import DispatchHandles, Readback
from .pace import TIMED_TOKENS, Pace, count_operations
from .results import Results
from .tiles import tile_ladder
from .tuning import prepare_tiles
from .upload import TILE, Row, Upload, round_up


@dataclass
class Step:
    """One dispatch.

    kernels: (most rows T, the kernel for up to that many), ascending. params: the uniform values; a string names a size of
    the batch. kind: a number that steps with the same kernels and values share. bound: what it reads and writes: an array of
    the batch, a weight's buffer, or the number of a result buffer. bind_group: for the batch that was written last.
    """

    tensor: Tensor
    kernels: tuple[tuple[float, Kernel], ...]
    params: dict[str, Any]
    kind: int
    bound: tuple[Any, ...]
    bind_group: Any = None

    def choose(self, sizes: Mapping[str, int]) -> tuple[Kernel, Grid]:
        """The kernel and its grid for a batch. sizes: of each symbol."""
        params = {name: sizes[v] if isinstance(v, str) and v in sizes else v for name, v in self.params.items()}
        chosen = next(k for most, k in self.kernels if params.get("T", 0) <= most)
        return chosen, chosen.grid(self.tensor, params)


class GPUProgram(CompiledGraph):
    """A graph compiled for one device, for batches of up to `capacity` (a size for each symbol in the graph).

    `weights(tensor)` gives the array of a named weight, or its buffers in another program. All batch arrays and uniform
    values are in one buffer, so a batch takes one upload, one compute pass and one readback; a long one takes several
    passes, each submitted on its own. Result buffers grow with the batches, up to the capacity.
    keep: extra outputs; each gets a private buffer, see `kept`. pace: shared with other programs on the device.
    """

    @named_failures
    def __init__(
        self,
        device: Device,
        output: Tensor,
        weights: Callable[[Tensor], Array | Pieces],
        capacity: Mapping[str, int],
        keep: Collection[Tensor] = (),
        pace: Pace | None = None,
    ) -> None:
        """Raises UserError if the device has no room for something, GPUError if a shader does not compile."""
        self.device, self.output = device, output
        self.capacity = {symbol: round_up(max(size, 1), TILE) for symbol, size in capacity.items()}
        self.pace = pace or Pace(device)
        self.closed = False
        self.buffers = Buffers(device)  # its own, which `close` destroys
        self.readbacks: list[Readback] = []
        self.steps: list[Step] = []
        self.weights: dict[Tensor, Pieces] = {}
        self.kept: dict[Tensor, Any] = {}
        self.groups: dict[tuple[int, ...], list[Any]] = {}  # the bind groups of the steps, by the layout of the batch
        self.bound: tuple[int, ...] | None = None  # the layout of the groups that the steps have
        self.same_groups: dict[Any, Any] = {}  # by what they bind: layers whose results take turns share some, layouts most
        tensors = schedule(output, *keep)
        self.inputs = [t for t in tensors if t.op is None and not t.is_weight]
        prepare_tiles(device, tensors)
        try:
            self.buffers.check_weights(tensors)
            self.results = Results(self.buffers, tensors, self.capacity, set(keep))
            rows = self._plan(tensors, weights)
            self.per_token = sum(count_operations(step.tensor, 1, 0) for step in self.steps)
            self.per_pair = sum(count_operations(step.tensor, 1, 1) for step in self.steps) - self.per_token
            self.upload = Upload(self.buffers, self.inputs, rows, self.capacity)
            self.grow({})
            self._bind()
        except BaseException:
            self.close()  # whoever keeps the error keeps this alive
            raise
        self.kept.update((t, self.results[t]) for t in keep)

    @property
    def result(self) -> Any:
        """The buffer of the output."""
        return self.results[self.output]

    def _plan(self, tensors: list[Tensor], weights: Callable[[Tensor], Array | Pieces]) -> list[Row]:
        """Upload the weights and make the steps. Returns the uniform values of each kind of step."""
        rows: list[Row] = []
        kinds: dict[Any, int] = {}
        for t in tensors:
            if t.is_weight:
                given = weights(t)
                self.weights[t] = given if isinstance(given, list) else self.buffers.upload(t, given)
            if t.op is None:
                continue
            kernels = tuple((most, find_kernel(self.device, t, tile)) for most, tile in tile_ladder(self.device, t))
            if len(kernels) == 1:  # if there are several, each is compiled when a batch first needs it
                kernels[0][1].compile(self.device)
            for params, table in self._dispatches(t):
                kind = kinds.setdefault((kernels, *params.items()), len(kinds))
                if kind == len(rows):
                    rows.append((kernels[0][1].fields, params))
                bound = [table.get(x) or self._bound(x) for x in t.inputs]
                self.steps.append(Step(t, kernels, params, kind, (*bound, self.results.places[t])))
        return rows

    def _bound(self, x: Tensor) -> Any:
        """What a step binds for one of its inputs (see `Step`)."""
        if x in self.results.places:
            return self.results.places[x]
        return self.weights[x][0][1] if x in self.weights else x

    def _dispatches(self, t: Tensor) -> Iterator[tuple[dict[str, Any], dict[Tensor, Any]]]:
        """The uniform values of each dispatch of an op: one, or for an embedding one per piece of its table, with that piece."""
        params = {**t.dims, **t.attrs}
        parted = [x for x in t.inputs if len(self.weights.get(x, [])) > 1]
        if not parted:
            yield params, {}
            return
        first = 0
        for rows, buffer in self.weights[parted[0]]:
            yield params | {"V": rows, "first": first}, {parted[0]: buffer}
            first += rows

    @named_failures
    def grow(self, sizes: Mapping[str, int]) -> None:
        """Make room for the results of batches of these sizes."""
        if not self.results.fit(sizes):
            self.groups.clear()
            self.bound = None
            self.same_groups.clear()
            self.results.grow(sizes)
            self.bytes = self.buffers.bytes

    def _bind(self) -> None:
        """Give every step the bind group for the batch that was written last: its uniform values, then what it binds."""
        layout = tuple(self.upload.layout)
        if layout == self.bound:
            return
        if layout not in self.groups:
            self.groups[layout] = [self._bind_group(step) for step in self.steps]
        for step, group in zip(self.steps, self.groups[layout], strict=True):
            step.bind_group = group
        self.bound = layout

    def _bind_group(self, step: Step) -> Any:
        resources = [self.upload.uniform_row(step.kind)]
        for x in step.bound:
            if isinstance(x, Tensor):
                resources.append((self.upload.buffer, *self.upload.sections[x]))
            else:
                buffer = self.results.made[x] if isinstance(x, int) else x
                resources.append((buffer, 0, buffer.size))
        key = tuple(resources)
        if key not in self.same_groups:
            names = ("buffer", "offset", "size")
            self.same_groups[key] = self.device.raw.create_bind_group(
                label=step.tensor.op.name if step.tensor.op else "",
                layout=bind_group_layout(self.device, len(resources)),
                entries=[{"binding": b, "resource": dict(zip(names, r, strict=True))} for b, r in enumerate(resources)],
            )
        return self.same_groups[key]

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
        self.grow(sizes)
        self.upload.write(batch, sizes)
        self._bind()
        self.spans = batch.get("spans")
        return sizes

    @named_failures
    def put(self, t: Tensor, array: Array) -> None:
        """Upload one array of the batch again."""
        self.upload.put(t, array)

    @named_failures
    def compute(self, steps: Sequence[Step], sizes: Mapping[str, int], clock: Clock | None = None) -> Any:
        """A command encoder with these steps, for the batch that was written last.

        If they take long, all but the last part of them are submitted here.
        """
        dispatches = self._dispatch_list(sizes, steps)
        self.started, tokens = time.perf_counter(), sizes.get("T", 0)
        short = tokens < TIMED_TOKENS and self.pace.allows(tokens * (self.per_token + tokens * self.per_pair))
        operations = [] if short else self._operations(steps, sizes)
        self.operations = sum(operations)
        if clock is not None:
            passes = [dispatches] if clock.passes == 1 else [[d] for d in dispatches]
            encoder = self.device.raw.create_command_encoder()
            for i, part in enumerate(passes):
                self._record(encoder, part, clock.around(i))
            return encoder
        *early, last = [slice(len(steps))] if short else self.pace.split_steps(operations)
        for steps_of_one in early:
            encoder = self.device.raw.create_command_encoder()
            self._record(encoder, dispatches[steps_of_one])
            self.start(encoder)
        encoder = self.device.raw.create_command_encoder()
        self._record(encoder, dispatches[last])
        return encoder

    def _record(self, encoder: Any, dispatches: Sequence[DispatchHandles], timestamps: Any = None) -> None:
        """One compute pass."""
        compute = encoder.begin_compute_pass(timestamp_writes=timestamps)
        self.device.library.record_dispatches(compute, dispatches)
        compute.end()

    def _operations(self, steps: Sequence[Step], sizes: Mapping[str, int]) -> list[float]:
        """About how many floating-point operations each step takes."""
        longest = sizes.get("T", 0) if self.spans is None else int(np.max(self.spans[:, 1] - self.spans[:, 0]))
        found: dict[int, float] = {}
        for step in steps:
            if step.kind not in found:
                rows = step.tensor.dims.get("T", 0)
                rows = sizes[rows] if isinstance(rows, str) else rows
                found[step.kind] = count_operations(step.tensor, rows, longest)
        return [found[step.kind] for step in steps]

    @named_failures
    def start(self, encoder: Any) -> None:
        """Submit a command encoder."""
        self.device.raw.queue.submit([encoder.finish()])

    @named_failures
    def read(self, encoder: Any, sizes: Mapping[str, int]) -> Callable[[], Array]:
        """Submit a command encoder. The returned call waits for the output."""
        shape = tuple(sizes[d] if isinstance(d, str) else d for d in self.output.shape)
        size = round_up(math.prod(shape) * DTYPES[self.output.dtype].itemsize, 4)
        readback = self._readback(size)
        encoder.copy_buffer_to_buffer(self.result, 0, readback.buffer, 0, size)
        readback.submit(encoder.finish(), size)
        started, operations, tokens = self.started, self.operations, sizes.get("T", 0)

        def wait() -> Array:
            array = self._collect(readback, shape)
            self.pace.note_batch(tokens, operations, time.perf_counter() - started)
            return array

        return wait

    @named_failures
    def _collect(self, readback: Readback, shape: tuple[int, ...]) -> Array:
        array = np.frombuffer(readback.wait(), DTYPES[self.output.dtype])[: math.prod(shape)].reshape(shape)
        self.readbacks.append(readback)
        return array

    def _readback(self, size: int) -> Readback:
        """A buffer to read so many bytes from, a free one if there is one. Smaller ones are not kept."""
        while self.readbacks:
            found = self.readbacks.pop()
            if found.buffer.size >= size:
                return found
            self.buffers.drop(found.buffer)
        made = self.device.library.readback(
            self.device.raw, memory.tensor_bytes(self.output, self.results.grown or self.capacity)
        )
        self.buffers.add(made.buffer)
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
        self.buffers.close()
        for made in (self.readbacks, self.steps, self.weights, self.kept, self.groups, self.same_groups):
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
