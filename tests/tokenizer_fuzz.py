"""Broken tokenizer folders, each made from a seed: python tokenizer_fuzz.py FOLDER FIRST LAST opens those of FIRST to LAST - 1.

A folder is either read, and then tokenises some texts the same way twice, or refused in one line. Anything else is a traceback.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from gpt2wgpu.errors import UserError
from gpt2wgpu.tokenizer import Tokenizer

WORDS = ["<s>", "</s>", "<unk>", "[CLS]", "[SEP]", "[UNK]", "<|endoftext|>", *"abcdehlow ▁Ġ", "##l", "he", "lo", "hel"]
TEXTS = ["hello world", "", "  a\n\tb  ", "é 猫 🐈‍⬛ \x00", "a<s>b [CLS] <|endoftext|>", "abc" * 50, "x" * 200]
DEEP = "in brackets"  # stands for a list in 3,000 lists
ODD: list[Any] = [None, True, False, 0, 1, -1, 3, 255, 2**31, 2**32, 2**40, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, "", " "]
ODD += [
    DEEP,
    "a",
    "<s>",
    "$A",
    "$B",
    "▁",
    "\ud800",
    "\x00",
    "(?=a",
    "a*",
    "(a+)+$",
    "é" * 300,
    [],
    [[]],
    {},
    {"a": 1},
    [None],
    "9" * 4000,
]
KINDS = ["", "bert", "mpnet", "gpt2", "roberta", "xlm-roberta", "camembert", "qwen2"]
CLASSES = ["PreTrainedTokenizerFast", "BertTokenizer", "RobertaTokenizerFast", "XLMRobertaTokenizer", "Qwen2Tokenizer", "Other"]


def whole_tokenizer(rng: random.Random) -> dict[str, Any]:
    """A valid tokenizer.json of random parts."""
    ids = {word: i for i, word in enumerate(WORDS)}
    scores = [(word, -float(i)) for word, i in ids.items()]
    model = rng.choice(
        [
            lambda: models.WordPiece(ids, unk_token="[UNK]"),
            lambda: models.BPE(ids, [("h", "e"), ("l", "o"), ("he", "l")], dropout=rng.choice([None, 0.5]), unk_token="<unk>"),
            lambda: models.BPE(ids, [], byte_fallback=True),
            lambda: models.Unigram(scores, unk_id=2),
            lambda: models.WordLevel(ids, unk_token="<unk>"),
        ]
    )()
    tokenizer = Rust(model)
    steps = [
        lambda: normalizers.BertNormalizer(),
        lambda: normalizers.NFKC(),
        lambda: normalizers.Replace("a", "b"),
        lambda: normalizers.Prepend("▁"),
        lambda: normalizers.Strip(),
        lambda: normalizers.Lowercase(),
        lambda: normalizers.StripAccents(),
        lambda: normalizers.ByteLevel(),
    ]
    cuts = [
        lambda: pre_tokenizers.BertPreTokenizer(),
        lambda: pre_tokenizers.ByteLevel(),
        lambda: pre_tokenizers.Metaspace(),
        lambda: pre_tokenizers.WhitespaceSplit(),
        lambda: pre_tokenizers.Split("a", "isolated"),
        lambda: pre_tokenizers.FixedLength(5),
        lambda: pre_tokenizers.Digits(),
        lambda: pre_tokenizers.Punctuation(),
    ]
    if rng.random() < 0.7:
        tokenizer.normalizer = normalizers.Sequence([rng.choice(steps)() for _ in range(rng.randint(1, 3))])
    if rng.random() < 0.8:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([rng.choice(cuts)() for _ in range(rng.randint(1, 3))])
    ends = [("</s>", ids["</s>"]), ("<s>", ids["<s>"])]
    tokenizer.post_processor = rng.choice(
        [
            lambda: processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=ends),
            lambda: processors.RobertaProcessing(*ends),
            lambda: processors.BertProcessing(*ends),
            lambda: processors.Sequence([processors.ByteLevel(), processors.TemplateProcessing("$A </s>", special_tokens=ends)]),
        ]
    )()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>", "[CLS]"])
    tokenizer.enable_truncation(9, direction=rng.choice(["left", "right"]))
    tokenizer.enable_padding()
    return dict(json.loads(tokenizer.to_str()))


def whole_config(rng: random.Random) -> dict[str, Any]:
    token = {"content": "<s>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    every = {
        "tokenizer_class": rng.choice(CLASSES),
        "cls_token": rng.choice(["<s>", "[CLS]", token, {"__type": "AddedToken", **token}]),
        "unk_token": "<unk>",
        "eos_token": "</s>",
        "add_prefix_space": rng.random() < 0.5,
        "do_lower_case": rng.random() < 0.5,
        "strip_accents": None,
        "truncation_side": rng.choice(["left", "right"]),
        "split_special_tokens": True,
        "additional_special_tokens": ["<x>", token],
        "extra_special_tokens": {"image_token": "<i>"},
        "added_tokens_decoder": {"0": token, "30": {**token, "content": "<y>"}},
        "model_max_length": 512,
        "image_token": "<image>",
    }
    return {key: value for key, value in every.items() if rng.random() < 0.35}


def mutate(rng: random.Random, value: Any) -> Any:
    """The same JSON with one node replaced, dropped or doubled."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.12:
        return rng.choice(ODD)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        if rng.random() < 0.15:
            return value[:at] + value[at + 1 :]
        if rng.random() < 0.1:
            return [*value, value[at]]
        return [*value[:at], mutate(rng, value[at]), *value[at + 1 :]]
    key = rng.choice([*value])
    if rng.random() < 0.15:
        return {k: v for k, v in value.items() if k != key}
    if rng.random() < 0.05:
        return {**value, rng.choice(["odd", "vocab", "é", "type"]): rng.choice(ODD)}
    return {**value, key: mutate(rng, value[key])}


