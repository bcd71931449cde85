"""Token ids -> vectors: a graph compiled for a device, its memory, and the batches in progress."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .background import run_in_background, wait_interruptibly
from .checkpoint import Checkpoint
from .devices.choose import default_tokens, enough_memory, find_operand_dtype
from .errors import UserError
from .graph import memory, ops, packing, reference
from .graph.fork_lock import ForkSafeLock
from .graph.int8 import quantize_weights
from .graph.packing import position_ids
from .graph.program import CompiledGraph
from .graph.tensor import Array, Tensor, schedule
from .progress import progress
from .tokenizer import Tokenizer
from .tokenizer.ahead import Tokenized, tokenize_window, waiting_for

if TYPE_CHECKING:
    from .gpu import Device, Pace

MAX_SEQUENCES = 1024  # per batch
LONG_TEXT_TOKENS = (
    8192  # a device gets buffers for texts this long, whatever max_tokens is; for longer ones if max_seq_length asks
)


def truncation_message(cut: int, of: int, limit: int) -> str:
    return f"{cut} of {of} texts had more than {limit} tokens and were cut there (max_seq_length)"


@dataclass(frozen=True)
class EncodeOptions:
    """The options of a call of `Encoder.encode`, checked."""

    prompt: str
    skip: int  # leading tokens, those of the prompt, that pooling leaves out
    limit: int  # most tokens of a text that are read
    truncate: bool  # cut longer texts; else refuse them
    sequences: int  # most texts in a batch
    dims: int  # length of a vector, after truncation
    normalize: bool
    show_progress_bar: bool
    precision: str = "float32"
    output_value: str | None = "sentence_embedding"
    container: str = "numpy"  # what the caller gets: "numpy", one "tensor", or a "list" of tensors


@dataclass(frozen=True)
class Placement:
    """Where a graph is computed: on an opened device or, if that is None, in numpy; why, in which dtype, with which matmul."""

    device: "Device | None"
    reason: str
    dtype: str  # of the weights: "float32", "float16" or "int8"
    matmul: str

    @property
    def name(self) -> str:
        """ "numpy", or the adapter"""
        return "numpy" if self.device is None else str(self.device.adapter)

    @property
    def operand_dtype(self) -> str:
        """The dtype of what weights are multiplied with: "f32" or "f16"."""
        return find_operand_dtype(self.dtype, self.device)

    def __str__(self) -> str:
        return f"{self.name}, {self.dtype}"


class TokenWindow(NamedTuple):
    """The texts of a window as tokens. first: the number of its first text. cut: how many texts were cut."""

    sequences: list[Array]
    first: int
    cut: int


class Engine:
    """A compiled graph and the place where it is computed. One thread computes at a time.

    graph: batch arrays -> vectors (B, C). name: the model's, for messages. max_tokens: most in a batch; None for the default
    of the device, or on a slow GPU what it computes in a fifth of a second, once that is known. longest: tokens of the longest
    text that must fit, whatever max_tokens is. lock: shared with another engine on the same device.

    Raises UserError if it does not fit in memory.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        graph: Tensor,
        place: Placement,
        *,
        name: str,
        max_tokens: int | None,
        longest: int,
        lock: ForkSafeLock | None = None,
    ) -> None:
        self.checkpoint, self.place, self.name = checkpoint, place, name
        self.lock = lock or ForkSafeLock()
        self.asked_tokens = max_tokens
        self.max_tokens = max_tokens or default_tokens(place.device)
        self.pace: Pace | None = None  # of a device
        self.longest_text = checkpoint.config.usable_length  # most tokens of a text that can be computed
        self.limited = False  # whether the device, not `longest`, sets `longest_text`
        self._longest = longest
        int8 = place.dtype == "int8"
        weights = quantize_weights(checkpoint.weights, checkpoint.stored_int8) if int8 else checkpoint.weights
        self.program = self._compile(graph, weights)
        self._token_program: CompiledGraph | None = None  # compiled when it is first asked for
        self.closed = False

    @property
    def width(self) -> int:
        """Length of a vector before it is cut."""
        return int(self.program.output.shape[1])

    def _compile(self, graph: Tensor, weights: Callable[[Tensor], Any]) -> CompiledGraph:
        device, context = self.place.device, self.checkpoint.config.usable_length
        wanted = max(self.max_tokens, self._longest)
        if device is not None:
            from .devices.graph_check import check_graph
            from .devices.loop_limit import longest_text
            from .gpu import Pace, check_grids, fitting_tokens

            self.pace = Pace(device)
            tokens = fitting_tokens(device, graph, wanted)
            self.max_tokens = min(self.max_tokens, tokens)
        else:
            tokens = max(self.max_tokens, min(self._longest, LONG_TEXT_TOKENS))  # an estimate: numpy allocates what a batch needs
        sequences = min(tokens, MAX_SEQUENCES)
        self._capacity = {"T": tokens, "B": sequences, "G": packing.max_tiles(tokens, sequences)}
        self._need = memory.memory_needed(graph, self._capacity)
        room = memory.available_memory() if device is None or device.adapter.uses_main_memory else None
        if room is not None and self._need.total > room:
            raise self._too_large(f"this machine has {memory.readable_bytes(room)} free")
        with enough_memory(self._too_large):
            if device is not None:
                check_grids(device, schedule(graph), self._capacity)
                check_graph(device, schedule(graph))
                self.longest_text = longest_text(device, graph, min(tokens, context))
                self.limited = self.longest_text < min(wanted, context)
            return self._program(graph, weights)

    def _program(self, graph: Tensor, weights: Callable[[Tensor], Any]) -> CompiledGraph:
        if self.place.device is None:
            return reference.NumpyProgram(graph, weights)
        from .gpu import GPUProgram

        return GPUProgram(self.place.device, graph, weights, self._capacity, pace=self.pace)

    def _too_large(self, room: str) -> UserError:
        half = self.place.device is not None and self.place.device.has_f16
        room, shorter = room.format(device=self.place.name), self.max_tokens > self._longest
        return memory.too_large_error(self.name, self._need, self.place.dtype, room, half=half, shorter=shorter)

    def close(self) -> None:
        """Free the memory. A closed engine refuses every call."""
        with self.lock:
            self.closed = True
            for program in (self._token_program, self.program):
                if program is not None:
                    program.close()
            self.checkpoint.release()

    def check_open(self) -> None:
        """Raises UserError after `close`, or if files of weights changed that numpy reads while it computes."""
        if self.closed:
            raise UserError("this Encoder was closed: reopen() opens it again")
        if self.place.device is None:
            self.checkpoint.check_unchanged()

    def windows(
        self,
        windows: Iterator[Sequence[str]],
        tokenizer: Tokenizer,
        options: EncodeOptions,
        *,
        first: int = 0,
        total: int | None = None,
    ) -> Generator[tuple[Array, int], None, None]:
        """For each window of texts, none empty: its vectors, float32 (n, options.dims), and how many texts were cut.

        On a device a vector has the same bits in any window. In numpy its last bits depend on the texts of its window;
        equal windows give equal bits there.
        first: the number of the first text, for messages. total: how many texts there are, for the progress bar.
        """
        with progress(options.show_progress_bar, total) as advance:
            for window in self._tokenized(windows, tokenizer, options, first):
                vectors = self._vectors(window, options, advance)[:, : options.dims]
                yield ops.l2_normalize.reference(vectors) if options.normalize else vectors, window.cut

    def token_windows(
        self, windows: Iterator[Sequence[str]], tokenizer: Tokenizer, options: EncodeOptions, total: int | None = None
    ) -> Generator[tuple[list[Array], list[Array], int], None, None]:
        """For each window of texts: their token ids, uint32 (n,), their hidden states before pooling, float32 (n, C), and how
        many texts were cut."""
        with progress(options.show_progress_bar, total) as advance:
            for window in self._tokenized(windows, tokenizer, options, 0):
                hidden = [np.empty(0, np.float32)] * len(window.sequences)
                with self.lock, enough_memory(self._too_large):
                    running = self._batches(self._states_program(), window, range(len(hidden)), options)
                    with closing(running) as batches:
                        for rows, found in batches:
                            ends = np.cumsum([len(window.sequences[i]) for i in rows])
                            for i, states in zip(rows, np.split(found, ends[:-1]), strict=True):
                                self._check_finite(states.reshape(1, -1), [window.first + i])
                                hidden[i] = states.copy()
                            advance(len(rows))
                yield window.sequences, hidden, window.cut

    def _tokenized(
        self, windows: Iterator[Sequence[str]], tokenizer: Tokenizer, options: EncodeOptions, first: int
    ) -> Generator[TokenWindow, None, None]:
        """The windows as tokens, one more of them tokenised ahead on a thread. Refuses texts that are too long."""
        done = read = first
        ahead: deque[Future[Tokenized]] = deque()
        with waiting_for(ahead):
            while True:
                while len(ahead) < 2 and (window := next(windows, None)):
                    prompted = [options.prompt + t if isinstance(t, str) else t for t in window] if options.prompt else window
                    arguments = tokenizer, prompted, options.limit, read
                    ahead.append(run_in_background(tokenize_window, *arguments, ahead[-1] if ahead else None))
                    read += len(window)
                if not ahead:
                    return
                sequences, counts = wait_interruptibly(ahead.popleft())
                too_long = [i for i, n in enumerate(counts) if n > options.limit]
                if too_long and not options.truncate:
                    i = too_long[0]
                    found = f"text {done + i} has at least {counts[i]} tokens, the model reads {options.limit}"
                    raise UserError(f"{found}: shorten it, or cut it with truncate=True")
                if (longest := max(map(len, sequences))) > self.longest_text:
                    i = next(i for i, ids in enumerate(sequences) if len(ids) == longest)
                    limit = "can compute" if self.limited else "has buffers for"
                    found = f"text {done + i} has {longest} tokens, {self.place} {limit} {self.longest_text}"
                    cut = f"open the model with max_seq_length={self.longest_text} to cut texts there"
                    other = "use device='numpy'" if self.limited else f"with {longest}"
                    raise UserError(f"{found}: {cut}, or {other}")
                yield TokenWindow(sequences, done, len(too_long))
                done += len(sequences)

    def _vectors(self, window: TokenWindow, options: EncodeOptions, advance: Callable[[int], None]) -> Array:
        """The vectors of one window, (n, C). Equal texts are computed once."""
        sequences = window.sequences
        vectors = np.empty((len(sequences), self.width), np.float32)
        same_as, distinct = packing.find_equal(sequences)
        running = self._batches(self.program, window, distinct, options)
        with self.lock, enough_memory(self._too_large), closing(running) as batches:
            for rows, found in batches:
                self._check_finite(found, [window.first + i for i in rows])
                vectors[rows] = found
                advance(len(rows))
        advance(len(sequences) - len(distinct))
        return vectors if len(distinct) == len(sequences) else vectors[same_as]

    def _batches(
        self, program: CompiledGraph, window: TokenWindow, texts: Sequence[int], options: EncodeOptions
    ) -> Generator[tuple[list[int], Array], None, None]:
        """Compute these texts of a window in batches: for each batch its texts and the program's output. Two batches are in
        progress at a time: one is computed while the next is prepared."""
        self.check_open()
        pending: deque[tuple[list[int], Callable[[], Array]]] = deque()
        sequences = window.sequences
        try:
            for planned in packing.plan_batches([len(sequences[i]) for i in texts], self.budget(), options.sequences):
                rows = [texts[i] for i in planned]
                pending.append((rows, self._submit(program, [sequences[i] for i in rows], [options.skip] * len(rows))))
                if len(pending) > 1:
                    rows, wait = pending.popleft()
                    yield rows, self._finish_batch(wait)
            while pending:
                rows, wait = pending.popleft()
                yield rows, self._finish_batch(wait)
        finally:
            while pending:  # after an error: batches in progress must end before anything else begins
                pending.popleft()[1]()

    def budget(self) -> int:
        """The most tokens of the next batches. A longer text is a batch of its own."""
        if self.pace is None or self.asked_tokens is not None:
            return self.max_tokens
        return self.pace.batch_tokens(self.max_tokens)

    def submit(
        self, sequences: Sequence[Array], skips: Sequence[int], *, states: bool = False, one_core: bool = False
    ) -> Callable[[], Array]:
        """Start one batch of up to `max_tokens` tokens, for a caller that holds `lock`; two may be under way. The returned call
        waits for its vectors, float32 (n, width), or for the hidden states of all its tokens, (T, C).

        skips: for each text, leading tokens that pooling leaves out. one_core: in numpy, compute a batch of one text on one
        core, with the same bits, so that each core may have a batch. Raises UserError if the engine is closed.
        """
        self.check_open()
        wait = self._submit(self._states_program() if states else self.program, sequences, skips, one_core)
        return lambda: self._finish_batch(wait)

    def _submit(
        self, program: CompiledGraph, sequences: Sequence[Array], skips: Sequence[int], one_core: bool = False
    ) -> Callable[[], Array]:
        pad = self.checkpoint.config.pad
        self._check_files()
        skipped = [min(skip, len(s) - 1) for skip, s in zip(skips, sequences, strict=True)]
        batch = packing.pack_batch(sequences, [position_ids(s, pad) for s in sequences], skipped)
        if one_core and len(sequences) == 1 and isinstance(program, reference.NumpyProgram):
            return program.submit_on_one_core(batch)
        return program.submit(batch)

    def _finish_batch(self, wait: Callable[[], Array]) -> Array:
        """Wait for a batch: the program's output."""
        found = wait()
        self._check_files()
        return found

    def _check_files(self) -> None:
        """Raise UserError if the files that numpy computes with changed. Called before a batch, because reading a truncated file
        kills the process, and after it."""
        if self.place.device is None:
            self.checkpoint.check_unchanged()

    def _states_program(self) -> CompiledGraph:
        """The program that computes the hidden states before pooling. It shares the weights, so the engine must be open."""
        self.check_open()
        if self._token_program is None:
            states = {t.inputs[0] for t in schedule(self.program.output) if t.op is ops.pool}
            if len(states) > 1:
                found = f"token_embeddings are those of one layer, this Encoder has {len(states)}"
                raise UserError(f"{found}: make one without with_layers")
            self._token_program = self._program(states.pop(), self.program.weights.__getitem__)
        return self._token_program

    def _check_finite(self, found: Array, texts: Sequence[int]) -> None:
        """Refuse rows with NaN or Inf, naming their text."""
        finite = np.isfinite(found).all(axis=1)
        if not finite.all():
            why = "the model's weights overflow" if self.place.dtype == "float32" else "use dtype='float32'"
            raise UserError(f"the vector of text {texts[int(np.argmin(finite))]} holds NaN or Inf ({self.place}): {why}")
