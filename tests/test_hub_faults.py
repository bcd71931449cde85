"""What a hub refuses, and what goes wrong on the way: one line each, and nothing half done under its own name."""

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

from gpt2wgpu import Encoder, __version__
from gpt2wgpu.hub import find_model, pull_model

# --- no hub


def test_no_network(hub: Hub, gpt2: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert refusal(lambda: find_model("gpt2")).startswith("http://127.0.0.1:9 cannot be reached for gpt2 (")
    assert waits == [1]
    for endpoint in ("huggingface.co", "ftp://x", "http://"):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert "expected an address such as" in refusal(lambda: find_model("gpt2"))


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("HF_ENDPOINT", "http://me:hunter2@127.0.0.1:9", "http://***@127.0.0.1:9 cannot be reached for gpt2 ("),
        ("HF_ENDPOINT", "http://me:hunter2/x@127.0.0.1:9", "HF_ENDPOINT is 'http://***@127.0.0.1:9', expected"),
        ("HF_ENDPOINT", "me:hunter2@127.0.0.1:9", "HF_ENDPOINT is '***@127.0.0.1:9', expected"),
        ("http_proxy", "http://me:hunter2@127.0.0.1:x", ""),  # refused in one of two ways, by the library below huggingface_hub
        ("http_proxy", "nothing://me:hunter2@127.0.0.1:9", ""),
        ("http_proxy", "http://hunter2@127.0.0.1:9", "http://hub.example cannot be reached for gpt2 ("),
    ],
)
def test_passwords_in_addresses_are_not_shown(variable: str, value: str, expected: str, hub: Hub):
    """In a process of its own: proxies are read when the session is made."""
    variables = {key: text for key, text in environment().items() if not key.lower().endswith("_proxy")}
    variables |= {"HF_ENDPOINT": "http://hub.example", variable: value}
    done = subprocess.run(command("pull", "gpt2"), capture_output=True, text=True, env=variables)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"error: {expected}") and "hunter2" not in done.stderr


def test_a_password_is_not_shown_in_answers_of_the_hub(hub: Hub, waits: list[float], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint.replace("//", "//me:hunter2@"))
    shown = hub.endpoint.replace("//", "//***@")
    assert f"there is no model me/nothing on {shown}, and" in refusal(lambda: find_model("me/nothing"))
    for status in (401, 403, 429, 500):
        hub.fault("GET /api", status=status, times=9)
        message = refusal(lambda: find_model("me/nothing"))
        assert shown in message and "hunter2" not in message
        hub.faults.clear()


def test_requests_do_not_say_what_is_installed(hub: Hub, gpt2: Path):
    """And the environment of the process stays as it is."""
    before = dict(os.environ)
    find_model("gpt2")
    assert {r.headers["user-agent"] for r in hub.requests} == {f"gpt2wgpu/{__version__}"} and dict(os.environ) == before


def test_what_is_no_hub(hub: Hub, gpt2: Path):
    hub.fault("GET /api", status=200, times=9)
    assert "does not answer as a hub does: check HF_ENDPOINT" in refusal(lambda: find_model("gpt2"))


LOGIN = b"<html>Log in to this network" + b" " * 300 + b"</html>"


def test_a_page_to_log_in_to_a_network_is_no_file(hub: Hub, gpt2: Path, tmp_path: Path):
    """It comes with status 200 and an ETag, and would stay in the cache as config.json."""
    page = {"status": 200, "body": LOGIN, "headers": {"ETag": '"page"', "Content-Type": "text/html"}}
    hub.fault("HEAD .*config.json", **page)
    hub.fault("GET .*config.json", **page)
    assert "does not answer as a hub does: check HF_ENDPOINT, and proxies" in refusal(lambda: find_model("gpt2"))
    hub.faults.clear()
    assert (find_model("gpt2") / "config.json").read_bytes() == (gpt2 / "config.json").read_bytes()


def test_a_page_in_the_midst_of_a_download_leaves_what_is_there(hub: Hub, gpt2: Path, tmp_path: Path, waits: list[float]):
    content, sha256 = weights_of(gpt2)
    hub.fault(sha256, keep=1000)
    hub.fault(sha256, status=200, body=LOGIN)
    assert (find_model("gpt2") / "model.safetensors").read_bytes() == content
    assert [r.headers.get("range") for r in hub.requests if sha256 in r.path] == [None, "bytes=1000-", "bytes=1000-"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HF_ENDPOINT", "http://127.0.0.1:99999"),
        ("HF_ENDPOINT", "http://[::1"),
        ("HF_HUB_ETAG_TIMEOUT", "ten"),
        ("http_proxy", "http://127.0.0.1:x"),
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("HF_TOKEN", "hf_ü"),
    ],
)
def test_variables_that_cannot_be_read(variable: str, value: str, hub: Hub, gpt2: Path):
    """In a process of its own: huggingface_hub reads some of them when it is imported."""
    variables = {key: text for key, text in environment().items() if not key.lower().endswith("_proxy")}
    variables |= {"HF_ENDPOINT": hub.endpoint, variable: value}
    done = subprocess.run(command("pull", "gpt2"), capture_output=True, text=True, env=variables)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: ") and "hf_ü" not in done.stderr


def test_a_hub_that_lists_files_elsewhere(hub: Hub, gpt2: Path):
    hub.bare = True
    assert find_model("gpt2").is_dir()
    assert any("/tree/" in r.path for r in hub.requests)


# --- what a hub refuses


