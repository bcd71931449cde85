"""Lines of text files: UTF-8 only, and none so long that it fills the memory."""

from collections.abc import Iterator
from functools import partial

from ..errors import UserError
from .source import Source

TEXT_BYTES = 1 << 26  # most in a line, cell or row, more than any text that people embed; parsing it as JSON takes up to 2 GB
BYTE_ORDER_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
CONTROLS = bytes(set(range(32)) - set(b"\t\n\f\r\x1b"))
ISO_2022 = b"\x1b$"  # starts every switch to a double-byte character set; no terminal sequence starts like this


def read_lines(source: Source) -> Iterator[str]:
    """Decoded lines, each with its end. Only \\n ends a line: str.splitlines knows ten others, which may occur in a text.

    Raises UserError naming the line, for another encoding or more than TEXT_BYTES.
    """
    with source.open() as file:
        for number, line in enumerate(iter(partial(file.readline, TEXT_BYTES + 1), b""), 1):
            if len(line) > TEXT_BYTES:
                raise UserError(f"{source.name}: line {number} is longer than {TEXT_BYTES >> 20} MiB: split it into texts")
            found = wide_encoding(line, number) if number <= 2 else None
            if found is None and ISO_2022 in line:
                found = "in an encoding of ISO-2022 (it holds the escape sequence of ISO-2022-JP, -KR or -CN)"
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                found = found or f"not UTF-8 (byte {error.start + 1} is 0x{line[error.start]:02x})"
            if found is not None:
                raise UserError(f"{source.name}: line {number} is {found}; save it as UTF-8")
            yield text.removeprefix("\ufeff") if number == 1 else text


def wide_encoding(line: bytes, number: int) -> str | None:
    """The name of the encoding if the first or second line of a file is UTF-16 or UTF-32, with or without a byte order mark.

    Without one it may be valid UTF-8: Latin text has a zero in every character, Cyrillic a 4. In all of them the end of
    a line has a zero, before \\n or at the start of the next line.
    """
    if number == 1:
        for mark, name in BYTE_ORDER_MARKS.items():
            if line.startswith(mark):
                return name
    controls = len(line) - len(line.translate(None, CONTROLS))
    end = line.endswith(b"\0\n") if number == 1 else line.startswith(b"\0")
    return "UTF-16 or UTF-32 without a byte order mark" if end or 4 <= len(line) <= 4 * controls else None


def without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")
