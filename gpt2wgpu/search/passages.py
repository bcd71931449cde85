"""A file -> passages: neighbouring paragraphs of up to PASSAGE_TOKENS tokens, with the lines where they stand.

Paragraphs end at blank lines, and in Markdown before a heading. A paragraph that is too long is cut between lines, and a line
that is too long between words, so that the model reads all of every passage. In a table each row is cut like a file of its own.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import files
from ..errors import UserError, is_text, show
from ..files.lines import BYTE_ORDER_MARKS
from ..files.texts import numbered_texts
from ..tokenizer import Tokenizer
from .walk import FoundFile, describe_file

PASSAGE_TOKENS = 160  # most in a passage; fewer if the model reads fewer
HEADING = re.compile(r"#{1,6}\s")
MARKDOWN = (".md", ".markdown", ".mdx", ".qmd", ".rmd")
TABLE_KINDS = (*files.JSON_LINES, *files.TABLES, ".parquet", ".arrow", ".feather", ".arrows")
TEXT_FILE_BYTES = 1 << 26  # a larger file of text is a log or a dump, which `--column` can read as a table
LOOKED_AT = 8192  # bytes, to tell a text from other files
CHANGED = "changed while it was read"
ROWS_COUNTED = 1024  # rows of a table whose tokens are counted together


@dataclass(frozen=True)
class Passage:
    """first, last: its lines, from 1."""

    text: str
    first: int
    last: int


class Skipped(Exception):
    """Why a file that was found in a folder is not searched."""


def is_table(path: str) -> bool:
    return files.Source(path).kind in TABLE_KINDS


def content_key(file: FoundFile, column: str | None) -> str:
    """The content of a file, and how it is read. Raises OSError."""
    with Path(file.path).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() + reading_key(file.path, column)


def reading_key(path: str, column: str | None) -> str:
    """What decides how a content becomes passages, besides its bytes."""
    return f" table {column or ''}" if is_table(path) else f" {'markdown' if is_markdown(path) else 'text'}"


def is_markdown(path: str) -> bool:
    return Path(path).suffix.lower() in MARKDOWN


def file_passages(file: FoundFile, key: str, column: str | None, counter: "TokenCounter") -> Iterator[Passage]:
    """The passages of a file. key: of the content that it had. Raises Skipped; UserError for a file that was named."""
    try:
        if is_table(file.path):
            yield from table_passages(file, column, counter)
            if describe_file(Path(file.path), named=file.named).stat != file.stat:
                raise Skipped(CHANGED)
        else:
            yield from cut_text(read_text_file(file, key), counter, markdown=is_markdown(file.path))
    except Skipped as why:
        if file.named:
            raise UserError(f"{show(Path(file.path))}: {why}") from None
        raise
    except (OSError, UserError) as error:
        if file.named:
            raise
        if isinstance(error, OSError):
            raise Skipped(error.strerror or "cannot be read") from None
        raise Skipped(str(error).removeprefix(f"{show(Path(file.path))}: ")) from None


def read_text_file(file: FoundFile, key: str) -> str:
    """The text in a file. Raises Skipped unless it is UTF-8."""
    if file.stat[0] > TEXT_FILE_BYTES:
        raise Skipped(f"larger than {TEXT_FILE_BYTES >> 20} MiB")
    data = Path(file.path).read_bytes()
    if b"\0" in data[:LOOKED_AT]:
        wide = next((name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), None)
        raise Skipped(f"{wide}; save it as UTF-8" if wide else "not text")
    if not key.startswith(hashlib.sha256(data).hexdigest()):
        raise Skipped(CHANGED)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Skipped("not UTF-8") from None


def table_passages(file: FoundFile, column: str | None, counter: "TokenCounter") -> Iterator[Passage]:
    """The passages of a table, each with the number of its line or, in Parquet and Arrow, of its row."""
    waiting: list[tuple[int, str]] = []
    for row in numbered_texts(files.Source(file.path), column):
        waiting.append(row)
        if len(waiting) == ROWS_COUNTED:
            yield from rows_to_passages(waiting, counter)
            waiting.clear()
    yield from rows_to_passages(waiting, counter)


def rows_to_passages(rows: Sequence[tuple[int, str]], counter: "TokenCounter") -> Iterator[Passage]:
    for number, text in rows:
        if not is_text(text):
            raise Skipped(f"the text in line or row {number} holds half a surrogate pair, which is not valid Unicode: remove it")
    for (number, text), tokens in zip(rows, counter.count([text for _, text in rows]), strict=True):
        if not text.strip():
            continue
        if tokens <= counter.limit:
            yield Passage(text, number, number)
            continue
        yield from (Passage(p.text, number, number) for p in cut_text(text, counter))


def cut_text(text: str, counter: "TokenCounter", *, markdown: bool = False) -> list[Passage]:
    """The passages of a text, in order."""
    lines = text.split("\n")
    tokens = counter.count([f"{line}\n" for line in lines])
    found: list[Passage] = []
    pending: list[int] = []  # lines of the passage that grows
    used = 0

    def close() -> None:
        nonlocal used
        if pending:
            found.append(Passage("\n".join(lines[pending[0] : pending[-1] + 1]), pending[0] + 1, pending[-1] + 1))
        pending.clear()
        used = 0

    for paragraph in find_paragraphs(lines, markdown=markdown):
        size = sum(tokens[i] for i in paragraph)
        starts = markdown and HEADING.match(lines[paragraph[0]]) is not None
        if starts or used + size > counter.limit:
            close()
        for i in paragraph:
            if used + tokens[i] > counter.limit:
                close()
            if tokens[i] > counter.limit:
                found += [Passage(part, i + 1, i + 1) for part in cut_line(lines[i], counter)]
                continue
            pending.append(i)
            used += tokens[i]
    close()
    return found


def find_paragraphs(lines: Sequence[str], *, markdown: bool) -> Iterator[list[int]]:
    """The numbers of the lines of each paragraph, from 0."""
    paragraph: list[int] = []
    fenced = False  # inside ``` a line that begins with # is no heading
    for i, line in enumerate(lines):
        fenced ^= markdown and line.lstrip().startswith(("```", "~~~"))
        if paragraph and (not line.strip() or (markdown and not fenced and HEADING.match(line))):
            yield paragraph
            paragraph = []
        if line.strip():
            paragraph.append(i)
    if paragraph:
        yield paragraph


def cut_line(line: str, counter: "TokenCounter") -> list[str]:
    """A line in halves of halves, cut between words where there are any, until no part has too many tokens."""
    if len(line) < 2 or counter.count([line])[0] <= counter.limit:
        return [line] if line.strip() else []
    middle = len(line) // 2
    spaces = [m.start() for m in re.finditer(r"\s", line)]
    at = min(spaces, key=lambda place: abs(place - middle), default=middle)
    if not 0 < at < len(line) - 1:
        at = middle
    return cut_line(line[:at], counter) + cut_line(line[at:].lstrip(), counter)


class TokenCounter:
    """Counts tokens as a model does. limit: most in a passage, without the special ones and the prompt."""

    def __init__(self, tokenizer: Tokenizer, longest: int, prompt: str) -> None:
        self.tokenizer = tokenizer
        (empty,), _ = tokenizer.encode([prompt], 1 << 31)
        room = longest - len(empty)
        if room < 8:
            raise UserError(
                f"the model reads {longest} tokens, of which its prompt takes {len(empty)}: too few are left for passages"
            )
        self.limit = min(PASSAGE_TOKENS, room - room // 16)  # where lines meet, a tokenizer may split words in another way

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self.tokenizer.plain(texts)] if texts else []
