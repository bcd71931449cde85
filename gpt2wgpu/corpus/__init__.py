"""Vectors of a corpus of any size, into a file or a folder of shards: in bounded memory, and never with a torn, doubled or lost
row, whenever the process ends.

Rows go to a journal beside the output (journal.py), which is made of it at the end, or shard by shard. Four threads share the
work: reading, tokenising, computing, writing.
"""

import time
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import files
from ..devices.choose import device_kind
from ..encoder import Encoder
from ..engine import MAX_SEQUENCES, EncodeOptions, truncation_message
from ..errors import UserError
from ..files.windows import take_window
from ..graph.tensor import Array
from ..vectors.quantize import RANGED, quantize_embeddings
from . import journal
from .fingerprint import chain_digest, check_fingerprint, fingerprint
from .journal import Journal, State
from .workspace import Workspace, is_folder, open_workspace

__all__ = [
    "CorpusReport",
    "Workspace",
    "embed_corpus",
    "is_folder",
    "open_workspace",
]

BATCHES = 16  # of a window at most: enough to keep a device busy
SECONDS = 4  # that a window takes, about; but two batches it has, so that one is prepared while the other is computed
SPEED = {"gpu": 1e13, "software": 2e10, "numpy": 2e11}  # FLOP/s, roughly
CHARACTERS_PER_TOKEN = 4
COMMIT_SECONDS = 2.0
SHARD_BYTES = 1 << 28  # of vectors, float32; a shard ends with the window that reaches it
Window = tuple[list[str], str, int]  # texts, the digest up to them, bytes of the input read


class CorpusReport(Protocol):
    """Who is told how it goes."""

    def say(self, line: str) -> None: ...
    def begin(self, rows: int, position: int, size: int) -> None: ...
    def step(self, rows: int, position: int) -> None: ...
    def writing(self, rows: int, total: int) -> None: ...
    def stopped(self, rows: int, folder: Path) -> None: ...


def embed_corpus(
    encoder: Encoder, texts: files.Texts, work: Workspace, report: CorpusReport, asked: EncodeOptions, precision: str = "float32"
) -> None:
    """The vectors of all texts into the output. What is done when it fails stays in `work.folder`, and is gone on with.

    Raises UserError: a text cannot be read or encoded, or is not what it was; the model or the options are not.
    """
    made = fingerprint(encoder, asked, precision)
    state = work.state or State(made, window_of(encoder), encoder.device, texts.size)
    check_fingerprint(state.made_with, made, work.folder)
    stream = iter(texts)
    skip(stream, state, work.folder)
    if work.state is not None:
        report.say(f"going on after {state.rows:,} texts")
        if state.input_size != texts.size:
            report.say(f"the input has {texts.size:,} bytes, and had {state.input_size:,}: the texts done are the same in both")
        if state.device != encoder.device:
            report.say(f"the texts done were computed on {state.device}, the others are on {encoder.device}")
    state.device, state.input_size = encoder.device, texts.size
    job = Job(encoder, work, state, report)
    with files.naming(work.path, *(work.folder / name for name in (journal.VECTORS, journal.TEXTS, journal.NEW_STATE))):
        job.run(stream, texts, asked)
    if state.cut:
        warnings.warn(truncation_message(state.cut, state.rows, encoder.max_seq_length), UserWarning, stacklevel=2)
    journal.remove(work.folder)


def window_of(encoder: Encoder) -> list[int]:
    """How much is computed between two moments at which rows can be kept: most texts, and most characters."""
    c = encoder.checkpoint
    operations = 2 * max(1, c.parameters - c.config.vocab * c.config.width)  # for a token
    batches = round(SECONDS * SPEED[device_kind(encoder.engine.place.device)] / operations / encoder.engine.max_tokens)
    batches = min(BATCHES, max(2, batches))
    return [batches * MAX_SEQUENCES, batches * CHARACTERS_PER_TOKEN * encoder.engine.max_tokens]


def skip(stream: Iterator[str], state: State, folder: Path) -> None:
    """Read past the texts done, which must be the ones that were embedded."""
    digest, rows = "", 0
    most, characters = state.window
    while rows < state.rows and (window := take_window(stream, min(most, state.rows - rows), characters)):
        digest = chain_digest(digest, window)
        rows += len(window)
    if rows != state.rows or digest != state.digest:
        again = "give the input it began with, or delete it to begin again"
        raise UserError(f"{folder} cannot be gone on with: the first {state.rows:,} texts are not those it was made of; {again}")


