"""text.js in Chromium: the ids of the Rust library for every kind of tokenizer that is exported; others are refused."""

import json
import random
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Page
from pages import minilm
from tokenizers import Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Library
from web_modules import open_modules

from gpt2wgpu import UserError, hub
from gpt2wgpu.checkpoint import load_checkpoint
from gpt2wgpu.tokenizer import Tokenizer
from gpt2wgpu.web.tokenizers import QWEN_WORDS, check_web_tokenizer

GOLDEN = Path(__file__).parent / "golden"
GPT2 = Path(__file__).parent / "fixtures" / "gpt2_tokenizer"
KINDS = {"distilbert": "bert", "gpt_neo": "gpt2"}  # of the folders in golden/tokenizers, where the model's name is another
REFUSED = {"bert_more": "'dog', which is single_word", "distilbert": "'<mask>', which is single_word"}
WORDS = """the The CAT quick <mask> [MASK] <s> </s> <unk> [UNK] <|endoftext|> <|im_end|> dog ing naïve ΟΔΟΣ Σ İstanbul ﬁne ① 𝓐𝓫
漢字 𠀀 ガギ ｶﾞ 's 'S 'LL don't 1234 ½ ٣ é Ł ß ẞ 🙂 👩‍👩‍👧 … — ¿ $ _ ^ ~ ▁ ##ing 한국어 ไทย नमस्ते Å Ⅷ ǅ ŉ 🇩🇪 a b z Q . , !? (( http://x.y/z?q=1"""
OTHERS = "\u200b \u200d \ufeff \x85 \xa0 \u3000 \u202e \0 \x1c \ue000 \ufffd \u0344 e\u0301 \u1e9b\u0323"
PIECES = [*re.split(r"[ \n]", WORDS), *OTHERS.split(" "), "\t", "\n", "\r\n", "  "]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_modules("text") as found:
        yield found


@cache
def libraries() -> dict[str, Library]:
    """Every tokenizer of the tests, as it is used, and what real models have that these lack."""
    folders = {"built-in": hub.find_model(None), "MiniLM": minilm()}
    folders |= {f"model {p.name}": p for p in sorted((GOLDEN / "sentence_models").iterdir())}
    found = {name: Tokenizer.of_checkpoint(load_checkpoint(folder)).library for name, folder in folders.items()}
    for folder in sorted((GOLDEN / "tokenizers").iterdir()):
        kind = json.loads((folder / "config.json").read_text())["model_type"]
        t = Tokenizer(folder, kind=KINDS.get(kind, kind), vocab=10**6, lower_case=folder.name == "mpnet_cased")
        if folder.name not in REFUSED and not t.library.encode_special_tokens:
            found[f"folder {folder.name}"] = t.library
    for file in sorted((GOLDEN / "tokenizer_fields").glob("*.json")):
        if file.stem != "cases":
            found[f"file {file.stem}"] = library = Library.from_file(str(file))
            library.no_truncation()
            library.no_padding()
    words = found["words"] = Library(models.WordLevel({p: i for i, p in enumerate(["?", *PIECES])}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    gpt2 = found["GPT-2"] = Tokenizer(GPT2, kind="gpt2", vocab=50257, lower_case=False).library
    qwen = found["Qwen"] = Library.from_str(gpt2.to_str())
    qwen.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated")
    qwen.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return found


def awkward_texts(count: int) -> list[str]:
    """Pieces and characters in a random order, of those that Python's Unicode knows."""
    rng = random.Random(5)
    planes = [(32, 0x3000)] * 8 + [(0x3000, 0xD800), (0x10000, 0x1FFFF)]
    texts = [""]
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(9)):
            parts.append(rng.choice(PIECES) if rng.random() < 0.7 else chr(rng.randrange(*rng.choice(planes))))
            parts += [" "] * rng.randrange(2)
        texts.append("".join(c for c in "".join(parts) if unicodedata.category(c) != "Cn"))
    return texts


def encode_in_page(page: Page, library: Library, texts: list[str], **settings: Any) -> list[list[int]]:
    """The ids of texts in the page, without special tokens around them; none where a text has none."""
    about = {
        "max_length": 1 << 20,
        "head": [],
        "tail": [],
        "cuts_left": False,
        "empty": 999_999,
        "vocab": 1_000_000,
        "special": [],
    }
    arguments = json.dumps([json.loads(library.to_str()), {**about, **settings}, texts])
    script = f"""(async () => {{ const [json, about, texts] = {arguments}; const t = await text.loadTokenizer(json, about);
        return texts.map(s => [...t.encode(s).ids]); }})()"""
    return [[] if ids == [999_999] else ids for ids in page.run(script)]


@needs_browser
@pytest.mark.parametrize("name", libraries())
def test_ids_are_those_of_the_library(page: Page, name: str):
    library, texts = libraries()[name], awkward_texts(200)
    check_web_tokenizer(json.loads(library.to_str()))
    expected = [e.ids for e in library.encode_batch(texts, add_special_tokens=False)]
    assert sum(map(len, expected)) > 400
    found = encode_in_page(page, library, texts)
    assert [(t, f, e) for t, f, e in zip(texts, found, expected, strict=True) if f != e] == []


@needs_browser
@pytest.mark.parametrize("model", ["built-in", "MiniLM"])
def test_every_character_gives_the_same_ids(page: Page, model: str):
    """All of Unicode that Python knows, each character inside a word and alone; of the letters without case every fifth."""
    library = libraries()[model]
    kinds = {c: unicodedata.category(c) for c in map(chr, range(1, 0x110000))}
    characters = [c for c, kind in kinds.items() if kind not in ("Cn", "Co", "Cs") and (kind != "Lo" or ord(c) % 5 == 0)]
    assert len(characters) > 40_000
    texts = [" ".join(f"a{c}b {c}" for c in characters[i : i + 32]) for i in range(0, len(characters), 32)]
    expected = [e.ids for e in library.encode_batch(texts, add_special_tokens=False)]
    found = encode_in_page(page, library, texts)
    assert [t for t, f, e in zip(texts, found, expected, strict=True) if f != e] == []


def test_what_a_page_cannot_do_is_refused():
    """The folders of the tests that text.js gives other ids for, and parts that it was not compared on."""
    for name, what in REFUSED.items():
        library = Tokenizer(GOLDEN / "tokenizers" / name, kind="bert", vocab=10**6, lower_case=False).library
        with pytest.raises(UserError, match=f"the tokenizer has a token {what}, whose tokens would differ in a browser"):
            check_web_tokenizer(json.loads(library.to_str()))
    state = json.loads(libraries()["model new_xlmr_max_mean"].to_str())
    changes = {
        "normalizer Precompiled": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled"}]}},
        "normalizer Replace with pattern": {"normalizer": {"type": "Replace", "pattern": {"Regex": "a+"}}},
        "pre_tokenizer Metaspace with prepend_scheme": {"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}},
        "pre_tokenizer Digits": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}]}},
        "model Unigram with byte_fallback": {"model": {"type": "Unigram", "byte_fallback": True}},
    }
    for what, change in changes.items():
        with pytest.raises(UserError, match=f"the tokenizer has a {what}.*: export another model"):
            check_web_tokenizer(state | change)


