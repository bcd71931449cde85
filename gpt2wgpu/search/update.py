"""Brings an index up to date with files: only new contents are computed, and what is done stays done."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..checkpoint.prompts import first_prompt
from ..corpus.fingerprint import OPTIONS, digest_model_files, fingerprint
from ..encoder import Encoder
from ..engine import EncodeOptions
from ..errors import UserError
from ..files.windows import WINDOW_CHARACTERS
from ..graph.tensor import Array
from .passages import CHANGED, Passage, Skipped, TokenCounter, content_key, file_passages, reading_key
from .reader import Catalogue, Index, check_index, is_below, open_index, read_catalogue
from .store import PASSAGE_ROW, IndexState, Store, lock_index, read_index_state, remove_other_generations
from .walk import FoundFile, find_files
from .words import count_words

SAVED_SECONDS = 2.0  # between two commits
PASSAGES_TOGETHER = 512  # computed and written together
DEAD_ROWS = 1000  # passages of no file, up to which they are left where they are


class UpdateReport(Protocol):
    """Hears what happens."""

    def say(self, line: str) -> None: ...
    def step(self, passages: int, files: int, of: int) -> None: ...


@dataclass(eq=False)
class NewContent:
    """A content that the index lacks, and the files that have it. done: passages that an earlier process wrote. why: it
    cannot be searched."""

    key: str
    files: list[FoundFile]
    first: int = -1  # its first row
    rows: int = 0
    done: int = 0
    why: str = ""


@dataclass
class PassageWindow:
    """Passages that are computed together, each with its content; and the contents that end with them."""

    passages: list[tuple[NewContent, Passage]] = field(default_factory=list)
    ended: list[NewContent] = field(default_factory=list)
    characters: int = 0


def document_options(encoder: Encoder) -> EncodeOptions:
    """How passages are encoded: the model's prompt for documents, length 1."""
    prompt = first_prompt(encoder.prompts, "document", "passage", "corpus")
    return encoder.options(prompt=prompt, normalize_embeddings=True)


def index_fingerprint(encoder: Encoder, state: IndexState | None) -> IndexState:
    """The state, or a new one. Raises UserError if the index was made with another model, prompt or option."""
    digests = digest_model_files(encoder.checkpoint, state.model_files if state else {})
    made = fingerprint(encoder, document_options(encoder), "float32", digests)
    del made["max_tokens"]
    made["dtype"] = "int8" if made["dtype"] == "int8" else "float"  # float16 and float32 agree to three digits
    made["passage_tokens"] = TokenCounter(encoder.tokenizer, encoder.max_seq_length, made["prompt"]).limit
    if state is None:
        return IndexState(made, model_files=digests)
    for name, value in made.items():
        if state.made_with.get(name) != value:
            what = f"with {OPTIONS.get(name, name)} {state.made_with.get(name)!r}, and this is {value!r}"
            if name == "model":
                what = "with another model, or with other files of this one"
            raise UserError(f"the index was made {what}: use the same, or another --index FOLDER")
    state.model_files = digests
    return state


