"""Text -> token ids, as `transformers` does it, from the tokenizer files of a model folder."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..background import run_interruptibly
from ..checkpoint import Checkpoint
from ..errors import UserError, show
from ..models.fields import read_fields
from .opening import Ids, add_special_tokens, find_special_ends, library_errors, open_tokenizer, prepend_lowercase, silent_panics
from .settings import read_tokenizer_settings

__all__ = ["Ids", "Tokenizer"]

BATCH = 1024  # texts tokenised at a time: `tokenizers` keeps some hundred bytes per token until a batch is done
BATCH_CHARACTERS = 1 << 20  # most in a batch; a longer text is a batch of its own
# how much of a long text is tokenised at first: SPARE_CHARACTERS, and for each token of the limit (English has 4 to 5 each)
SPARE_CHARACTERS = 1 << 12
CHARACTERS_FOR_TOKEN = 32
READ_CHARACTERS = 1 << 22  # most of a text that are read, even if they become fewer tokens than the limit


class Tokenizer:
    """The tokenizer of a model folder: `tokenizer.json`, or the vocabulary files of GPT-2, RoBERTa or BERT.

    kind: the architecture's kind of tokenizer (a key of `settings.SPECIAL_TOKENS`), used if the folder does not name a class:
        it decides which rules apply, and which vocabulary files are read if there is no tokenizer.json.
    vocab: rows of the model's token table; ids beyond it are refused.
    lower_case: lower-case texts first, as sentence-transformers does if the folder sets do_lower_case.
    arguments: overrides fields of tokenizer_config.json: processor_kwargs (tokenizer_args) of sentence_bert_config.json.
        A length among them is for the caller to apply.
    Raises UserError. Threads may share it: nothing changes after it is made. `opening.py` says which file wins where two
    disagree.
    """

    def __init__(
        self, folder: Path, *, kind: str, vocab: int, lower_case: bool, arguments: Mapping[str, Any] | None = None
    ) -> None:
        self.folder, self.vocab = folder, vocab
        self._settings = read_tokenizer_settings(folder, kind, arguments or {})
        with silent_panics():
            self._open(lower_case)

    @classmethod
    def of_checkpoint(cls, c: Checkpoint) -> Self:
        """The tokenizer as the model's folder asks for it. Raises UserError."""
        arguments = c.tokenizer_arguments
        return cls(c.folder, kind=c.config.tokenizer, vocab=c.config.vocab, lower_case=c.lower_case, arguments=arguments)

    def _open(self, lower_case: bool) -> None:
        self._tokenizer = open_tokenizer(self._settings)
        self._end = self._tokenizer.token_to_id("<|endoftext|>")
        add_special_tokens(self._tokenizer, self._settings)
        in_file = self._tokenizer.truncation or {}  # used second, as in `transformers`
        side = self._settings.fields.text("truncation_side", default=str(in_file.get("direction", "right")).lower())
        self.cuts_left = side == "left"
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if lower_case:
            prepend_lowercase(self._tokenizer)
        self._head, self._tail = find_special_ends(self._tokenizer, self._settings)

    def encode(self, texts: Sequence[str], max_length: int, first: int = 0) -> tuple[list[Ids], list[int]]:
        """Token ids per text, uint32 (n,), special ones included; and how many there were before cutting to `max_length`.

        A text that is cut keeps its special tokens. A text without any token becomes <|endoftext|>. If a text is much longer
        than the limit, only a part is tokenised and counted: the text has at least that many tokens. The part has at most
        4,194,304 characters (or 32 per token of the limit, if that is more), even if they become few tokens, as spaces do;
        the count is then more than `max_length`, as the text is cut.
        Raises UserError naming the text, counted from `first`, that is not a string, not valid Unicode, or has a token
        beyond the model's vocabulary.
        """
        special = len(self._head) + len(self._tail)
        room = max_length - special
        if room < 1:
            raise UserError(f"max_seq_length {max_length} leaves no room for text: this model adds {special} special tokens")
        check_texts(texts, first)
        found: list[Ids] = []
        counts: list[int] = []
        for ids, whole in self._encode_near_limit(texts, room, first):
            i, n = first + len(found), len(ids)
            counts.append(n + special if whole else max(n + special, max_length + 1))
            if n > room:
                ids = ids[n - room :] if self.cuts_left else ids[:room]
            if special:
                ids = np.concatenate([self._head, ids, self._tail])
            elif not n:
                ids, counts[-1] = self._end_of_text(i), max(counts[-1], 1)
            found.append(ids)
        if found and np.concatenate(found).max() >= self.vocab:
            i, token = next((i, t) for i, ids in enumerate(found, first) for t in ids.tolist() if t >= self.vocab)
            name = f"token {show(self._tokenizer.id_to_token(token))} (id {token})"
            raise UserError(f"text {i}: {name} is not among the {self.vocab} tokens of the model")
        return found, counts

    def prompt_length(self, prompt: str) -> int:
        """How many leading tokens of prompt + text sentence-transformers counts as the prompt.

        All tokens of the prompt alone, except the last one if it is special. (In prompt + text, the tokens where they meet may
        merge.)
        """
        ids = self.encode([prompt], np.iinfo(np.int32).max)[0][0]
        return len(ids) - (int(ids[-1]) in self.special_ids())

    def plain(self, texts: Sequence[str], first: int = 0) -> list[Ids]:
        """Token ids per text, uint32 (n,), uncut and without the special tokens around it. Raises UserError as `encode` does."""
        check_texts(texts, first)
        found: list[Ids] = []
        for begin, batch in take_batches(texts):
            if len(batch) > 1 or len(batch[0]) <= BATCH_CHARACTERS:
                found += self._encode_batch(batch, first + begin)
            else:  # 140 bytes of memory per character
                found.append(np.concatenate([self._encode_batch([part], first + begin)[0] for part in split_text(batch[0])]))
        return found

    def describe(self, texts: Sequence[str], special: bool = True) -> list[list[dict[str, Any]]]:
        """For each text its tokens, uncut: id, text, whether it is special, and the characters [start, stop) of the text that
        it stands for (None for a special token around the text). special: with the special tokens around it. Raises UserError
        as `encode` does."""
        check_texts(texts, 0)
        names = self.special_ids()
        found: list[list[dict[str, Any]]] = []
        for i, text in enumerate(texts):
            with library_errors(f"text {i} cannot be tokenised", "leave it out, or use another tokenizer"):
                encoding = run_interruptibly(self._tokenizer.encode, text, add_special_tokens=False)
            inner = [
                {"id": token, "text": text[start:stop], "special": token in names, "start": start, "stop": stop}
                for token, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
            ]
            found.append([*self._describe_special(self._head), *inner, *self._describe_special(self._tail)] if special else inner)
        return found

    def _describe_special(self, ids: Ids) -> list[dict[str, Any]]:
        names = ((int(i), self._tokenizer.id_to_token(int(i))) for i in ids)
        return [{"id": i, "text": name, "special": True, "start": None, "stop": None} for i, name in names]

    def decode(self, rows: Sequence[Sequence[int]], skip_special: bool = True) -> list[str]:
        """The text of each row of token ids."""
        return [str(text) for text in self._tokenizer.decode_batch([[*row] for row in rows], skip_special_tokens=skip_special)]

    def _encode_near_limit(self, texts: Sequence[str], room: int, first: int) -> Iterator[tuple[Ids, bool]]:
        """As `plain`, but stops soon after `room` tokens of a long text; and whether these are all tokens of the text.

        The part that is tokenised ends between two words if possible, so the tokens that are kept are those of the whole text.
        In a single word of many thousand characters (base64, Chinese in a byte-level vocabulary) the cut is far behind the
        limit.
        """
        characters = SPARE_CHARACTERS + room * CHARACTERS_FOR_TOKEN
        near = [self._cut_text(text, characters) for text in texts]
        for begin, batch in take_batches(near):
            for i, ids in enumerate(self._encode_batch(batch, first + begin), begin):
                most = characters
                while len(ids) < 2 * room and most < min(len(texts[i]), READ_CHARACTERS):  # few tokens so far
                    most = min(8 * most, READ_CHARACTERS)
                    ids = self._encode_batch([self._cut_text(texts[i], most)], first + i)[0]
                yield ids, len(texts[i]) <= most

    def _cut_text(self, text: str, characters: int) -> str:
        """The first characters of a text, or the last if it is cut on the left; cut at a space after a word if possible."""
        if len(text) <= characters:
            return text
        if self.cuts_left:
            part = text[-characters:]
            at = next((i for i in range(1, characters // 8) if part[i] == " " and part[i - 1].isalnum()), 0)
            return part[at:]
        part = text[:characters]
        last = range(characters - 1, characters * 7 // 8, -1)
        return part[: next((i for i in last if part[i] == " " and part[i - 1].isalnum()), characters)]

    def _encode_batch(self, texts: Sequence[str], first: int) -> list[Ids]:
        """Token ids per text. If the batch fails, each text is tried alone to find which one; texts are counted from `first`."""
        encode, texts = self._tokenizer.encode_batch_fast, list(texts)
        what = f"text {first}" if len(texts) == 1 else "a text"
        try:
            with library_errors(f"{what} cannot be tokenised", "leave it out, or use another tokenizer"):
                encodings = run_interruptibly(encode, texts, add_special_tokens=False)
        except UserError:
            for i, text in enumerate(texts if len(texts) > 1 else []):
                self._encode_batch([text], first + i)
            raise
        return [np.array(encoding.ids, np.uint32) for encoding in encodings]

    def _end_of_text(self, text: int) -> Ids:
        """The ids for a text without tokens: the token that separates texts in training. Raises UserError if there is none."""
        if self._end is not None:
            return np.array([self._end], np.uint32)
        for name in ("eos_token", "bos_token"):
            token = self._settings.named_token(name) if self._settings.fields.present(name) else None
            if token is not None and (index := self._tokenizer.token_to_id(token.content)) is not None:
                return np.array([index], np.uint32)
        config = read_fields(self.folder / "config.json", optional=True)
        for name in ("eos_token_id", "bos_token_id"):
            if config.present(name):
                return np.array([config.integer(name, least=0)], np.uint32)
        raise UserError(f"text {text} has no tokens, and {show(self.folder)} names no eos_token to stand for it: leave it out")

    def pad_id(self) -> int:
        """The id of the token that `transformers` pads batches with; 0 if there is none."""
        token = self._settings.named_token("pad_token")
        return 0 if token is None else self._tokenizer.token_to_id(token.content) or 0

    def has_types(self) -> bool:
        """Whether `transformers` gives token types with these tokens."""
        fields = self._settings.fields
        names = fields.values.get("model_input_names")
        if isinstance(names, list):
            return "token_type_ids" in names
        return self._settings.kind == "bert" and not fields.text("tokenizer_class", default="").startswith("DistilBert")

    def vocabulary(self) -> dict[str, int]:
        """Tokens and their ids, added ones included."""
        return self._tokenizer.get_vocab()

    def alone(self, size: int) -> list[str]:
        """The text of each of the first `size` ids, decoded alone; "" for an id that has none."""
        return [text.strip() for text in self._tokenizer.decode_batch([[i] for i in range(size)])]

    def unknown_ids(self) -> set[int]:
        """The ids of the unknown token; empty if there is none, as in a byte-level vocabulary."""
        model = json.loads(self._tokenizer.to_str())["model"]
        token = self._tokenizer.token_to_id(model.get("unk_token") or "")
        return {i for i in (token, model.get("unk_id")) if i is not None}

    @property
    def library(self) -> Any:
        """The Tokenizer of `tokenizers`, which is not to be changed."""
        return self._tokenizer

    def special_ends(self) -> tuple[list[int], list[int]]:
        """The ids of the special tokens before and after every text."""
        return self._head.tolist(), self._tail.tolist()

    def is_byte_level(self) -> bool:
        """Whether the letters of its vocabulary stand for bytes, as in GPT-2."""
        parts = json.loads(self._tokenizer.to_str())
        return any('"ByteLevel"' in json.dumps(parts.get(name)) for name in ("pre_tokenizer", "normalizer", "decoder"))

    def special_ids(self) -> set[int]:
        """Tokens with a meaning of their own, such as [CLS]."""
        return {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}


def check_texts(texts: Sequence[str], first: int) -> None:
    """Raise UserError for a text that is not a string or not valid Unicode, naming its number, counted from `first`."""
    for i, text in enumerate(texts, first):
        if not isinstance(text, str):
            raise UserError(f"text {i} is {show(text, 40)} (type {type(text).__name__}), expected a string")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as e:
                what = f"holds half a surrogate pair (U+{ord(text[e.start]):04X}, character {e.start})"
                raise UserError(f"text {i} {what}, which is not valid Unicode: remove it") from None


def split_text(text: str) -> Iterator[str]:
    """The text in pieces of BATCH_CHARACTERS or more; each except the first begins with a space that follows a word."""
    begin = 0
    while begin < len(text):
        spaces = (m.start() + 1 for m in re.compile(r"[^\W_] ").finditer(text, begin + BATCH_CHARACTERS))
        end = next(spaces, len(text))
        yield text[begin:end]
        begin = end


def take_batches(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """The texts in order, up to BATCH at a time with up to BATCH_CHARACTERS (or one longer text), and the first one's index."""
    begin = characters = 0
    for i, text in enumerate(texts):
        if i > begin and (i - begin == BATCH or characters + len(text) > BATCH_CHARACTERS):
            yield begin, texts[begin:i]
            begin, characters = i, 0
        characters += len(text)
    if begin < len(texts):
        yield begin, texts[begin:]
