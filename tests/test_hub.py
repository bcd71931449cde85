"""Models by name, end to end against a hub of the tests' own (loopback_hub.py). Faults: test_hub_faults.py, _transfers.py."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from encoders import refusal, tiny_gpt2
from hubs import cache, sentence_model, weights_of
from loopback_hub import Hub, commit_of
from process import Run

from gpt2wgpu import Encoder
from gpt2wgpu.graph.ops import POOLINGS
from gpt2wgpu.hub import BUILT_IN, find_model, is_name, pull_model, repository
from gpt2wgpu.hub.known import MODELS
from gpt2wgpu.progress import downloading

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


def test_old_files_of_special_tokens_come_along(hub: Hub, gpt2: Path, tmp_path: Path):
    """`transformers` reads them where tokenizer_config.json has no added_tokens_decoder."""
    old = {"special_tokens_map.json": {"additional_special_tokens": ["t1"]}, "added_tokens.json": {"t1": 1}}
    for name, value in old.items():
        (gpt2 / name).write_text(json.dumps(value))
    hub.add("org/old", gpt2)
    (gpt2 / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {}}))
    hub.add("org/new", gpt2)
    assert {p.name for p in find_model("org/old").iterdir()} >= old.keys()
    assert {p.name for p in find_model("org/new").iterdir()} & old.keys() == set()


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


def test_a_chat_template_comes_along(hub: Hub, gpt2: Path):
    """sentence-transformers would render every text of such a plain model through it."""
    (gpt2 / "chat_template.jinja").write_text("{{ messages }}")
    hub.add("org/chat", gpt2)
    assert "has a chat template" in refusal(lambda: Encoder("org/chat", device="numpy"))


@pytest.mark.parametrize("empty", [None, {}])
def test_the_old_file_of_lengths_comes_along(hub: Hub, tmp_path: Path, empty: object):
    """sentence-transformers reads the first that says anything."""
    folder = sentence_model(tmp_path / "original")
    (folder / "sentence_bert_config.json").rename(folder / "sentence_xlnet_config.json")
    if empty is not None:
        tiny.write_json(folder / "sentence_bert_config.json", empty)
    hub.add("me/bert", folder)
    assert Encoder("me/bert", device="numpy").max_seq_length == 5


def test_a_repository_that_was_renamed(hub: Hub, gpt2: Path):
    """As gpt2 is openai-community/gpt2 now: the hub redirects, within itself and then to its CDN."""
    hub.repositories["community/gpt2"] = hub.repositories.pop("gpt2")
    hub.renamed["gpt2"] = "community/gpt2"
    assert (find_model("gpt2") / "model.safetensors").read_bytes() == weights_of(gpt2)[0]


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
    snapshot = find_model("me/sharded")
    (snapshot / "model-00002-of-00002.safetensors").resolve().unlink()  # as if it had never arrived
    hub.requests.clear()
    np.testing.assert_array_equal(Encoder("me/sharded", device="numpy").encode("t3"), vector)
    assert [path.rsplit("/", 1)[1] for path in hub.fetched()] == ["model-00002-of-00002.safetensors"]
    hub.requests.clear()
    assert find_model("me/sharded") == snapshot and hub.requests == []


def test_an_index_cannot_name_a_file_elsewhere(hub: Hub, tmp_path: Path):
    folder = tiny_gpt2(tmp_path / "original")
    (folder / "model.safetensors").unlink()
    tiny.write_json(folder / "model.safetensors.index.json", {"weight_map": {"wte.weight": "../../../evil.safetensors"}})
    hub.add("me/evil", folder)
    assert "expected a plain name of a .safetensors file" in refusal(lambda: find_model("me/evil"))


def test_revisions(hub: Hub, gpt2: Path, tmp_path: Path):
    """A pinned one is another folder; main is looked up again by pull alone."""
    repository = hub.repositories["gpt2"]
    old = {**repository.files, "config.json": repository.files["config.json"].replace(b'"n_layer": 1', b'"n_layer":  1')}
    repository.commits["v1"] = old
    main, pinned = find_model("gpt2"), find_model("gpt2", revision="v1")
    assert (main.name, pinned.name) == (commit_of(repository.files), commit_of(old))
    assert find_model("gpt2", revision=commit_of(old)) == pinned
    repository.commits["refs/pr/2"] = old
    assert find_model("gpt2", revision="refs/pr/2") == pinned
    repository.files = {**old, "config.json": old["config.json"].replace(b'"n_layer":  1', b'"n_layer":   1')}
    assert find_model("gpt2") == main
    hub.requests.clear()
    assert pull_model("gpt2").name == commit_of(repository.files)
    assert [path.rsplit("/", 1)[1] for path in hub.fetched()] == ["config.json"]
    assert find_model("gpt2").name == commit_of(repository.files)
    assert "gpt2 has no revision 'v2': give a branch" in refusal(lambda: find_model("gpt2", revision="v2"))
    for bad in ("../../x", "a//b", "", ".", "a b", "v1/..", "a\\b", "é"):
        assert "is not a branch, tag or commit" in refusal(lambda bad=bad: find_model("gpt2", revision=bad))
    assert "goes with a name on the hub" in refusal(lambda: Encoder(gpt2, revision="v1"))
    assert "goes with a name on the hub, not with the built-in model" in refusal(lambda: Encoder(revision="v1"))


# --- offline


def test_offline(hub: Hub, gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    message = refusal(lambda: find_model("gpt2", local_files_only=True))
    assert (
        f"there is no folder gpt2, and gpt2 is not in {tmp_path / 'hf' / 'hub'}, and local_files_only forbids the download"
        in message
    )
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            assert f"{variable} forbids the download: run `gpt2wgpu pull gpt2` once without it" in refusal(
                lambda: Encoder("gpt2")
            )
            assert f"{variable} is set" in refusal(lambda: pull_model("gpt2"))
    assert hub.requests == []
    folder = pull_model("gpt2")
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find_model("gpt2") == find_model("gpt2", local_files_only=True) == folder
    (folder / "model.safetensors").resolve().unlink()
    assert "but without model.safetensors, and HF_HUB_OFFLINE" in refusal(lambda: find_model("gpt2"))
    assert hub.requests == []


# --- names


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert find_model(None) == find_model("built-in") == BUILT_IN
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    assert find_model("gpt2") == Path("gpt2")  # a folder that exists comes first
    tricks = ["../gpt2", "a/b/c", "/etc", "a/..", "..", "a--b", "~/x", "a\\b", "x.git", "https://huggingface.co/gpt2", "a b"]
    for name in tricks:
        assert find_model(name) == Path(name)  # a folder or nothing, and no name
        assert "is not a model's name on the hub" in refusal(lambda name=name: pull_model(name))
    assert "there is no folder ../nothing: give a folder" in refusal(lambda: Encoder("../nothing"))


def test_an_empty_name_is_refused():
    """It is not the folder that the shell is in."""
    assert "the model's name is empty" in refusal(lambda: Encoder(""))


def test_names_of_the_list():
    for known in MODELS:
        assert is_name(known.name) and repository(known.name) == known.name
        assert known.pooling.split(",")[0] in POOLINGS and known.dimensions > 0 and known.download > known.parameters
    assert len({known.name for known in MODELS}) == len(MODELS)


# --- what is seen of it


def test_a_bar_on_a_terminal_one_line_elsewhere(monkeypatch: pytest.MonkeyPatch):
    class Screen(io.StringIO):
        terminal = True

        def isatty(self) -> bool:
            return self.terminal

    monkeypatch.setenv("TERM", "xterm")
    for terminal, variable, expected in ((True, "", "downloading x "), (False, "", "downloading x (2.0 MB)\n"), (True, "1", "")):
        screen = Screen()
        screen.terminal = terminal
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", screen)
            patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", variable)
            with downloading("x", 2_000_000) as advance:
                advance(1_000_000)
        assert expected in screen.getvalue() and bool(expected) == bool(screen.getvalue())


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
    assert (code, Path(out.strip())) == (0, find_model("gpt2"))
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
        "megabytes": 134,
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
