"""Text -> token ids, as `transformers` does it, from the tokenizer files of a model folder."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import UserError, is_text, show
from .models.fields import Fields, read_fields

if TYPE_CHECKING:  # imported where it is used: it takes 50 ms
    import tokenizers

Ids = NDArray[np.uint32]
BATCH = 1024  # texts tokenised at a time: `tokenizers` keeps some hundred bytes per token until a batch is done
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Tokenizer:
    """The tokenizer of a model folder: `tokenizer.json`, or the vocabulary files of GPT-2, RoBERTa or BERT.

    kind: whose vocabulary files to read where there is no tokenizer.json: "gpt2", "roberta", "bert" or "mpnet"; "": none.
    vocab: rows of the model's token table; ids beyond it are refused.
    lower_case: as sentence-transformers does to texts first where the folder says so.
    Raises UserError. May be shared by threads: nothing changes after it is made.
    """

    def __init__(self, folder: Path, *, kind: str, vocab: int, lower_case: bool) -> None:
        self.folder, self.vocab = folder, vocab
        self.config = read_fields(folder / "tokenizer_config.json", optional=True)
        self._tokenizer = open_tokenizer(folder, kind, self.config)
        if lower_case:
            add_lower_case(self._tokenizer)
        self._head, self._tail = special_tokens(self._tokenizer)
        self._cut_left = self.config.text("truncation_side", default="right") == "left"

    def encode(self, texts: Sequence[str], max_length: int, first: int = 0) -> tuple[list[Ids], list[int]]:
        """Token ids per text, uint32 (n,), special ones included; and how many there were before the cut to `max_length`.

        Special tokens stay around a text that is cut. A text without any token becomes <|endoftext|>.
        Raises UserError naming the text, counted from `first`, that is no string, no valid Unicode, or out of vocabulary.
        """
        special = len(self._head) + len(self._tail)
        room = max_length - special
        if room < 1:
            raise UserError(f"max_seq_length {max_length} leaves no room for text: this model adds {special} special tokens")
        found: list[Ids] = []
        counts: list[int] = []
        for begin in range(0, len(texts), BATCH):
            for ids in self.plain(texts[begin : begin + BATCH], first + begin):
                n = len(ids)
                counts.append(n + special)
                if n > room:
                    ids = ids[n - room :] if self._cut_left else ids[:room]
                if special:
                    ids = np.concatenate([self._head, ids, self._tail])
                elif not n:
                    ids, counts[-1] = self._end_of_text(first + len(found)), 1
                if ids.max() >= self.vocab:
                    token = next(i for i in ids.tolist() if i >= self.vocab)
                    name = f"token {show(self._tokenizer.id_to_token(token))} (id {token})"
                    raise UserError(f"text {first + len(found)}: {name} is not among the {self.vocab} tokens of the model")
                found.append(ids)
        return found, counts

    def prompt_length(self, prompt: str) -> int:
        """How many leading tokens of prompt + text sentence-transformers counts as the prompt.

        All tokens of the prompt alone, less the last one if it is special. (Where prompt and text meet, they may merge.)
        """
        ids = self.encode([prompt], np.iinfo(np.int32).max)[0][0]
        return len(ids) - (int(ids[-1]) in self.special_ids())

    def plain(self, texts: Sequence[str], first: int = 0) -> list[Ids]:
        """Token ids per text, uint32 (n,), whole and without the special tokens around it. Raises UserError as `encode` does."""
        for i, text in enumerate(texts, first):
            if not isinstance(text, str):
                raise UserError(f"text {i} is {show(text, 40)}, a {type(text).__name__}; expected a string")
            try:
                text.encode()
            except UnicodeEncodeError as e:
                what = f"holds half a surrogate pair (U+{ord(text[e.start]):04X}, character {e.start})"
                raise UserError(f"text {i} {what}, which is no valid Unicode: remove it") from None
        with refusing(f"texts {first} to {first + len(texts) - 1} cannot be tokenised"):
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in encodings]

    def _end_of_text(self, text: int) -> Ids:
        """What stands for a text without tokens: the token that separates texts in training."""
        for name in ("<|endoftext|>", named_token(self.config, "eos_token"), named_token(self.config, "bos_token")):
            if (token := self._tokenizer.token_to_id(name)) is not None:
                return np.array([token], np.uint32)
        config = read_fields(self.folder / "config.json", optional=True)
        for name in ("eos_token_id", "bos_token_id"):
            if config.present(name):
                return np.array([config.integer(name, least=0)], np.uint32)
        raise UserError(f"text {text} has no tokens, and {show(self.folder)} names no eos_token to stand for it: leave it out")

    def vocabulary(self) -> dict[str, int]:
        """Tokens and their ids, added ones included."""
        return self._tokenizer.get_vocab()

    def alone(self, size: int) -> list[str]:
        """The text that each of the first `size` ids stands for by itself, "" where it is none."""
        return [text.strip() for text in self._tokenizer.decode_batch([[i] for i in range(size)])]

    def unknown_ids(self) -> set[int]:
        """The token that stands for what the vocabulary lacks, if there is one: a byte-level vocabulary lacks nothing."""
        model = json.loads(self._tokenizer.to_str())["model"]
        token = self._tokenizer.token_to_id(model.get("unk_token") or "")
        return {i for i in (token, model.get("unk_id")) if i is not None}

    def special_ids(self) -> set[int]:
        """Tokens with a meaning of their own, such as [CLS]."""
        marked = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        named = (self._tokenizer.token_to_id(named_token(self.config, name)) for name in NAMED)
        return marked.union(i for i in named if i is not None)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Whatever `tokenizers` raises inside becomes a UserError; its panics are no Exceptions."""
    try:
        yield
    except BaseException as e:
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
            raise
        why = str(e).removeprefix("Error while reading ").removeprefix("vocab & merges files: ")
        raise UserError(f"{what} ({show(why)}): download the tokenizer again") from None


