"""What is written: texts, their vectors, and facts about the vectors."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..graph.tensor import Array

Rows = Iterable[tuple[str, Array]]  # a text and its vector (C,): float32, or int8 or uint8 if quantised


@dataclass(frozen=True)
class OutputFacts:
    """first: number of the first row. facts: how the vectors were made, for formats that can store that."""

    first: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


NOTHING = OutputFacts()


def stack_rows(rows: Rows, size: int) -> Iterator[tuple[list[str], Array]]:
    """Texts and vectors (n, C), about `size` bytes at a time."""
    texts: list[str] = []
    vectors: list[Array] = []
    taken = 0
    for text, vector in rows:
        texts.append(text)
        vectors.append(vector)
        taken += len(text) + vector.nbytes
        if taken >= size:
            yield texts, np.stack(vectors)
            texts, vectors, taken = [], [], 0
    if texts:
        yield texts, np.stack(vectors)
