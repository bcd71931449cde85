"""Models by name, end to end against a hub of the tests' own (loopback_hub.py) that misbehaves as real ones do."""

import errno
import hashlib
import json
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from encoders import add_tokenizer, refusal, tiny_gpt2
from loopback_hub import Hub, commit_of, serve
from process import Run, command, environment

from gpt2wgpu import Encoder
from gpt2wgpu.hub import BUILT_IN, find, pull, session

NOT_OURS = (".bin", ".onnx", ".h5", ".pt", ".msgpack", ".md")


@pytest.fixture(scope="module")
def served() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


@pytest.fixture
def hub(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, an empty cache, and no waiting."""
    from huggingface_hub import constants

    for kept in (served.repositories, served.requests, served.faults):
        kept.clear()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read when it was imported, in whatever test
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    yield served
    assert not [r for r in served.requests if r.path.endswith(NOT_OURS)]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited."""
    waited: list[float] = []
    monkeypatch.setattr(session, "time", SimpleNamespace(sleep=waited.append))
    return waited


@pytest.fixture
def gpt2(hub: Hub, tmp_path: Path) -> Path:
    """The folder that the hub has as gpt2, with what is of no use here."""
    folder = tiny_gpt2(tmp_path / "gpt2-original")
    for name in ("pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "README.md", "flax_model.msgpack"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not for us")
    hub.add("gpt2", folder)
    return folder


def sentence_model(folder: Path) -> Path:
    """A BERT with a Dense and a Normalize, as sentence-transformers has them."""
    tiny.sentence_model(folder, tiny.bert_config(), "Pooling", "Dense", "Normalize")
    tiny.save_dense(folder / "2_Dense", 8, 4)
    tiny.write_json(folder / "sentence_bert_config.json", {"max_seq_length": 5})
    tiny.write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "t1 "}})
    return add_tokenizer(folder, 13)


def cache(tmp_path: Path, name: str = "gpt2") -> Path:
    return tmp_path / "hf" / "hub" / f"models--{name.replace('/', '--')}"


def weights_of(folder: Path) -> tuple[bytes, str]:
    content = (folder / "model.safetensors").read_bytes()
    return content, hashlib.sha256(content).hexdigest()


# --- as it should be


def test_a_name_is_downloaded_once_and_only_what_is_needed(hub: Hub, gpt2: Path, tmp_path: Path):
    vector = Encoder("gpt2", device="numpy").encode("t1 t2")
    np.testing.assert_array_equal(vector, Encoder(gpt2, device="numpy").encode("t1 t2"))
    files = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert {path.rsplit("/", 1)[1] for path in hub.fetched()} == files
    folder = cache(tmp_path)
    commit = commit_of(hub.repositories["gpt2"].files)
    assert (folder / "refs" / "main").read_text() == commit
    assert {p.name for p in (folder / "snapshots" / commit).iterdir()} == files
    assert (folder / "snapshots" / commit / "model.safetensors").resolve() == folder / "blobs" / weights_of(gpt2)[1]
    hub.requests.clear()
    np.testing.assert_array_equal(Encoder("gpt2", device="numpy").encode("t1 t2"), vector)
    assert hub.requests == []


def test_a_sentence_model_comes_with_its_modules(hub: Hub, tmp_path: Path):
    """A bare name, by the rule of sentence-transformers."""
    folder = sentence_model(tmp_path / "original")
    hub.add("sentence-transformers/tiny-bert", folder)
    model = Encoder("tiny-bert", device="numpy")
    assert (model.dimensions, model.max_seq_length, model.prompts) == (4, 5, {"query": "t1 "})
    np.testing.assert_array_equal(model.encode_query("t2"), Encoder(folder, device="numpy").encode("t1 t2"))
    hub.requests.clear()
    Encoder("sentence-transformers/tiny-bert", device="numpy")
    assert hub.requests == []


