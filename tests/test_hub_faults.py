"""A hub that is unreachable or refuses: one line each, and no partial file under its final name."""

import os
import subprocess
from pathlib import Path

import pytest
from encoders import refusal
from hubs import weights_of
from loopback_hub import Hub
from process import command, environment

from gpt2wgpu import Encoder, __version__
from gpt2wgpu.hub import find_model, pull_model
from gpt2wgpu.hub.session import error_reason

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


def test_a_password_is_not_shown_in_errors_of_libraries():
    """Some versions of them name the address that they could not reach."""
    error = ConnectionError("\nno answer from http://me:hunter2@proxy:3128/x, nor from (me:hunter2@proxy)\nat all")
    assert error_reason(error) == "no answer from http://***@proxy:3128/x, nor from (***@proxy)"
    assert error_reason(TimeoutError()) == "TimeoutError"


def test_requests_do_not_say_what_is_installed(hub: Hub, gpt2: Path):
    """And the environment of the process stays unchanged."""
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
