"""Tokenizers that are made here, and reports on those of models."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny
from process import Run, command, environment
from refusals import one_line

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.diagnose.token_report import count_tokens, find_tokenizer
from gpt2wgpu.train import vocabulary as making
from gpt2wgpu.train.vocabulary import make_byte_tokenizer, save_tokenizer, train_tokenizer

DATA = Path(__file__).parent.parent / "data_sets"
GPT2 = Path(__file__).parent / "fixtures" / "gpt2_tokenizer"
TEXTS = ["low lower lowest", "new newer newest", "wide wider widest", "low low low"] * 3
AWKWARD = ["Hello World é ﬁ", " x  y\n\tz\r\n", "猫が 🐈‍⬛", "a<|endoftext|>b", "İ ß \x00 \x7f \xa0 \xad", ""]


def test_byte_pairs(tmp_path: Path):
    save_tokenizer(train_tokenizer(TEXTS, vocab=270, min_frequency=2, lower_case=False), tmp_path)
    tokenizer = find_tokenizer(tmp_path)
    vocabulary = sorted(tokenizer.vocabulary().items(), key=lambda item: item[1])
    assert [i for _, i in vocabulary] == [*range(270)] and vocabulary[0][0] == "<|endoftext|>"
    assert set(making.byte_signs()) == {token for token, _ in vocabulary[1:257]}
    merged = [token for token, _ in vocabulary[257:]]
    assert {"lo", "low", "Ġlow"} & set(merged) and all(len(token) > 1 for token in merged)
    first, later = tokenizer.plain(["low", "so low"])
    assert first[-1] == later[-1]  # as if a space came before the text
    byte = {sign: i for i, sign in enumerate(making.byte_signs())}
    names = {i: token for token, i in vocabulary}
    for text in AWKWARD:
        signs = "".join(names[i] for i in tokenizer.plain([text.replace("<|endoftext|>", "")])[0].tolist())
        assert bytes(byte[s] for s in signs).decode().removeprefix(" ") == text.replace("<|endoftext|>", "").removeprefix(" ")


def test_a_minimum_frequency_and_a_small_corpus():
    sizes = [
        train_tokenizer(["abc abd abe"], vocab=1000, min_frequency=n, lower_case=False).get_vocab_size() for n in (1, 2, 3, 4)
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[1] and sizes[3] == 257
    assert train_tokenizer([], vocab=1000, min_frequency=2, lower_case=False).get_vocab_size() == 257
    for wrong in (256, 0, -1):
        with pytest.raises(UserError, match="vocab must be"):
            train_tokenizer([], vocab=wrong, min_frequency=2, lower_case=False)


def test_lower_case(tmp_path: Path):
    save_tokenizer(train_tokenizer(TEXTS, vocab=300, min_frequency=2, lower_case=True), tmp_path)
    tokenizer = find_tokenizer(tmp_path)
    a, b = tokenizer.plain(["LOW ﬁ", "low fi"])
    assert a.tolist() == b.tolist()


def test_characters(tmp_path: Path):
    save_tokenizer(make_byte_tokenizer(lower_case=False), tmp_path)
    tokenizer = find_tokenizer(tmp_path)
    assert tokenizer.plain(["Hello world"])[0].tolist() == [72, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100]
    for text in AWKWARD:
        expected = [i for part in text.split("<|endoftext|>") for i in (*part.encode(), 256)][:-1]
        assert tokenizer.plain([text])[0].tolist() == expected
    assert tokenizer.encode([""], 8)[0][0].tolist() == [256]
    every = bytes(range(1, 128)).decode() + "".join(map(chr, range(128, 2048)))
    assert tokenizer.plain([every])[0].tolist() == [*every.encode()]


@pytest.mark.parametrize("make", ["bpe", "characters"])
def test_a_model_with_a_tokenizer_made_here(tmp_path: Path, make: str):
    tokenizer = (
        make_byte_tokenizer(lower_case=False)
        if make == "characters"
        else train_tokenizer(TEXTS, vocab=290, min_frequency=2, lower_case=True)
    )
    save_tokenizer(tokenizer, tmp_path)
    tiny.save(tmp_path, tiny.gpt2_config(vocab_size=tokenizer.get_vocab_size(), n_positions=40))
    encoder = Encoder(tmp_path, device="numpy")
    vectors = encoder.encode(["low and wide", "", "Zürich 🙂"])
    assert vectors.shape == (3, 8) and len(np.unique(vectors.round(4), axis=0)) == 3
    assert find_tokenizer(tmp_path).vocabulary() == tokenizer.get_vocab()


def test_a_report():
    texts = ["Hello world", "", "Hello  there, Hello"]
    tokenizer = find_tokenizer(GPT2)  # without a model
    assert tokenizer.encode(["Hello world"], 9)[0][0].tolist() == [15496, 995]
    found = count_tokens(tokenizer, iter(texts), most_frequent=2)
    assert (found.texts, found.words, found.tokens, found.longest) == (3, 5, 7, 5)
    assert found.mean == pytest.approx(7 / 3) and found.median == 2 and found.percentile_95 == pytest.approx(4.7)
    assert found.tokens_per_word == 7 / 5 and found.vocabulary == 50257
    assert found.frequent == [("Hello", 15496, 2), (",", 11, 1)]  # "ĠHello" is another one; equal counts by id
    assert found.unused == 50256 - 6 and found.unused_share == found.unused / 50256 and found.unknown == 0


def test_unknown_tokens_and_special_ones(tmp_path: Path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    found = count_tokens(find_tokenizer(tmp_path), ["hello worlds", "quick hello [SEP]"])
    assert (found.tokens, found.unknown, found.unknown_share) == (6, 1, 1 / 6)
    assert found.unused == 0  # special tokens do not count
    with pytest.raises(UserError, match="no texts"):
        count_tokens(find_tokenizer(tmp_path), [])


# --- the commands


def test_create_and_count(run: Run, tmp_path: Path):
    folder = tmp_path / "made"
    code, out, err = run("tokens", "create", DATA / "train.tsv", DATA / "dev.tsv", "--vocab", 900, "--lower-case", "-o", folder)
    assert (code, err) == (0, "") and out == f"{folder}: a vocabulary of 900 tokens\n"
    assert sorted(p.name for p in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    found = json.loads(run("tokens", "count", DATA / "dev.tsv", "--model", folder, "--json")[1])
    assert found["texts"] == 720 and found["vocabulary"] == 900 and 1 < found["tokens_per_word"] < 3
    assert found["frequent"][0] == {"token": "Ġthe", "id": found["frequent"][0]["id"], "count": 1471}
    code, out, err = run("tokens", "count", DATA / "dev.tsv", "--model", folder)
    assert (code, err) == (0, "") and re.search(rf"^tokens +{found['tokens']:,}$", out, re.M) and re.search("1,471.*Ġthe\n", out)
    again = json.loads(run("tokens", "count", DATA / "dev.tsv", "--column", "id", "--model", folder, "--json")[1])
    assert again["texts"] == again["words"] == 360


def test_the_tokens_of_one_text(run: Run, tmp_path: Path):
    run("tokens", "create", "--characters", "-o", tmp_path / "c")
    code, out, err = run("tokens", "count", "--text", "Hello world", "--model", tmp_path / "c")
    assert (code, err) == (0, "")
    assert [int(line.split()[0]) for line in out.splitlines()] == [72, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100]
    found = json.loads(run("tokens", "count", "--text", "Hello world", "--json")[1])  # of the built-in model
    assert [t["token"] for t in found["tokens"]] == ["[CLS]", "hello", "world", "[SEP]"]
    run("tokens", "create", DATA / "dev.tsv", "-o", tmp_path / "b")
    assert run("tokens", "count", "--text", "", "--model", tmp_path / "b")[1].split() == ["0", "<|endoftext|>"]


def test_the_same_texts_give_the_same_files(tmp_path: Path):
    """In processes of their own, with other hashes, other threads and other names."""
    (tmp_path / "a.txt").write_text((DATA / "train.tsv").read_text("utf-8"), "utf-8")
    (tmp_path / "b.txt").write_text((DATA / "train.tsv").read_text("utf-8"), "utf-8")
    found = []
    for name, more in {"a": {"PYTHONHASHSEED": "1"}, "b": {"PYTHONHASHSEED": "2", "TOKENIZERS_PARALLELISM": "false"}}.items():
        args = command("tokens", "create", tmp_path / f"{name}.txt", "-o", tmp_path / name, "--vocab", 3000)
        done = subprocess.run(args, env=environment() | more, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        found.append([(tmp_path / name / file).read_bytes() for file in making.FILES])
    assert found[0] == found[1] and len(json.loads(found[0][0])["model"]["vocab"]) == 3000


def test_fewer_tokens_than_asked_is_said(run: Run, tmp_path: Path):
    (tmp_path / "a.txt").write_text("abc abc\n")
    code, out, err = run("tokens", "create", tmp_path / "a.txt", "-o", tmp_path / "t")
    assert code == 0 and re.search(r"a vocabulary of 2\d\d tokens", out)
    assert re.fullmatch(r"the texts give 2\d\d tokens, not 12,288: [^\n]*\n", err)


@pytest.mark.parametrize(
    "args, code, message",
    [
        (["create", "-o", "new"], 2, "--characters"),
        (["create", "good.txt", "--characters", "-o", "new"], 2, "--characters"),
        (["create", "good.txt"], 2, "--output"),
        (["create", "nope.txt", "-o", "new"], 1, "nope.txt: No such file or directory"),
        (["create", "good.txt", "bad.txt", "-o", "new"], 1, "bad.txt: line 2 is not UTF-8"),
        (["create", "table.csv", "-o", "new"], 1, "no column 'text' or 'sentence'"),
        (["create", "good.txt", "-o", "new", "--vocab", "100"], 1, "vocab must be"),
        (["create", "good.txt", "-o", "good.txt"], 1, "is a file"),
        (["create", "good.txt", "-o", "no/new"], 1, "no folder"),
        (["create", "good.txt", "-o", "model"], 1, "holds a model"),
        (["count"], 2, "--text"),
        (["count", "good.txt", "--text", "a"], 2, "--text"),
        (["count", "nope.txt"], 1, "nope.txt: No such file or directory"),
        (["count", "good.txt", "--model", "nope"], 1, "no folder nope"),
        (["count", "good.txt", "--model", "empty"], 1, "tokenizer.json is missing"),
    ],
)
def test_errors(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, message: str):
    monkeypatch.chdir(tmp_path)
    Path("good.txt").write_text("a text\n")
    Path("bad.txt").write_bytes(b"a\n\xff\n")
    Path("table.csv").write_text("a,b,c\n1,2,3\n")
    Path("empty").mkdir()
    Path("model").mkdir()
    Path("model", "model.safetensors").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    found, out, err = run("tokens", *args)
    assert (found, out) == (code, "") and message in err and (code == 2 or err.count("\n") == 1), err
    assert sorted(tmp_path.rglob("*")) == before


def test_files_appear_complete_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    save_tokenizer(make_byte_tokenizer(lower_case=False), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_tokenizer(make_byte_tokenizer(lower_case=True), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_folder_of_a_model_is_refused(tmp_path: Path):
    tiny.save(tmp_path, tiny.gpt2_config())
    with pytest.raises(UserError) as caught:
        making.check_new_folder(tmp_path)
    one_line(caught.value, tmp_path, "weights")
