"""A model folder -> a tokenizer of the `tokenizers` library: from tokenizer.json, or from the vocabulary files of old releases.

Which file wins. A field of tokenizer_config.json overrides tokenizer.json if it does so in both `transformers` 4 and 5: the
settings of BERT's normaliser, add_prefix_space of GPT-2 and RoBERTa, the special tokens, split_special_tokens. Version 5 goes
further: it takes only the vocabulary from tokenizer.json and builds the rest from the name of the class, which splits the
texts of some models differently from when they were trained and measured (XLM-R and its relatives: spaces at the end of a
text, or two in a row). Their published figures were made with tokenizer.json, so tokenizer.json wins there, as in version 4
and in every other program that reads it. If a field contradicts it, the folder is refused.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError, show
from ..graph.fork_lock import ForkSafeLock
from ..models.fields import check_regular, is_absent
from .settings import TokenizerSettings, new_token

if TYPE_CHECKING:
    import tokenizers

Ids = NDArray[np.uint32]
LARGEST = 1 << 28  # bytes of a tokenizer file; the largest known has 35 MB
TOKENIZER_ADVICE = "save the tokenizer with save_pretrained of transformers, which writes tokenizer.json"
BYTE_LEVEL = ("vocab.json", "merges.txt")
VOCABULARY_FILES = {"bert": ("vocab.txt",), "mpnet": ("vocab.txt",), "gpt2": BYTE_LEVEL, "roberta": BYTE_LEVEL}
# the special tokens around a text, for the kinds that `transformers` 5 builds without reading them from tokenizer.json
ENDS = dict.fromkeys(("bert", "mpnet", "roberta"), ("cls_token", "sep_token"))
ENDS |= dict.fromkeys(("xlm-roberta", "camembert"), ("bos_token", "eos_token"))


@contextmanager
def library_errors(what: str, advice: str = "download the tokenizer again") -> Iterator[None]:
    """Turn whatever `tokenizers` raises into a UserError."""
    try:
        yield
    except UserError:
        raise
    except BaseException as e:
        if not isinstance(e, Exception) and not is_panic(e):
            raise
        why = str(e).removeprefix("Error while reading ").removeprefix("vocab & merges files: ")
        why = why.removeprefix("Error while initializing BPE: ")  # before 0.23
        why = re.sub(r'Error\("(.*?)".*\)', r"\1", why)
        raise UserError(f"{what} ({show(why)}): {advice}") from None


def is_panic(error: BaseException) -> bool:
    """Whether this is a panic of the library, which is not an Exception and has no public class."""
    return type(error).__name__ == "PanicException"


_stderr_lock = ForkSafeLock()


@contextmanager
def silent_panics() -> Iterator[None]:
    """Hide what the library prints to stderr when it panics: the UserError says it in one line.

    Use it only while a folder is opened: what other threads write to stderr appears afterwards, and is lost if there was a
    panic. Does nothing if stderr is closed or no temporary file can be made.
    """
    with _stderr_lock, ExitStack() as stack:
        try:
            saved = os.dup(2)
            stack.callback(os.close, saved)
            file = stack.enter_context(tempfile.TemporaryFile())
        except OSError:
            yield
            return
        flush_stderr()
        os.dup2(file.fileno(), 2)
        panicked = False
        try:
            yield
        except UserError as e:
            panicked = e.__context__ is not None and is_panic(e.__context__)
            raise
        finally:
            flush_stderr()
            os.dup2(saved, 2)
            file.seek(0)
            if not panicked and (written := file.read()):
                os.write(2, written)


def flush_stderr() -> None:
    if sys.stderr is not None:  # a service may have none
        sys.stderr.flush()


def open_tokenizer(settings: TokenizerSettings) -> "tokenizers.Tokenizer":
    """The tokenizer, with the added tokens that its files list but not yet the special ones. Raises UserError."""
    file = settings.folder / "tokenizer.json"
    tokenizer = read_vocabulary_files(settings) if is_absent(file) else read_tokenizer_json(file, settings)
    add_listed_tokens(tokenizer, settings)
    tokenizer.encode_special_tokens = settings.fields.flag("split_special_tokens", default=False)
    return tokenizer


def read_tokenizer_json(file: Path, settings: TokenizerSettings) -> "tokenizers.Tokenizer":
    """The tokenizer of tokenizer.json, with the fields that override it. Raises UserError if a field contradicts it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    check_tokenizer_file(file)
    with library_errors(f"{show(file)} is not a tokenizer"):
        tokenizer = Tokenizer.from_file(str(file))
    model, normalizer, pre_tokenizer = tokenizer.model, tokenizer.normalizer, tokenizer.pre_tokenizer
    fields, kind = settings.fields, settings.kind
    if isinstance(model, models.BPE):
        model.dropout = None  # random merges, only useful in training
    if kind in ("bert", "mpnet"):
        if isinstance(normalizer, normalizers.BertNormalizer):
            set_bert_normalizer(normalizer, settings)
        if fields.present("unk_token") and isinstance(model, models.WordPiece):
            unknown = settings.named_token("unk_token")
            if unknown is not None and unknown.content != model.unk_token:
                raise fields.refuse("unk_token", f"{show(model.unk_token)}, as in tokenizer.json")
    expected = prepends_space(pre_tokenizer)
    if kind in ("gpt2", "roberta") and isinstance(pre_tokenizer, pre_tokenizers.ByteLevel):
        pre_tokenizer.add_prefix_space = fields.flag("add_prefix_space", default=False)
    elif expected is not None and fields.flag("add_prefix_space", default=expected) != expected:
        raise fields.refuse("add_prefix_space", f"{str(expected).lower()}, as in tokenizer.json")
    return tokenizer


