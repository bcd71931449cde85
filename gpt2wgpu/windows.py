"""A stream of texts in windows: those that are tokenised and sorted together. They bound the memory of a stream."""

from collections.abc import Iterator
from itertools import islice

WINDOW = 4096  # texts
WINDOW_CHARACTERS = 1 << 22


def take_window(texts: Iterator[str], most: int = WINDOW, most_characters: int = WINDOW_CHARACTERS) -> list[str]:
    """The next texts: up to `most`, and none more once they have `most_characters`. Where it begins says where it ends."""
    window: list[str] = []
    characters = 0
    for text in islice(texts, most):
        window.append(text)
        characters += len(text) if isinstance(text, str) else 0
        if characters > most_characters:
            break
    return window


def cut_texts(cut: int, of: int, limit: int) -> str:
    return f"{cut} of {of} texts had more than {limit} tokens and were cut there (max_seq_length)"
