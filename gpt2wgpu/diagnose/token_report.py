"""How well a tokenizer fits texts: tokens per word, unused and unknown tokens."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checkpoint import load_checkpoint
from ..errors import UserError
from ..files.windows import take_window
from ..hub import find_model
from ..tokenizer import Tokenizer


def find_tokenizer(model: str | Path | None, revision: str | None = None) -> Tokenizer:
    """The tokenizer of a model (see `hub.find_model`), or of a folder without a model. Raises UserError."""
    folder = find_model(model, revision=revision)
    if not folder.is_dir() or (folder / "config.json").exists() or (folder / "modules.json").exists():
        c = load_checkpoint(folder)
        return Tokenizer.of_checkpoint(c)
    kind = "" if (folder / "tokenizer.json").exists() else "bert" if (folder / "vocab.txt").exists() else "gpt2"
    return Tokenizer(folder, kind=kind, vocab=1 << 31, lower_case=False)


@dataclass(frozen=True)
class TokenReport:
    """Counts of a tokenizer's tokens in texts. Special tokens that it puts around a text are not counted."""

    vocabulary: int  # special tokens included
    texts: int
    words: int  # between white space
    tokens: int
    mean: float  # tokens per text
    median: float
    percentile_95: float
    longest: int
    tokens_per_word: float
    unused: int  # tokens of the vocabulary that do not occur, except special ones
    unused_share: float
    unknown: int  # occurrences of the unknown token
    unknown_share: float
    frequent: list[tuple[str, int, int]]  # token, id, occurrences


def count_tokens(tokenizer: Tokenizer, texts: Iterable[str], most_frequent: int = 20) -> TokenReport:
    """Count the tokens of texts, in bounded memory except for one number per text. Raises UserError if there are no texts."""
    vocabulary = tokenizer.vocabulary()
    counts: Counter[int] = Counter()  # by the ids that occur: an id in a broken file may be a billion
    lengths: list[int] = []
    words = 0
    texts = iter(texts)
    while batch := take_window(texts):
        found = tokenizer.plain(batch, len(lengths))
        lengths += map(len, found)
        words += sum(len(text.split()) for text in batch)
        ids, occurrences = np.unique(np.concatenate(found), return_counts=True)
        counts.update(dict(zip(ids.tolist(), occurrences.tolist(), strict=True)))
    if not lengths:
        raise UserError("there are no texts, so there are no tokens to count")
    tokens = counts.total()
    names = {i: token for token, i in vocabulary.items()}
    ordinary = names.keys() - tokenizer.special_ids()
    unused = len(ordinary - counts.keys())
    unknown = sum(counts[i] for i in tokenizer.unknown_ids())
    often = sorted(counts, key=lambda i: (-counts[i], i))[:most_frequent]
    return TokenReport(
        vocabulary=len(vocabulary),
        texts=len(lengths),
        words=words,
        tokens=tokens,
        mean=float(np.mean(lengths)),
        median=float(np.median(lengths)),
        percentile_95=float(np.percentile(lengths, 95)),
        longest=max(lengths),
        tokens_per_word=tokens / max(words, 1),
        unused=unused,
        unused_share=unused / max(len(ordinary), 1),
        unknown=unknown,
        unknown_share=unknown / max(tokens, 1),
        frequent=[(names[i], i, counts[i]) for i in often],
    )