class Job:
    """An output that is being made."""

    def __init__(self, encoder: Encoder, work: Workspace, state: State, report: CorpusReport) -> None:
        self.encoder, self.work, self.state, self.report = encoder, work, state, report
        self.precision: str = state.made_with["precision"]
        self.journal = self._open()
        self.committed = time.monotonic()

    def _open(self) -> Journal:
        return Journal(self.work.folder, self.state, texts=self.work.suffix not in files.WITHOUT_TEXTS)

    def run(self, stream: Iterator[str], texts: files.Texts, asked: EncodeOptions) -> None:
        """All texts of the stream, by way of the journal. While there is a writer's thread, it alone touches the journal."""
        state = self.state
        under_way: deque[Window] = deque()
        self.report.begin(state.rows, texts.position, texts.size)
        try:
            self._finish_if_full()  # which the process before did not come to
            with (
                ThreadPoolExecutor(1, thread_name_prefix="gpt2wgpu-writer") as writer,
                closing(ahead(read_windows(stream, texts, state))) as reading,
                closing(self.encoder.encode_windows(passing(reading, under_way), asked, first=state.rows)) as encoded,
            ):
                try:
                    pending: deque[Future[None]] = deque()
                    row = state.rows
                    for vectors, cut in encoded:
                        window, digest, position = under_way.popleft()
                        pending.append(writer.submit(self._write, window, vectors, row, cut, digest))
                        row += len(vectors)
                        self.report.step(row, position)
                        if len(pending) > 1:
                            pending.popleft().result()
                    for future in pending:
                        future.result()
                except BaseException:  # Ctrl-C too
                    with suppress(OSError, ValueError):  # a full disk; closed in the middle of a shard
                        writer.submit(self._commit).result()
                    raise
            if self.journal.count:
                self.finish()
        except BaseException:
            if self.journal.saved:
                self.report.stopped(self.journal.saved, self.work.folder)
            raise
        finally:
            self.journal.close()

    def _write(self, window: Sequence[str], vectors: Array, row: int, cut: int, digest: str) -> None:
        ranges = self.precision in RANGED
        self.journal.append(window, vectors, row=row, cut=cut, digest=digest, ranges=ranges)
        if not self._finish_if_full() and time.monotonic() - self.committed > COMMIT_SECONDS:
            self._commit()

    def _finish_if_full(self) -> bool:
        full = self.work.sharded and self.journal.bytes >= SHARD_BYTES
        if full:
            self.finish()
            self.journal = self._open()
        return full

    def _commit(self) -> None:
        if self.state.rows > self.journal.saved:
            self.journal.commit()
            self.committed = time.monotonic()

    def finish(self) -> None:
        """The output, or its next shard, of what is in the journal, which is empty then. Done twice, it does the same."""
        state, work, j = self.state, self.work, self.journal
        j.commit()
        path = work.output(state.shards)
        if work.sharded:
            work.target.mkdir(exist_ok=True)
        facts, ranges = self._facts()
        if work.suffix == ".npy" and self.precision == "float32":
            j.hand_over(work.target)
        else:
            with files.open_output(path, files.VECTOR_FORMATS, work.folder) as (file, write):
                write(file, self._rows(ranges), files.About(state.first, facts))
                if ranges is not None and work.suffix not in files.HOLD_FACTS:  # not before: an older output has its own
                    beside = files.open_output(f"{work.target}.ranges.npy", {".npy": files.write_npy}, work.folder)
                    with beside as (file, write_ranges):
                        write_ranges(file, (("", row) for row in ranges))
            files.sync(work.target.parent)
            if work.sharded:
                files.sync(work.target)
        j.advance()

    def _rows(self, ranges: Array | None) -> files.Rows:
        done = 0
        for texts, vectors in self.journal.rows():
            quantised = quantize_embeddings(vectors, self.precision, ranges)
            yield from zip(texts, quantised, strict=True)
            done += len(vectors)
            self.report.writing(done, self.journal.count)

    def _facts(self) -> tuple[dict[str, Any], Array | None]:
        """What of the vectors is known, and the ranges of the steps that they are rounded to."""
        names = "layer", "pooling", "dtype", "dimensions", "max_seq_length", "prompt", "normalize", "precision"
        facts = {"model": self.encoder.model, **{name: self.state.made_with[name] for name in names}}
        if self.precision not in RANGED:
            return facts, None
        ranges = [self.state.lowest, self.state.highest]
        return {**facts, "ranges": ranges}, np.array(ranges, np.float32)


def read_windows(stream: Iterator[str], texts: files.Texts, state: State) -> Iterator[Window]:
    digest = state.digest
    while window := take_window(stream, *state.window):
        digest = chain_digest(digest, window)
        yield window, digest, texts.position


def passing(windows: Iterator[Window], under_way: deque[Window]) -> Iterator[Sequence[str]]:
    """The texts of each, which is noted."""
    for window in windows:
        under_way.append(window)
        yield window[0]


def ahead(windows: Iterator[Window]) -> Generator[Window, None, None]:
    """The same, each read while the one before is worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix="gpt2wgpu-reader") as reader:
        future = reader.submit(next, windows, None)
        while (window := future.result()) is not None:
            future = reader.submit(next, windows, None)
            yield window
