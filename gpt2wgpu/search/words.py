"""A text -> the words that it can be found by, as numbers of 64 bits.

Words are runs of letters and digits, in lower case. An identifier counts as a whole and by its parts: `readHTTPHeader` is also
read, http, header, and `max_seq_length` max, seq, length. Chinese, Japanese and Korean, which have no spaces, count by
letters and pairs of them. Two words share a number with a probability of 2^-64.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise

import numpy as np

from ..graph.tensor import Array

WORD = re.compile(r"\w+")
PART = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
WITHOUT_SPACES = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def split_words(text: str) -> list[str]:
    """The words of a text, in order, parts of identifiers after the whole."""
    found: list[str] = []
    for match in WORD.finditer(unicodedata.normalize("NFKC", text)):
        found += word_forms(match[0])
    return found


@lru_cache(1 << 16)
def word_forms(word: str) -> tuple[str, ...]:
    """A word in lower case and, of an identifier, its parts of two letters or more."""
    if WITHOUT_SPACES.search(word):
        return (*word, *(a + b for a, b in pairwise(word)))
    whole = word.casefold()
    parts = [part.casefold() for part in (PART.findall(word) if word.isascii() else word.split("_"))]
    parts = [part for part in parts if len(part) > 1]
    return (whole, *(part for part in parts if part != whole))


@lru_cache(1 << 18)
def word_number(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def count_words(text: str) -> tuple[Array, Array, int]:
    """The distinct words of a text, uint64 (w,); how often each occurs, uint16 (w,), at most 65,535; and how many there are."""
    counted = Counter(split_words(text))
    numbers = np.fromiter((word_number(word) for word in counted), np.uint64, len(counted))
    counts = np.fromiter((min(n, 65535) for n in counted.values()), np.uint16, len(counted))
    return numbers, counts, sum(counted.values())
