"""Processes that end at any moment: after each step of the work, the next run gives the bytes of one that was never stopped."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from corpora import Silent, contents, embed, interrupted, make_texts, tiny_model, write_texts

from gpt2wgpu import Encoder
from gpt2wgpu.corpus import job, journal

pytestmark = pytest.mark.usefixtures("small_corpora")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(tiny_model(tmp_path_factory.mktemp("model")), device="numpy", max_tokens=64)


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
    """However far a run comes, resuming gives the bytes of one that was never stopped, and leaves nothing behind."""
    source = write_texts(tmp_path / "a.txt", make_texts(8))
    monkeypatch.setattr(job, "SHARD_BYTES", 6 * 32)
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


def test_names_are_on_the_disk_before_a_state_counts_on_them(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without fsync a file system may write names and bytes in any order: a power cut could leave state.json alone."""
    source = write_texts(tmp_path / "a.txt", make_texts(20))
    monkeypatch.setattr(job, "SHARD_BYTES", 6 * 32)
    part, shards = tmp_path / "shards.part", tmp_path / "shards"
    down: dict[Path, set[str]] = {}
    sizes: dict[int, int] = {}  # that are on the disk, by inode
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def synced(fd: int) -> None:
        for folder in (tmp_path, part, shards):
            if folder.exists() and os.path.samestat(os.fstat(fd), folder.stat()):
                down[folder] = {p.name for p in folder.iterdir()}
        sizes[os.fstat(fd).st_ino] = os.fstat(fd).st_size
        fsync(fd)

    def bytes_are_down(path: Path) -> bool:
        return sizes.get(path.stat().st_ino) == path.stat().st_size

    def replaced(self: Path, target: Path) -> Path:
        assert bytes_are_down(self)
        if target.name == "state.json":
            state = json.loads(self.read_bytes())
            assert "shards.part" in down[tmp_path]
            assert state["rows"] == state["first"] or {"vectors.npy", "texts.jsonl"} <= down[part]
            assert all(bytes_are_down(path) for path in part.glob("[vt]*"))
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
