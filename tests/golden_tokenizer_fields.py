"""Every field of a tokenizer's files, set one at a time, and what `transformers` makes of texts then, for make_golden.py.

A case is a whole tokenizer (tests/golden/tokenizer_fields/BASE.json) and the files next to it. Expected are the ids that
`transformers` 5 gives. If version 4.57 gives others, either the folder is refused or tokenizer.json wins (see
gpt2wgpu/tokenizer/opening.py).
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import transformers
from golden_models import GOLDEN, write_json
from golden_tokenizers import MPNET, byte_bpe, ending_bpe, roberta_bpe, unigram, wordpiece
from tokenizers import Tokenizer, pre_tokenizers

from gpt2wgpu.tokenizer import settings

Files = dict[str, Any]  # by their name without .json
TEXTS = ["The cat IS sleeping", " é 猫 ab  x ", "<mask> a <pad>[MASK] <|endoftext|> cat<x> quick brown"]
TOKEN = {"content": "quick", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False, "special": True}


def prefixed(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def as_in_transformers(tokenizer: Tokenizer) -> Tokenizer:
    """An XLM-R whose tokenizer.json says what the class in `transformers` 5 builds without asking it."""
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return tokenizer


def cut_left(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.enable_truncation(6, direction="left")
    tokenizer.enable_padding()
    return tokenizer


BASES = {
    "bert": ("bert", wordpiece()),
    "mpnet": ("mpnet", wordpiece(MPNET, "<s>", "</s>")),
    "gpt2": ("gpt2", byte_bpe(["<|endoftext|>"])),
    "gpt2_prefix": ("gpt2", prefixed(byte_bpe(["<|endoftext|>"]))),
    "roberta": ("roberta", roberta_bpe()),
    "roberta_prefix": ("roberta", prefixed(roberta_bpe())),
    "xlm_roberta": ("xlm-roberta", as_in_transformers(unigram())),
    "qwen3": ("qwen3", ending_bpe()),
    "modernbert": ("modernbert", prefixed(byte_bpe(["<|endoftext|>"]))),
    "roberta_left": ("roberta", cut_left(roberta_bpe())),
}
GENERAL = {"tokenizer_class": "PreTrainedTokenizerFast"}
FLAGS: list[Files] = [{"do_lower_case": False}, {"strip_accents": True}, {"strip_accents": False}]
FLAGS += [{"tokenize_chinese_chars": False}, {"split_special_tokens": True}, {"add_bos_token": True}, {"add_eos_token": True}]
TOKENS: list[Files] = [{"mask_token": "cat"}, {"mask_token": {"__type": "AddedToken", **TOKEN}}, {"pad_token": "new"}]
TOKENS += [{name: ["cat", {"__type": "AddedToken", **TOKEN}]} for name in ("additional_special_tokens", "extra_special_tokens")]
TOKENS += [{"extra_special_tokens": {"image_token": "cat"}}, {"image_token": "cat"}]
TOKENS += [{"added_tokens_decoder": {"400": TOKEN}}, {"added_tokens_decoder": {"400": {"content": "CAT", "special": False}}}]
HARMLESS: Files = {"clean_up_tokenization_spaces": True, "errors": "strict", "trim_offsets": False, "padding_side": "left"}
HARMLESS |= {
    "do_basic_tokenize": False,
    "never_split": ["cat"],
    "clean_text": False,
    "wordpieces_prefix": "@@",
    "use_fast": False,
}
HARMLESS |= {"max_length": 3, "stride": 2, "truncation_strategy": "only_first", "padding": "max_length", "pad_to_multiple_of": 64}
HARMLESS |= {
    "model_input_names": ["input_ids"],
    "vocab_file": "x",
    "tokenizer_file": "/nowhere",
    "name_or_path": "a/b",
    "verbose": True,
}
HARMLESS |= {"chat_control_tokens": ["cat"]}
HARMLESS |= {"sp_model_kwargs": {"enable_sampling": True}, "keep_accents": True, "remove_space": True, "bos_token_id": 3}
HARMLESS |= {"processor_class": "X", "legacy": True, "from_slow": True, "special_tokens_map_file": "x", "model_max_length": 5}
CLASSES = ("BertTokenizer", "DistilBertTokenizerFast", "ElectraTokenizer", "MobileBertTokenizer", "RobertaTokenizerFast")
CLASSES += (
    "BartTokenizer",
    "LongformerTokenizer",
    "GPT2TokenizerFast",
    "MPNetTokenizer",
    "PreTrainedTokenizer",
    "TokenizersBackend",
)
AUTO_MAP = {"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}


def cases() -> dict[str, tuple[str, Files]]:
    found: dict[str, tuple[str, Files]] = {}

    def add(base: str, name: str, **files: Any) -> None:
        found[f"{base}: {name}"] = base, files

    for base in BASES:
        add(base, "no other file")
        add(base, "general class", tokenizer_config=GENERAL)
        add(base, "class in config.json", config=GENERAL)
        for fields in (*FLAGS, *TOKENS):
            add(base, json.dumps(fields), tokenizer_config=fields)
            add(base, f"general class, {json.dumps(fields)}", tokenizer_config=GENERAL | fields)
        others = dict.fromkeys(sorted((settings.HARMLESS | settings.NOTES) - HARMLESS.keys()), "x")
        for name, value in (HARMLESS | (others if base in ("bert", "gpt2") else {})).items():
            add(base, json.dumps({name: value}), tokenizer_config={name: value})
        add(base, "special_tokens_map", special_tokens_map={"additional_special_tokens": ["cat"], "mask_token": TOKEN})
        add(base, "special_tokens_map beside a decoder", special_tokens_map={"additional_special_tokens": ["cat"]},
            tokenizer_config={"added_tokens_decoder": {"400": {**TOKEN, "content": "brown"}}})  # fmt: skip
        size = BASES[base][1].get_vocab_size()
        add(base, "added_tokens", added_tokens={"<x>": size, "<y>": size + 1})
    for name in CLASSES:
        base = "mpnet" if name == "MPNetTokenizer" else "bert" if name in CLASSES[:4] else "roberta_prefix"
        add(base, name, tokenizer_config={"tokenizer_class": name})
        add(base, f"{name} in config.json", config={"tokenizer_class": name})
    for base in ("gpt2", "gpt2_prefix", "roberta", "roberta_prefix"):
        for value in (False, True):
            add(base, f"add_prefix_space {value}", tokenizer_config={"add_prefix_space": value})
    add("modernbert", "add_prefix_space True", tokenizer_config={"add_prefix_space": True})
    add("modernbert", "a class that is ignored", tokenizer_config={"tokenizer_class": "GPT2Tokenizer"})
    add("roberta_left", "truncation_side", tokenizer_config={"truncation_side": "right"})
    return {name: case for name, case in found.items() if not versions_differ(*case)}


def versions_differ(base: str, files: Files) -> bool:
    """Flags of tokens that version 4 heeds, as we do, and 5 drops: in Qwen2Tokenizer all; in XLM-R's class those in
    tokenizer.json, where there is an added_tokens_decoder."""
    if "PreTrainedTokenizerFast" in json.dumps(files):
        return False
    return (
        "lstrip" in json.dumps(files)
        if base == "qwen3"
        else base == "xlm_roberta" and "added_tokens_decoder" in json.dumps(files)
    )


# refused by name: where versions 4 and 5 differ, or where other code would run
REFUSED: dict[str, tuple[str, Files]] = {
    "add_prefix_space": ("gpt2_prefix", {"tokenizer_config": GENERAL | {"add_prefix_space": False}}),
    "add_prefix_space ": ("modernbert", {"tokenizer_config": {"add_prefix_space": False}}),
    "cls_token": ("roberta", {"tokenizer_config": {"cls_token": "<mask>"}}),
    "sep_token": ("bert", {"tokenizer_config": {"sep_token": "[MASK]"}}),
    "unk_token": ("bert", {"tokenizer_config": {"unk_token": "[PAD]"}}),
    "eos_token": ("xlm_roberta", {"tokenizer_config": {"eos_token": "<pad>"}}),
    "tokenizer_class": ("bert", {"tokenizer_config": {"tokenizer_class": "BertJapaneseTokenizer"}}),
    "config.json: tokenizer_class": ("bert", {"config": {"tokenizer_class": "PhobertTokenizer"}}),
    "auto_map": ("roberta", {"tokenizer_config": AUTO_MAP}),
    "init_inputs": ("roberta", {"tokenizer_config": {"init_inputs": ["x"]}}),
    "fast_tokenizer_files": ("roberta", {"tokenizer_config": {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}}),
    "truncation_side": ("roberta", {"tokenizer_config": {"truncation_side": "up"}}),
    "'vocab'": ("roberta", {"tokenizer_config": {"vocab": {"a": 0}}}),
    "'unk_id'": ("xlm_roberta", {"tokenizer_config": {"unk_id": 0}}),
    "special_tokens_map.json: 'do_lower_case'": ("bert", {"special_tokens_map": {"do_lower_case": False}}),
    "'new_option'": ("bert", {"tokenizer_config": {"new_option": True}}),
}


def write_fields() -> None:
    root = GOLDEN / "tokenizer_fields"
    root.mkdir(exist_ok=True)
    for base, (_, tokenizer) in BASES.items():
        tokenizer.save(str(root / f"{base}.json"), pretty=False)
    written = []
    ids: dict[str, int] = {}  # most cases have the same as another one
    for name, (base, files) in cases().items():
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), base, files)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            found = [tokenizer(text, truncation=True, max_length=8)["input_ids"] for text in TEXTS]
            found += [tokenizer(text)["input_ids"] for text in TEXTS]
        ids.setdefault(json.dumps(found), len(ids))
        case = {"name": name, "base": base, "model_type": BASES[base][0], "files": files, "ids": ids[json.dumps(found)]}
        written.append(case)
    refused = [{"name": n, "base": b, "model_type": BASES[b][0], "files": f} for n, (b, f) in REFUSED.items()]
    found = {"texts": TEXTS, "ids": [json.loads(text) for text in ids], "cases": written, "refused": refused}
    (root / "cases.json").write_text(json.dumps(found))
    print(f"tokenizer_fields: {len(written)} cases, {len(refused)} refused")


def write_folder(folder: Path, base: str, files: Files) -> None:
    model_type, tokenizer = BASES[base]
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, value in {"config": {}, **files}.items():
        write_json(folder / f"{name}.json", {"model_type": model_type, **value} if name == "config" else value)
