"""Making a tokenizer, and what a tokenizer makes of texts."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import checkpoint, files, hub
from .errors import UserError, between
from .jsonfile import show
from .stream import take_window
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
SMALLEST = 257  # one token per byte, and END_OF_TEXT
FILES = ("tokenizer.json", "tokenizer_config.json")


def train(texts: Iterable[str], *, vocab: int, min_frequency: int, lower_case: bool) -> "tokenizers.Tokenizer":
    """A byte-level BPE tokenizer (Sennrich et al. 2016; Radford et al. 2019) of at most `vocab` tokens.

    Ids: <|endoftext|> is 0, then 256 bytes, then the merges, most frequent pair first, of pairs met `min_frequency` times or
    more. The same texts in the same order give the same tokenizer. A text is tokenised as if a space came before it, so that a
    word is the same token wherever it stands. lower_case: capitals and compatibility forms (NFKC) are folded first.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    between("vocab", vocab, SMALLEST, 1 << 24)
    between("min_frequency", min_frequency, 1, 1 << 31)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = folding(lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=min_frequency,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def characters(*, lower_case: bool) -> "tokenizers.Tokenizer":
    """The tokenizer to learn with: a token is a byte of the text's UTF-8, and its id is that byte. <|endoftext|> is 256.

    So an ASCII character is its code point ("Hello" is 72, 101, 108, 108, 111), and no character is unknown.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab={sign: byte for byte, sign in enumerate(byte_signs())}, merges=[]))
    tokenizer.normalizer = folding(lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def folding(lower_case: bool) -> "tokenizers.normalizers.Normalizer | None":
    from tokenizers import normalizers

    return normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]) if lower_case else None


def byte_signs() -> list[str]:
    """The sign that stands for each byte in a byte-level vocabulary: itself if it can be seen in Latin-1, else one from
    U+0100 on in turn (bytes_to_unicode in GPT-2's encoder.py)."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]


def check_folder(folder: Path) -> None:
    """Refuse, before any work, a folder that a tokenizer cannot or should not be written to."""
    if (folder / "model.safetensors").exists():
        raise UserError(f"{show(folder)} holds a model, whose weights go with its own tokenizer: choose another folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{show(folder)} is a file, expected a folder to write to")
    if not folder.absolute().parent.is_dir():
        raise UserError(f"there is no folder {show(folder.absolute().parent)} to make {show(folder.name)} in")


def save(tokenizer: "tokenizers.Tokenizer", folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json, as `transformers` reads them, each complete or not there."""
    names = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END_OF_TEXT)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    folder.mkdir(exist_ok=True)
    for name, text in zip(FILES, (tokenizer.to_str(pretty=True), json.dumps(config, indent=2)), strict=True):
        with files.output(str(folder / name), {".json": None}) as (file, _):
            file.write(f"{text}\n".encode())


def open_tokenizer(model: str | Path | None, revision: str | None = None) -> Tokenizer:
    """The tokenizer of a model (see `hub.find`), or of a folder without a model. Raises UserError."""
    folder = hub.find(model, revision=revision)
    if not folder.is_dir() or (folder / "config.json").exists() or (folder / "modules.json").exists():
        c = checkpoint.load(folder)
        return Tokenizer(c.folder, kind=c.config.tokenizer, vocab=c.config.vocab, lower_case=c.lower_case)
    kind = "bert" if (folder / "vocab.txt").exists() else "gpt2"
    return Tokenizer(folder, kind=kind, vocab=1 << 31, lower_case=False)


@dataclass(frozen=True)
class Report:
    """A tokenizer over texts; special tokens around a text are not counted."""

    vocabulary: int  # special tokens included
    texts: int
    words: int  # between white space
    tokens: int
    mean: float  # tokens of a text
    median: float
    percentile_95: float
    longest: int
    tokens_per_word: float
    unused: int  # tokens of the vocabulary, special ones left out, that do not occur
    unused_share: float
    unknown: int  # occurrences of the token for what the vocabulary lacks
    unknown_share: float
    frequent: list[tuple[str, int, int]]  # token, id, occurrences


def report(tokenizer: Tokenizer, texts: Iterable[str], most_frequent: int = 20) -> Report:
    """Count in bounded memory, but for the length of each text. Raises UserError where there are no texts."""
    vocabulary = tokenizer.vocabulary()
    counts = np.zeros(max(vocabulary.values(), default=0) + 1, np.int64)
    lengths: list[int] = []
    words = 0
    texts = iter(texts)
    while batch := take_window(texts):
        found = tokenizer.plain(batch, len(lengths))
        lengths += map(len, found)
        words += sum(len(text.split()) for text in batch)
        counts += np.bincount(np.concatenate(found), minlength=len(counts))
    if not lengths:
        raise UserError("there are no texts to count the tokens of")
    tokens = int(counts.sum())
    names = {i: token for token, i in vocabulary.items()}
    ordinary = sorted(names.keys() - tokenizer.special_ids())
    unused = int((counts[ordinary] == 0).sum())
    unknown = sum(int(counts[i]) for i in tokenizer.unknown_ids())
    often = np.argsort(-counts, kind="stable")[:most_frequent]
    return Report(
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
        frequent=[(names[i], i, int(counts[i])) for i in often.tolist() if counts[i]],
    )
