"""Training data: files -> tokenised examples, and the order in which they are trained on."""

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files.pairs import Pairs, read_pairs, read_sentences
from ..files.windows import take_window
from ..graph import packing
from ..graph.tensor import Array
from ..tokenizer import Ids, Tokenizer
from .losses import LOSSES
from .stored import StoredVectors

Shares = Sequence[tuple[int, float]]  # for each file, how many examples it has, and its weight
SORTED_BATCHES = 16  # batches whose examples are sorted by length together


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of n texts, concatenated: text i is ids[ends[i]:ends[i + 1]]."""

    ids: Ids
    ends: Array  # int64 (n + 1,)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, i: int) -> Ids:
        return self.ids[self.ends[i] : self.ends[i + 1]]


@dataclass(frozen=True)
class Examples:
    """n examples: example i is the texts starts[i], ..., starts[i + 1] - 1; two texts are a pair.

    targets: labels or scores (n,), a teacher's vectors of all texts, or None. shares: how many examples each file has, and
    the weight of the file, in order.
    """

    texts: TokenizedTexts
    starts: Array  # int64 (n + 1,)
    targets: Array | StoredVectors | None
    shares: Shares

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __str__(self) -> str:
        """Such as "1,200 pairs", or "1,200 texts and 60 pairs"."""
        pairs = int((np.diff(self.starts) == 2).sum())
        counts = {"text": len(self) - pairs, "pair": pairs}
        return " and ".join(f"{n:,} {name}{'' if n == 1 else 's'}" for name, n in counts.items() if n)

    @property
    def tokens(self) -> Array:
        """How many tokens each example has, int64 (n,)."""
        return np.diff(self.texts.ends[self.starts])

    def batches(self, budget: int, seed: int, epoch: int) -> list[Array]:
        """The examples of each micro-batch of an epoch, in the order of training; see `epoch_batches`."""
        return epoch_batches(self.tokens, budget, seed, epoch, self.shares)

    def texts_of(self, examples: Array) -> Array:
        """The texts of examples, in their order, int64."""
        return packing.range_indices(self.starts[examples], self.starts[examples + 1])

    def pair_rows(self, examples: Array) -> Array:
        """The row of each pair's first text among the texts of examples."""
        counts = self.starts[examples + 1] - self.starts[examples]
        return (np.cumsum(counts) - counts)[counts == 2]

    def batch(self, examples: Array, pad: int | None) -> dict[str, Array]:
        """A packed batch of examples; the texts of an example lie in neighbouring rows. pad: the model's (see position_ids)."""
        rows = self.texts_of(examples)
        begins, ends = self.texts.ends[rows], self.texts.ends[rows + 1]
        return packing.pack_ids(self.texts.ids[packing.range_indices(begins, ends)], ends - begins, pad)


def starts_of(texts: int, pairs: int) -> Array:
    """`Examples.starts` of so many texts that are examples of their own, then so many pairs."""
    return np.concatenate([np.arange(texts), texts + 2 * np.arange(pairs + 1)])


def tokenize_texts(tokenizer: Tokenizer, texts: Iterable[str], max_length: int) -> TokenizedTexts:
    """Token ids of texts. Texts over `max_length` tokens are cut, and a UserWarning counts them."""
    found: list[Ids] = []
    done = cut = 0
    lengths = [np.zeros(1, np.int64)]
    texts = iter(texts)
    while window := take_window(texts):
        ids, counts = tokenizer.encode(window, max_length, done)
        found.append(np.concatenate(ids))
        lengths.append(np.array([len(i) for i in ids]))
        done += len(window)
        cut += sum(n > max_length for n in counts)
    if cut:
        warnings.warn(f"{cut} of {done} texts have more than {max_length} tokens and are cut there", UserWarning, stacklevel=2)
    return TokenizedTexts(np.concatenate(found), np.cumsum(np.concatenate(lengths)))


