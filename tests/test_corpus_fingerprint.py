"""The fingerprint of a model: every file that a vector depends on, read once."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from corpora import embed, stop_early, tiny_model
from encoders import add_tokenizer, refusal
from safetensors.numpy import load_file, save_file

from gpt2wgpu import Encoder
from gpt2wgpu.checkpoint import load_checkpoint
from gpt2wgpu.corpus.fingerprint import check_fingerprint, digest_model_files

pytestmark = pytest.mark.usefixtures("small_corpora")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A sentence model whose Dense is in a folder of an unusual name, and its transformer in another."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = tiny.bert_config(max_position_embeddings=32)
    tiny.sentence_model(folder, config, "Pooling", "Dense")
    tiny.save_dense(folder / "2_Dense", config["hidden_size"], 3)
    add_tokenizer(folder, config["vocab_size"])
    (folder / "body").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(folder / "body" / name)
    (folder / "2_Dense").rename(folder / "head")
    entries = json.loads((folder / "modules.json").read_text())
    entries[0]["path"], entries[2]["path"] = "body", "head"
    tiny.write_json(folder / "modules.json", entries)
    return folder


def nudge_weights(path: Path) -> None:
    weights = load_file(path)
    save_file({name: array + np.float32(1e-3) for name, array in weights.items()}, path)


CHANGED = ["head/model.safetensors", "body/model.safetensors", "head/config.json", "body/tokenizer.json", "modules.json"]


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_file_of_any_module_is_another_model(model: Path, tmp_path: Path, name: str):
    """Rows of two models would stand in one output."""
    source, output = stop_early(Encoder(model, device="numpy", max_tokens=64), tmp_path)
    if name.endswith(".safetensors"):
        nudge_weights(model / name)
    else:
        (model / name).write_text((model / name).read_text() + " ")
    changed = Encoder(model, device="numpy", max_tokens=64)
    assert "cannot be resumed: this is another model" in refusal(lambda: embed(changed, source, output, resume=True))


def test_the_model_may_be_elsewhere(model: Path, tmp_path: Path):
    """Its folder may also hold other files."""
    source, output = stop_early(Encoder(model, device="numpy", max_tokens=64), tmp_path)
    shutil.copytree(model, tmp_path / "copy")
    (tmp_path / "copy/README.md").write_text("none of the model's")
    (tmp_path / "copy/training_args.json").write_text("{}")
    embed(Encoder(tmp_path / "copy", device="numpy", max_tokens=64), source, output, resume=True)


def test_files_that_did_not_change_are_read_once(model: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = load_checkpoint(model)
    first = digest_model_files(checkpoint, {})
    read = []
    original = hashlib.file_digest

    def counted(file: object, name: str) -> object:
        read.append(Path(file.name).relative_to(model).as_posix())  # type: ignore[attr-defined]
        return original(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counted)
    assert digest_model_files(checkpoint, json.loads(json.dumps(first))) == first and read == []
    weights = model / "head/model.safetensors"
    data, times = weights.read_bytes(), weights.stat()
    weights.write_bytes(data[:-1] + b"x")  # in its place, of the same size, and with the times of before
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = digest_model_files(checkpoint, first)
    assert read == ["head/model.safetensors"]
    assert {name for name in first if second[name][-1] != first[name][-1]} == {"head/model.safetensors"}


def test_the_token_budget_counts_in_numpy(tmp_path: Path):
    """There a vector's last bits depend on its batch; on a device they do not."""
    folder = tiny_model(tmp_path)
    source, output = stop_early(Encoder(folder, device="numpy", max_tokens=64), tmp_path)
    smaller = Encoder(folder, device="numpy", max_tokens=32)
    assert "--max-tokens is 32 now and was 64" in refusal(lambda: embed(smaller, source, output, resume=True))
    for before, now in ((None, 64), (64, None), (None, None), (64, 64)):
        check_fingerprint({"max_tokens": before}, {"max_tokens": now}, tmp_path)
