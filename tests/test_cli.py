"""The command line with the built-in model: what is printed, where, and with which exit code."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from process import Run

import gpt2wgpu
import gpt2wgpu.gpu
from gpt2wgpu import Encoder
from gpt2wgpu.cli import main
from gpt2wgpu.devices.selftest import forward_cases
from gpt2wgpu.train.selftest import backward_cases
from gpt2wgpu.vectors.measures import METRICS

A, B = "The cat is sleeping", "A feline is resting"
LONG = "word " * 1000


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(device="numpy")


def records(text: str) -> np.ndarray:
    return np.array([r["embedding"] for r in json.loads(text)], np.float32)


# --- embed


def test_one_sentence_gives_one_object(run: Run, encoder: Encoder, tmp_path: Path):
    expected = encoder.encode(A)
    for args in (("--sentence", A), (A,), ("-s", A)):
        code, out, err = run("embed", *args)
        assert (code, err) == (0, "") and out.endswith("}\n") and out.count("\n") == 1
        found = json.loads(out)
        assert list(found) == ["sentence", "embedding", "dimensions"]
        assert found["sentence"] == A and found["dimensions"] == len(expected) == len(found["embedding"])
        assert np.array_equal(np.float32(found["embedding"]), expected)  # to the last bit
    run("embed", A, "-o", tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == out


def test_several_sentences_give_an_array_in_order(run: Run, encoder: Encoder):
    texts = ["é 🙂", A, "", B]
    code, out, _ = run("embed", "-s", texts[0], "--sentence", A, "", B)
    assert code == 0 and [r["sentence"] for r in json.loads(out)] == texts
    assert np.array_equal(records(out), encoder.encode(texts))


def test_a_file_gives_a_row_for_every_line(run: Run, encoder: Encoder, tmp_path: Path):
    texts = [A, "", B, "last"]
    data = "\ufeff" + "\r\n".join(texts)
    (tmp_path / "a.txt").write_bytes(data.encode())
    expected = encoder.encode(texts)
    for args, stdin in ((("-i", tmp_path / "a.txt"), b""), (("--input", "-"), data.encode())):
        code, out, _ = run("embed", *args, stdin=stdin)
        assert code == 0 and [r["sentence"] for r in json.loads(out)] == texts
        assert np.array_equal(records(out), expected)
    (tmp_path / "one.txt").write_text(A)
    assert isinstance(json.loads(run("embed", "-i", tmp_path / "one.txt")[1]), list)  # whatever the file holds
    for suffix in (".npy", ".jsonl", ".tsv", ".safetensors", ".npz", ".json"):
        assert run("embed", "-i", tmp_path / "a.txt", "-o", tmp_path / f"v{suffix}") == (0, "", "")
    assert np.array_equal(np.load(tmp_path / "v.npy"), expected)


def test_a_column_of_a_table(run: Run, encoder: Encoder, tmp_path: Path):
    (tmp_path / "a.tsv").write_text(f"id\tone\ttwo\n1\t{A}\t{B}\n")
    _, out, _ = run("embed", "-i", tmp_path / "a.tsv", "--column", "two")
    assert np.array_equal(records(out), encoder.encode([B]))
    code, out, err = run("embed", "-i", tmp_path / "a.tsv")
    assert (code, out) == (1, "") and "'id', 'one', 'two'" in err and err.count("\n") == 1


def test_options_reach_the_encoder(run: Run):
    cases = {
        ("--layer", "2"): {"layer": 2},
        ("--pooling", "max"): {"pooling": "max"},
        ("--truncate-dim", "32", "--normalize"): {"truncate_dim": 32},
        ("--max-seq-length", "3", "--max-tokens", "64"): {"max_seq_length": 3},
        ("--model", str(Path(gpt2wgpu.__file__).parent / "model"), "--dtype", "float32"): {},
    }
    for args, options in cases.items():
        code, out, _ = run("embed", B, *args)
        with pytest.warns(UserWarning) if "max_seq_length" in options else pytest.MonkeyPatch.context():
            (expected,) = Encoder(device="numpy", **options).encode([B], normalize_embeddings="--normalize" in args)
        assert code == 0 and np.array_equal(np.float32(json.loads(out)["embedding"]), expected), args
    prompted = run("embed", "sleeping", "--prompt", "The cat is ")[1]
    assert np.array_equal(records(f"[{prompted}]"), records(f"[{run('embed', A)[1]}]"))


def test_a_cut_text_is_one_line_on_stderr(run: Run):
    for args in (("embed", LONG), ("embed", LONG, A), ("similarity", "--sentence1", LONG, "--sentence2", A)):
        code, out, err = run(*args)
        assert code == 0 and out and re.fullmatch(r"warning: 1 of [12] texts .* tokens and were cut there.*\n", err)
        code, out, err = run(*args, "--no-truncate")
        assert (code, out) == (1, "") and re.fullmatch(r"error: text 0 .*\n", err)


@pytest.mark.parametrize(
    "args",
    [
        ["embed"],
        ["embed", A, "--input", "a.txt"],
        ["embed", A, "--column", "text"],
        ["embed", A, "--layer", "two"],
        ["embed", "--no-such-option"],
        ["similarity"],
        ["similarity", "--sentence1", A],
        ["similarity", "--matrix", "a.txt", "--sentence1", A],
        ["similarity", "--sentence1", A, "--sentence2", B, "--output", "a.npy"],
        ["no-such-command"],
    ],
)
def test_wrong_usage(run: Run, args: list[str]):
    code, out, err = run(*args)
    assert code == 2 and out == "" and "Error" in err


@pytest.mark.parametrize(
    "args, message",
    [
        (["embed", "-i", "nope.txt"], "nope.txt: No such file or directory"),
        (["embed", "-i", "empty.txt"], "empty.txt: there are no texts"),
        (["embed", "-i", "latin.txt"], "line 2 is not UTF-8"),
        (["embed", A, "-o", "a.xls"], "must end in"),
        (["embed", A, "-o", "nope/a.npy"], "no folder"),
        (["embed", A, "--model", "nope"], "nope"),
        (["embed", A, "--model", "."], "config.json"),
        (["embed", A, "--layer", "7"], "layer must be"),
        (["embed", A, "--pooling", "best"], "pooling must be"),
        (["embed", A, "--dtype", "int4"], "dtype must be"),
        (["embed", A, "--dtype", "float16"], "float16"),
        (["embed", A, "--prompt-name", "query"], "prompt_name"),
        (["embed", A, "--device", "no such device"], "no such device"),
        (["embed", "half \ud83d a pair"], "surrogate"),
        (["similarity", "--matrix", "nope.txt"], "nope.txt: No such file or directory"),
        (["similarity", "--matrix", "good.txt", "-o", "a.npz"], "must end in"),
        (["info", "--model", "nope\nfolder"], r"nope\\nfolder"),
    ],
)
def test_an_error_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], message: str):
    monkeypatch.chdir(tmp_path)
    for name, data in {"empty.txt": b"", "latin.txt": b"a\n\xe9\n", "good.txt": b"a\nb\n"}.items():
        Path(name).write_bytes(data)
    before = sorted(tmp_path.iterdir())
    code, _, err = run(*args)
    assert code == 1 and re.fullmatch(r"error: [^\n]+\n", err) and re.search(message, err), err
    assert sorted(tmp_path.iterdir()) == before


def test_a_bad_line_far_down_leaves_no_file(run: Run, tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"a\n" * 6000 + b"\xff\n")
    for suffix in (".npy", ".npz"):
        code, _, err = run("embed", "-i", tmp_path / "a.txt", "-o", tmp_path / f"v{suffix}", "--layer", "0")
        assert code == 1 and "line 6001 is not UTF-8" in err
        assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]


def test_a_bug_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Encoder, "encode_stream", broken)
    with pytest.raises(ZeroDivisionError):
        main(["embed", A])


# --- the device


def test_falling_back_to_numpy_is_said_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "a.txt").write_text(f"{A}\n{B}\n")
    monkeypatch.setattr(gpt2wgpu.gpu, "choose_adapter", lambda wanted: None)
    commands = (
        ("embed", A),
        ("similarity", "--sentence1", A, "--sentence2", B),
        ("similarity", "--matrix", tmp_path / "a.txt"),
    )
    for args in commands:
        assert run(*args)[2] == run(*args, "--device", "numpy")[2] == ""  # asked for: nothing to say
    monkeypatch.delenv("GPT2WGPU_DEVICE")
    for args in commands:
        code, out, err = run(*args)
        assert code == 0 and out and re.fullmatch(r"[^\n]*numpy on the CPU\n", err)


def test_a_device_that_is_asked_for_says_nothing(device: gpt2wgpu.gpu.Device, run: Run):
    values = []
    for name in ("numpy", device.adapter.index):
        code, out, err = run("embed", A, "--device", name, "--dtype", "float32")
        assert (code, err) == (0, "")
        values.append(np.float32(json.loads(out)["embedding"]))
    assert np.abs(values[0] - values[1]).max() < 1e-4


# --- similarity


def test_similarity(run: Run, encoder: Encoder):
    a, b = encoder.encode([A, B])
    head = f'Sentence 1: "{A}"\nSentence 2: "{B}"\n\n'
    args = ("similarity", "--sentence1", A, "--sentence2", B)
    cosine = METRICS["cosine_similarity"].function(a, b)
    assert 0.3 < cosine < 1
    assert run(*args) == (0, f"{head}Cosine similarity: {cosine:.4f} (higher = more similar, range -1 to 1)\n", "")
    lines = [f"{m.label}: {m.function(a, b):.4f} ({m.meaning})\n" for m in METRICS.values()]
    assert len(lines) == 5
    assert run(*args, "--all-metrics") == (0, head + "".join(lines), "")
    expected = {name: m.function(a, b) for name, m in METRICS.items()}
    assert json.loads(run(*args, "--all-metrics", "--json")[1]) == {"sentence1": A, "sentence2": B, **expected}
    assert json.loads(run(*args, "--json")[1]) == {"sentence1": A, "sentence2": B, "cosine_similarity": cosine}
    assert run("similarity", "--sentence1", A, "--sentence2", A)[1].splitlines()[-1].startswith("Cosine similarity: 1.0000 ")


def test_a_sentence_does_not_drive_the_terminal(run: Run):
    _, out, _ = run("similarity", "--sentence1", "red \x1b[31m\nnew line", "--sentence2", "non-breaking\xa0space 👩‍🚀")
    assert r'"red \x1b[31m\nnew line"' in out and '"non-breaking\xa0space 👩‍🚀"' in out


def test_matrix(run: Run, encoder: Encoder, tmp_path: Path):
    texts = [A, B, "Stock markets fell sharply today."]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    expected = encoder.similarity_matrix(texts)
    code, out, err = run("similarity", "--matrix", tmp_path / "a.txt")
    assert (code, err) == (0, "") and all(text in out for text in texts)
    table = [line.split() for line in out.splitlines()[-4:]]
    assert table[0] == ["1", "2", "3"]
    assert table[1:] == [[str(i), *(f"{x:.4f}" for x in row)] for i, row in enumerate(expected, 1)]
    found = json.loads(run("similarity", "--matrix", "-", "--json", stdin="\n".join(texts).encode())[1])
    assert found["sentences"] == texts and np.array_equal(np.float32(found["similarity"]), expected)
    assert run("similarity", "--matrix", tmp_path / "a.txt", "-o", tmp_path / "m.npy") == (0, "", "")
    assert np.array_equal(np.load(tmp_path / "m.npy"), expected)


# --- info and doctor


def test_info(run: Run, encoder: Encoder):
    code, out, _ = run("info", "--json", "--layer", "3")
    found = json.loads(out)
    assert code == 0 and found["device"]["name"] == "numpy" and found["device"]["reason"]
    assert found["model"] == Encoder(device="numpy", layer=3).info()
    assert len(found["adapters"]) == len(gpt2wgpu.gpu.list_adapters())
    code, out, _ = run("info")
    for name, value in encoder.info().items():
        assert re.search(rf"^  {name} +{re.escape(f'{value:,}' if isinstance(value, int) else value)}$", out, re.M)


def test_info_of_a_device(device: gpt2wgpu.gpu.Device, run: Run):
    found = json.loads(run("info", "--json", "--device", device.adapter.index)[1])["device"]
    assert found["name"] == str(device.adapter) and found["features"]["shader-f16"] == device.has_f16
    assert found["limits"]["max-storage-buffer-binding-size"] >= 1 << 27
    assert re.search("shader-f16 +(yes|no)", run("info", "--device", device.adapter.index)[1])


def test_doctor_on_numpy(run: Run):
    code, out, err = run("doctor")
    assert (code, err) == (0, "") and "numpy" in out


def test_doctor_on_a_device(device: gpt2wgpu.gpu.Device, run: Run, monkeypatch: pytest.MonkeyPatch):
    """With a case of each op; tests/test_doctor.py tries all of them, in the form that a GPU gets."""
    first, trained = ([*{c.op: c for c in reversed(cases)}.values()] for cases in (forward_cases(False), backward_cases()))
    monkeypatch.setattr("gpt2wgpu.diagnose.doctor.forward_cases", lambda half: first)
    monkeypatch.setattr("gpt2wgpu.train.selftest.backward_cases", lambda: trained)
    code, out, err = run("doctor", "--device", device.adapter.index)
    assert (code, err) == (0, "") and str(device.adapter) in out and "BAD" not in out and "FAILED" not in out
    assert all(name in out for name in ("attention", "built-in model", "attention_dqkv", "training step"))


# --- the page people read


def test_help_and_version(run: Run):
    code, out, _ = run("--help")
    assert code == 0 and all(
        word in out for word in ("embed", "similarity", "evaluate", "train", "tokens", "info", "doctor", "--version", "stderr")
    )
    assert max(map(len, out.splitlines())) <= 200
    for name in ("embed", "similarity", "evaluate", "train", "info", "doctor"):
        code, out, _ = run(name, "--help")
        assert code == 0 and "--model" in out and "--device" in out
    assert run("--version") == (0, f"gpt2wgpu {gpt2wgpu.__version__}\n", "")
