"""Going on with corpora: after a crash at every step of the work, and what must be as it was."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from corpora import Silent, embed, make_texts, read_output, tiny_model, write_texts
from encoders import refusal, tiny_gpt2

from gpt2wgpu import Encoder, UserError, corpus, files
from gpt2wgpu.corpus import journal

pytestmark = pytest.mark.usefixtures("small_corpora")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(tiny_model(tmp_path_factory.mktemp("model")), device="numpy", max_tokens=64)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


# --- a process that ends at any moment


class Crash(BaseException):
    """The process is gone: nothing that touches the disk works from here on."""


def crashing(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """Every step that changes the disk, counted; from step `at` on they raise. A write stops halfway through."""
    steps = 0

    def step() -> bool:
        nonlocal steps
        steps += 1
        if steps > at:
            raise Crash
        return steps == at

    def wrap(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*args: object, **options: object) -> object:
            if step():
                raise Crash
            return original(*args, **options)

        monkeypatch.setattr(owner, name, wrapped)

    write = journal.write_at

    def half_a_write(file: object, position: int, data: bytes) -> None:
        last = step()
        write(file, position, data[: len(data) // 2] if last else data)  # type: ignore[arg-type]
        if last:
            raise Crash

    monkeypatch.setattr(journal, "write_at", half_a_write)
    for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "rmdir"), (os, "fsync")):
        wrap(owner, name)
    return lambda: steps


@pytest.mark.parametrize("output", ["o.npy", "o.jsonl", "o.parquet", "shards/"])
def test_a_crash_at_every_step(encoder: Encoder, tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch):
    """However far it comes, going on gives the bytes of a run that was never stopped, and leaves nothing behind."""
    source = write_texts(tmp_path / "a.txt", make_texts(8))
    monkeypatch.setattr(corpus, "SHARD_BYTES", 6 * 32)
    (tmp_path / "whole").mkdir()
    embed(encoder, source, f"{tmp_path}/whole/{output}")
    expected = contents(tmp_path / "whole")
    for at in range(1, 1000):
        folder = tmp_path / "crashed"
        folder.mkdir()
        with monkeypatch.context() as patch:
            steps = crashing(patch, at)
            with suppress(Crash):
                embed(encoder, source, f"{folder}/{output}")
            assert steps() >= at or contents(folder) == expected
        finished = steps() < at
        if not output.endswith("/"):
            assert contents(folder).get(output) in (None, expected[output])  # under its name, complete or not at all
        resumed = (folder / f"{output.rstrip('/')}.part").exists() and (folder / f"{output.rstrip('/')}.part/state.json").exists()
        if resumed or not contents(folder).keys() >= expected.keys():
            embed(encoder, source, f"{folder}/{output}", resume=resumed)
        assert contents(folder) == expected, at
        shutil.rmtree(folder)
        if finished:
            break
    assert 20 < at < 1000


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


# --- what resuming refuses and allows


@pytest.fixture
def stopped(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A source and an output of which six texts of eight are done."""
    source, output = write_texts(tmp_path / "a.txt", make_texts(8)), f"{tmp_path}/o.npy"
    original = journal.Journal.append

    def append(self: journal.Journal, *args: object, row: int, **options: object) -> None:
        if row == 6:
            raise OSError(28, "No space left on device")
        original(self, *args, row=row, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
        patch.setattr(journal.Journal, "append", append)
        embed(encoder, source, output)
    assert caught.value.filename == output and not Path(output).exists()
    before = contents(tmp_path)
    yield source, output
    assert Path(output).exists() or {k: v for k, v in contents(tmp_path).items() if k in before} == before


def test_what_must_be_as_it_was(encoder: Encoder, stopped: tuple[Path, str], tmp_path: Path):
    source, output = stopped
    assert "o.npy.part holds 6 finished texts: go on with --resume, or delete it" in refusal(
        lambda: embed(encoder, source, output)
    )

    def message(model: Encoder = encoder, **options: object) -> str:
        return refusal(lambda: embed(model, source, output, resume=True, **options))

    assert "--normalize is True here and False there" in message(normalize_embeddings=True)
    assert "precision is 'int8' here" in message(precision="int8")
    assert "prompt is 't1 ' here and '' there" in message(prompt="t1 ")
    assert "--no-truncate is False here and True there" in message(truncate=False)
    folder = encoder.checkpoint.path
    assert "layer is 0 here and 1 there" in message(Encoder(folder, device="numpy", layer=0))
    assert "max_seq_length is 5 here" in message(Encoder(folder, device="numpy", max_seq_length=5))
    assert "dimensions is 4 here and 8 there" in message(Encoder(folder, device="numpy", truncate_dim=4))
    other = tiny_gpt2(tmp_path / "other", change={"h.0.mlp.c_fc.bias": lambda a: a + np.float32(1e-6)})
    assert "this is another model" in message(Encoder(other, device="numpy"))
    shutil.rmtree(tmp_path / "other")


def test_the_texts_done_must_be_the_same(encoder: Encoder, stopped: tuple[Path, str]):
    source, output = stopped
    texts = make_texts(8)
    for changed in (
        ["t1 t1", *texts[1:]],
        texts[1:],
        texts[:5],
        ["", *texts],
        [*texts[:5], "t9"],
        [texts[0] + texts[1], *texts[2:]],
    ):
        write_texts(source, changed)
        assert "the first 6 texts are not those it was made of" in refusal(lambda: embed(encoder, source, output, resume=True))
    write_texts(source, texts)


def test_texts_that_are_not_done_may_change(encoder: Encoder, stopped: tuple[Path, str]):
    """A broken line is corrected, lines are added: the output is that of the input as it is now."""
    source, output = stopped
    texts = [*make_texts(8)[:6], "t1 t2", "t3", "t4 t5"]
    write_texts(source, texts)
    report = embed(encoder, source, output, resume=True)
    assert "going on after 6 texts" in report.said[0] and "the texts done are the same in both" in report.said[1]
    np.testing.assert_allclose(np.load(output), encoder.encode(texts), atol=1e-5)


def test_texts_may_be_added_when_all_were_done(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The last window was a short one."""
    texts = make_texts(9)
    source = write_texts(tmp_path / "a.txt", texts[:8])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(corpus.Job, "finish", interrupted)
        embed(encoder, source, f"{tmp_path}/o.npy")
    embed(encoder, write_texts(source, texts), f"{tmp_path}/o.npy", resume=True)
    np.testing.assert_allclose(np.load(tmp_path / "o.npy"), encoder.encode(texts), atol=1e-5)


def test_texts_may_be_added_and_the_work_be_stopped_again(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The short window that was the last one stays where it is, and is not looked for elsewhere."""
    texts = make_texts(20)
    source = tmp_path / "a.txt"
    for n in (8, 13, 14):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(corpus.Job, "finish", interrupted)
            embed(encoder, write_texts(source, texts[:n]), f"{tmp_path}/o.jsonl", resume=n > 8)
    embed(encoder, write_texts(source, texts), f"{tmp_path}/o.jsonl", resume=True)
    found, vectors = read_output(tmp_path / "o.jsonl")
    assert found == texts
    np.testing.assert_allclose(vectors, encoder.encode(texts), atol=1e-5)


@pytest.mark.parametrize("output", ["o.npy", "o.jsonl", "o.parquet"])
@pytest.mark.parametrize("last", ["advance", "remove"])
def test_texts_are_added_to_an_output_that_has_its_name(
    encoder: Encoder, tmp_path: Path, output: str, last: str, monkeypatch: pytest.MonkeyPatch
):
    """A process that ended before it could remove the journal had finished: its rows are in no journal to go on with."""
    texts = make_texts(12)
    source = write_texts(tmp_path / "a.txt", texts[:8])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(*((journal.Journal, "advance") if last == "advance" else (journal, "remove")), interrupted)
        embed(encoder, source, f"{tmp_path}/{output}")
    before = (tmp_path / output).read_bytes()
    if not (unnoted := last == "advance" and output != "o.npy"):
        with corpus.open_workspace(f"{tmp_path}/{output}", resume=True) as work:
            assert work.complete
        assert (tmp_path / output).read_bytes() == before
    embed(encoder, write_texts(source, texts), f"{tmp_path}/{output}", resume=unnoted)
    np.testing.assert_allclose(read_output(tmp_path / output)[1], encoder.encode(texts), atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", output]


def test_names_are_on_the_disk_before_a_state_counts_on_them(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file system may bring a folder's names down in any order, unless it is told to: a power cut could leave a state alone."""
    source = write_texts(tmp_path / "a.txt", make_texts(20))
    monkeypatch.setattr(corpus, "SHARD_BYTES", 6 * 32)
    part, shards = tmp_path / "shards.part", tmp_path / "shards"
    down: dict[Path, set[str]] = {}
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def synced(fd: int) -> None:
        for folder in (tmp_path, part, shards):
            if folder.exists() and os.path.samestat(os.fstat(fd), folder.stat()):
                down[folder] = {p.name for p in folder.iterdir()}
        fsync(fd)

    def replaced(self: Path, target: Path) -> Path:
        if target.name == "state.json":
            state = json.loads(self.read_bytes())
            assert "shards.part" in down[tmp_path]
            assert state["rows"] == state["first"] or {"vectors.npy", "texts.jsonl"} <= down[part]
            if state["shards"]:
                assert "shards" in down[tmp_path] and f"part-{state['shards'] - 1:05}.parquet" in down[shards]
        return replace(self, target)

    def unlinked(self: Path, missing_ok: bool = False) -> None:
        down.get(self.parent, set()).discard(self.name)  # what gets this name next is another file
        unlink(self, missing_ok)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(Path, "unlink", unlinked)
    embed(encoder, source, f"{tmp_path}/shards/")
    assert len([*shards.iterdir()]) > 2


@pytest.mark.parametrize("output", ["o.npy", "o.tsv"])
def test_old_ranges_stay_with_an_old_output(encoder: Encoder, tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch):
    embed(encoder, write_texts(tmp_path / "a.txt", make_texts(5)), f"{tmp_path}/{output}", precision="int8")
    before = contents(tmp_path)
    source = write_texts(tmp_path / "b.txt", make_texts(9))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Silent, "writing", interrupted)
        embed(encoder, source, f"{tmp_path}/{output}", precision="int8")
    assert {name: data for name, data in contents(tmp_path).items() if name in before} == before
    embed(encoder, source, f"{tmp_path}/{output}", precision="int8", resume=True)
    (tmp_path / "whole").mkdir()
    embed(encoder, source, f"{tmp_path}/whole/{output}", precision="int8")
    whole = contents(tmp_path / "whole")
    assert whole == {name: data for name, data in contents(tmp_path).items() if name in whole} and len(whole) == 2


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


def test_cut_texts_are_counted_over_all_runs(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    long = "t1 " * 40
    source = write_texts(tmp_path / "a.txt", ["t1", long, "t2", long, "t3"])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(corpus.Job, "finish", interrupted)
        embed(encoder, source, f"{tmp_path}/o.npy")
    with pytest.warns(UserWarning, match="2 of 5 texts had more than 32 tokens"):
        embed(encoder, source, f"{tmp_path}/o.npy", resume=True)
    with pytest.raises(UserError, match="text 1 has 40 tokens"):
        embed(encoder, source, f"{tmp_path}/p.npy", truncate=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "o.npy"]


def test_the_same_texts_from_another_file(encoder: Encoder, stopped: tuple[Path, str]):
    source, output = stopped
    lines = [json.dumps({"text": text}) + "\n" for text in make_texts(8)]
    source.with_name("a.jsonl").write_text("".join(lines))
    embed(encoder, source.with_name("a.jsonl"), output, resume=True)
    np.testing.assert_allclose(np.load(output), encoder.encode(make_texts(8)), atol=1e-5)


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
        (told[:40], state, "cannot be understood"),
        (b"[]", state, "cannot be understood"),
        (told.replace(b'"version": 2', b'"version": 1'), state, "another version"),
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


def test_a_work_folder_that_is_not_ours(encoder: Encoder, tmp_path: Path):
    source = write_texts(tmp_path / "a.txt", ["t1"])
    (tmp_path / "o.npy.part").mkdir()
    (tmp_path / "o.npy.part/notes.txt").write_text("mine")
    assert "holds 'notes.txt', which is not ours" in refusal(lambda: embed(encoder, source, f"{tmp_path}/o.npy", resume=True))
    assert contents(tmp_path) == {"a.txt": b"t1\n", "o.npy.part/notes.txt": b"mine"}


def test_one_process_at_a_time(encoder: Encoder, tmp_path: Path):
    source = write_texts(tmp_path / "a.txt", ["t1"])
    with corpus.open_workspace(f"{tmp_path}/o.npy", resume=False):
        for resume in (False, True):
            message = refusal(lambda resume=resume: embed(encoder, source, f"{tmp_path}/o.npy", resume=resume))
            assert "another process is writing it" in message
    embed(encoder, source, f"{tmp_path}/o.npy")


def test_a_window_takes_seconds(encoder: Encoder, monkeypatch: pytest.MonkeyPatch):
    """A slow model has windows of fewer batches, so that rows are kept, and told of, as often as a fast one's."""
    monkeypatch.setattr(corpus, "BATCHES", 16)
    operations = 2 * (encoder.checkpoint.parameters - encoder.checkpoint.config.vocab * encoder.checkpoint.config.width)
    for speed, batches in ((1e15, 16), (5 * 64 * operations / corpus.SECONDS, 5), (1.0, 2)):
        monkeypatch.setitem(corpus.SPEED, "numpy", speed)
        assert corpus.window_of(encoder) == [batches * 3, batches * 4 * 64]
