"""The plugin of `llm`, by its command line. The package has to be installed, so that llm finds the entry point."""

import json
import re
from pathlib import Path

import llm
import pytest
from click.testing import CliRunner
from llm.cli import cli

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.adapters.llm import Gpt2WgpuEmbeddingModel, registered_file

TEXTS = ["The cat is sleeping", "", "A feline is resting"]


@pytest.fixture(autouse=True)
def user_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))


def run(*args: object) -> str:
    result = CliRunner().invoke(cli, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_embed(built_in: Encoder):
    found = json.loads(run("embed", "-m", "gpt2wgpu", "-c", TEXTS[0]))
    assert found == built_in.encode([TEXTS[0]])[0].tolist()


def test_embed_multi_and_similar(built_in: Encoder, tmp_path: Path):
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"id": t, "text": t or " "}) + "\n" for t in TEXTS))
    run("embed-multi", "texts", tmp_path / "texts.jsonl", "--format", "nl", "-m", "gpt2wgpu", "-d", tmp_path / "a.db", "--store")
    lines = run("similar", "texts", "-c", TEXTS[0], "-d", tmp_path / "a.db").splitlines()
    assert json.loads(lines[0])["id"] == TEXTS[0]
    model = llm.get_embedding_model("gpt2wgpu")
    assert list(model.embed_multi(TEXTS)) == built_in.encode(TEXTS).tolist()
    assert list(model.embed_multi([])) == []


def test_the_models_that_are_known():
    found = run("embed-models")
    for name in ("gpt2wgpu", "gpt2wgpu/all-MiniLM-L6-v2", "gpt2wgpu/intfloat/e5-small-v2", "gpt2wgpu/gpt2"):
        assert f": {name}\n" in found
    assert llm.get_embedding_model("gpt2wgpu/all-MiniLM-L6-v2").model == "all-MiniLM-L6-v2"


def test_another_model(folder: Path, encoder: Encoder):
    model = Gpt2WgpuEmbeddingModel("mine", str(folder))
    assert list(model.embed_multi(["t3", "t4 t5"])) == encoder.encode(["t3", "t4 t5"]).tolist()


def test_a_folder_is_registered(folder: Path, encoder: Encoder, tmp_path: Path):
    assert run("gpt2wgpu", "register", folder, "--id", "mine") == "gpt2wgpu/mine\n"
    assert run("gpt2wgpu", "register", folder) == f"gpt2wgpu/{folder.name}\n"
    assert ": gpt2wgpu/mine\n" in run("embed-models")
    assert json.loads(run("embed", "-m", "gpt2wgpu/mine", "-c", "t3")) == encoder.encode("t3").tolist()
    wrong = CliRunner().invoke(cli, ["gpt2wgpu", "register", str(tmp_path / "nothing")])
    assert wrong.exit_code == 1
    assert re.fullmatch(r"Error: .*nothing.*\n", wrong.output)
    registered_file().write_text("[]")
    broken = CliRunner().invoke(cli, ["embed-models"])
    assert broken.exit_code == 1
    assert re.fullmatch(r"Error: .*gpt2wgpu.json is not a JSON object.*\n", broken.output)


def test_errors_are_the_encoders_and_one_line_of_the_command():
    with pytest.raises(UserError, match="no-such-folder"):
        Gpt2WgpuEmbeddingModel("mine", "./no-such-folder").embed("t3")
    result = CliRunner().invoke(cli, ["embed", "-m", "gpt2wgpu/gpt2", "-c", "a"])  # of the hub, and the tests are offline
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: .*gpt2.*\n", result.output)
