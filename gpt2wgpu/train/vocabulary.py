"""Make a tokenizer: learn byte pairs from texts, or take one token per byte; and write it to a folder."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import files
from ..background import run_interruptibly, stopping_at_the_end
from ..errors import UserError, between, show

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
# `transformers` 4 would also make token types for a tokenizer of no one family, and GPT-2 adds the vector of token 0 for them
MODEL_INPUTS = ["input_ids", "attention_mask"]
SMALLEST_VOCABULARY = 257  # one token per byte, and END_OF_TEXT
FILES = ("tokenizer.json", "tokenizer_config.json")


def train_tokenizer(texts: Iterable[str], *, vocab: int, min_frequency: int, lower_case: bool) -> "tokenizers.Tokenizer":
    """Learn a byte-level BPE tokenizer (Sennrich et al. 2016; Radford et al. 2019) of at most `vocab` tokens.

    <|endoftext|> has the id 0, then come the 256 bytes, then the merged pairs, the most frequent first. min_frequency: rarer
    pairs are not merged. lower_case: fold capitals and compatibility forms (NFKC) first. A space is put before each text, so
    that a word has the same token wherever it stands. The same texts in the same order give the same tokenizer.
    Raises UserError for numbers out of range.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    between("vocab", vocab, SMALLEST_VOCABULARY, 1 << 24)
    between("min_frequency", min_frequency, 1, 1 << 31)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = lower_case_normalizer() if lower_case else None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=min_frequency,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    run_interruptibly(tokenizer.train_from_iterator, stopping_at_the_end(texts), trainer)
    return tokenizer


def make_byte_tokenizer(*, lower_case: bool) -> "tokenizers.Tokenizer":
    """A tokenizer for studying models: each byte of a text's UTF-8 is a token, whose id is the byte.

    An ASCII character's id is its code point ("Hello" is 72, 101, 108, 108, 111); no character is unknown. <|endoftext|> is 256.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab={sign: byte for byte, sign in enumerate(byte_signs())}, merges=[]))
    tokenizer.normalizer = lower_case_normalizer() if lower_case else None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def lower_case_normalizer() -> "tokenizers.normalizers.Normalizer":
    from tokenizers import normalizers

    return normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])


def byte_signs() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary: its own in Latin-1 if that is visible, else the next
    one from U+0100 on (bytes_to_unicode in GPT-2's encoder.py)."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]


def check_new_folder(folder: Path) -> None:
    """Raise UserError, before any work, if a tokenizer cannot or should not be written to this folder."""
    if (folder / "model.safetensors").exists():
        raise UserError(f"{show(folder)} holds a model, whose weights belong to its own tokenizer: choose another folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{show(folder)} is a file, expected a folder to write to")
    if not folder.absolute().parent.is_dir():
        raise UserError(f"there is no folder {show(folder.absolute().parent)} to make {show(folder.name)} in")


def save_tokenizer(tokenizer: "tokenizers.Tokenizer", folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, which `transformers` reads, too. Each appears complete or not at all."""
    names = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END_OF_TEXT)
    # `transformers` 4.45 to 4.57 takes a missing add_prefix_space as false, 5 takes that of tokenizer.json
    prefix = {"add_prefix_space": tokenizer.pre_tokenizer.add_prefix_space}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **prefix, **names, "model_input_names": MODEL_INPUTS}
    folder.mkdir(exist_ok=True)
    for name, text in zip(FILES, (tokenizer.to_str(pretty=True), json.dumps(config, indent=2)), strict=True):
        with files.open_output(str(folder / name), {".json": None}) as (file, _):
            file.write(f"{text}\n".encode())