def epoch_batches(tokens: Array, budget: int, seed: int, epoch: int, shares: Shares | None = None) -> list[Array]:
    """The examples of each micro-batch of an epoch, in the order of training. It depends only on the arguments.

    tokens: how many each example has (n,). A batch has at most `budget` tokens; an example with more is a batch of its own.
    Examples are shuffled, then sorted by length within windows of some batches, so that a batch holds texts of similar
    length; then the batches are shuffled. shares: see `epoch_examples`; None takes every example once.
    """
    taken = epoch_examples(shares or [(len(tokens), 1.0)], seed, epoch)
    rng = np.random.default_rng([seed, 1, epoch])
    order = taken[rng.permutation(len(taken))]
    window = max(1, int(SORTED_BATCHES * budget / tokens.mean()))
    for i in range(0, len(order), window):
        part = order[i : i + window]
        order[i : i + window] = part[np.argsort(tokens[part], kind="stable")]
    cuts, room = [], 0
    for i, n in enumerate(tokens[order].tolist()):
        if n > room:
            cuts.append(i)
            room = budget
        room -= n
    found = np.split(order, cuts[1:])
    return [found[i] for i in rng.permutation(len(found))]


def epoch_examples(shares: Shares, seed: int, epoch: int) -> Array:
    """The examples that an epoch takes from files, ascending; one that is taken k times is there k times.

    shares: how many examples each file has, and its weight w. A file's examples come in cycles, each an order of all of
    them by the seed, and an epoch takes the next w * n. So w = 0.5 takes one half, then the other; w = 2 takes all twice; and
    after every epoch no example of a file has been taken more than once more than another.
    """
    found, first = [], 0
    for number, (n, weight) in enumerate(shares):
        at, end = examples_until(n, weight, epoch - 1), examples_until(n, weight, epoch)
        while at < end:
            cycle, skip = divmod(at, n)
            count = min(end - at, n - skip)
            order = np.arange(n) if count == n else np.random.default_rng([seed, 3, number, cycle]).permutation(n)
            found.append(first + order[skip : skip + count])
            at += count
        first += n
    return np.sort(np.concatenate(found))


def examples_until(n: int, weight: float, epoch: int) -> int:
    """How many times an example of a file of n examples is taken in the epochs up to this one."""
    return math.floor(weight * n * epoch + 1e-6)  # 0.29 * 100 is a little less than 29


def dropout_seed(seed: int, epoch: int, batch: int) -> int:
    """The seed of the dropout of one micro-batch, a u32."""
    return int(np.random.SeedSequence([seed, 2, epoch, batch]).generate_state(1)[0])


# --- files


def choose_loss(asked: str | None, paths: Sequence[str], teacher: str | list[str] | None) -> str:
    """The loss asked for, else the one that fits the data. teacher: a model, or files of vectors. Raises UserError for an
    unknown loss, or a teacher it cannot use."""
    if teacher:
        if asked not in (None, "distillation"):
            raise UserError(f"loss {asked} learns from pairs: leave the teacher out, or choose distillation")
        return "distillation"
    if asked == "distillation":
        raise UserError("loss distillation needs a teacher: a model with --teacher, or its vectors with --teacher-vectors")
    if asked is not None:
        if asked not in LOSSES:
            raise UserError(f"loss must be one of {', '.join(LOSSES)}, not {asked!r}")
        return asked
    pairs = read_pairs(paths[0], target=False)
    return "info_nce" if pairs.targets is None else "contrastive" if pairs.labelled else "cosine"


