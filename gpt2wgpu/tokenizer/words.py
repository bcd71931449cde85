"""How the words of a text became tokens: which merges, or which known pieces."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..background import run_interruptibly
from . import Tokenizer
from .opening import library_errors

LONGEST_WORD = 64  # pieces of a word whose merges are listed


@dataclass(frozen=True)
class TokenFacts:
    """One token: its id, its name in the vocabulary made readable (a space before a word is ␣), the characters [start, stop) of
    the text that it stands for (None for a special token around the text), and whether it is special."""

    id: int
    name: str
    start: int | None
    stop: int | None
    special: bool


@dataclass(frozen=True)
class WordSteps:
    """A word and its tokens, `count` of them from number `first` on.

    kind: "merges": `steps` begins with the word's characters (or bytes), and each later entry has one more pair merged (BPE);
    "pieces": the longest known beginnings, one after the other (WordPiece); "scores": the likeliest known pieces (Unigram),
    each with the logarithm of its probability; "whole": the vocabulary holds it as it is, or how it was cut is not known.
    """

    first: int
    count: int
    kind: str
    steps: tuple[tuple[str, ...], ...]


def describe_words(tokenizer: Tokenizer, text: str) -> tuple[list[TokenFacts], list[WordSteps]]:
    """The tokens of a text, special ones around it included, and the words that they make up. Nothing is cut.

    A text without tokens has none here. Raises UserError if it cannot be tokenised.
    """
    with library_errors("the text cannot be tokenised", "leave it out, or use another tokenizer"):
        encoding = run_interruptibly(tokenizer.library.encode, text, add_special_tokens=False)
    special = tokenizer.special_ids()
    head, tail = tokenizer.special_ends()
    bytes_of = byte_letters() if tokenizer.is_byte_level() else None

    def facts(i: int, name: str, span: tuple[int, int] | None) -> TokenFacts:
        start, stop = span or (None, None)
        return TokenFacts(i, readable_piece(name, bytes_of), start, stop, span is None or i in special)

    tokens = [facts(i, tokenizer.library.id_to_token(i), None) for i in head]
    tokens += [facts(*item) for item in zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True)]
    tokens += [facts(i, tokenizer.library.id_to_token(i), None) for i in tail]

    model = json.loads(tokenizer.library.to_str())["model"]
    ranks = merge_ranks(model)
    words = []
    for first, count in word_runs(encoding.word_ids):
        pieces = encoding.tokens[first : first + count]
        kind, steps = word_steps(model, ranks, pieces)
        shown = tuple(tuple(readable_piece(p, bytes_of) for p in step) for step in steps)
        words.append(WordSteps(len(head) + first, count, kind, shown))
    return tokens, words


def word_runs(word_ids: Sequence[int | None]) -> list[tuple[int, int]]:
    """(first token, how many) of each word; a token of no word is a word of its own."""
    runs: list[tuple[int, int]] = []
    for i, word in enumerate(word_ids):
        if i and word is not None and word == word_ids[i - 1]:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((i, 1))
    return runs


def merge_ranks(model: dict[str, Any]) -> dict[tuple[str, str], int]:
    """The order in which BPE merges pairs; empty for other models."""
    pairs = (m.split(" ", 1) if isinstance(m, str) else m for m in model.get("merges") or [])
    return {(first, second): rank for rank, (first, second) in enumerate(pairs)}


def word_steps(model: dict[str, Any], ranks: dict[tuple[str, str], int], pieces: list[str]) -> tuple[str, list[tuple[str, ...]]]:
    """The kind and the steps of `WordSteps` for a word that became these pieces."""
    kind, final = model.get("type"), tuple(pieces)
    if kind == "BPE":
        letters = [*"".join(pieces)]
        suffix = model.get("end_of_word_suffix") or ""
        if suffix and pieces[-1].endswith(suffix):
            letters = [*"".join(pieces).removesuffix(suffix)]
            letters[-1] += suffix
        if 1 < len(letters) <= LONGEST_WORD:
            steps = replay_merges(letters, ranks)
            if steps[-1] == final:  # else it was cut by another rule, such as bytes for unknown letters
                return "merges", steps
    elif kind == "WordPiece" and len(pieces) > 1:
        prefix = model.get("continuing_subword_prefix", "##")
        whole = pieces[0] + "".join(p.removeprefix(prefix) for p in pieces[1:])
        return "pieces", [(whole,), final]
    elif kind == "Unigram" and len(pieces) > 1:
        scores = dict(map(tuple, model["vocab"]))
        shown = [f"{p} ({scores[p]:.1f})" if math.isfinite(scores.get(p, math.nan)) else p for p in pieces]
        return "scores", [("".join(pieces),), tuple(shown)]
    return "whole", [final]


def replay_merges(letters: list[str], ranks: dict[tuple[str, str], int]) -> list[tuple[str, ...]]:
    """Byte-pair encoding (Sennrich et al. 2016): the pair of the lowest rank is merged, until no neighbours have one."""
    steps = [tuple(letters)]
    while len(letters) > 1:
        rank, i = min((ranks.get(pair, math.inf), i) for i, pair in enumerate(pairwise(letters)))
        if rank == math.inf:
            break
        letters = [*letters[:i], letters[i] + letters[i + 1], *letters[i + 2 :]]
        steps.append(tuple(letters))
    return steps


def byte_letters() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for (Radford et al. 2019); most stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def readable_piece(piece: str, bytes_of: dict[str, int] | None) -> str:
    """A piece of the vocabulary for people: letters instead of bytes, ␣ for a space."""
    if bytes_of is not None and all(letter in bytes_of for letter in piece):
        raw = bytes(bytes_of[letter] for letter in piece)
        piece = raw.decode("utf-8", "backslashreplace")
    return piece.replace(" ", "␣").replace("▁", "␣").replace("\n", "⏎").replace("\t", "⇥")