def named_token(config: Fields, name: str, default: str = "") -> str:
    """A token that tokenizer_config.json names, as a string or an object with its `content`; "" if it names none."""
    value: Any = config.values.get(name)
    value = value.get("content") if isinstance(value, dict) else value
    if value is not None and not is_text(value):
        raise config.refuse(name, "a string")
    return value or default


def open_tokenizer(folder: Path, kind: str, config: Fields) -> "tokenizers.Tokenizer":
    """From tokenizer.json, else from vocabulary files, without truncation and padding. Raises UserError."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers

    if not (file := folder / "tokenizer.json").exists():
        return from_vocabulary(folder, kind, config)
    with refusing(f"{show(file)} is not a tokenizer"):
        tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # where these two files disagree, `transformers` follows tokenizer_config.json; what BERT's classes do not find there is
    # as in BERT, whatever tokenizer.json says
    normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    named = config.text("tokenizer_class", default="Bert" if kind in ("bert", "mpnet") else "")
    if isinstance(normalizer, normalizers.BertNormalizer) and any(part in named for part in ("Bert", "MPNet")):
        read_bert_normalizer(normalizer, config)
    if isinstance(pre_tokenizer, pre_tokenizers.ByteLevel):
        pre_tokenizer.add_prefix_space = config.flag("add_prefix_space", default=pre_tokenizer.add_prefix_space)
    return tokenizer


def read_bert_normalizer(normalizer: Any, config: Fields) -> None:
    """Its settings, from tokenizer_config.json."""
    normalizer.lowercase = config.flag("do_lower_case", default=True)
    normalizer.handle_chinese_chars = config.flag("tokenize_chinese_chars", default=True)
    normalizer.strip_accents = config.flag("strip_accents") if config.present("strip_accents") else None


def from_vocabulary(folder: Path, kind: str, config: Fields) -> "tokenizers.Tokenizer":
    """The tokenizers of the original releases: WordPiece from vocab.txt, byte-level BPE from two files."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

    advice = "save the tokenizer with save_pretrained of transformers, which writes tokenizer.json"
    if (folder / "added_tokens.json").exists():
        raise UserError(f"{show(folder)} has added_tokens.json but no tokenizer.json: {advice}")
    byte_level = ["vocab.json", "merges.txt"]
    files = {"bert": ["vocab.txt"], "mpnet": ["vocab.txt"], "gpt2": byte_level, "roberta": byte_level}.get(kind, [])
    if kind == "gpt2" and not (folder / "vocab.json").exists() and (folder / "encoder.json").exists():
        files = ["encoder.json", "vocab.bpe"]  # OpenAI's names
    missing = [name for name in files if not (folder / name).exists()]
    if missing or not files:
        instead = f", and so is {missing[0]}" if missing else ""
        raise UserError(f"{show(folder / 'tokenizer.json')} is missing{instead}: download it, or {advice}")
    paths = [folder / name for name in files]

    def special(**tokens: str) -> list[tuple[str, int]]:
        """Register the special tokens that are in the vocabulary; gives them with their ids."""
        found = []
        for name, default in tokens.items():
            token = named_token(config, name, default)
            if (at := tokenizer.token_to_id(token)) is not None:
                found.append((token, at))
                lstrip = token == "<mask>"  # in RoBERTa and MPNet it takes the space before it along
                tokenizer.add_special_tokens([AddedToken(token, special=True, lstrip=lstrip, normalized=False)])
            elif name in ("cls_token", "sep_token"):
                raise UserError(f"{show(paths[0])} lacks {show(token)}, which goes around every text: download it again")
        return found

    if kind in ("bert", "mpnet"):
        unknown = named_token(config, "unk_token", "[UNK]")
        tokenizer = Tokenizer(build(models.WordPiece.read_file, models.WordPiece, paths, unk_token=unknown))
        tokenizer.normalizer = normalizers.BertNormalizer()
        read_bert_normalizer(tokenizer.normalizer, config)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        if kind == "bert":
            special(pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]")
            start, end = special(cls_token="[CLS]", sep_token="[SEP]")
        else:
            special(bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="[UNK]", mask_token="<mask>")
            start, end = special(cls_token="<s>", sep_token="</s>")
    else:
        tokenizer = Tokenizer(build(models.BPE.read_file, models.BPE, paths))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=config.flag("add_prefix_space", default=False))
        if kind == "gpt2":
            special(unk_token="<|endoftext|>")
            bos, eos = special(bos_token="<|endoftext|>"), special(eos_token="<|endoftext|>")
            # `transformers` heeds these only where there is no tokenizer.json
            bos, eos = bos * config.flag("add_bos_token", default=False), eos * config.flag("add_eos_token", default=False)
            template = " ".join([token for token, _ in bos] + ["$A"] + [token for token, _ in eos])
            tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=bos + eos)
            return tokenizer
        special(bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>", mask_token="<mask>")
        start, end = special(cls_token="<s>", sep_token="</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{start[0]} $A {end[0]}", special_tokens=[start, end])
    return tokenizer


def build(read: Any, model: Any, files: list[Path], **options: Any) -> Any:
    """`model` from its vocabulary files. Raises UserError naming them."""
    with refusing(f"{' and '.join(show(file) for file in files)} cannot be read"):
        found = read(*map(str, files))
        return model(*found, **options) if isinstance(found, tuple) else model(found, **options)


def add_lower_case(tokenizer: "tokenizers.Tokenizer") -> None:
    """do_lower_case of sentence-transformers: texts are lowered before the tokenizer's own normalisation."""
    from tokenizers import normalizers

    own = tokenizer.normalizer
    lower = normalizers.Lowercase()
    tokenizer.normalizer = lower if own is None else normalizers.Sequence([lower, own])


def special_tokens(tokenizer: "tokenizers.Tokenizer") -> tuple[Ids, Ids]:
    """The special tokens that go before and after each text, such as [CLS] and [SEP].

    Adding them here and not in `tokenizers` lets each call cut at its own length without changing a shared tokenizer.
    """
    if not tokenizer.num_special_tokens_to_add(False):
        return np.empty(0, np.uint32), np.empty(0, np.uint32)
    for probe in ("a", *tokenizer.get_vocab()):
        if plain := tokenizer.encode(probe, add_special_tokens=False).ids:
            ids = tokenizer.encode(probe).ids
            at = next(i for i in range(len(ids)) if ids[i : i + len(plain)] == plain)
            return np.array(ids[:at], np.uint32), np.array(ids[at + len(plain) :], np.uint32)
    raise UserError("the tokenizer turns every text into nothing: download it again")
