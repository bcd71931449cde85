"""What the tests of tokenizers share: GPT-2's own vocabulary, a tiny one of BERT, the ids of a text, the line of a refusal."""

from pathlib import Path
from typing import Any

import pytest
import tiny
from refusals import one_line

from gpt2wgpu.errors import UserError
from gpt2wgpu.tokenizer import Tokenizer

GPT2 = Path(__file__).parent / "fixtures" / "gpt2_tokenizer"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##s", "q", ":", "é", "Hello", "a", "##a"]
ID = {word: i for i, word in enumerate(WORDS)}


def gpt2(folder: Path = GPT2, vocab: int = 50257, **options: Any) -> Tokenizer:
    return Tokenizer(folder, kind="gpt2", vocab=vocab, **{"lower_case": False, **options})


def bert(folder: Path, vocab: int = len(WORDS), **options: Any) -> Tokenizer:
    return Tokenizer(folder, kind="bert", vocab=vocab, **{"lower_case": False, **options})


def bert_folder(folder: Path, **config: Any) -> Path:
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    tiny.write_json(folder / "tokenizer_config.json", config)
    return folder


def ids(tokenizer: Tokenizer, text: str, max_length: int = 1 << 20) -> list[int]:
    return tokenizer.encode([text], max_length)[0][0].tolist()


def refusal(make: Any, *words: object) -> str:
    with pytest.raises(UserError) as caught:
        make()
    return one_line(caught.value, *words)
