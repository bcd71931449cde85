"""Long texts: only a part of them is tokenised, and signals do not wait for it. Pipes and devices in place of files."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from process import environment
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Rust
from vocabularies import GPT2, ID, bert, bert_folder, gpt2, ids, refusal

from gpt2wgpu.diagnose.token_report import count_tokens, find_tokenizer
from gpt2wgpu.tokenizer import SPARE_CHARACTERS, Tokenizer, split_text

GOLDEN = Path(__file__).parent / "golden" / "tokenizer_fields"
SENTENCE = "The quick brown fox jumps over the lazy dog; 12 don't e\u0301 \u732b\u304c. "
LONG = {
    "words": SENTENCE * 2000,
    "a word": "abcdefghij" * 20_000,
    "no spaces": "\u732b\u304c\u5bdd\u3066\u3044\u308b" * 20_000,
    "white space": " \n\t" * 50_000 + SENTENCE + "\t " * 50_000,
    "spaces between": (SENTENCE + " " * 3000) * 60,
    "lines": "line\r\n\r\n" * 20_000,
}


class Watched:
    """A tokenizer of `tokenizers` that remembers how many characters it got."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.characters = tokenizer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.characters += sum(map(len, texts))
        return self.tokenizer.encode_batch_fast(texts, **options)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_part_of_a_long_text_has_the_same_tokens(tmp_path: Path, kind: str, name: str, side: str):
    arguments = {"truncation_side": side}
    tokenizer = gpt2(arguments=arguments) if kind == "gpt2" else bert(bert_folder(tmp_path), arguments=arguments)
    limit, special = 40, 2 * (kind == "bert")
    whole = tokenizer.plain([LONG[name]])[0].tolist()
    room = limit - special
    expected = whole[-room:] if side == "left" else whole[:room]
    tokenizer._tokenizer = watched = Watched(tokenizer._tokenizer)  # type: ignore[assignment]
    found, counts = tokenizer.encode(["a", LONG[name], "b"], limit)
    assert found[1].tolist()[special // 2 : len(found[1]) - special // 2] == expected
    assert min(limit, len(whole) + special) <= counts[1] <= len(whole) + special
    if name in ("words", "a word", "no spaces", "lines") and kind == "gpt2":
        assert watched.characters < SPARE_CHARACTERS + 40 * limit


def test_a_part_that_ends_in_a_word_has_tokens_to_spare(tmp_path: Path):
    """The last tokens before its end are not those of the whole word: here 63 letters make 6 tokens instead of 1."""
    words = ["b", *("a" * n for n in (1, 2, 4, 8, 16, 32, 64))]
    rust = Rust(models.BPE({word: i for i, word in enumerate(words)}, [(word, word) for word in words[1:-1]]))
    rust.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path, kind="", vocab=len(words), lower_case=False)
    limit = 132  # at first 4096 + 32 * 132 characters are tokenised, which make 136 tokens
    assert ids(tokenizer, "b" + "a" * 20_000, limit) == [0] + [words.index("a" * 64)] * (limit - 1)


def test_a_text_near_the_limit_is_counted_to_the_end():
    assert gpt2().encode(["a " * 500], 9)[1] == [501]


def test_a_text_that_becomes_few_tokens_is_read_for_some_million_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.tokenizer.READ_CHARACTERS", 20_000)
    tokenizer = bert(bert_folder(tmp_path))
    tokenizer._tokenizer = watched = Watched(tokenizer._tokenizer)  # type: ignore[assignment]
    texts = ["x" * 100_000, " " * 15_000 + "hello", " " * 30_000 + "hello", " " * 19_000]
    found, counts = tokenizer.encode(texts, 9)
    assert [f.tolist()[1:-1] for f in found] == [[ID["[UNK]"]], [ID["hello"]], [], []]
    assert counts == [10, 3, 10, 2]  # the first and the third are cut
    assert watched.characters < 100_000


@pytest.mark.parametrize("base", ["bert", "mpnet", "gpt2", "gpt2_prefix", "roberta", "xlm_roberta", "qwen3"])
def test_a_text_in_pieces_has_the_same_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str):
    (tmp_path / "tokenizer.json").write_bytes((GOLDEN / f"{base}.json").read_bytes())
    kind = {"gpt2_prefix": "", "xlm_roberta": "xlm-roberta", "qwen3": "qwen2"}.get(base, base)
    tokenizer = Tokenizer(tmp_path, kind=kind, vocab=999, lower_case=False)
    texts = [text[:9000] for text in LONG.values()]
    whole = [ids.tolist() for ids in tokenizer.plain(texts)]
    monkeypatch.setattr("gpt2wgpu.tokenizer.BATCH_CHARACTERS", 50)
    assert max(len([*split_text(text)]) for text in texts) > 100
    assert all("".join(split_text(text)) == text for text in texts)
    assert [ids.tolist() for ids in tokenizer.plain(texts)] == whole


