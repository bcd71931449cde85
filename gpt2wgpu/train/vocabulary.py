"""Making a tokenizer, and what a tokenizer makes of texts."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import files
from ..errors import UserError, between, show

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
SMALLEST_VOCABULARY = 257  # one token per byte, and END_OF_TEXT
FILES = ("tokenizer.json", "tokenizer_config.json")


def train_tokenizer(texts: Iterable[str], *, vocab: int, min_frequency: int, lower_case: bool) -> "tokenizers.Tokenizer":
    """A byte-level BPE tokenizer (Sennrich et al. 2016; Radford et al. 2019) of at most `vocab` tokens.

    Ids: <|endoftext|> is 0, then 256 bytes, then the merges, most frequent pair first, of pairs met `min_frequency` times or
    more. The same texts in the same order give the same tokenizer. A text is tokenised as if a space came before it, so that a
    word is the same token wherever it stands. lower_case: capitals and compatibility forms (NFKC) are folded first.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    between("vocab", vocab, SMALLEST_VOCABULARY, 1 << 24)
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


def check_new_folder(folder: Path) -> None:
    """Refuse, before any work, a folder that a tokenizer cannot or should not be written to."""
    if (folder / "model.safetensors").exists():
        raise UserError(f"{show(folder)} holds a model, whose weights go with its own tokenizer: choose another folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{show(folder)} is a file, expected a folder to write to")
    if not folder.absolute().parent.is_dir():
        raise UserError(f"there is no folder {show(folder.absolute().parent)} to make {show(folder.name)} in")


def save_tokenizer(tokenizer: "tokenizers.Tokenizer", folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json, as `transformers` reads them, each complete or not there."""
    names = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END_OF_TEXT)
    # `transformers` 4.45 to 4.57 takes a missing add_prefix_space as false, 5 takes that of tokenizer.json
    prefix = {"add_prefix_space": tokenizer.pre_tokenizer.add_prefix_space}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **prefix, **names}
    folder.mkdir(exist_ok=True)
    for name, text in zip(FILES, (tokenizer.to_str(pretty=True), json.dumps(config, indent=2)), strict=True):
        with files.open_output(str(folder / name), {".json": None}) as (file, _):
            file.write(f"{text}\n".encode())
