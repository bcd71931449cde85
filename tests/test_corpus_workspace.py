"""The folder of unfinished work, and permissions of outputs: others' files are not touched, nobody can read more than before."""

import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest
from corpora import contents, embed, stop_early, tiny_model, write_texts
from encoders import refusal

from gpt2wgpu import Encoder, corpus, files
from gpt2wgpu.corpus import lock, workspace

pytestmark = pytest.mark.usefixtures("small_corpora")
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights and owners")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(tiny_model(tmp_path_factory.mktemp("model")), device="numpy", max_tokens=64)


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


def test_what_a_killed_process_left_is_removed_at_the_start(tmp_path: Path):
    """It may be as large as the output, and the work may take days."""
    (tmp_path / "o.npy.part").mkdir(mode=0o700)
    left = tmp_path / "o.npy.part/.gpt2wgpu-0.tmp"
    left.write_bytes(b"half")
    with corpus.open_workspace(f"{tmp_path}/o.npy", resume=False):
        assert not left.exists()


@posix
def test_a_lock_that_is_removed_while_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The process before has finished in between: its file is nobody's, and a lock on it would keep nobody out."""
    path, taken = tmp_path / "lock", []
    original = lock.try_lock

    def late(file: BinaryIO) -> bool:
        if not taken:
            path.unlink()
        taken.append(file)
        return original(file)

    monkeypatch.setattr(lock, "try_lock", late)
    held = lock.take_lock(path)
    assert held is not None and len(taken) == 2
    with held:
        assert os.path.samestat(path.stat(), os.fstat(held.fileno()))
        assert lock.take_lock(path) is None


@posix
@pytest.mark.parametrize("name", workspace.OURS)
@pytest.mark.parametrize("kind", ["link", "hard link", "folder", "dangling"])
def test_links_in_a_prepared_folder_are_refused(encoder: Encoder, tmp_path: Path, name: str, kind: str):
    """Another user may have put them where we write to in /tmp."""
    source = write_texts(tmp_path / "a.txt", ["t1"])
    part, victim = tmp_path / "o.jsonl.part", tmp_path / "victim"
    part.mkdir()
    victim.write_bytes(b"precious")
    if kind == "link":
        (part / name).symlink_to(victim)
    elif kind == "dangling":
        (part / name).symlink_to(tmp_path / "new")
    elif kind == "folder":
        (part / name).mkdir()
    else:
        (part / name).hardlink_to(victim)
    for resume in (False, True):
        found = refusal(lambda resume=resume: embed(encoder, source, f"{tmp_path}/o.jsonl", resume=resume))
        assert f"{name}: is a link or not a file, expected a file of unfinished work: delete it" in found
    assert victim.read_bytes() == b"precious" and not (tmp_path / "new").exists()


@posix
def test_a_link_that_appears_later_is_not_followed(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Between our look at the folder and our writing."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in workspace.OURS:
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(victim)
        for mode in ("wb", "ab", "r+b", "x+b", "rb"):
            with pytest.raises(OSError, match=r"(?i)symbolic links|exists"):
                files.open_file(tmp_path / "link", mode)
        assert victim.read_bytes() == b"precious", name


@posix
def test_a_folder_that_is_a_link_is_refused(encoder: Encoder, tmp_path: Path):
    source = write_texts(tmp_path / "a.txt", ["t1"])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "o.npy.part").symlink_to(tmp_path / "elsewhere")
    assert "o.npy.part: is not a folder, but its name is needed" in refusal(lambda: embed(encoder, source, f"{tmp_path}/o.npy"))
    assert [*(tmp_path / "elsewhere").iterdir()] == []


@posix
@pytest.mark.parametrize("name", ["o.npy.part", "state.json", "lock"])
def test_another_users_work_is_refused(encoder: Encoder, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    source, output = stop_early(encoder, tmp_path)
    before = contents(tmp_path)
    lstat = Path.lstat

    def foreign(self: Path) -> object:
        found = lstat(self)
        return SimpleNamespace(st_mode=found.st_mode, st_uid=12345, st_nlink=1) if self.name == name else found

    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", foreign)
        found = refusal(lambda: embed(encoder, source, output, resume=True))
    assert f"{name}: belongs to another user (uid 12345)" in found and contents(tmp_path) == before
    embed(encoder, source, output, resume=True)


@posix
def test_what_a_file_server_calls_us_is_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It may give our files to nobody: then a folder that is nobody's may be ours."""
    here = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: here + 1)
    monkeypatch.setattr(Path, "stat", lambda self: SimpleNamespace(st_uid=here + 2))
    assert workspace.trusted_owners(tmp_path / "o.npy.part") == {0, here, here + 1, here + 2}
    assert workspace.trusted_owners(tmp_path / "nowhere" / "o.npy.part") == {0, here + 1, here + 2}


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix
@pytest.mark.parametrize("name", ["o.npy", "o.jsonl", "o.parquet", "o.sqlite"])
def test_rights_are_kept(encoder: Encoder, tmp_path: Path, name: str):
    """A replaced output keeps its permissions; a new one gets those of the umask. Unfinished work is private to its user."""
    source, output = stop_early(encoder, tmp_path, name)
    assert rights(Path(f"{output}.part")) == 0o700
    embed(encoder, source, output, resume=True)
    (tmp_path / "plain").write_bytes(b"")
    assert rights(Path(output)) == rights(tmp_path / "plain")
    for mode in (0o600, 0o640, 0o444):
        Path(output).chmod(mode)
        embed(encoder, source, output)
        assert rights(Path(output)) == mode


@posix
def test_rights_of_another_group_are_not_given_to_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "a.npy"
    target.write_bytes(b"")
    target.chmod(0o664)
    refused = []

    def fchown(*args: object) -> None:
        refused.append(args)
        raise PermissionError

    fstat = os.fstat

    def of_another_group(fd: int) -> object:
        found = fstat(fd)
        return SimpleNamespace(**{name: getattr(found, name) for name in dir(found) if name.startswith("st_")} | {"st_gid": -1})

    monkeypatch.setattr(os, "fchown", fchown)
    monkeypatch.setattr(os, "fstat", of_another_group)
    with files.open_file(tmp_path / "new", "xb", rights=0o600) as file:
        files.keep_permissions(file, target)
    assert refused and rights(tmp_path / "new") == 0o604


@posix
def test_a_file_that_replaces_one_is_at_no_time_open_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not even before it is given the rights of the other."""
    seen, original = [], files.output.keep_permissions

    def noted(file: BinaryIO, target: Path) -> None:
        seen.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode))
        original(file, target)

    monkeypatch.setattr(files.output, "keep_permissions", noted)
    (tmp_path / "o.npy").touch(0o600)
    with files.open_output(f"{tmp_path}/o.npy", files.VECTOR_FORMATS) as (file, write):
        write(file, iter([]), files.OutputFacts(0, {}))
    assert seen == [0o600]
