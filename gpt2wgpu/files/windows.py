"""Texts in windows: enough at a time to keep the device busy, few enough to bound memory."""

from collections.abc import Iterator
from itertools import islice

WINDOW = 4096  # texts that are tokenised and sorted together; bounds the memory of a stream
WINDOW_CHARACTERS = 1 << 22


def take_window(texts: Iterator[str], most: int | None = None, most_characters: int | None = None) -> list[str]:
    """The next texts: up to `most`, and none more once they have `most_characters`. Where it begins says where it ends."""
    window: list[str] = []
    characters = 0
    for text in islice(texts, most or WINDOW):
        window.append(text)
        characters += len(text) if isinstance(text, str) else 0
        if characters > (most_characters or WINDOW_CHARACTERS):
            break
    return window
