"""Training data: files -> tokenised examples, and the order in which they are trained on."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files.pairs import Pairs, read_pairs, read_sentences
from ..files.windows import take_window
from ..graph import packing
from ..graph.packing import position_ids
from ..graph.tensor import Array
from ..tokenizer import Ids, Tokenizer
from .losses import LOSSES

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
    """n examples of `group` texts each: 2 are a pair. targets: labels or scores (n,), a teacher's vectors (n, C), or None."""

    texts: TokenizedTexts
    group: int
    targets: Array | None

    def __len__(self) -> int:
        return len(self.texts) // self.group

    def __str__(self) -> str:
        """Such as "1,200 pairs"."""
        return f"{len(self):,} {'pair' if self.group == 2 else 'text'}{'' if len(self) == 1 else 's'}"

    @property
    def tokens(self) -> Array:
        """How many tokens each example has, int64 (n,)."""
        return np.diff(self.texts.ends[:: self.group])

    def batch(self, examples: Sequence[int], pad: int | None) -> dict[str, Array]:
        """A packed batch of examples; the texts of an example lie in neighbouring rows. pad: the model's (see position_ids)."""
        texts = [self.texts[self.group * e + i] for e in examples for i in range(self.group)]
        return packing.pack_batch(texts, [position_ids(ids, pad) for ids in texts], [0] * len(texts))


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


def epoch_batches(tokens: Array, budget: int, seed: int, epoch: int) -> list[Array]:
    """The examples of each micro-batch of an epoch, in the order of training. It depends only on the arguments.

    tokens: how many each example has (n,). A batch has at most `budget` tokens; an example with more is a batch of its own.
    Examples are shuffled, then sorted by length within windows of some batches, so that a batch holds texts of similar
    length; then the batches are shuffled.
    """
    rng = np.random.default_rng([seed, 1, epoch])
    order = rng.permutation(len(tokens))
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


def dropout_seed(seed: int, epoch: int, batch: int) -> int:
    """The seed of the dropout of one micro-batch, a u32."""
    return int(np.random.SeedSequence([seed, 2, epoch, batch]).generate_state(1)[0])


# --- files


def choose_loss(asked: str | None, paths: Sequence[str], teacher: str | None) -> str:
    """The loss asked for, else the one that fits the data. Raises UserError for an unknown one, or a teacher it cannot use."""
    if teacher is not None:
        if asked not in (None, "distillation"):
            raise UserError(f"loss {asked} learns from pairs: leave the teacher out, or choose distillation")
        return "distillation"
    if asked == "distillation":
        raise UserError("loss distillation needs a teacher, the folder of a model")
    if asked is not None:
        if asked not in LOSSES:
            raise UserError(f"loss must be one of {', '.join(LOSSES)}, not {asked!r}")
        return asked
    pairs = read_pairs(paths[0], target=False)
    return "info_nce" if pairs.targets is None else "contrastive" if pairs.labelled else "cosine"


def read_training(paths: Sequence[str], loss: str, limit: int | None) -> Pairs:
    """The first `limit` pairs of all files, as a loss takes them: for info_nce those that belong together (label 1), for
    cosine with scores in [0, 1]. Raises UserError naming the file whose pairs are of another kind."""
    parts = {path: read_pairs(path, target=loss != "info_nce") for path in paths}
    for path, part in parts.items():
        check_kind(path, part, loss)
        if (part.targets is None) != (parts[paths[0]].targets is None):
            raise UserError(f"{path} and {paths[0]}: one of the two has labels or scores, the other none")
        if loss == "cosine" and within_one(part) != within_one(parts[paths[0]]):
            raise UserError(
                f"{path} and {paths[0]}: scores of one are between 0 and 1, of the other not: bring them to one scale"
            )
    read = [parts[path] for path in paths]
    targets = None if read[0].targets is None else np.concatenate([p.targets for p in read if p.targets is not None])
    pairs = Pairs([s for p in read for s in p.sentences1], [s for p in read for s in p.sentences2], targets)
    if loss == "info_nce" and targets is not None:
        pairs = take_pairs(pairs, np.flatnonzero(targets == 1))
    if loss == "cosine" and targets is not None and not within_one(pairs):
        low, high = targets.min(), targets.max()
        if low == high:
            raise UserError(f"{paths[0]}: all scores are {low:g}: there is nothing to learn from")
        pairs = Pairs(pairs.sentences1, pairs.sentences2, (targets - low) / (high - low))
    if not len(pairs):
        raise UserError(f"{paths[0]}: there are no pairs with label 1 in it, which is what loss info_nce learns from")
    return pairs if limit is None else take_pairs(pairs, np.arange(min(limit, len(pairs))))


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


def read_training_texts(paths: Sequence[str], limit: int | None) -> list[str]:
    """The first `limit` texts of all files. Blank ones are left out."""
    texts = [text for path in paths for text in read_sentences(path) if text.strip()][:limit]
    if not texts:
        raise UserError(f"{paths[0]}: there are no texts in it")
    return texts


def pair_examples(pairs: Pairs, tokenize: Callable[[Iterable[str]], TokenizedTexts]) -> Examples:
    """One example per pair, of two texts."""
    both = (text for pair in zip(pairs.sentences1, pairs.sentences2, strict=True) for text in pair)
    return Examples(tokenize(both), 2, pairs.targets)


def digest_data(paths: Iterable[str | Path]) -> str:
    """SHA-256 of the contents of files, in order, in hexadecimal."""
    found = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
