"""Texts in windows: large enough to keep the device busy, small enough to bound memory."""

from collections.abc import Iterator
from itertools import islice

WINDOW = 4096  # most texts that are tokenised and sorted by length together
WINDOW_CHARACTERS = 1 << 22  # about a million tokens: bounds memory where texts are long


def take_window(texts: Iterator[str], most: int | None = None, most_characters: int | None = None) -> list[str]:
    """The next texts: up to `most`, stopping once they have over `most_characters`. The same texts give the same windows."""
    window: list[str] = []
    characters = 0
    for text in islice(texts, most or WINDOW):
        window.append(text)
        characters += len(text) if isinstance(text, str) else 0
        if characters > (most_characters or WINDOW_CHARACTERS):
            break
    return window
