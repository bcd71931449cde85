"""Fine-tuning of every family of models from the command line: the saved folder has the tensors of the one it came from."""

import json
from pathlib import Path

import numpy as np
import pytest
from process import Run
from safetensors.numpy import load_file

from gpt2wgpu import Encoder
from gpt2wgpu.checkpoint import Pooling, load_checkpoint

SENTENCE_MODELS = Path(__file__).parent / "golden" / "sentence_models"
FOLDERS = {
    "new_distilbert_mean": "DistilBertModel",
    "plain_gpt_neo": "GPTNeoModel",
    "old_roberta_weighted_last": "RobertaModel",
    "new_xlmr_max_mean": "XLMRobertaModel",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_fine_tuning(run: Run, data: Path, tmp_path: Path, name: str):
    source, out = SENTENCE_MODELS / name, tmp_path / "run"
    frozen = ("--freeze", "layers:0", "--freeze", "*.1.*.bias")
    args = ("--data", data / "labels.tsv", "--model", source, *frozen, "--epochs", 2, "--lr", 0.01, "--batch-tokens", 512)
    code, _, err = run("train", *args, "-o", out)
    assert code == 0, err
    before, after = load_checkpoint(source), load_checkpoint(out / "model")
    assert json.loads((after.folder / "config.json").read_text())["architectures"] == [FOLDERS[name]]
    assert (after.config, after.architecture, after.modules) == (before.config, before.architecture, before.modules)
    tensors = load_file(after.folder / "model.safetensors")
    old = {n.removeprefix(before._body.prefix): a for n, a in load_file(before.folder / "model.safetensors").items()}
    extra = {n for n in old.keys() - tensors.keys() if not n.startswith(("pooler.", "lm_head"))}
    assert not extra and tensors.keys() <= old.keys()
    blocks = before.config.block.split("{}")[0]
    moved = {n for n, a in tensors.items() if not np.array_equal(a, old[n].astype(np.float32))}
    assert not {n for n in moved if n.startswith(f"{blocks}0.") or (n.startswith(f"{blocks}1.") and n.endswith(".bias"))}
    weights = {n for n in tensors if n.startswith(f"{blocks}1.") and n.endswith(".weight")}
    assert weights <= moved and before.config.table in moved
    texts = ["look at the sun", "here is a moon"]
    found, was = (Encoder(folder, device="numpy").encode(texts) for folder in (out / "model", source))
    assert np.isfinite(found).all() and not np.allclose(found, was)


def test_a_decoder_keeps_its_last_token_pooling(run: Run, data: Path, tmp_path: Path):
    args = ("--data", data / "labels.tsv", "--model", SENTENCE_MODELS / "plain_gpt_neo", "--epochs", 1)
    assert run("train", *args, "-o", tmp_path / "run")[0] == 0
    model = tmp_path / "run" / "model"
    assert load_checkpoint(model).modules == (Pooling(("last",)),) and load_checkpoint(model).sentence_model
    assert json.loads((model / "1_Pooling" / "config.json").read_text())["pooling_mode_mean_tokens"] is False
    assert json.loads((model / "tokenizer_config.json").read_text())["pad_token"] == "<|endoftext|>"


def test_mpnet_is_refused(run: Run, data: Path, tmp_path: Path):
    args = ("--data", data / "labels.tsv", "--model", SENTENCE_MODELS / "old_mpnet_mean")
    code, out, err = run("train", *args, "-o", tmp_path / "run")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "a model with attention_bias cannot be trained" in err
    assert not (tmp_path / "run").exists()
