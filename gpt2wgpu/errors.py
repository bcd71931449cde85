"""Errors that a user can fix, and how their messages show values."""

import os
import re
import sys
import warnings
from pathlib import Path


class UserError(ValueError):
    """Input, a file or a device that cannot be used: what was expected, what was found, what to do. One line."""


def between(name: str, value: int, low: int, high: int) -> int:
    """The value, an int. Raises UserError unless it is a whole number from `low` to `high`."""
    if not hasattr(value, "__index__") or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
    return int(value)


def show(value: object, limit: int = 80) -> str:
    """A value found in a file, for a message: escaped, on one line, not too long."""
    if isinstance(value, Path):  # in full unless absurdly long, as the reader will look for it; no quotes if printable
        path = str(value) if str(value).isprintable() else ascii(str(value))
        return path if len(path) <= 300 else f"{path[:100]}...{path[-100:]}"
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def one_line(text: str) -> str:
    """A text with control characters and line ends escaped: a sentence from a file must not drive the terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], text)


def is_text(value: object) -> bool:
    """Whether this is a string of valid Unicode: \\u in JSON can make one with half a surrogate pair."""
    return isinstance(value, str) and (value.isascii() or value == value.encode("utf-8", "replace").decode())


def utf8_name(path: str) -> str:
    """A file's name for what must be UTF-8: bytes of it that are not are escaped."""
    return path.encode("utf-8", "backslashreplace").decode()


def warn_caller(message: str) -> None:
    """A UserWarning that points at the line outside this package which led to it."""
    level, frame, package = 2, sys._getframe(1), f"{Path(__file__).parent}{os.sep}"
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