SCRIPT = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

class Told:
    told = False
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
    def __getattr__(self, name):
        return getattr(self.tokenizer, name)
    def encode_batch_fast(self, *args, **options):
        if not self.told:
            self.told = True
            print("begun", flush=True)
        return self.tokenizer.encode_batch_fast(*args, **options)

if sys.argv[2] == "tokenizer":
    from gpt2wgpu.tokenizer import Tokenizer
    found = Tokenizer(Path(sys.argv[1]), kind="gpt2", vocab=99, lower_case=False)
    found._tokenizer = Told(found._tokenizer)
    found.plain(["a" * 60_000])
elif sys.argv[2] == "training":
    import random
    from gpt2wgpu.train.vocabulary import train_tokenizer
    def texts():
        for seed in range(10_000):
            yield "".join(random.Random(seed).choices("abcdefgh", k=400))
        print("begun", flush=True)
    train_tokenizer(texts(), vocab=1 << 22, min_frequency=1, lower_case=False)
else:
    from gpt2wgpu import Encoder
    encoder = Encoder(sys.argv[1], device="numpy")
    encoder.tokenizer._tokenizer = Told(encoder.tokenizer._tokenizer)
    encoder.encode(["a" * 4000] if sys.argv[2] == "encoder" else ["a"] * 1_000_000)
"""


@pytest.mark.parametrize("what", ["tokenizer", "encoder", "many texts", "training"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_does_not_wait_for_the_library(tmp_path: Path, what: str, sent: signal.Signals):
    """The pattern, which backtracks, and the training need minutes, all of them in one call of native code."""
    tiny.save(tmp_path, tiny.gpt2_config(vocab_size=99))
    rust = Rust(models.BPE({"a": 0, "<|endoftext|>": 1}, []))
    rust.pre_tokenizer = pre_tokenizers.Split(Regex("(a{1,1400}a{1,1400})(?<!a)"), "isolated")
    rust.save(str(tmp_path / "tokenizer.json"))
    args = [sys.executable, "-c", SCRIPT, str(tmp_path), what]
    with subprocess.Popen(args, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(sent)
        try:
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == (143 if sent == signal.SIGTERM else -signal.SIGINT)
    assert ("KeyboardInterrupt" in errors) == (sent == signal.SIGINT) and "panicked" not in errors


def test_an_id_of_a_hundred_million_takes_no_memory(tmp_path: Path):
    rust = Rust(models.WordLevel({"a": 10**8, "b": 1}, unk_token="b"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.save(str(tmp_path / "tokenizer.json"))
    found = count_tokens(find_tokenizer(tmp_path), ["a b a", "a"])
    assert found.frequent == [("a", 10**8, 3), ("b", 1, 1)] and (found.tokens, found.unused) == (4, 0)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt"])
def test_files_that_are_none(tmp_path: Path, name: str):
    for file, source in {"vocab.json": "encoder.json", "merges.txt": "vocab.bpe"}.items():
        if file != name:
            (tmp_path / file).symlink_to(GPT2 / source)  # a link to a file is fine
    os.mkfifo(tmp_path / name)
    refusal(lambda: gpt2(tmp_path), tmp_path / name, "not a regular file")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    refusal(lambda: gpt2(tmp_path), tmp_path / name, "not a regular file")
    (tmp_path / name).unlink()
    if name == "tokenizer.json":  # not as if there were none
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
        refusal(lambda: gpt2(tmp_path), tmp_path / name, "cannot be read")
        (tmp_path / name).unlink()
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 1 << 40)
    refusal(lambda: gpt2(tmp_path), tmp_path / name, "bytes, expected at most")


def test_a_text_that_fails_is_named(tmp_path: Path):
    rust = Rust(models.WordLevel({"a": 0}, unk_token="?"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path, kind="", vocab=9, lower_case=False)
    assert ids(tokenizer, "a a") == [0, 0]
    refusal(lambda: tokenizer.encode(["a"] * 1500 + ["b", "c"], 9, 100), "text 1600 cannot be tokenised", "leave it out")