@needs_browser
def test_ends_cuts_and_empty_texts(page: Page):
    """Special tokens, the limit on either side, and long texts, of which only a part is tokenised."""
    bert = Tokenizer.of_checkpoint(load_checkpoint(minilm()))
    texts = ["", "a", "The cat sleeps on the sofa and does not care. " * 3, "word " * 20_000, "x" * 30_000, "🙂" * 9_000]
    texts += [" " * 50_000 + "end"]
    for length in (3, 8, 256):
        head, tail = bert.special_ends()
        for left in (False, True):
            bert.cuts_left = left
            expected = [ids.tolist() for ids in bert.encode(texts, length)[0]]
            about = {"max_length": length, "head": head, "tail": tail, "cuts_left": left}
            assert encode_in_page(page, bert.library, texts, **about) == expected
    gpt2 = Tokenizer(GPT2, kind="gpt2", vocab=50257, lower_case=False)
    expected = [ids.tolist() for ids in gpt2.encode(texts, 64)[0]]
    assert encode_in_page(page, gpt2.library, texts, max_length=64, empty=50256) == expected


@needs_browser
def test_refusals_are_those_of_python(page: Page):
    t = Tokenizer.of_checkpoint(load_checkpoint(minilm()))
    head, tail = t.special_ends()
    about = {"max_length": 16, "head": head, "tail": tail, "cuts_left": False, "empty": None, "vocab": 30522, "special": []}

    def refusal(text: str, **changes: Any) -> str:
        arguments = f"{t.library.to_str()}, {json.dumps(about | changes)}"
        return str(
            page.run(f"text.loadTokenizer({arguments}).then(t => t.encode({text}, 'text 0')).then(String, e => e.message)")
        )

    def refusal_in_python(text: str, length: int = 16) -> str:
        with pytest.raises(UserError) as error:
            t.encode([text], length)
        return str(error.value).replace("'", '"')

    half = "a🙂" + chr(0xD800) + "b"
    assert refusal(json.dumps(half)) == refusal_in_python(half)
    assert refusal("'a'", max_length=2) == refusal_in_python("a", 2)
    t.vocab = 1037
    assert refusal("'a cat'", vocab=1037) == refusal_in_python("a cat")
    assert refusal("7") == "text 0 is 7 (type number), expected a string"
    assert refusal("''", head=[], tail=[]) == "text 0 has no tokens, and the model has none to stand for it: leave it out"
    assert refusal("''", head=[], tail=[], empty=5) == "[object Object]"


@needs_browser
def test_length_of_a_prompt(page: Page):
    for folder in (minilm(), GOLDEN / "sentence_models" / "new_qwen3_last"):
        t = Tokenizer.of_checkpoint(load_checkpoint(folder))
        head, tail = t.special_ends()
        about = {"max_length": 16, "head": head, "tail": tail, "cuts_left": False, "empty": 0, "vocab": t.vocab}
        arguments = f"{t.library.to_str()}, {json.dumps(about | {'special': sorted(t.special_ids())})}"
        for prompt in ("query: ", "a", "Represent this sentence for searching relevant passages: "):
            script = f"text.loadTokenizer({arguments}).then(t => t.promptLength({json.dumps(prompt)}))"
            assert page.run(script) == t.prompt_length(prompt)
