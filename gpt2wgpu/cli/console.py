"""What people read: one line each, safe to show on a terminal."""

from typing import Any

from ..errors import one_line
from ..progress import notice


def say_error(message: str) -> None:
    notice(shorten_line(f"error: {message}"))


def shorten_line(text: str, limit: int = 1000) -> str:
    """Cut the middle out of a line that is too long: it begins with what is wrong and ends with what to do."""
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"


def table(rows: dict[str, Any]) -> None:
    """Print names and values in two columns."""
    for name, value in rows.items():
        print(f"  {name:<38}{value:,}" if isinstance(value, int) else f"  {name:<38}{one_line(str(value))}")
