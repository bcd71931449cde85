"""Tiny tokenizers of every kind; and folders with them, most as the vocabulary files of the original releases, and what
`transformers` makes of texts with them, for make_golden.py."""

import json
import shutil
from pathlib import Path
from typing import Any

import transformers
from golden_models import GOLDEN, write_json
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = """the quick brown fox jumps over the lazy dog. a feline is resting while the cat is sleeping on a warm mat.
le chat dort, die katze schläft, el gato duerme, кошка спит. query: what is a model? passage: search document for an answer.
numbers 0 1 2 3 4 5 6 7 8 9, and punctuation: commas; quotes "here" (brackets) [more] {braces} - dashes! strings of words
long texts are cut at the limit of the model, and every token counts towards it."""

TEXTS = [
    "The cat is sleeping",
    "ab",
    "The quick brown fox jumps over the lazy dog. " * 6,
    "Die Katze schläft, кошка спит, 猫が寝ている",
    "cats 🐈 and dogs 🐕‍🦺!",
    "   leading and trailing spaces  \n",
    "Tabs\tand\nnewlines   and   many spaces",
    'naïve café: "quotes" (and) [MASK] <unk> #1!',
    "",
]
MORE = [
    "<s> hello </s> <mask> quick <pad> <unk>",
    "[CLS] hello [SEP] [MASK] quick [PAD] [UNK]",
    "a<|endoftext|>b <|endoftext|>",
    "The  MASK<mask>, The[MASK]",
    "ÄÖÜ Łódź ﬁne e\u0301 \u200bzero",
    "漢字 and kana",
]


BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
MPNET = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"]


def wordpiece(special: list[str] = BERT, start: str = "[CLS]", end: str = "[SEP]") -> Tokenizer:
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = sorted({word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(CORPUS))})
    letters = sorted({c for w in words for c in w})
    pieces = ["##ing", "##er", "##s", *(f"##{c}" for c in letters)]
    vocab = {t: i for i, t in enumerate(dict.fromkeys([*special, *letters, *words[::2], *pieces]))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(start, vocab[start]), (end, vocab[end])],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    return tokenizer


def byte_bpe(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size = len(alphabet) + len(special) + 60
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS.splitlines(), trainer)
    return tokenizer


def roberta_bpe() -> Tokenizer:
    tokenizer = byte_bpe(ROBERTA)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    return tokenizer


def ending_bpe() -> Tokenizer:
    """As in Qwen3-Embedding: every text ends in <|endoftext|>."""
    tokenizer = byte_bpe(["<|endoftext|>", "<|im_end|>"])
    end = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), end])
    return tokenizer


def unigram() -> Tokenizer:
    words = sorted(set(CORPUS.split()))
    letters = sorted({c for w in words for c in w})
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = dict.fromkeys([*(f"▁{w}" for w in words[::2]), "▁", *letters])
    vocab = [(t, 0.0) for t in special] + [(t, -2.0 - 0.01 * i) for i, t in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(special)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    return tokenizer


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """What tokenizer_config.json calls its special tokens."""
    if tokenizer.token_to_id("[CLS]") is not None:
        return {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    if tokenizer.token_to_id("<s>") is not None:
        bounds = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
        unknown = "[UNK]" if tokenizer.token_to_id("[UNK]") is not None else "<unk>"
        return bounds | {"unk_token": unknown, "pad_token": "<pad>", "mask_token": "<mask>"}
    end = "<|endoftext|>"
    return {"bos_token": end, "eos_token": end, "unk_token": end, "pad_token": end}


def write_vocabulary(folder: Path, model_type: str, special: list[str], config: dict[str, Any], **others: Any) -> None:
    """vocab.txt, or vocab.json and merges.txt, with these special tokens first; tokenizer.json where there are none."""
    if not special:
        folder.mkdir(parents=True)
        wordpiece(MPNET, "<s>", "</s>").save(str(folder / "tokenizer.json"), pretty=False)
    elif model_type in ("roberta", "gpt_neo"):
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
    for name, content in others.items():
        write_json(folder / f"{name}.json", content)


# as in RoBERTa's own tokenizer.json, and in `transformers` up to version 4; without it, 5.24 splits off the space before it
MASK = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
DOG = {"content": "dog", "lstrip": True, "rstrip": True, "single_word": True, "normalized": True, "special": False}
OLD = {"special_tokens_map": {"mask_token": DOG | {"content": "<mask>"}, "pad_token": "hello"}}
OLD |= {"added_tokens": {"quick<": 156, "[MASK": 157}}
FOLDERS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "bert": ("bert", BERT, {}),
    "bert_cased": ("bert", BERT, {"do_lower_case": False, "strip_accents": True}),
    "distilbert": ("distilbert", BERT, {"do_lower_case": True, "tokenizer_class": "DistilBertTokenizer"}),
    "mpnet": ("mpnet", MPNET, {"tokenizer_class": "MPNetTokenizer"}),
    "mpnet_cased": ("mpnet", MPNET, {"do_lower_case": False, "tokenize_chinese_chars": False}),
    "mpnet_json": ("mpnet", [], {"tokenizer_class": "MPNetTokenizer", "do_lower_case": False, "strip_accents": True}),
    "roberta": ("roberta", ROBERTA, {"mask_token": MASK}),
    "roberta_prefix_space": ("roberta", ROBERTA, {"add_prefix_space": True, "mask_token": MASK}),
    "roberta_more": ("roberta", ROBERTA, {"additional_special_tokens": ["quick"], "split_special_tokens": True}),
    "bert_more": (
        "bert",
        BERT,
        {"tokenizer_class": "ElectraTokenizer", "added_tokens_decoder": {"9": DOG}, "a_token": "lazy"},
    ),
    "gpt_neo_ends": ("gpt_neo", ["<|endoftext|>"], {"add_bos_token": True, "add_eos_token": True, "add_prefix_space": True}),
    "gpt_neo": ("gpt_neo", ["<|endoftext|>"], {"tokenizer_class": "GPT2Tokenizer"}),
}


def write_tokenizers() -> None:
    root = GOLDEN / "tokenizers"
    shutil.rmtree(root, ignore_errors=True)
    for name, options in FOLDERS.items():
        write_vocabulary(root / name, *options, **(OLD if name == "distilbert" else {}))
        tokenizer = transformers.AutoTokenizer.from_pretrained(root / name)
        ids = {text: tokenizer(text)["input_ids"] for text in [*TEXTS, *MORE]}
        assert len(tokenizer) < 500
        write_json(root / name / "expected.json", {"vocab": len(tokenizer), "ids": ids})
        print(f"{name:28s} {len(tokenizer):4d} tokens  {type(tokenizer).__name__}")
