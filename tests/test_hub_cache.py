"""The cache that programs share: ours finds what others left there, and they find ours (loopback_hub.py)."""

import errno
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny
from encoders import refusal
from hubs import cache, sentence_model
from loopback_hub import Hub, commit_of
from process import environment

from gpt2wgpu import Encoder
from gpt2wgpu.hub import find_model, pull_model


def test_huggingface_hub_finds_what_is_in_the_cache(hub: Hub, gpt2: Path, tmp_path: Path):
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    folder = pull_model("gpt2")
    where = str(tmp_path / "hf" / "hub")
    assert try_to_load_from_cache("gpt2", "config.json", cache_dir=where) == str(folder / "config.json")
    assert snapshot_download("gpt2", cache_dir=where, local_files_only=True, allow_patterns="config.json") == str(folder)


def test_a_snapshot_of_another_program_is_taken_as_it_is(hub: Hub, gpt2: Path, tmp_path: Path):
    """It has no .no_exist notes: a program that downloads a whole snapshot writes none."""
    commit = commit_of(hub.repositories["gpt2"].files)
    folder = cache(tmp_path) / "snapshots" / commit
    folder.mkdir(parents=True)
    for file in (*gpt2.glob("*.json"), *gpt2.glob("*.safetensors")):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / ".gitattributes").touch()  # every repository of the hub begins with it
    (cache(tmp_path) / "refs").mkdir()
    (cache(tmp_path) / "refs" / "main").write_text(commit)
    assert find_model("gpt2") == folder
    assert hub.requests == []
    tree = cache(tmp_path) / "trees" / f"{commit}.json"
    tiny.write_json(tree, {"files": {"modules.json": {}}})  # it is known to have one
    assert find_model("gpt2") == folder
    assert hub.requests != []


def test_files_that_were_downloaded_one_by_one_are_no_whole_snapshot(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """hf_hub_download of files that exist leaves no notes, nor does Rust's hf-hub: it may well be a sentence model."""
    from huggingface_hub import hf_hub_download

    original = sentence_model(tmp_path / "original")
    hub.add("me/bert", original)
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        hf_hub_download("me/bert", file, endpoint=hub.endpoint, cache_dir=tmp_path / "hf" / "hub")
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.warns(UserWarning, match="does not say whether it has a modules.json"):
            find_model("me/bert")
    vector = Encoder("me/bert", device="numpy").encode("t1")
    np.testing.assert_array_equal(vector, Encoder(original, device="numpy").encode("t1"))


def test_a_file_of_the_cache_that_lost_its_end_is_fetched_again_by_pull(hub: Hub, gpt2: Path):
    folder = pull_model("gpt2")
    for file in ("config.json", "model.safetensors"):
        (folder / file).resolve().write_bytes(b"{")
    assert "download it again" in refusal(lambda: Encoder("gpt2", device="numpy"))
    hub.requests.clear()
    assert pull_model("gpt2") == folder
    assert [path.rsplit("/", 1)[1] for path in hub.fetched()] == ["config.json", "model.safetensors"]
    assert all((folder / file).read_bytes() == (gpt2 / file).read_bytes() for file in ("config.json", "model.safetensors"))
    hub.requests.clear()
    pull_model("gpt2")
    assert len(hub.requests) == 1


def test_pull_of_what_is_there_writes_nothing(hub: Hub, gpt2: Path, monkeypatch: pytest.MonkeyPatch):
    """A cache that others filled may be read-only."""
    folder = pull_model("gpt2")

    def refuse(self: Path, *args: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    assert pull_model("gpt2") == folder


def test_a_usable_snapshot_is_used_where_it_cannot_be_completed(hub: Hub, gpt2: Path):
    """Whatever the reason: here it is a hub that does not give the model any more."""
    folder = pull_model("gpt2")
    (folder.parent.parent / ".no_exist" / folder.name / "adapter_config.json").unlink()
    hub.repositories["gpt2"].token = "hf_secret"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HF_TOKEN", raising=False)
        lacking = r"gpt2 is used as it is in .*, where files may be missing: http.* \(401\): check"
        with pytest.warns(UserWarning, match=lacking) as warned:
            assert find_model("gpt2") == folder
        assert warned[0].filename == __file__
    assert hub.requests != []


def test_two_pulls_at_once_download_once(hub: Hub, gpt2: Path, tmp_path: Path):
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(pull_model("gpt2"))) for _ in range(4)]
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
        assert find_model("gpt2").is_relative_to(tmp_path / variable / inside / "models--gpt2")
    assert find_model("gpt2", cache_folder=tmp_path / "own").is_relative_to(tmp_path / "own")


def test_a_cached_model_starts_without_network_and_without_huggingface_hub(hub: Hub, gpt2: Path):
    pull_model("gpt2")
    hub.requests.clear()
    code = """if True:
        import sys
        from gpt2wgpu import Encoder
        assert Encoder("gpt2", device="numpy").encode("t1").shape == (8,)
        print([name for name in ("huggingface_hub", "httpx", "httpx2", "requests", "tqdm", "wgpu") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment())
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert hub.requests == []


def test_a_cache_that_transformers_filled_in_part_is_completed(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without modules.json a sentence model would be read as a plain transformer: silently wrong."""
    hub.add("me/bert", sentence_model(tmp_path / "original"))
    folder = pull_model("me/bert")
    for file in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        (folder / file).unlink()
    (folder / "1_Pooling").rmdir()
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.warns(UserWarning, match="does not say whether it has a modules.json"):
            assert find_model("me/bert") == folder
    assert find_model("me/bert") == folder
    assert (folder / "modules.json").exists() and (folder / "1_Pooling" / "config.json").exists()


@pytest.mark.parametrize("file", ["sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer_config.json"])
def test_a_file_that_changes_vectors_and_may_be_missing_is_named(file: str, hub: Hub, tmp_path: Path):
    """Such as the one with the limit of a text's tokens. A pull brings it."""
    hub.add("me/bert", sentence_model(tmp_path / "original"))
    folder = pull_model("me/bert")
    (folder / file).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.warns(UserWarning, match=f"does not say whether it has a {file}, .*: run `gpt2wgpu pull me/bert`"):
            assert find_model("me/bert") == folder
    assert pull_model("me/bert") == folder and (folder / file).exists()
