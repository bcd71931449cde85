"""Baselines that read no context: a text's vector is the mean of fixed vectors of its words or tokens."""

import re
from collections.abc import Sequence

import numpy as np

from ..encoder import Encoder
from ..errors import UserError, show
from ..files.source import Source
from ..graph.tensor import Array, Tensor

PLAIN_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def token_means(encoder: Encoder, texts: Sequence[str]) -> Array:
    """The mean of the rows of a model's token table, without positions, blocks and special tokens: float32 (n, C).

    A text without tokens gets a zero vector.
    """
    c = encoder.checkpoint
    table = c.weights(Tensor((c.config.vocab, c.config.width), "f32", c.config.table))
    special = [*encoder.tokenizer.special_ids()]
    found = np.zeros((len(texts), c.config.width), np.float32)
    for row, ids in zip(found, encoder.tokenizer.plain(texts), strict=True):
        kept = ids[~np.isin(ids, special)]
        if len(kept):
            row[:] = table[kept].mean(0)
    return found


def plain_words(text: str) -> list[str]:
    """The words of a text, in lower case: letters and digits, with an apostrophe inside."""
    return PLAIN_WORD.findall(text.lower())


def word_means(path: str, texts: Sequence[str]) -> tuple[Array, float]:
    """The mean of the vectors that a file has for the words of each text, float32 (n, C), and the share of words that it knows.

    path: vectors in the text format of word2vec (a first line with the number of words and of dimensions) or of GloVe (none):
    a word and its numbers on each line, with spaces in between; .gz is read as well. Only the words that occur are kept, so a
    large file needs little memory. A text without known words gets a zero vector. Raises UserError for another format.
    """
    words = [plain_words(text) for text in texts]
    wanted = {word for some in words for word in some}
    vectors: dict[str, Array] = {}
    width = 0
    source = Source(path)
    with source.open() as lines:
        for number, line in enumerate(lines, 1):
            word, *numbers = line.decode("utf-8", "replace").rstrip().split(" ")
            if number == 1 and len(numbers) == 1:
                continue  # word2vec's first line
            width = width or len(numbers)
            if len(numbers) != width or not width:
                if len(numbers) > width > 0:  # GloVe's largest file has words with spaces
                    continue
                raise bad_line(source, number, f"a word and {width or 'some'} numbers")
            word = word.lower()
            if word in wanted and word not in vectors:  # the first one is the most frequent spelling
                try:
                    with np.errstate(over="ignore"):  # refused below
                        vectors[word] = np.array(numbers, np.float32)
                except ValueError:
                    raise bad_line(source, number, "numbers after the word") from None
                if not np.isfinite(vectors[word]).all():
                    raise bad_line(source, number, "finite numbers after the word")
    if not vectors:
        raise UserError(
            f"{source.name} has a vector for none of the words: expected vectors in word2vec's or GloVe's text format"
        )
    found = np.zeros((len(texts), width), np.float32)
    for row, some in zip(found, words, strict=True):
        known = [vectors[word] for word in some if word in vectors]
        if known:
            row[:] = np.mean(known, axis=0)
    total = sum(map(len, words))
    return found, sum(word in vectors for some in words for word in some) / max(total, 1)


def bad_line(source: Source, number: int, expected: str) -> UserError:
    return UserError(f"{source.name}: line {show(number)}: expected {expected}, separated by spaces")