def test_huggingface_hub_finds_what_is_in_the_cache(hub: Hub, gpt2: Path, tmp_path: Path):
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    folder = pull("gpt2")
    where = str(tmp_path / "hf" / "hub")
    assert try_to_load_from_cache("gpt2", "config.json", cache_dir=where) == str(folder / "config.json")
    assert snapshot_download("gpt2", cache_dir=where, local_files_only=True, allow_patterns="config.json") == str(folder)


def test_what_huggingface_hub_downloaded_is_taken_as_it_is(hub: Hub, gpt2: Path, tmp_path: Path):
    from huggingface_hub import snapshot_download

    where = str(tmp_path / "hf" / "hub")
    files = ["*.json", "*.safetensors", ".gitattributes"]
    commit = commit_of(hub.repositories["gpt2"].files)
    folder = cache(tmp_path) / "snapshots" / commit
    folder.mkdir(parents=True)
    for file in gpt2.glob("*"):
        if file.suffix in (".json", ".safetensors"):
            (folder / file.name).write_bytes(file.read_bytes())
    (cache(tmp_path) / "refs").mkdir()
    (cache(tmp_path) / "refs" / "main").write_text(commit)
    assert snapshot_download("gpt2", cache_dir=where, local_files_only=True, allow_patterns=files) == str(folder)
    assert find("gpt2") == folder
    assert hub.requests == []


def test_a_sharded_model(hub: Hub, tmp_path: Path):
    from safetensors.numpy import load_file, save_file

    folder = tiny_gpt2(tmp_path / "original")
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[:4], "model-00002-of-00002.safetensors": names[4:]}
    for file, inside in shards.items():
        save_file({name: weights[name] for name in inside}, folder / file)
    index = {"weight_map": {name: file for file, inside in shards.items() for name in inside}}
    tiny.write_json(folder / "model.safetensors.index.json", index)
    vector = Encoder(folder, device="numpy").encode("t3")
    (folder / "model.safetensors").unlink()
    hub.add("me/sharded", folder)
    np.testing.assert_array_equal(Encoder("me/sharded", device="numpy").encode("t3"), vector)
    snapshot = find("me/sharded")
    (snapshot / "model-00002-of-00002.safetensors").resolve().unlink()  # as if it had never arrived
    hub.requests.clear()
    np.testing.assert_array_equal(Encoder("me/sharded", device="numpy").encode("t3"), vector)
    assert [path.rsplit("/", 1)[1] for path in hub.fetched()] == ["model-00002-of-00002.safetensors"]
    hub.requests.clear()
    assert find("me/sharded") == snapshot and hub.requests == []


def test_an_index_cannot_name_a_file_elsewhere(hub: Hub, tmp_path: Path):
    folder = tiny_gpt2(tmp_path / "original")
    (folder / "model.safetensors").unlink()
    tiny.write_json(folder / "model.safetensors.index.json", {"weight_map": {"wte.weight": "../../../evil.safetensors"}})
    hub.add("me/evil", folder)
    assert "expected the name of a .safetensors file beside it" in refusal(lambda: find("me/evil"))


def test_revisions(hub: Hub, gpt2: Path, tmp_path: Path):
    """A pinned one is another folder; main is looked up again by pull alone."""
    repository = hub.repositories["gpt2"]
    old = {**repository.files, "config.json": repository.files["config.json"].replace(b'"n_layer": 1', b'"n_layer":  1')}
    repository.commits["v1"] = old
    main, pinned = find("gpt2"), find("gpt2", revision="v1")
    assert (main.name, pinned.name) == (commit_of(repository.files), commit_of(old))
    assert find("gpt2", revision=commit_of(old)) == pinned
    repository.files = {**old, "config.json": old["config.json"].replace(b'"n_layer":  1', b'"n_layer":   1')}
    assert find("gpt2") == main
    hub.requests.clear()
    assert pull("gpt2").name == commit_of(repository.files)
    assert [path.rsplit("/", 1)[1] for path in hub.fetched()] == ["config.json"]
    assert find("gpt2").name == commit_of(repository.files)
    assert "gpt2 has no revision 'v2': give a branch" in refusal(lambda: find("gpt2", revision="v2"))
    for bad in ("../../x", "a//b", "", ".", "a b", "v1/..", "a\\b", "é"):
        assert "is no branch, tag or commit" in refusal(lambda bad=bad: find("gpt2", revision=bad))
    assert "goes with a name on the hub" in refusal(lambda: Encoder(gpt2, revision="v1"))
    assert "goes with a name on the hub, not with the built-in model" in refusal(lambda: Encoder(revision="v1"))