def read_training(paths: Sequence[str], loss: str, limit: int | None) -> tuple[Pairs, list[int]]:
    """The first `limit` pairs of all files, as a loss takes them, and how many are from each file: for info_nce those that
    belong together (label 1), for cosine with scores in [0, 1]. Raises UserError naming the file whose pairs are of another
    kind."""
    parts = {path: read_pairs(path, target=loss != "info_nce") for path in paths}
    for path, part in parts.items():
        check_kind(path, part, loss)
        if (part.targets is None) != (parts[paths[0]].targets is None):
            raise UserError(f"{path} and {paths[0]}: one of the two has labels or scores, the other none")
        if loss == "cosine" and within_one(part) != within_one(parts[paths[0]]):
            raise UserError(
                f"{path} and {paths[0]}: scores of one are between 0 and 1, of the other not: bring them to one scale"
            )
        if loss == "info_nce" and part.targets is not None:
            parts[path] = take_pairs(part, np.flatnonzero(part.targets == 1))
    read = [parts[path] for path in paths]
    targets = None if read[0].targets is None else np.concatenate([p.targets for p in read if p.targets is not None])
    pairs = Pairs([s for p in read for s in p.sentences1], [s for p in read for s in p.sentences2], targets)
    if loss == "cosine" and targets is not None and not within_one(pairs):
        low, high = targets.min(), targets.max()
        if low == high:
            raise UserError(f"{paths[0]}: all scores are {low:g}: there is nothing to learn from")
        pairs = Pairs(pairs.sentences1, pairs.sentences2, (targets - low) / (high - low))
    if not len(pairs):
        raise UserError(f"{paths[0]}: there are no pairs with label 1 in it, which is what loss info_nce learns from")
    counts = [len(part) for part in read]
    return (pairs, counts) if limit is None else (take_pairs(pairs, np.arange(min(limit, len(pairs)))), first_of(counts, limit))


def first_of(counts: Sequence[int], limit: int) -> list[int]:
    """How many of the first `limit` items are in each of several parts, which have `counts` items."""
    ends = np.minimum(np.cumsum(counts), limit)
    return np.diff(ends, prepend=0).tolist()


def check_kind(path: str, pairs: Pairs, loss: str) -> None:
    """Refuse scores where a loss needs labels."""
    if pairs.targets is None or pairs.labelled:
        return
    if loss == "contrastive":
        raise UserError(f"{path}: loss contrastive needs labels 0 and 1, these are scores: choose loss cosine")
    if loss == "info_nce":
        raise UserError(f"{path}: loss info_nce needs pairs that belong together, these are scores: choose loss cosine")


def within_one(pairs: Pairs) -> bool:
    """Whether all targets lie between 0 and 1."""
    return pairs.targets is not None and pairs.targets.min() >= 0 and pairs.targets.max() <= 1


def take_pairs(pairs: Pairs, rows: Array) -> Pairs:
    """The pairs of these rows, int (m,)."""
    first, second = ([side[i] for i in rows.tolist()] for side in (pairs.sentences1, pairs.sentences2))
    return Pairs(first, second, None if pairs.targets is None else pairs.targets[rows])


def read_training_texts(paths: Sequence[str], limit: int | None) -> tuple[list[str], list[int]]:
    """The first `limit` texts of all files, and how many are from each. Blank ones are left out."""
    texts: list[str] = []
    ends = [0]
    for path in paths:
        texts += (text for text in read_sentences(path) if text.strip())
        ends.append(len(texts))
    if not texts:
        raise UserError(f"{paths[0]}: there are no texts in it")
    counts = np.diff(ends).tolist()
    return (texts, counts) if limit is None else (texts[:limit], first_of(counts, limit))


def texts_of_pairs(pairs: Pairs) -> Iterator[str]:
    """Both texts of each pair: texts 2 i and 2 i + 1 are those of pair i."""
    return (text for pair in zip(pairs.sentences1, pairs.sentences2, strict=True) for text in pair)


def file_shares(counts: Sequence[int], weights: Sequence[float], paths: Sequence[str]) -> Shares:
    """How many examples each file has, and its weight, by default 1. Raises UserError if an epoch would take none of a file."""
    shares = [*zip(counts, weights or [1.0] * len(counts), strict=True)]
    for path, (count, weight) in zip(paths, shares, strict=True):
        if count and weight * count < 1:
            raise UserError(f"{path} has {count:,} examples, of which an epoch takes none at the weight {weight:g}: raise it")
    return shares


def digest_data(paths: Iterable[str | Path]) -> str:
    """SHA-256 of the contents of files, in order, in hexadecimal."""
    found = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