def test_tokens(hub: Hub, gpt2: Path, monkeypatch: pytest.MonkeyPatch):
    """401 and 403; a token goes to the hub, and not to where it redirects."""
    hub.add("me/private", gpt2, token="hf_secret")
    hub.add("me/gated", gpt2, token="hf_secret", gated=True)
    message = refusal(lambda: find_model("me/private"))
    assert "(401): check the name; if it is private, try with a token (token=, HF_TOKEN or `hf auth login`)" in message
    assert "me/gated is gated (403): accept its conditions at " in refusal(lambda: find_model("me/gated"))
    assert "try with another token" in refusal(lambda: find_model("me/private", token="hf_wrong"))
    for bad in ("hf_a\nb", "hf ab", "hf_ü", ""):
        message = refusal(lambda bad=bad: find_model("me/private", token=bad))
        assert message.startswith("the token for me/private is not valid: expected ") and "ab" not in message
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    find_model("me/gated")
    monkeypatch.delenv("HF_TOKEN")
    hub.requests.clear()
    Encoder("me/private", token="hf_secret", device="numpy")
    assert {r.headers.get("authorization") for r in hub.requests if not r.cdn} == {"Bearer hf_secret"}
    assert [r.headers.get("authorization") for r in hub.requests if r.cdn] == [None, None]


def test_403_of_another_reason(hub: Hub, gpt2: Path):
    """A model that was taken down, a token that may not read, a firewall before the CDN."""
    hub.fault("GET /api", status=403, headers={"X-Error-Message": "Access to this resource is disabled."})
    message = refusal(lambda: find_model("gpt2"))
    assert "answers 403, forbidden, for the list of files of gpt2 ('Access to this resource is disabled.'): try with" in message
    hub.fault("GET /blob/", status=403)
    assert "for tokenizer.json of gpt2 (it does not say why)" in refusal(lambda: find_model("gpt2"))


def test_404(hub: Hub, gpt2: Path, tmp_path: Path):
    assert "there is no model me/nothing on http" in refusal(lambda: find_model("me/nothing"))
    assert "there is no model sentence-transformers/nothing on" in refusal(lambda: Encoder("nothing"))
    hub.fault("HEAD .*tokenizer.json", status=404, headers={"X-Error-Code": "EntryNotFound"})
    assert "gpt2 has no tokenizer.json (404), though it is listed" in refusal(lambda: find_model("gpt2"))
    hub.fault("GET /blob/", status=404)
    assert "gpt2 has no tokenizer.json (404)" in refusal(lambda: find_model("gpt2"))
    hub.faults.clear()
    assert find_model("gpt2").is_dir()


def test_models_without_safetensors(hub: Hub, gpt2: Path):
    files = hub.repositories["gpt2"].files
    weights = files.pop("model.safetensors")
    message = refusal(lambda: find_model("gpt2"))
    assert "gpt2 has only pytorch_model.bin, a pickle, which could run code and is never read: take a revision" in message
    files.pop("pytorch_model.bin")
    assert "gpt2 has no model.safetensors" in refusal(lambda: find_model("gpt2"))
    files["adapter_config.json"] = b"{}"
    assert "gpt2 holds an adapter" in refusal(lambda: find_model("gpt2"))
    files["model.safetensors"] = weights
    assert "merge it into its model" in refusal(lambda: Encoder("gpt2"))
    del files["config.json"]
    assert "gpt2 has no config.json" in refusal(lambda: pull_model("gpt2"))


def test_a_tokenizer_that_cannot_be_read_is_refused_before_the_weights_are_there(hub: Hub, gpt2: Path):
    files = hub.repositories["gpt2"].files
    files["spiece.model"] = files.pop("tokenizer.json")
    assert "gpt2 has no tokenizer.json, and no vocabulary" in refusal(lambda: find_model("gpt2"))
    assert not [path for path in hub.fetched() if path.endswith(".safetensors")]


def test_an_architecture_that_cannot_be_computed_is_refused_before_its_weights_are_there(hub: Hub, gpt2: Path):
    hub.repositories["gpt2"].files["config.json"] = b'{"model_type": "t5"}'
    assert "model_type is 't5'" in refusal(lambda: find_model("gpt2"))
    assert not [path for path in hub.fetched() if path.endswith(".safetensors")]


def test_429(hub: Hub, gpt2: Path, waits: list[float], capsys: pytest.CaptureFixture[str]):
    """Waited for as it asks, in every kind of request."""
    busy = {"status": 429, "headers": {"Retry-After": "7"}}
    for match in ("GET /api", "HEAD .*config.json", "GET .*/resolve/.*config.json", "GET /blob/"):
        hub.fault(match, **busy)
    hub.fault("GET /blob/", status=429, headers={"RateLimit": '"api";r=0;t=11'})
    hub.fault("GET /blob/", status=503)
    assert find_model("gpt2").is_dir()
    assert waits == [7, 7, 7, 7, 11, 4]
    assert f"{hub.endpoint}: it answers 429; asking again in 7 s\n" in capsys.readouterr().err


def test_429_for_ever(hub: Hub, gpt2: Path, waits: list[float]):
    hub.fault("GET /api", status=429, headers={"Retry-After": "1"}, times=100)
    message = refusal(lambda: find_model("gpt2"))
    assert "answers that there are too many requests (429), also after 5 attempts: wait some minutes" in message
    assert waits == [1] * 4
    hub.faults.clear()
    hub.fault("GET /api", status=429, headers={"Retry-After": "3600"}, times=100)
    assert "asks to wait 3,600 s (it answers 429): try again then" in refusal(lambda: find_model("gpt2"))
    hub.faults.clear()
    hub.fault("GET /blob/", status=429, headers={"Retry-After": "0"}, times=100)
    assert "tokenizer.json of gpt2 did not arrive from " in refusal(lambda: find_model("gpt2"))
    assert waits[4:] == [0] * 4


# --- what goes wrong on the way


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