def update_index(
    encoder: Encoder, folder: Path, paths: Sequence[str], report: UpdateReport, column: str | None = None, *, durable: bool = True
) -> Index:
    """Make the index in `folder`, or bring it up to date: files below `paths` that are new or have changed are read, those that
    are gone are forgotten, and files elsewhere stay. A process that is ended, and one that fails, keep what they have done.

    durable=False: for an index that is thrown away. Raises UserError; OSError.
    """
    files = find_files(paths, folder)
    with lock_index(folder, report.say):
        state = index_fingerprint(encoder, read_index_state(folder))
        remove_other_generations(folder, state)
        with closing(Store(folder, state, durable=durable)) as store:
            IndexUpdate(encoder, store, report, column).run(files, [str(Path(p).resolve()) for p in paths])
        index = open_index(folder)
        if dead_rows(index) > max(DEAD_ROWS, index.state.rows // 2):
            index = copy_live_rows(index, durable=durable)
    return index


class IndexUpdate:
    """One run over the files of an index that is locked."""

    def __init__(self, encoder: Encoder, store: Store, report: UpdateReport, column: str | None) -> None:
        self.encoder, self.store, self.report, self.column = encoder, store, report, column
        self.asked = document_options(encoder)
        self.counter = TokenCounter(encoder.tokenizer, self.asked.limit, self.asked.prompt)
        path = store.state.path(store.folder, "log")
        self.catalogue: Catalogue = read_catalogue(path.read_bytes(), path, store.state.checksums["log"])
        self.saved = time.monotonic()
        self.changed = False
        self.left_over: list[NewContent] = []  # ended after the last window
        self.ended = 0  # new contents that are complete

    def run(self, files: Sequence[FoundFile], roots: list[str]) -> None:
        """Everything that differs between the files and the index."""
        present = {file.path for file in files}
        for path in [p for p in self.catalogue.files if p not in present and is_below(p, roots)]:
            self.note(path=path, removed=True)
        try:
            self.add_contents(self.find_new([file for file in files if not self.is_known(file)]))
        finally:  # Ctrl-C too
            if self.changed or not self.store.state.rows:
                self.commit()

    def note(self, **entry: Any) -> None:
        self.store.log(**entry)
        self.catalogue.apply(entry)
        self.changed = True

    def commit(self) -> None:
        self.store.commit()
        self.saved = time.monotonic()

    def is_known(self, file: FoundFile) -> bool:
        """Whether the index holds the file as it is, by its size, times and inode. Raises UserError if the user named a file
        that cannot be searched."""
        known = self.catalogue.files.get(file.path)
        if known is None or known.stat != file.stat or not known.key.endswith(reading_key(file.path, self.column)):
            return False
        return not (known.why and file.named)  # read again, which says why

    def find_new(self, files: Sequence[FoundFile]) -> list[NewContent]:
        """The contents that the index lacks, the unfinished one first. Files of contents that it has are noted."""
        new: dict[str, NewContent] = {}
        unfinished = self.store.state.unfinished
        for file in files:
            try:
                key = content_key(file, self.column)
            except OSError as error:
                if file.named:
                    raise
                self.note(path=file.path, key=reading_key(file.path, self.column), stat=[], why=error.strerror)
                continue
            if key in self.catalogue.contents:
                self.note(path=file.path, key=key, stat=file.stat)
            elif key in new:
                new[key].files.append(file)
            else:
                new[key] = NewContent(key, [file])
                if unfinished.get("key") == key:
                    new[key].first, new[key].rows, new[key].done = unfinished["first"], unfinished["rows"], unfinished["rows"]
        return sorted(new.values(), key=lambda content: content.done == 0)

    def add_contents(self, new: Sequence[NewContent]) -> None:
        """Cut, encode and append."""
        under_way: deque[PassageWindow] = deque()
        windows = self.cut_windows(new, under_way)
        texts = ([passage.text for _, passage in window.passages] for window in windows)
        with closing(self.encoder.encode_windows(texts, self.asked)) as encoded:
            for vectors, _ in encoded:
                self.write_window(under_way.popleft(), vectors)
                self.report.step(self.store.state.rows, self.ended, len(new))
                if time.monotonic() - self.saved > SAVED_SECONDS:
                    self.commit()
        for content in self.left_over:
            self.end_content(content)

    def cut_windows(self, new: Sequence[NewContent], under_way: deque[PassageWindow]) -> Iterator[PassageWindow]:
        """Windows of passages, on the thread that tokenises ahead."""
        window = PassageWindow()
        for content in new:
            try:
                for i, passage in enumerate(file_passages(content.files[0], content.key, self.column, self.counter)):
                    if i < content.done:
                        continue
                    window.passages.append((content, passage))
                    window.characters += len(passage.text)
                    if len(window.passages) == PASSAGES_TOGETHER or window.characters > WINDOW_CHARACTERS:
                        under_way.append(window)
                        yield window
                        window = PassageWindow()
            except Skipped as why:
                content.why = str(why)
            window.ended.append(content)
        if window.passages:
            under_way.append(window)
            yield window
        else:
            self.left_over = window.ended

    def write_window(self, window: PassageWindow, vectors: Array) -> None:
        rows = np.zeros(len(vectors), PASSAGE_ROW)
        texts, words, counts = [], [], []
        text_bytes = word_count = 0
        for row, (_, passage) in zip(rows, window.passages, strict=True):
            text = passage.text.encode("utf-8", "surrogatepass")
            numbers, often, length = count_words(passage.text)
            row["text"], row["bytes"], row["first"], row["last"] = text_bytes, len(text), passage.first, passage.last
            row["word"], row["words"], row["length"] = word_count, len(numbers), length
            texts.append(text)
            words.append(numbers)
            counts.append(often)
            text_bytes, word_count = text_bytes + len(text), word_count + len(numbers)
        before = self.store.state.rows
        self.store.append_rows(rows, vectors, b"".join(texts), np.concatenate(words), np.concatenate(counts))
        self.changed = True
        for i, (content, _) in enumerate(window.passages):
            content.first = before + i if content.first < 0 else content.first
            content.rows += 1
        last = window.passages[-1][0]
        self.store.state.unfinished = {"key": last.key, "first": last.first, "rows": last.rows}
        for content in window.ended:
            self.end_content(content)

    def end_content(self, content: NewContent) -> None:
        """Note that all passages of a content are there, or that it cannot be searched."""
        self.ended += 1
        if content.why:
            for file in content.files:  # one that changed under way is read again the next time
                key, stat = reading_key(file.path, self.column), [] if content.why == CHANGED else file.stat
                self.note(path=file.path, key=key, stat=stat, why=content.why)
        else:
            self.note(key=content.key, first=max(0, content.first), rows=content.rows)
            for file in content.files:
                self.note(path=file.path, key=content.key, stat=file.stat)
        if self.store.state.unfinished.get("key") == content.key:
            self.store.state.unfinished = {}


def dead_rows(index: Index) -> int:
    """Passages that belong to no file any more."""
    return index.state.rows - sum(content.rows for content, _ in index.used)


def copy_live_rows(index: Index, *, durable: bool) -> Index:
    """Copy the passages that belong to files into the next generation of an index that is locked. Returns that one.

    Raises UserError if a file is damaged, as the copy would have a right checksum.
    """
    check_index(index)
    old = index.state
    state = IndexState(old.made_with, old.generation + 1, model_files=old.model_files)
    with closing(Store(index.folder, state, durable=durable)) as store:
        for key in index.catalogue.used():
            content = index.catalogue.contents[key]
            store.log(key=key, first=state.rows, rows=content.rows)
            for first in range(content.first, content.first + content.rows, PASSAGES_TOGETHER):
                copy_rows(index, store, slice(first, min(first + PASSAGES_TOGETHER, content.first + content.rows)))
        for path, file in index.catalogue.files.items():
            store.log(path=path, key=file.key, stat=file.stat, why=file.why)
        store.commit()
    remove_other_generations(index.folder, state)
    return open_index(index.folder)


def copy_rows(index: Index, store: Store, which: slice) -> None:
    """Neighbouring passages of one content, whose texts and words lie one after the other."""
    rows = index.rows[which].copy()
    text, word = int(rows["text"][0]), int(rows["word"][0])
    text_end, word_end = int(rows["text"][-1] + rows["bytes"][-1]), int(rows["word"][-1] + rows["words"][-1])
    rows["text"] -= text
    rows["word"] -= word
    texts = index.texts[text:text_end].tobytes()
    store.append_rows(rows, index.vectors[which], texts, index.words[word:word_end], index.counts[word:word_end])