def prepends_space(pre_tokenizer: Any) -> bool | None:
    """Whether a pre-tokenizer puts a space before each text; None if its kind has no such setting."""
    if pre_tokenizer is None:
        return None
    state = json.loads(pre_tokenizer.__getstate__())
    parts = state.get("pretokenizers", [state])
    found = [part["add_prefix_space"] for part in parts if part["type"] == "ByteLevel"]
    found += [part["prepend_scheme"] != "never" for part in parts if part["type"] == "Metaspace"]
    return any(found) if found else None


def set_bert_normalizer(normalizer: Any, settings: TokenizerSettings) -> None:
    """Apply tokenizer_config.json, or BERT's defaults where it says nothing; both override tokenizer.json."""
    fields = settings.fields
    normalizer.lowercase = fields.flag("do_lower_case", default=True)
    normalizer.handle_chinese_chars = fields.flag("tokenize_chinese_chars", default=True)
    normalizer.strip_accents = fields.flag("strip_accents") if fields.present("strip_accents") else None


def added_contents(tokenizer: "tokenizers.Tokenizer") -> set[str]:
    """The added tokens, which match in texts as a whole."""
    return {token.content for token in tokenizer.get_added_tokens_decoder().values()}


def add_listed_tokens(tokenizer: "tokenizers.Tokenizer", settings: TokenizerSettings) -> None:
    """Register the tokens of added_tokens_decoder, whose flags override those in tokenizer.json, or of added_tokens.json.

    They match in texts as a whole. A token that the vocabulary lacks gets the next id, as in `transformers`.
    """
    tokenizer.add_tokens(settings.listed_tokens())
    special = {token.content for token in settings.special_tokens()}
    known = added_contents(tokenizer)
    for content, index in sorted(settings.added.items(), key=lambda item: item[1]):
        if content not in known:
            tokenizer.add_tokens([new_token(content, special=content in special)])
            if (found := tokenizer.token_to_id(content)) != index:
                what = f"{show(settings.folder / 'added_tokens.json')} gives {show(content)} the id {index}"
                raise UserError(f"{what}, but the vocabulary gives it {found}: {TOKENIZER_ADVICE}")


def add_special_tokens(tokenizer: "tokenizers.Tokenizer", settings: TokenizerSettings) -> None:
    """Register the special tokens that the folder or its class names, as `transformers` does.

    If neither names a pad_token, the one that tokenizer.json pads with counts as one.
    """
    padding = tokenizer.padding or {}
    known = added_contents(tokenizer)
    for token in settings.special_tokens(padding.get("pad_token")):
        if token.content not in known:
            tokenizer.add_tokens([token])
            known.add(token.content)
    if is_absent(settings.folder / "tokenizer.json"):
        add_post_processor(tokenizer, settings)


def read_vocabulary_files(settings: TokenizerSettings) -> "tokenizers.Tokenizer":
    """A tokenizer from vocabulary files, without special tokens. Raises UserError if the kind or the folder has no such files."""
    folder, kind = settings.folder, settings.kind
    files = VOCABULARY_FILES.get(kind, ())
    if kind == "gpt2" and not (folder / "vocab.json").exists() and (folder / "encoder.json").exists():
        files = ("encoder.json", "vocab.bpe")  # OpenAI's names
    missing = [name for name in files if not (folder / name).exists()]
    if missing or not files:
        instead = f", and so is {missing[0]}" if missing else ""
        raise UserError(f"{show(folder / 'tokenizer.json')} is missing{instead}: download it, or {TOKENIZER_ADVICE}")
    paths = [folder / name for name in files]
    for path in paths:
        check_tokenizer_file(path)
    with library_errors(f"{' and '.join(map(show, paths))} cannot be read"):
        tokenizer = read_wordpiece(paths[0], settings) if kind in ("bert", "mpnet") else read_byte_level(paths, settings)
    listed = {*settings.added, *(token.content for token in settings.listed_tokens())}
    for name in ENDS.get(kind, ()):
        token = settings.named_token(name)
        if token is not None and token.content not in listed and tokenizer.token_to_id(token.content) is None:
            raise UserError(f"{show(paths[0])} lacks {show(token.content)}, which goes around every text: download it again")
    return tokenizer


