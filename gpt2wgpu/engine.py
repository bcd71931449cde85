"""Texts -> vectors in order: tokenised ahead on a thread, computed in batches of which two are under way."""

import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from .background import run_in_background
from .devices.choose import enough_memory
from .errors import UserError
from .files.windows import take_window
from .graph import ops, packing
from .graph.fork import ForkSafeLock
from .graph.packing import position_ids
from .graph.program import CompiledGraph
from .graph.tensor import Array
from .progress import progress
from .tokenizer import Tokenizer

Tokenized = tuple[list[Array], list[int]]  # ids of each text, and how many there were


@contextmanager
def waiting_for(under_way: Iterable[Future[Tokenized]]) -> Iterator[None]:
    """On the way out, wait for what is under way; but a second at most, as the way out may be that of Ctrl-C."""
    try:
        yield
    finally:
        wait(under_way, timeout=1)


def truncation_message(cut: int, of: int, limit: int) -> str:
    return f"{cut} of {of} texts had more than {limit} tokens and were cut there (max_seq_length)"


@dataclass(frozen=True)
class EncodeOptions:
    """What one pass over texts asks for."""

    prompt: str
    skip: int  # leading tokens that the pooling leaves out
    limit: int  # tokens of a text
    truncate: bool
    sequences: int  # most in a batch
    dims: int
    normalize: bool
    show_progress_bar: bool | None


@dataclass
class Engine:
    """A compiled model and its tokenizer. One thread computes at a time."""

    program: CompiledGraph
    tokenizer: Tokenizer
    width: int
    pad: int | None
    max_tokens: int
    room: int  # tokens of the longest text that can be computed
    limited: bool  # that being all that the device can
    where: str  # device and dtype, for messages
    half: bool  # not all in float32
    too_large: Callable[[str], UserError]  # what to say of a model that there is no memory for
    lock: ForkSafeLock = field(default_factory=ForkSafeLock)

    def stream(self, texts: Iterator[str], total: int | None, asked: EncodeOptions) -> Iterator[Array]:
        """The vectors of texts, float32 (asked.dims,) each. Texts that were cut are counted in a warning at the end."""
        done = cut = 0
        for vectors, too_long in self.windows(iter(lambda: take_window(texts), []), asked, total=total):
            done += len(vectors)
            cut += too_long
            yield from vectors
        if cut:
            warnings.warn(truncation_message(cut, done, asked.limit), UserWarning, stacklevel=3)

    def windows(
        self, windows: Iterator[Sequence[str]], asked: EncodeOptions, *, first: int = 0, total: int | None = None
    ) -> Generator[tuple[Array, int], None, None]:
        """`stream` in pieces of the caller's choice, none empty: of each its vectors (n, asked.dims) and how many texts were cut.

        In numpy a vector's last bits depend on the texts of its window; equal windows give equal bits.
        first: the number of the first text, for messages. total: of texts, for the progress bar.
        """
        done = read = first
        ahead: deque[Future[Tokenized]] = deque()
        with progress(asked.show_progress_bar, total) as advance, waiting_for(ahead):
            while True:
                while len(ahead) < 2 and (window := next(windows, None)):
                    before = ahead[-1] if ahead else None
                    ahead.append(run_in_background(self._tokenize, window, asked, read, before))
                    read += len(window)
                if not ahead:
                    break
                sequence_ids, counts = ahead.popleft().result()
                too_long = [i for i, n in enumerate(counts) if n > asked.limit]
                if too_long and not asked.truncate:
                    i = too_long[0]
                    found = f"text {done + i} has at least {counts[i]} tokens, the model reads {asked.limit}"
                    raise UserError(f"{found}: shorten it, or cut it with truncate=True")
                if (longest := max(map(len, sequence_ids))) > self.room:
                    i = next(i for i, ids in enumerate(sequence_ids) if len(ids) == longest)
                    limit = "can compute" if self.limited else "was given room for"
                    found = f"text {done + i} has {longest} tokens, {self.where} {limit} {self.room}"
                    other = "use device='numpy'" if self.limited else f"with {longest}"
                    raise UserError(f"{found}: open the model with max_seq_length={self.room} to cut texts there, or {other}")
                vectors = self._compute(sequence_ids, asked, done, advance)
                vectors = vectors[:, : asked.dims]
                if asked.normalize:
                    vectors = ops.l2_normalize.reference(vectors)
                done += len(vectors)
                yield vectors, len(too_long)

    def _tokenize(self, texts: Sequence[str], asked: EncodeOptions, first: int, before: Future[Tokenized] | None) -> Tokenized:
        """Runs in the background, one window after the other: once `before` is done."""
        if before is not None:
            wait([before])
        prompt = asked.prompt
        prompted = [prompt + t if isinstance(t, str) else t for t in texts] if prompt else texts
        return self.tokenizer.encode(prompted, asked.limit, first)

    def _compute(self, sequences: list[Array], asked: EncodeOptions, done: int, advance: Callable[[int], None]) -> Array:
        """The vectors of one window, (n, C). Two batches are under way at a time: one computes, one is prepared.

        Equal texts are computed once.
        """
        vectors = np.empty((len(sequences), self.width), np.float32)
        seen: dict[bytes, int] = {}
        same_as = [seen.setdefault(s.tobytes(), i) for i, s in enumerate(sequences)]
        distinct = [*seen.values()]

        def collect(rows: list[int], wait: Callable[[], Array]) -> None:
            found = wait()
            finite = np.isfinite(found).all(axis=1)
            if not finite.all():
                at = done + rows[int(np.argmin(finite))]
                why = "use dtype='float32'" if self.half else "the model's weights overflow"
                raise UserError(f"the vector of text {at} holds NaN or Inf ({self.where}): {why}")
            vectors[rows] = found
            advance(len(rows))

        with self.lock, enough_memory(self.too_large):
            pending: deque[tuple[list[int], Callable[[], Array]]] = deque()
            try:
                for planned in packing.plan_batches([len(sequences[i]) for i in distinct], self.max_tokens, asked.sequences):
                    rows = [distinct[i] for i in planned]
                    batch = [sequences[i] for i in rows]
                    skips = [min(asked.skip, len(s) - 1) for s in batch]
                    arrays = packing.pack_batch(batch, [position_ids(s, self.pad) for s in batch], skips)
                    pending.append((rows, self.program.submit(arrays)))
                    if len(pending) > 1:
                        collect(*pending.popleft())
            finally:
                while pending:
                    collect(*pending.popleft())
        advance(len(sequences) - len(distinct))
        return vectors if len(distinct) == len(sequences) else vectors[same_as]
