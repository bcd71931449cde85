"""The journal of an unfinished corpus: damage is noticed, and others' files are not touched."""

import json
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from corpora import contents, embed, make_texts, read_output, stop_early, tiny_model, write_texts
from encoders import refusal
from fuzzing import CASES, mutate, run_cases

from gpt2wgpu import Encoder, files
from gpt2wgpu.corpus import job, journal

pytestmark = pytest.mark.usefixtures("small_corpora")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(tiny_model(tmp_path_factory.mktemp("model")), device="numpy", max_tokens=64)


@pytest.fixture
def stopped(encoder: Encoder, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A source and an output of which six texts of eight are done. What is refused changes nothing."""
    source, output = stop_early(encoder, tmp_path)
    before = contents(tmp_path)
    yield source, output
    assert Path(output).exists() or {k: v for k, v in contents(tmp_path).items() if k in before} == before


def test_a_torn_journal(encoder: Encoder, stopped: tuple[Path, str]):
    """What is behind the rows that count is cut off; where rows are missing that count, nothing is guessed."""
    source, output = stopped
    part = Path(f"{output}.part")
    vectors, state = part / "vectors.npy", part / "state.json"
    assert np.load(vectors, mmap_mode="r").shape == (6, 8)  # valid as it is
    whole, told = vectors.read_bytes(), state.read_bytes()
    for data, path, message in (
        (whole[:-1], vectors, "is damaged"),
        (b"", vectors, "is damaged"),
        (told[:40], state, "state.json is damaged"),
        (b"[]", state, "state.json is damaged"),
        (told.replace(b'"version": 3', b'"version": 2'), state, "another version"),
    ):
        before = path.read_bytes()
        path.write_bytes(data)
        assert message in refusal(lambda: embed(encoder, source, output, resume=True))
        path.write_bytes(before)
    vectors.write_bytes(b"x" * 128 + whole[128:] + b"garbage" * 100)  # the header is written again, too
    (part / "state.json.new").write_bytes(told[:30])
    (part / ".gpt2wgpu-0.tmp").write_bytes(b"half")
    embed(encoder, source, output, resume=True)
    np.testing.assert_allclose(np.load(output), encoder.encode(make_texts(8)), atol=1e-5)
    assert not part.exists()


@pytest.mark.parametrize("output", ["o.npy", "o.jsonl"])
def test_a_flipped_bit_is_noticed(encoder: Encoder, tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch):
    """Wherever it is; but the header of vectors.npy is written again."""
    monkeypatch.setattr(journal, "BYTES_AT_ONCE", 50)
    source, output = stop_early(encoder, tmp_path, output)
    places = 0
    for path in sorted(Path(f"{output}.part").iterdir()):
        data = path.read_bytes()
        for at in range(128 if path.name == "vectors.npy" else 0, len(data), 7):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            found = refusal(lambda: embed(encoder, source, output, resume=True))
            assert f"{path.name} is damaged" in found or f"{path.name} was written by another version" in found
            places += 1
        path.write_bytes(data)
    assert places > 100
    embed(encoder, source, output, resume=True)
    np.testing.assert_allclose(read_output(Path(output))[1], encoder.encode(make_texts(8)), atol=1e-5)


@pytest.mark.parametrize(
    "name, value",
    [
        ("rows", None),
        ("rows", "6"),
        ("rows", 10**400),
        ("first", -1),
        ("window", 5),
        ("made_with", []),
        ("digest", 1),
        ("new", 1),
    ],
)
def test_wrong_types_are_damage(encoder: Encoder, stopped: tuple[Path, str], name: str, value: object):
    source, output = stopped
    state = Path(f"{output}.part/state.json")
    before = state.read_bytes()
    state.write_text(json.dumps(json.loads(before) | {name: value}))
    assert "state.json is damaged: delete the folder" in refusal(lambda: embed(encoder, source, output, resume=True))
    state.write_bytes(before)


SETUP = """
import os, shutil
sys.path.insert(0, {tests!r})
os.fsync = lambda file: None
from corpora import embed, read_output
from gpt2wgpu import Encoder
encoder = Encoder({model!r}, device="numpy", max_tokens=64)
expected = Path({expected!r}).read_bytes()
"""
CALL = """
        embed(encoder, Path({source!r}), str(path / "o.jsonl"), resume=True)
        assert (path / "o.jsonl").read_bytes() == expected, "another output"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits and signals")
def test_broken_journals(encoder: Encoder, tmp_path: Path):
    """The output of a run that was never stopped, or one line."""
    source, output = stop_early(encoder, tmp_path, "o.jsonl")
    part, cases = Path(f"{output}.part"), []
    embed(encoder, source, f"{tmp_path}/whole.jsonl")
    for i in range(CASES // 2):
        rng = random.Random(i)
        cases.append(tmp_path / f"{i}")
        shutil.copytree(part, cases[-1] / "o.jsonl.part")
        broken = (
            cases[-1] / "o.jsonl.part" / rng.choice(("state.json", "state.json", "vectors.npy", "texts.jsonl", "state.json.new"))
        )
        broken.write_bytes(mutate(broken.read_bytes() if broken.exists() else b"", rng))
    setup = SETUP.format(tests=str(Path(__file__).parent), model=str(encoder.checkpoint.path), expected=f"{tmp_path}/whole.jsonl")
    assert run_cases(cases, setup, CALL.format(source=str(source))) == {}


def test_long_texts_are_not_read_back_together(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each when its row is written: a block of vectors is small, and its texts may not be."""
    read = 0

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(json, name)

        def loads(self, data: bytes) -> object:
            nonlocal read
            read += 1
            return json.loads(data)

    def write(file: object, rows: files.Rows, about: object) -> None:
        for i, _ in enumerate(rows, 1):
            assert read == i

    monkeypatch.setattr(journal, "json", Counting())
    monkeypatch.setitem(files.VECTOR_FORMATS, ".jsonl", write)  # type: ignore[call-overload]
    embed(encoder, write_texts(tmp_path / "a.txt", make_texts(9)), f"{tmp_path}/o.jsonl")
    assert read == 9


def test_a_window_takes_seconds(encoder: Encoder, monkeypatch: pytest.MonkeyPatch):
    """A slow model has windows of fewer batches, so that its rows are saved and shown as often as a fast one's."""
    monkeypatch.setattr(job, "BATCHES", 16)
    operations = 2 * (encoder.checkpoint.parameters - encoder.checkpoint.config.vocab * encoder.checkpoint.config.width)
    for speed, batches in ((1e15, 16), (5 * 64 * operations / job.WINDOW_SECONDS, 5), (1.0, 2)):
        monkeypatch.setitem(job.SPEED, "numpy", speed)
        assert job.choose_window(encoder) == [batches * 3, batches * 4 * 64]