def read_wordpiece(file: Path, settings: TokenizerSettings) -> "tokenizers.Tokenizer":
    """vocab.txt of BERT and MPNet: one token a line."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    unknown = settings.named_token("unk_token")
    vocabulary = models.WordPiece.read_file(str(file))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown.content if unknown else "[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    set_bert_normalizer(tokenizer.normalizer, settings)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def read_byte_level(files: list[Path], settings: TokenizerSettings) -> "tokenizers.Tokenizer":
    """Tokens and merges of GPT-2 and RoBERTa."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(*models.BPE.read_file(*map(str, files))))
    prefix = settings.fields.flag("add_prefix_space", default=False)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return tokenizer


def add_post_processor(tokenizer: "tokenizers.Tokenizer", settings: TokenizerSettings) -> None:
    """The special tokens around every text, for a tokenizer from vocabulary files."""
    from tokenizers import processors

    names = ENDS.get(settings.kind)
    if names is None:  # GPT-2's; where there is a tokenizer.json `transformers` ignores these two flags
        flags = {f"{name}_token": f"add_{name}_token" for name in ("bos", "eos")}
        wanted = [name for name, flag in flags.items() if settings.fields.flag(flag, default=False)]
    else:
        wanted = [*names]
    special: dict[str, tuple[str, int]] = {}
    for name in wanted:
        token = settings.named_token(name)
        index = None if token is None else tokenizer.token_to_id(token.content)
        if token is None or index is None:
            raise settings.fields.refuse(name, "a token, as it goes around every text")
        special[name] = token.content, index
    begin = [special[name][0] for name in ("cls_token", "bos_token") if name in special]
    end = [special[name][0] for name in ("sep_token", "eos_token") if name in special]
    with library_errors(f"{show(settings.fields.path)} names tokens that cannot go around texts"):
        tokenizer.post_processor = processors.TemplateProcessing(single=[*begin, "$A", *end], special_tokens=[*special.values()])


def find_special_ends(tokenizer: "tokenizers.Tokenizer", settings: TokenizerSettings) -> tuple[Ids, Ids]:
    """The special tokens that go before and after each text, such as [CLS] and [SEP].

    Adding them here and not in `tokenizers` lets each call cut at its own length without changing a shared tokenizer.
    Raises UserError if they do not enclose a text, or differ from those that the folder names.
    """
    file = settings.folder / "tokenizer.json"
    with library_errors(f"{show(file)} fails on any text"):
        begin, end = probe_special_ends(tokenizer, file)
    for name, found, side in zip(ENDS.get(settings.kind, ()), (begin, end), ("before", "after"), strict=False):
        token = settings.named_token(name) if settings.fields.present(name) else None
        if token is not None and found.tolist() != [tokenizer.token_to_id(token.content)]:
            names = [tokenizer.id_to_token(i) for i in found.tolist()]
            raise settings.fields.refuse(name, f"what tokenizer.json puts {side} texts: {show(names)}")
    return begin, end


def probe_special_ends(tokenizer: "tokenizers.Tokenizer", file: Path) -> tuple[Ids, Ids]:
    """Tokenise a letter, or else the first token that gives any ids, and see what the post-processor puts around it."""
    for text in ("", " É 猫\n1", "a"):  # if a broken tokenizer panics, let it do so now
        with suppress(Exception):  # the vocabulary may lack these letters; a panic is not an Exception
            tokenizer.encode(text)
    if tokenizer.post_processor is None:
        return np.empty(0, np.uint32), np.empty(0, np.uint32)
    for text in ("a", *tokenizer.get_vocab()):
        with suppress(Exception):
            if not (plain := tokenizer.encode(text, add_special_tokens=False).ids):
                continue
            whole = tokenizer.encode(text)
            of_text = [i for i, sequence in enumerate(whole.sequence_ids) if sequence is not None]
            begin, end = (of_text[0], of_text[-1] + 1) if of_text else (0, 0)
            if whole.ids[begin:end] != plain:
                break
            return np.array(whole.ids[:begin], np.uint32), np.array(whole.ids[end:], np.uint32)
    else:
        raise UserError(f"{show(file)} fails on every text, or makes no token of it: download it again")
    raise UserError(f"{show(file)}: its post_processor does not put special tokens around one text: download it again")


def check_tokenizer_file(path: Path) -> None:
    """Raise UserError for a pipe, a device or a file that is far too large: the library would read it to the end."""
    try:
        size = check_regular(path)
    except OSError as e:
        raise UserError(f"{show(path)} cannot be read: {e.strerror}") from None
    if size > LARGEST:
        raise UserError(f"{show(path)} has {size:,} bytes, expected at most {LARGEST:,}: download it again")


def prepend_lowercase(tokenizer: "tokenizers.Tokenizer") -> None:
    """do_lower_case of sentence-transformers: texts are lower-cased before the tokenizer's own normalisation."""
    from tokenizers import normalizers

    own = tokenizer.normalizer
    lower = normalizers.Lowercase()
    tokenizer.normalizer = lower if own is None else normalizers.Sequence([lower, own])
