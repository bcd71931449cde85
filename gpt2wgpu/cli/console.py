"""What people read: one line each, safe to show on a terminal."""

import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..encoder import Encoder


def say_if_numpy(encoder: "Encoder", asked: str) -> None:
    """One line on stderr where there was no GPU to take."""
    if encoder.device == "numpy" and asked == "auto":
        say(encoder.engine.place.reason)


def say(message: object) -> None:
    """On stderr, on one line, whatever it contains."""
    print(one_line(str(message)), file=sys.stderr)


def say_error(message: str) -> None:
    say(shorten_line(f"error: {message}"))


def shorten_line(text: str, limit: int = 1000) -> str:
    """Without its middle if it is too long: what is wrong stands at its beginning, what to do at its end."""
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"


def one_line(text: str) -> str:
    """With control characters and line ends escaped: a sentence from a file must not drive the terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], text)


def table(rows: dict[str, Any]) -> None:
    """Names and values in two columns."""
    for name, value in rows.items():
        print(f"  {name:<38}{value:,}" if isinstance(value, int) else f"  {name:<38}{one_line(str(value))}")