def dump(value: Any) -> bytes:
    return json.dumps(value).encode().replace(json.dumps(DEEP).encode(), b"[" * 3000 + b"]" * 3000)


def write_folder(folder: Path, seed: int) -> str:
    """Write the folder of a seed; gives the kind of tokenizer to open it as."""
    rng = random.Random(seed)
    for file in folder.iterdir():
        file.unlink()
    files: dict[str, Any] = {"tokenizer.json": whole_tokenizer(rng), "tokenizer_config.json": whole_config(rng)}
    files["special_tokens_map.json"] = {"unk_token": "<unk>", "additional_special_tokens": ["<z>"]}
    files["added_tokens.json"] = {"<w>": len(WORDS)}
    kept = [name for name in files if name == "tokenizer.json" or rng.random() < 0.4]
    if rng.random() < 0.15:
        kept.remove("tokenizer.json")
        files["vocab.json"] = {word: i for i, word in enumerate(WORDS)}
        (folder / "vocab.txt").write_bytes("\n".join(WORDS).encode()[: rng.choice([None, None, 40])])
        (folder / "merges.txt").write_bytes(rng.choice([b"#version: 0.2\nh e\nl o\n", b"h e\n\n", b"a b c\n", b"\xff", b""]))
        kept.append("vocab.json")
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        name = rng.choice([kept[0], rng.choice(kept)])
        files[name] = mutate(rng, files[name])
    for name in kept:
        data = dump(files[name])
        if rng.random() < 0.03:
            data = data[: rng.randrange(len(data) + 1)]
        (folder / name).write_bytes(data)
    return rng.choice(KINDS)


def open_folder(folder: Path, kind: str) -> str:
    """What became of it, in one line."""
    try:
        tokenizer = Tokenizer(folder, kind=kind, vocab=1 << 40, lower_case=False)
        found = [tokenizer.encode(TEXTS[:6], 20), tokenizer.encode(TEXTS, 20)]
        assert all((a == b).all() for a, b in zip(found[0][0], found[1][0], strict=False))
        assert all(1 <= len(ids) <= 20 for ids in found[1][0])
        return "read"
    except UserError as error:
        line = str(error)
        assert "\n" not in line and len(line) < 700 and line.isprintable(), line
        return f"refused: {line}"


if __name__ == "__main__":
    folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for seed in range(first, last):
        kind = write_folder(folder, seed)
        print(seed, flush=True)
        print(f"{seed} {open_folder(folder, kind)!a}", flush=True)
