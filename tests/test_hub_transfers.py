"""Failures while files are transferred: retried, resumed or refused in one line, and no partial file is kept as complete."""

import errno
import gzip
import hashlib
import os
import subprocess
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from encoders import refusal
from hubs import cache, weights_of
from loopback_hub import Hub
from process import command, environment

from gpt2wgpu.hub import find_model, pull_model


def test_a_dropped_connection_goes_on_where_it_broke(hub: Hub, gpt2: Path, waits: list[float]):
    content, sha256 = weights_of(gpt2)
    hub.fault(sha256, keep=1000)
    hub.fault(sha256, keep=500)
    assert (find_model("gpt2") / "model.safetensors").read_bytes() == content
    assert [r.headers.get("range") for r in hub.requests if sha256 in r.path] == [None, "bytes=1000-", "bytes=1500-"]
    assert waits == [1, 1]


def test_a_download_that_broke_off_is_resumed_by_the_next_process(
    hub: Hub, gpt2: Path, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
):
    content, sha256 = weights_of(gpt2)
    hub.fault(sha256, keep=1000)
    hub.fault(sha256, keep=0, times=100)
    message = refusal(lambda: find_model("gpt2"))
    assert f"(1,000 of {len(content):,} bytes" not in message and f"1,000 of {len(content):,} bytes are here" in message
    assert "run it again to resume" in message
    assert (cache(tmp_path) / "blobs" / f"{sha256}.incomplete").read_bytes() == content[:1000]
    assert not (cache(tmp_path) / "refs" / "main").exists()
    hub.faults.clear()
    hub.requests.clear()
    done = subprocess.run(command("pull", "gpt2"), capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"downloading gpt2 ({len(content):,} bytes)\n"
    assert (Path(done.stdout.strip()) / "model.safetensors").read_bytes() == content
    assert [r.headers.get("range") for r in hub.requests if sha256 in r.path] == ["bytes=1000-"]
    assert len(hub.fetched()) == 1


def test_a_server_without_ranges_starts_again(hub: Hub, gpt2: Path, waits: list[float]):
    content, sha256 = weights_of(gpt2)
    hub.fault(sha256, keep=1000)
    hub.fault(sha256, ranges=False)
    assert (find_model("gpt2") / "model.safetensors").read_bytes() == content


@pytest.mark.parametrize("partial", ["wrong", "too long", "whole", "whole but wrong"])
def test_a_partial_file_that_is_something_else(partial: str, hub: Hub, gpt2: Path, tmp_path: Path, waits: list[float]):
    content, sha256 = weights_of(gpt2)
    blobs = cache(tmp_path) / "blobs"
    blobs.mkdir(parents=True)
    size = len(content)
    found = {"wrong": b"x" * 1000, "too long": content + b"x", "whole": content, "whole but wrong": b"x" * size}[partial]
    (blobs / f"{sha256}.incomplete").write_bytes(found)
    assert (find_model("gpt2") / "model.safetensors").read_bytes() == content
    assert sum(sha256 in r.path for r in hub.requests) == {"wrong": 2, "too long": 2, "whole": 0, "whole but wrong": 1}[partial]


def test_a_wrong_checksum_is_fetched_again_once(hub: Hub, gpt2: Path, tmp_path: Path, waits: list[float]):
    content, sha256 = weights_of(gpt2)

    def flip(body: bytes) -> bytes:
        return body[:-1] + bytes([body[-1] ^ 1])

    hub.fault(sha256, change=flip)
    assert (find_model("gpt2") / "model.safetensors").read_bytes() == content
    (cache(tmp_path) / "blobs" / sha256).unlink()
    hub.fault(sha256, change=flip, times=100)
    hub.requests.clear()
    assert "model.safetensors of gpt2 arrived twice with another checksum than" in refusal(lambda: find_model("gpt2"))
    assert sum(sha256 in r.path for r in hub.requests) == 2
    assert not [*(cache(tmp_path) / "blobs").glob(f"{sha256}*")]


@pytest.mark.parametrize("change", [lambda body: body[:-9], lambda body: body + b"more"])
def test_another_size_than_announced(change: Callable[[bytes], bytes], hub: Hub, gpt2: Path, tmp_path: Path, waits: list[float]):
    sha256 = weights_of(gpt2)[1]
    hub.fault(sha256, change=change, times=100)
    assert "model.safetensors of gpt2 did not arrive" in refusal(lambda: find_model("gpt2"))
    assert not (cache(tmp_path) / "blobs" / sha256).exists()


@pytest.mark.parametrize("match", ["/resolve/.*/config.json", "weights"])
def test_a_file_without_end(match: str, hub: Hub, gpt2: Path, tmp_path: Path, waits: list[float]):
    """Given up where it is larger than announced."""
    content, sha256 = weights_of(gpt2)
    hub.fault(f"GET .*{sha256 if match == 'weights' else match}", endless=True, times=9)
    message = refusal(lambda: find_model("gpt2"))
    size = len(content if match == "weights" else (gpt2 / "config.json").read_bytes())
    assert f"did not arrive from {hub.endpoint} (more than the announced {size:,} bytes arrived; " in message
    assert not [*(cache(tmp_path) / "blobs").glob("*.incomplete")]


def test_a_compressed_file_without_end(hub: Hub, gpt2: Path, tmp_path: Path, waits: list[float]):
    """Some kilobytes that would be a gigabyte."""
    bomb = gzip.compress(b" " * (1 << 26))
    hub.fault("GET .*/resolve/.*/config.json", change=lambda body: bomb, headers={"Content-Encoding": "gzip"}, times=9)
    written: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt2wgpu.hub.download.os.fsync", lambda file: written.append(os.fstat(file).st_size))
        message = refusal(lambda: find_model("gpt2"))
    assert "bytes arrived" in message and max(written) < 1 << 24


def test_a_system_that_forbids_sha1_for_security(hub: Hub, gpt2: Path, monkeypatch: pytest.MonkeyPatch):
    """As FIPS does; git's checksums are not for security."""

    def sha1(data: bytes = b"", *, usedforsecurity: bool = True) -> object:
        if usedforsecurity:
            raise ValueError("disabled for FIPS")
        return original(data)

    original = hashlib.sha1
    fips = SimpleNamespace(**{**vars(hashlib), "sha1": sha1})
    monkeypatch.setattr("gpt2wgpu.hub.download.hashlib", fips)
    assert find_model("gpt2").is_dir()


def test_a_small_file_has_a_checksum_too(hub: Hub, gpt2: Path, tmp_path: Path, waits: list[float]):
    """That of git, which is its ETag, or else a mirror's own: then the file is fetched twice and has to be the same again."""
    content = (gpt2 / "config.json").read_bytes()
    hub.fault("GET .*/resolve/.*/config.json", change=lambda body: body.replace(b"32", b"23"))
    folder = find_model("gpt2")
    assert (folder / "config.json").read_bytes() == content
    assert sum(path.endswith("/config.json") for path in hub.fetched()) == 2
    (folder / "config.json").resolve().unlink()
    hub.fault("(HEAD|GET) .*/resolve/.*/config.json", headers={"ETag": f'"{hashlib.sha1(content).hexdigest()}"'}, times=3)
    assert (pull_model("gpt2") / "config.json").read_bytes() == content
    hub.faults.clear()
    (folder / "config.json").resolve().unlink()
    for other in (b"23", b"2 "):
        hub.fault("GET .*/resolve/.*/config.json", change=lambda body, other=other: body.replace(b"32", other))
    assert "config.json of gpt2 arrived twice with another checksum" in refusal(lambda: pull_model("gpt2"))
    hub.faults.clear()
    hub.fault("(HEAD|GET) .*/resolve/.*/config.json", headers={"ETag": 'W/"5f3e-1a2b"'}, times=3)
    assert (pull_model("gpt2") / "config.json").exists()


def test_a_proxy_that_compresses_whatever_is_asked(hub: Hub, gpt2: Path, waits: list[float]):
    """The length that it gives is not that of the file."""
    hub.fault(f"GET /blob/{weights_of(gpt2)[1]}", change=gzip.compress, headers={"Content-Encoding": "gzip"}, times=9)
    assert (find_model("gpt2") / "model.safetensors").read_bytes() == weights_of(gpt2)[0]
    assert waits == []


def test_416_for_ever(hub: Hub, gpt2: Path, waits: list[float]):
    sha256 = weights_of(gpt2)[1]
    hub.fault(sha256, keep=1000)
    hub.fault(sha256, status=416, times=9)
    assert "model.safetensors of gpt2 did not arrive" in refusal(lambda: find_model("gpt2"))


def test_bytes_from_elsewhere_are_not_taken(hub: Hub, gpt2: Path, waits: list[float]):
    content, sha256 = weights_of(gpt2)
    hub.fault(sha256, keep=1000)
    hub.fault(sha256, headers={"Content-Range": f"bytes 500-{len(content) - 1}/{len(content)}"})
    assert (find_model("gpt2") / "model.safetensors").read_bytes() == content
    assert [r.headers.get("range") for r in hub.requests if sha256 in r.path] == [None, "bytes=1000-", None]


def test_no_disk_space(hub: Hub, gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Noticed before the weights are asked for, and where it fills up on the way."""
    sha256 = weights_of(gpt2)[1]
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: usage(1 << 40, 1 << 40, 2000))
        message = refusal(lambda: find_model("gpt2"))
    assert message.startswith("gpt2 needs ") and " more and the disk of " in message and " has 2,000 bytes: make room" in message
    assert not [r for r in hub.requests if sha256 in r.path]

    def full(self: Path, mode: str = "r", *args: object, **options: object) -> object:
        if self.name == f"{sha256}.incomplete":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, mode, *args, **options)

    opened = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        assert "make room, or choose another disk" in refusal(lambda: find_model("gpt2"))


def test_a_cache_folder_that_is_a_file(hub: Hub, gpt2: Path, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    assert "cannot be written (" in refusal(lambda: find_model("gpt2", cache_folder=tmp_path / "file"))
