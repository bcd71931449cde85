"""Which tokenizers a page can run: those whose parts text.js gives the same ids with as `tokenizers`, which tests compare.

Every other one is refused when a model is exported, because a page with other ids would give other vectors without a word.
"""

from collections.abc import Iterator
from typing import Any

from ..errors import UserError, show

QWEN_WORDS = (  # Qwen2's and Qwen3's
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# a part's type -> what its settings must be
COMPARED_PARTS: dict[str, dict[str, dict[str, Any]]] = {
    "normalizer": {
        "BertNormalizer": {},
        "Lowercase": {},
        "NFC": {},
        "NFKC": {},
        "Replace": {"pattern": {"String": " {2,}"}},
        "Sequence": {},
    },
    "pre_tokenizer": {
        "BertPreTokenizer": {},
        "ByteLevel": {},
        "Metaspace": {"prepend_scheme": "always", "split": True},
        "Sequence": {},
        "Split": {"pattern": {"Regex": QWEN_WORDS}, "behavior": "Isolated", "invert": False},
        "WhitespaceSplit": {},
    },
    "model": {
        "BPE": {
            **dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")),
            **dict.fromkeys(("fuse_unk", "byte_fallback"), False),
        },
        "Unigram": {"byte_fallback": False},
        "WordLevel": {},
        "WordPiece": {"continuing_subword_prefix": "##"},
    },
}
KNOWN_REASONS = {"Precompiled": "sentencepiece's table of characters, which a page only has approximately"}


def check_web_tokenizer(state: dict[str, Any]) -> None:
    """Raise UserError, with the reason, if a page might give other ids. state: a tokenizer.json with all that overrides it."""
    for kind, parts in COMPARED_PARTS.items():
        for part in tokenizer_parts(state.get(kind)):
            name = part.get("type", "")
            if name not in parts:
                raise refuse_tokenizer(f"{kind} {name}", KNOWN_REASONS.get(name, f"known are {', '.join(parts)}"))
            for key, value in parts[name].items():
                if part.get(key, value) != value:
                    raise refuse_tokenizer(f"{kind} {name} with {key} {show(part[key], 60)}", f"known is {show(value, 60)}")
    for token in state.get("added_tokens", []):
        absorbs = token["lstrip"] or token["rstrip"]
        if token["single_word"] or (absorbs and token["normalized"] and state.get("normalizer") is not None):
            what = "single_word" if token["single_word"] else "lstrip or rstrip, and normalized"
            raise refuse_tokenizer(
                f"token {show(token['content'], 40)}, which is {what}", "a page matches tokens anywhere in a text"
            )


def tokenizer_parts(part: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """A part of a tokenizer and, if it is a sequence, those in it."""
    if part is not None:
        yield part
        for inner in part.get("normalizers", []) + part.get("pretokenizers", []):
            yield from tokenizer_parts(inner)


def refuse_tokenizer(what: str, why: str) -> UserError:
    return UserError(f"the tokenizer has a {what}, whose tokens would differ in a browser ({why}): export another model")
