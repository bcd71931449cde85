"""Broken tokenizer folders: hundreds of random ones (thousands with GPT2WGPU_FUZZ=5000), and those that once failed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizer_fuzz
from process import environment
from vocabularies import refusal

CASES = int(os.environ.get("GPT2WGPU_FUZZ", "200"))
PART = 500  # cases of one process


@pytest.mark.parametrize("first", range(0, CASES, PART))
def test_broken_folders(tmp_path: Path, first: int):
    """No traceback, no panic, nothing on stderr, no end without a word."""
    last = min(first + PART, CASES)
    args = [sys.executable, tokenizer_fuzz.__file__, str(tmp_path), str(first), str(last)]
    done = subprocess.run(args, env=environment(), capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-300:] + done.stderr[-3000:]
    results = [line.replace('"', "'").split(" ", 2) for line in done.stdout.splitlines() if " " in line]
    assert [int(result[0]) for result in results] == [*range(first, last)]
    assert {result[1] for result in results} == {"'read'", "'refused:"}


def template(*pieces: str, tokens: tuple[str, ...] = ("[CLS]",)) -> dict[str, Any]:
    def piece(name: str) -> dict[str, Any]:
        kind, name = ("Sequence", name[1:]) if name[0] == "$" else ("SpecialToken", name)
        return {kind: {"id": name, "type_id": 0}}

    special = {name: {"id": name, "ids": [3], "tokens": [name]} for name in tokens}
    pair = [piece("$A"), piece("$B")]
    return {"type": "TemplateProcessing", "single": [*map(piece, pieces)], "pair": pair, "special_tokens": special}


def processors(*parts: Any) -> dict[str, Any]:
    return {"type": "Sequence", "processors": parts}


BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
EMPTY = {"type": "Replace", "pattern": {"String": ""}, "content": "aa"}
PANICS: dict[str, dict[str, Any]] = {
    "$B alone": {"post_processor": template("[CLS]", "$B")},
    "$A $B": {"post_processor": template("$A", "$B")},
    "$A twice": {"post_processor": template("$A", "[CLS]", "$A")},
    "no text": {"post_processor": template("[CLS]")},
    "templates in a row": {"post_processor": processors(template("$A", "[CLS]"), template("$B"))},
    "an unknown special token": {"post_processor": template("[CLS]", "$A", tokens=())},
    "no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "charsmap": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "charsmap that is short": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "CAAAAAEAAAACAAAA"}},
    "empty pattern": {"normalizer": EMPTY, "pre_tokenizer": BYTES},
    "empty prefix": {"normalizer": {"type": "Prepend", "prepend": ""}, "pre_tokenizer": BYTES},
    "deep": {"normalizer": tokenizer_fuzz.DEEP},
    "pattern": {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
}


@pytest.mark.parametrize("name", PANICS)
def test_what_the_library_fails_on_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str):
    whole: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None}
    vocab = {word: i for i, word in enumerate(tokenizer_fuzz.WORDS)}
    whole |= {
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_fuzz.dump(whole | PANICS[name]))
    refusal(lambda: tokenizer_fuzz.Tokenizer(tmp_path, kind="", vocab=99, lower_case=False), tmp_path / "tokenizer.json")
    assert capfd.readouterr() == ("", "")


def test_what_others_write_to_stderr_meanwhile_is_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    from gpt2wgpu.tokenizer.opening import silent_panics

    with silent_panics():
        os.write(2, b"hello\n")
    assert capfd.readouterr().err == "hello\n"
    (tmp_path / "tokenizer.json").write_text(json.dumps({}))
    refusal(lambda: tokenizer_fuzz.Tokenizer(tmp_path, kind="", vocab=99, lower_case=False), "is not a tokenizer")
    os.write(2, b"again\n")
    assert capfd.readouterr().err == "again\n"
