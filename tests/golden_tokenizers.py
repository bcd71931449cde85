"""Folders with the vocabulary files of the original releases only, and what `transformers` makes of texts, for make_golden.py."""

import json
import shutil
from pathlib import Path
from typing import Any

import transformers
from golden_models import GOLDEN, write_json
from golden_sentences import TEXTS, byte_bpe, roberta_bpe, wordpiece

MORE = [
    "<s> hello </s> <mask> quick <pad> <unk>",
    "[CLS] hello [SEP] [MASK] quick [PAD] [UNK]",
    "a<|endoftext|>b <|endoftext|>",
    "The  MASK<mask>, The[MASK]",
    "ÄÖÜ Łódź ﬁne e\u0301 \u200bzero",
    "漢字 and kana",
]


def write_vocabulary(folder: Path, model_type: str, special: list[str], config: dict[str, Any]) -> None:
    """vocab.txt, or vocab.json and merges.txt, with these special tokens first."""
    if model_type in ("roberta", "gpt_neo"):
        model = json.loads((roberta_bpe() if model_type == "roberta" else byte_bpe(special)).to_str())["model"]
        write_json(folder / "vocab.json", model["vocab"])
        merges = (m if isinstance(m, str) else " ".join(m) for m in model["merges"])
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    else:
        words = [word for word, _ in sorted(wordpiece().get_vocab().items(), key=lambda item: item[1]) if word[0] != "["]
        folder.mkdir(parents=True)
        (folder / "vocab.txt").write_text("\n".join(dict.fromkeys([*special, *words, *"[]<>|"])) + "\n", "utf-8")
    write_json(folder / "config.json", {"model_type": model_type})
    write_json(folder / "tokenizer_config.json", config)


BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MPNET = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"]
# as in RoBERTa's own tokenizer.json, and in `transformers` up to version 4; without it, 5.24 splits off the space before it
MASK = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
FOLDERS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "bert": ("bert", BERT, {}),
    "bert_cased": ("bert", BERT, {"do_lower_case": False, "strip_accents": True}),
    "distilbert": ("distilbert", BERT, {"do_lower_case": True, "tokenizer_class": "DistilBertTokenizer"}),
    "mpnet": ("mpnet", MPNET, {"tokenizer_class": "MPNetTokenizer"}),
    "mpnet_cased": ("mpnet", MPNET, {"do_lower_case": False, "tokenize_chinese_chars": False}),
    "roberta": ("roberta", [], {"mask_token": MASK}),
    "roberta_prefix_space": ("roberta", [], {"add_prefix_space": True, "mask_token": MASK}),
    "gpt_neo": ("gpt_neo", ["<|endoftext|>"], {"tokenizer_class": "GPT2Tokenizer"}),
}


def write_tokenizers() -> None:
    root = GOLDEN / "tokenizers"
    shutil.rmtree(root, ignore_errors=True)
    for name, options in FOLDERS.items():
        write_vocabulary(root / name, *options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(root / name)
        ids = {text: tokenizer(text)["input_ids"] for text in [*TEXTS, *MORE]}
        assert len(tokenizer) < 500 and not (root / name / "tokenizer.json").exists()
        write_json(root / name / "expected.json", {"vocab": len(tokenizer), "ids": ids})
        print(f"{name:28s} {len(tokenizer):4d} tokens  {type(tokenizer).__name__}")
