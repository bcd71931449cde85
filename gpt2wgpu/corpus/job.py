"""One run over a corpus. Four threads share the work: reading, tokenising, computing, writing."""

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from .. import files
from ..background import run_in_background
from ..devices.choose import device_kind
from ..encoder import Encoder
from ..engine import MAX_SEQUENCES, EncodeOptions
from ..errors import UserError
from ..files.windows import take_window
from ..graph.tensor import Array
from ..vectors.quantize import RANGED, quantize_embeddings
from .fingerprint import chain_digest
from .journal import Journal, State
from .workspace import Workspace

WINDOW_SECONDS = 4  # target duration of a window, which is what a crash can lose and how often progress is shown
BATCHES = 16  # most per window, enough to keep a device busy; there are at least two, so that preparing and computing overlap
# FLOP/s, to estimate a window's duration within a factor of ten
SPEED = {"discrete": 1e13, "integrated": 1e12, "software": 2e10, "numpy": 2e11}
ENGLISH_CHARACTERS = 4  # per token, roughly, in WordPiece and byte-pair vocabularies
COMMIT_SECONDS = 2.0  # between two fsyncs, which cost up to a tenth of a second each on a hard disk
SHARD_BYTES = 1 << 28  # float32 vectors in a shard, a usual size for Parquet; a shard ends with the window that reaches it


class CorpusReport(Protocol):
    """Receives the progress of a run. Calls come from the thread that runs it; `writing` also from the writer's thread."""

    def say(self, line: str) -> None: ...
    def begin(self, rows: int, position: int, size: int) -> None: ...
    def step(self, rows: int, position: int) -> None: ...
    def writing(self, rows: int, total: int) -> None: ...
    def stopped(self, rows: int, folder: Path) -> None: ...


class Window(NamedTuple):
    """Texts that are computed and written together."""

    texts: list[str]
    digest: str  # of all texts up to the end of this window
    position: int  # bytes of the input read so far


def choose_window(encoder: Encoder) -> list[int]:
    """The most texts and the most characters of a window."""
    c = encoder.checkpoint
    operations = 2 * max(1, c.parameters - c.config.vocab * c.config.width)  # for a token
    batches = round(WINDOW_SECONDS * SPEED[device_kind(encoder.engine.place.device)] / operations / encoder.engine.max_tokens)
    batches = min(BATCHES, max(2, batches))
    return [batches * MAX_SEQUENCES, batches * ENGLISH_CHARACTERS * encoder.engine.max_tokens]


def skip_finished(stream: Iterator[str], state: State, folder: Path) -> None:
    """Read past the finished texts. Raises UserError if they are not the ones that were embedded."""
    digest, rows = "", 0
    most, characters = state.window
    while rows < state.rows and (window := take_window(stream, min(most, state.rows - rows), characters)):
        digest = chain_digest(digest, window)
        rows += len(window)
    if rows != state.rows or digest != state.digest:
        found = f"the first {state.rows:,} texts differ from those it was made with"
        raise UserError(f"{folder} cannot be resumed: {found}; use the input it was started with, or delete it to start again")


