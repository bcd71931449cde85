"""Texts are tokenised on a thread, one window ahead of the device."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager

from ..background import wait_until_done
from ..graph.tensor import Array
from . import Tokenizer

Tokenized = tuple[list[Array], list[int]]  # ids of each text, and how many there were before cutting


@contextmanager
def waiting_for(under_way: Iterable[Future[Tokenized]]) -> Iterator[None]:
    """On leaving the block, wait for work in progress, for a second at most: the reason may be Ctrl-C."""
    try:
        yield
    finally:
        wait(under_way, timeout=1)


def tokenize_window(
    tokenizer: Tokenizer, texts: Sequence[str], limit: int, first: int, before: Future[Tokenized] | None
) -> Tokenized:
    """Runs in the background, after `before`: windows are tokenised one after the other."""
    if before is not None:
        wait_until_done(before)
    return tokenizer.encode(texts, limit, first)