def test_two_pulls_at_once_download_once(hub: Hub, gpt2: Path, tmp_path: Path):
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(pull("gpt2"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 4 and len(set(folders)) == 1
    assert sum(path.endswith("model.safetensors") for path in hub.fetched()) == 1
    assert not [*cache(tmp_path).rglob("*.incomplete")]


def test_cache_folders(hub: Hub, gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is given comes before the environment, as in sentence-transformers and huggingface_hub."""
    for variable, inside in (
        ("XDG_CACHE_HOME", "huggingface/hub"),
        ("HF_HOME", "hub"),
        ("HUGGINGFACE_HUB_CACHE", "."),
        ("HF_HUB_CACHE", "."),
        ("SENTENCE_TRANSFORMERS_HOME", "."),
    ):
        if variable == "XDG_CACHE_HOME":
            monkeypatch.delenv("HF_HOME")
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert find("gpt2").is_relative_to(tmp_path / variable / inside / "models--gpt2")
    assert find("gpt2", cache_folder=tmp_path / "own").is_relative_to(tmp_path / "own")


def test_a_cached_model_starts_without_network_and_without_huggingface_hub(hub: Hub, gpt2: Path):
    pull("gpt2")
    hub.requests.clear()
    code = """if True:
        import sys
        from gpt2wgpu import Encoder
        assert Encoder("gpt2", device="numpy").encode("t1").shape == (8,)
        print([name for name in ("huggingface_hub", "httpx", "httpx2", "requests", "tqdm", "wgpu") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment())
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert hub.requests == []


# --- offline


def test_offline(hub: Hub, gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    message = refusal(lambda: find("gpt2", local_files_only=True))
    assert f"gpt2 is not in {tmp_path / 'hf' / 'hub'}, and local_files_only keeps it from being downloaded" in message
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            assert f"{variable} keeps it from being downloaded: run `gpt2wgpu pull gpt2`" in refusal(lambda: Encoder("gpt2"))
            assert f"{variable} is set" in refusal(lambda: pull("gpt2"))
    assert hub.requests == []
    folder = pull("gpt2")
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find("gpt2") == find("gpt2", local_files_only=True) == folder
    (folder / "model.safetensors").resolve().unlink()
    assert "but without model.safetensors, and HF_HUB_OFFLINE" in refusal(lambda: find("gpt2"))
    assert hub.requests == []


def test_a_cache_that_transformers_filled_in_part_is_completed(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without modules.json a sentence model would be read as a plain transformer: silently wrong."""
    hub.add("me/bert", sentence_model(tmp_path / "original"))
    folder = pull("me/bert")
    for file in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        (folder / file).unlink()
    (folder / "1_Pooling").rmdir()
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.warns(UserWarning, match="does not say whether it has a modules.json"):
            assert find("me/bert") == folder
    assert find("me/bert") == folder
    assert (folder / "modules.json").exists() and (folder / "1_Pooling" / "config.json").exists()


def test_no_network(hub: Hub, gpt2: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert refusal(lambda: find("gpt2")).startswith("http://127.0.0.1:9 cannot be reached for gpt2 (")
    assert waits == [1]
    for endpoint in ("huggingface.co", "ftp://x", "http://"):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert "expected an address such as" in refusal(lambda: find("gpt2"))


def test_what_is_no_hub(hub: Hub, gpt2: Path):
    hub.fault("GET /api", status=200, times=9)
    assert "does not answer as a hub does: check HF_ENDPOINT" in refusal(lambda: find("gpt2"))


# --- what a hub refuses


def test_tokens(hub: Hub, gpt2: Path, monkeypatch: pytest.MonkeyPatch):
    """401 and 403; a token goes to the hub, and not to where it redirects."""
    hub.add("me/private", gpt2, token="hf_secret")
    hub.add("me/gated", gpt2, token="hf_secret", gated=True)
    message = refusal(lambda: find("me/private"))
    assert "(401): check the name; if it is private, try with a token (token=, HF_TOKEN or `hf auth login`)" in message
    assert "me/gated is gated (403): accept its conditions at " in refusal(lambda: find("me/gated"))
    assert "try with another token" in refusal(lambda: find("me/private", token="hf_wrong"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    find("me/gated")
    monkeypatch.delenv("HF_TOKEN")
    hub.requests.clear()
    Encoder("me/private", token="hf_secret", device="numpy")
    assert {r.headers.get("authorization") for r in hub.requests if not r.cdn} == {"Bearer hf_secret"}
    assert [r.headers.get("authorization") for r in hub.requests if r.cdn] == [None, None]


def test_404(hub: Hub, gpt2: Path, tmp_path: Path):
    assert "there is no model me/nothing on http" in refusal(lambda: find("me/nothing"))
    assert "there is no model sentence-transformers/nothing on" in refusal(lambda: Encoder("nothing"))
    hub.fault("HEAD .*tokenizer.json", status=404, headers={"X-Error-Code": "EntryNotFound"})
    assert "gpt2 has no tokenizer.json (404), though it is listed" in refusal(lambda: find("gpt2"))
    hub.fault("GET /blob/", status=404)
    assert "gpt2 has no tokenizer.json (404)" in refusal(lambda: find("gpt2"))
    hub.faults.clear()
    assert find("gpt2").is_dir()


def test_models_without_safetensors(hub: Hub, gpt2: Path):
    files = hub.repositories["gpt2"].files
    weights = files.pop("model.safetensors")
    message = refusal(lambda: find("gpt2"))
    assert "gpt2 has only pytorch_model.bin, a pickle, which could run code and is never read: take a revision" in message
    files.pop("pytorch_model.bin")
    assert "gpt2 has no model.safetensors" in refusal(lambda: find("gpt2"))
    files["adapter_config.json"] = b"{}"
    assert "gpt2 holds an adapter" in refusal(lambda: find("gpt2"))
    files["model.safetensors"] = weights
    assert "merge it into its model" in refusal(lambda: Encoder("gpt2"))
    del files["config.json"]
    assert "gpt2 has no config.json" in refusal(lambda: pull("gpt2"))


def test_an_architecture_that_cannot_be_computed_is_refused_before_its_weights_are_there(hub: Hub, gpt2: Path):
    hub.repositories["gpt2"].files["config.json"] = b'{"model_type": "t5"}'
    assert "model_type is 't5'" in refusal(lambda: find("gpt2"))
    assert not [path for path in hub.fetched() if path.endswith(".safetensors")]


def test_429(hub: Hub, gpt2: Path, waits: list[float], capsys: pytest.CaptureFixture[str]):
    """Waited for as it asks, in every kind of request."""
    busy = {"status": 429, "headers": {"Retry-After": "7"}}
    for match in ("GET /api", "HEAD .*config.json", "GET .*/resolve/.*config.json", "GET /blob/"):
        hub.fault(match, **busy)
    hub.fault("GET /blob/", status=429, headers={"RateLimit": '"api";r=0;t=11'})
    hub.fault("GET /blob/", status=503)
    assert find("gpt2").is_dir()
    assert waits == [7, 7, 7, 7, 11, 4]
    assert f"{hub.endpoint}: it answers 429; asking again in 7 s\n" in capsys.readouterr().err


def test_429_for_ever(hub: Hub, gpt2: Path, waits: list[float]):
    hub.fault("GET /api", status=429, headers={"Retry-After": "1"}, times=100)
    message = refusal(lambda: find("gpt2"))
    assert "has had too many requests, and still says so after 5 attempts (429): wait some minutes" in message
    assert waits == [1] * 4
    hub.faults.clear()
    hub.fault("GET /api", status=429, headers={"Retry-After": "3600"}, times=100)
    assert "asks to wait 3,600 s (it answers 429): try again then" in refusal(lambda: find("gpt2"))
    hub.faults.clear()
    hub.fault("GET /blob/", status=429, headers={"Retry-After": "0"}, times=100)
    assert "tokenizer.json of gpt2 did not arrive from " in refusal(lambda: find("gpt2"))
    assert waits[4:] == [0] * 4


# --- what goes wrong on the way


def test_a_dropped_connection_goes_on_where_it_broke(hub: Hub, gpt2: Path, waits: list[float]):
    content, sha256 = weights_of(gpt2)
    hub.fault(sha256, keep=1000)
    hub.fault(sha256, keep=500)
    assert (find("gpt2") / "model.safetensors").read_bytes() == content
    assert [r.headers.get("range") for r in hub.requests if sha256 in r.path] == [None, "bytes=1000-", "bytes=1500-"]
    assert waits == [1, 1]


def test_a_download_that_broke_off_is_resumed_by_the_next_process(
    hub: Hub, gpt2: Path, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
):
    content, sha256 = weights_of(gpt2)
    hub.fault(sha256, keep=1000)
    hub.fault(sha256, keep=0, times=100)
    message = refusal(lambda: find("gpt2"))
    assert f"(1,000 of {len(content):,} bytes" not in message and f"1,000 of {len(content):,} bytes are here" in message
    assert "run it again, it goes on there" in message
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
    assert (find("gpt2") / "model.safetensors").read_bytes() == content


@pytest.mark.parametrize("partial", ["wrong", "too long", "whole", "whole but wrong"])
def test_a_partial_file_that_is_something_else(partial: str, hub: Hub, gpt2: Path, tmp_path: Path, waits: list[float]):
    content, sha256 = weights_of(gpt2)
    blobs = cache(tmp_path) / "blobs"
    blobs.mkdir(parents=True)
    size = len(content)
    found = {"wrong": b"x" * 1000, "too long": content + b"x", "whole": content, "whole but wrong": b"x" * size}[partial]
    (blobs / f"{sha256}.incomplete").write_bytes(found)
    assert (find("gpt2") / "model.safetensors").read_bytes() == content
    assert sum(sha256 in r.path for r in hub.requests) == {"wrong": 2, "too long": 2, "whole": 0, "whole but wrong": 1}[partial]


def test_a_wrong_checksum_is_fetched_again_once(hub: Hub, gpt2: Path, tmp_path: Path, waits: list[float]):
    content, sha256 = weights_of(gpt2)

    def flip(body: bytes) -> bytes:
        return body[:-1] + bytes([body[-1] ^ 1])

    hub.fault(sha256, change=flip)
    assert (find("gpt2") / "model.safetensors").read_bytes() == content
    (cache(tmp_path) / "blobs" / sha256).unlink()
    hub.fault(sha256, change=flip, times=100)
    hub.requests.clear()
    assert "model.safetensors of gpt2 arrived twice with another checksum than" in refusal(lambda: find("gpt2"))
    assert sum(sha256 in r.path for r in hub.requests) == 2
    assert not [*(cache(tmp_path) / "blobs").glob(f"{sha256}*")]


@pytest.mark.parametrize("change", [lambda body: body[:-9], lambda body: body + b"more"])
def test_another_size_than_announced(change: Callable[[bytes], bytes], hub: Hub, gpt2: Path, tmp_path: Path, waits: list[float]):
    sha256 = weights_of(gpt2)[1]
    hub.fault(sha256, change=change, times=100)
    assert "model.safetensors of gpt2 did not arrive" in refusal(lambda: find("gpt2"))
    assert not (cache(tmp_path) / "blobs" / sha256).exists()


def test_no_disk_space(hub: Hub, gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Noticed before the weights are asked for, and where it fills up on the way."""
    sha256 = weights_of(gpt2)[1]
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: usage(1 << 40, 1 << 40, 2000))
        message = refusal(lambda: find("gpt2"))
    assert message.startswith("gpt2 needs ") and " more and the disk of " in message and " has 2,000 bytes: make room" in message
    assert not [r for r in hub.requests if sha256 in r.path]

    def full(self: Path, mode: str = "r", *args: object, **options: object) -> object:
        if self.name == f"{sha256}.incomplete":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, mode, *args, **options)

    opened = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        assert "make room, or choose another disk" in refusal(lambda: find("gpt2"))


def test_a_cache_folder_that_is_a_file(hub: Hub, gpt2: Path, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    assert "cannot be written (" in refusal(lambda: find("gpt2", cache_folder=tmp_path / "file"))


# --- names


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert find(None) == find("built-in") == BUILT_IN
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    assert find("gpt2") == Path("gpt2")  # a folder that exists comes first
    tricks = ["../gpt2", "a/b/c", "/etc", "a/..", "..", "a--b", "~/x", "a\\b", "x.git", "https://huggingface.co/gpt2", "a b", ""]
    for name in tricks:
        assert find(name) == Path(name)  # a folder or nothing, and no name
        assert "is no name of a model on the hub" in refusal(lambda name=name: pull(name))
    assert "there is no folder ../nothing: give a folder" in refusal(lambda: Encoder("../nothing"))


# --- the commands


def test_commands_take_names(hub: Hub, gpt2: Path, run: Run, tmp_path: Path):
    code, out, err = run("embed", "t1", "--model", "gpt2")
    assert (code, json.loads(out)["dimensions"]) == (0, 8)
    assert err.startswith("downloading gpt2 (")
    text = tmp_path / "texts.txt"
    text.write_text("t1 t2\nt3\n")
    hub.requests.clear()
    assert run("tokens", "count", str(text), "--model", "gpt2")[0] == 0
    assert json.loads(run("info", "--json", "--model", "gpt2")[1])["model"]["model"] == "gpt2"
    assert "numpy is what devices are compared with" in run("doctor", "--model", "gpt2")[1]
    assert hub.requests == []
    assert run("embed", "t1", "--model", "gpt2", "--revision", "v9")[2].startswith("error: gpt2 has no revision 'v9'")


def test_pull_and_models(hub: Hub, gpt2: Path, run: Run, tmp_path: Path):
    code, out, _ = run("pull", "gpt2")
    assert (code, Path(out.strip())) == (0, find("gpt2"))
    assert run("pull", "gpt2", "--revision", "nope")[::2] == (
        1,
        "error: gpt2 has no revision 'nope': give a branch, a tag or a whole commit hash\n",
    )
    code, out, _ = run("models", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert {name for name, row in rows.items() if row["cached"]} == {"gpt2"}
    assert rows["intfloat/e5-small-v2"]["prompts"] == ["query", "passage"]
    assert rows["BAAI/bge-small-en-v1.5"] == {
        "name": "BAAI/bge-small-en-v1.5",
        "million_parameters": 33,
        "megabytes": 133,
        "dimensions": 384,
        "pooling": "cls",
        "prompts": ["query"],
        "cached": False,
    }
    lines = run("models")[1].splitlines()
    assert next(line for line in lines if line.startswith("gpt2 ")).endswith("yes")


def test_training_from_names(hub: Hub, run: Run, tmp_path: Path):
    """A model to fine-tune, and a teacher."""
    hub.add("me/bert", sentence_model(tmp_path / "original"))
    data = tmp_path / "pairs.tsv"
    data.write_text("sentence1\tsentence2\tlabel\n" + "t1 t2\tt3\t1\nt4\tt5 t6\t0\n" * 4)
    code, _, err = run("train", "--data", data, "--model", "me/bert", "--epochs", 1, "-o", tmp_path / "run")
    assert code == 0, err
    texts = tmp_path / "texts.txt"
    texts.write_text("t1 t2\nt3\nt4 t5\n")
    sizes = "--width", 4, "--layers", 1, "--heads", 1, "--context", 8, "--vocab", 260, "--epochs", 1
    code, _, err = run("train", "--data", texts, "--teacher", "me/bert", *sizes, "-o", tmp_path / "taught")
    assert code == 0, err