class Job:
    """One run over the texts of an output that are not finished."""

    def __init__(self, encoder: Encoder, work: Workspace, state: State, report: CorpusReport) -> None:
        self.encoder, self.work, self.state, self.report = encoder, work, state, report
        self.precision: str = state.made_with["precision"]
        self.journal = self._open_journal()
        self.committed = time.monotonic()

    def _open_journal(self) -> Journal:
        return Journal(self.work.folder, self.state, texts=self.work.suffix not in files.WITHOUT_TEXTS)

    def run(self, stream: Iterator[str], texts: files.Texts, asked: EncodeOptions) -> None:
        """Embed all texts of the stream and write the output.

        The caller's thread computes. A second one reads the stream (`read_ahead`), a third, the engine's, tokenises, and a
        fourth writes: while it exists, nothing else touches the journal.
        """
        state = self.state
        under_way: deque[Window] = deque()
        self.report.begin(state.rows, texts.position, texts.size)
        try:
            self._finish_full_shard()  # in case an earlier process did not get that far
            with (
                ThreadPoolExecutor(1, thread_name_prefix="gpt2wgpu-writer") as writer,
                closing(read_ahead(cut_windows(stream, texts, state))) as windows,
                closing(self.encoder.encode_windows(window_texts(windows, under_way), asked, first=state.rows)) as encoded,
            ):
                try:
                    pending: deque[Future[None]] = deque()
                    row = state.rows
                    for vectors, cut in encoded:
                        window = under_way.popleft()
                        pending.append(writer.submit(self._write_window, window, vectors, row, cut))
                        row += len(vectors)
                        self.report.step(row, window.position)
                        if len(pending) > 1:
                            pending.popleft().result()
                    for future in pending:
                        future.result()
                except BaseException:  # Ctrl-C too
                    with suppress(OSError, ValueError):  # a full disk; a journal closed in the middle of a shard
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

    def _write_window(self, window: Window, vectors: Array, row: int, cut: int) -> None:
        ranges = self.precision in RANGED
        self.journal.append(window.texts, vectors, row=row, cut=cut, digest=window.digest, ranges=ranges)
        if not self._finish_full_shard() and time.monotonic() - self.committed > COMMIT_SECONDS:
            self._commit()

    def _finish_full_shard(self) -> bool:
        full = self.work.sharded and self.journal.bytes >= SHARD_BYTES
        if full:
            self.finish()
            self.journal = self._open_journal()
        return full

    def _commit(self) -> None:
        if self.state.rows > self.journal.saved:
            self.journal.commit()
            self.committed = time.monotonic()

    def finish(self) -> None:
        """Write the output, or its next shard, from the journal, then empty the journal. Doing it twice gives the same files."""
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
                write(file, self._rows(ranges), files.OutputFacts(state.first, facts))
                if ranges is not None and work.suffix not in files.HOLD_FACTS:  # not earlier: an older output needs its own
                    output = files.open_output(f"{work.target}.ranges.npy", {".npy": files.write_npy}, work.folder)
                    with output as (file, write_ranges):
                        write_ranges(file, (("", row) for row in ranges))
            files.sync_to_disk(work.target.parent)
            if work.sharded:
                files.sync_to_disk(work.target)
        j.advance()

    def _rows(self, ranges: Array | None) -> files.Rows:
        done = 0
        for texts, vectors in self.journal.rows():
            quantised = quantize_embeddings(vectors, self.precision, ranges)
            yield from zip(texts, quantised, strict=True)
            done += len(vectors)
            self.report.writing(done, self.journal.count)

    def _facts(self) -> tuple[dict[str, Any], Array | None]:
        """How the vectors were made, and the ranges (2, C) that int8 and uint8 divide into steps."""
        names = "layer", "pooling", "dtype", "dimensions", "max_seq_length", "prompt", "normalize", "precision"
        facts = {"model": self.encoder.model, **{name: self.state.made_with[name] for name in names}}
        if self.precision not in RANGED:
            return facts, None
        ranges = [self.state.lowest, self.state.highest]
        return {**facts, "ranges": ranges}, np.array(ranges, np.float32)


def cut_windows(stream: Iterator[str], texts: files.Texts, state: State) -> Iterator[Window]:
    digest = state.digest
    while window := take_window(stream, *state.window):
        digest = chain_digest(digest, window)
        yield Window(window, digest, texts.position)


def window_texts(windows: Iterator[Window], under_way: deque[Window]) -> Iterator[Sequence[str]]:
    """The texts of each window, which is appended to `under_way`."""
    for window in windows:
        under_way.append(window)
        yield window.texts


def read_ahead(windows: Iterator[Window]) -> Generator[Window, None, None]:
    """The same windows; each is read on a thread while the previous one is computed.

    Neither closing this nor the end of the process waits for the thread: it may be reading from a pipe to which nobody writes
    any more.
    """
    future = run_in_background(next, windows, None)
    while (window := future.result()) is not None:
        future = run_in_background(next, windows, None)
        yield window
