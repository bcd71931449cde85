"""Saved checkpoints: `transformers` and sentence-transformers read the folder, and it is complete at any time.

transformers 4.45, 4.57 and 5.24 and sentence-transformers 6.2 gave the same ids and vectors with such folders when that was
checked by hand; here, every tensor is compared with the file that they wrote themselves (tests/make_golden.py).
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.checkpoint import Checkpoint, load_checkpoint
from gpt2wgpu.checkpoint.graph import build_graph
from gpt2wgpu.graph.tensor import Array, schedule
from gpt2wgpu.hub import BUILT_IN
from gpt2wgpu.train import checkpoint

GOLDEN = Path(__file__).parent / "golden"
REFUSED = ("modernbert", "nomic_bert", "qwen3")  # by training, so there is never one to save
SENTENCE_MODELS = [p for p in sorted((GOLDEN / "sentence_models").iterdir()) if not any(name in p.name for name in REFUSED)]
MODELS = sorted([p for p in (GOLDEN / "models").iterdir() if not p.name.startswith(REFUSED)] + SENTENCE_MODELS)
IDS = [p.name for p in MODELS]


def state(c: Checkpoint) -> dict[str, Array]:
    """What a program would give: weights of the whole graph, and an optimiser's step."""
    leaves = [t for t in schedule(build_graph(c, c.config.layers, "f32", c.modules)) if t.is_weight]
    return {f"weight/{t.name}": np.array(c.weights(t), np.float32) for t in leaves} | {"step": np.array(7)}


def save(source: Path, run: Path, dtype: str = "float32", **changes: Array) -> Path:
    c = load_checkpoint(source)
    template = checkpoint.make_template(c, max_seq_length=c.max_seq_length, dtype=dtype)
    run.mkdir(exist_ok=True)
    checkpoint.write_checkpoint(run, template, "# card\n", {**state(c), **changes}, {"step": 7})
    return run / "model"


@pytest.mark.parametrize("source", MODELS, ids=IDS)
def test_what_is_read_again_has_the_same_bits(source: Path, tmp_path: Path):
    saved = load_checkpoint(save(source, tmp_path / "run"))
    before, after = state(load_checkpoint(source)), state(saved)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    original = load_checkpoint(source)
    assert (saved.config, saved.architecture, saved.modules) == (original.config, original.architecture, original.modules)
    assert (saved.max_seq_length, saved.lower_case, saved.prompts) == (
        original.max_seq_length,
        original.lower_case,
        original.prompts,
    )


@pytest.mark.parametrize("source", [p for p in MODELS if not list(p.glob("*.index.json"))], ids=lambda p: p.name)
def test_tensors_are_those_that_transformers_wrote(source: Path, tmp_path: Path):
    """Names without prefix, shapes (out, in) and values; but for the token types, of which type 0 is in the positions."""
    folder = save(source, tmp_path / "run")
    c = load_checkpoint(source)
    relative = c.folder.relative_to(c.path)
    saved, original = load_file(folder / relative / "model.safetensors"), read_f32(c.folder)
    prefix = c._body.prefix
    expected = {name.removeprefix(prefix): a for name, a in original.items() if name.startswith(prefix)}
    expected = {name.replace("Norm.gamma", "Norm.weight").replace("Norm.beta", "Norm.bias"): a for name, a in expected.items()}
    assert saved.keys() <= expected.keys()
    left_out = {
        name
        for name in expected.keys() - saved.keys()
        if not name.endswith((".attn.bias", ".attention.bias", "masked_bias", "position_ids"))
    }
    assert not {name for name in left_out if not name.startswith(("lm_head", "cls.", "classifier", "pooler"))}
    assert {name for name in expected if name.startswith("pooler.")} <= saved.keys()
    types, positions = "embeddings.token_type_embeddings.weight", "embeddings.position_embeddings.weight"
    if types in saved:
        expected[positions] = expected[positions] + expected[types][0]
        expected[types] = expected[types] - expected[types][0]
    assert all(a.dtype == np.float32 and np.array_equal(a, expected[name]) for name, a in saved.items())


def read_f32(folder: Path) -> dict[str, np.ndarray]:
    tensors = load_checkpoint(folder)._body.tensors if (folder / "config.json").exists() else None
    assert tensors is not None
    floats = {name for name, e in tensors.entries.items() if e.dtype in ("F32", "F16", "BF16", "F64")}
    return {name: tensors.read(name).astype(np.float32) for name in floats}


@pytest.mark.filterwarnings("ignore:.*were cut there")
@pytest.mark.parametrize("source", SENTENCE_MODELS, ids=lambda p: p.name)
def test_vectors_are_the_same(source: Path, tmp_path: Path):
    texts = json.loads((GOLDEN / "texts.json").read_text("utf-8"))["texts"]
    found, expected = (Encoder(path, device="numpy").encode(texts) for path in (save(source, tmp_path / "run"), source))
    assert np.array_equal(found, expected)
    folder = tmp_path / "run" / "model"
    assert (folder / "modules.json").exists() and (folder / "README.md").read_text() == "# card\n"


def test_a_bare_transformer_becomes_a_sentence_model(tmp_path: Path):
    source = tiny.save(tmp_path / "bare", tiny.gpt2_config())
    folder = save(source, tmp_path / "run")
    kinds = [entry["type"].rsplit(".")[-1] for entry in json.loads((folder / "modules.json").read_text())]
    assert kinds == ["Transformer", "Pooling"]
    assert json.loads((folder / "1_Pooling/config.json").read_text())["pooling_mode_mean_tokens"] is True
    assert json.loads((folder / "tokenizer_config.json").read_text())["pad_token"] == "<|endoftext|>"
    assert json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"] == 7
    assert load_checkpoint(folder).sentence_model and not load_checkpoint(source).sentence_model


@pytest.mark.parametrize("prefix_space", [True, False])
def test_what_versions_of_transformers_read_differently_is_declared(prefix_space: bool, tmp_path: Path):
    """4.57 takes a missing add_prefix_space as false, 5 takes that of tokenizer.json; pipelines need model_max_length. 4.57
    makes token types unless model_input_names leaves them out, and GPT-2 adds the vector of token 0 for them."""
    source = tiny.save(tmp_path / "bare", tiny.gpt2_config())
    step = {"type": "ByteLevel", "add_prefix_space": prefix_space}
    (source / "tokenizer.json").write_text(json.dumps({"pre_tokenizer": step}))
    config = source / "tokenizer_config.json"
    for given, expected in (
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, prefix_space),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": not prefix_space}, not prefix_space),
        ({"tokenizer_class": "GPT2Tokenizer"}, None),  # false in all versions
    ):
        config.write_text(json.dumps(given))
        found = json.loads((save(source, tmp_path / "run") / "tokenizer_config.json").read_text())
        assert found.get("add_prefix_space") is expected and found["model_max_length"] == 7
        inputs = None if given["tokenizer_class"] == "GPT2Tokenizer" else ["input_ids", "attention_mask"]
        assert found.get("model_input_names") == inputs


def test_the_built_in_model_declares_it_too():
    config, tokenizer = (json.loads((BUILT_IN / f"{name}.json").read_text()) for name in ("config", "tokenizer_config"))
    assert config["torch_dtype"] == "float32"
    assert tokenizer["model_max_length"] == 512
    assert tokenizer["model_input_names"] == ["input_ids", "attention_mask"]


def test_vocabulary_files_with_the_names_of_openai(tmp_path: Path):
    source = tiny.save(tmp_path / "gpt2", tiny.gpt2_config(vocab_size=50257, n_embd=4, n_layer=1, n_positions=16))
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copyfile(Path(__file__).parent / "fixtures/gpt2_tokenizer" / name, source / name)
    folder = save(source, tmp_path / "run")
    assert (folder / "vocab.json").exists() and (folder / "merges.txt").exists() and not (folder / "encoder.json").exists()
    found, expected = (Encoder(path, device="numpy", layer=1).encode(["Hello world", "é"]) for path in (folder, source))
    assert np.array_equal(found, expected)


def test_float16(tmp_path: Path):
    source = tiny.sentence_model(tmp_path / "model", tiny.bert_config())
    folder = save(source, tmp_path / "run", "float16")
    saved = load_file(folder / "model.safetensors")
    assert {a.dtype for a in saved.values()} == {np.dtype(np.float16)}
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "float32"  # what others compute in
    assert load_file(folder / "training" / "state.safetensors")["weight/encoder.layer.0.output.dense.weight"].dtype == np.float32
    large = state(load_checkpoint(source))["weight/encoder.layer.0.output.dense.weight"]
    large[0, 0] = 1e5
    with pytest.raises(UserError, match=r"encoder\.layer\.0\.output\.dense\.weight overflows float16"):
        save(source, tmp_path / "run", "float16", **{"weight/encoder.layer.0.output.dense.weight": large})


def test_a_dense_module_without_bias(tmp_path: Path):
    source = tiny.sentence_model(tmp_path / "model", tiny.bert_config(), "Pooling", "Dense")
    tiny.save_dense(source / "2_Dense", 8, 4, bias=False)
    folder = save(source, tmp_path / "run")
    assert load_file(folder / "2_Dense/model.safetensors").keys() == {"linear.weight"}
    assert np.array_equal(
        state(load_checkpoint(folder))["weight/2_Dense.linear.weight"],
        state(load_checkpoint(source))["weight/2_Dense.linear.weight"],
    )


def test_files_are_as_readable_as_others(tmp_path: Path):
    folder = save(tiny.save(tmp_path / "bare", tiny.gpt2_config()), tmp_path / "run")
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert len(files) >= 8 and len({p.stat().st_mode for p in files}) == 1


# --- the process may end at any moment


class PowerCut(BaseException):
    pass


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_is_whole_whenever_its_process_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`write` is cut off before each of its calls to the file system in turn, and never leaves anything but old or new."""
    source = tiny.save(tmp_path / "bare", tiny.gpt2_config())
    old = contents(save(source, tmp_path / "old"))
    new = contents(save(source, tmp_path / "new", **{"weight/wte.weight": np.zeros((11, 8), np.float32)}))
    outcomes = []
    for n in range(1000):
        run = tmp_path / f"run{n}"
        shutil.copytree(tmp_path / "old", run)
        with monkeypatch.context() as patch:
            countdown(patch, n)
            try:
                save(source, run, **{"weight/wte.weight": np.zeros((11, 8), np.float32)})
                finished = True
            except PowerCut:
                finished = False
        assert checkpoint.recover_run(run)
        found = contents(run / "model")
        assert found in (old, new) and sorted(p.name for p in run.iterdir()) == ["model"]
        outcomes.append(found == new)
        if finished:
            break
    assert finished and n > 20 and outcomes == sorted(outcomes) and not outcomes[0] and outcomes[-1]
    assert sum(outcomes) >= 3  # also when cut off between and after the renames


def countdown(patch: pytest.MonkeyPatch, n: int) -> None:
    """The n-th call from now on that changes the file system fails."""
    left = [n]

    def cut(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            if left[0] == 0:
                raise PowerCut
            left[0] -= 1
            return original(*args, **keywords)

        return call

    for owner, name in ((Path, "rename"), (Path, "write_bytes"), (checkpoint.shutil, "rmtree"), (os, "fsync")):
        patch.setattr(owner, name, cut(getattr(owner, name)))
    patch.setattr(checkpoint, "store_tensors", cut(checkpoint.store_tensors))


def test_a_first_checkpoint_that_is_cut_off_leaves_nothing_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = tiny.save(tmp_path / "bare", tiny.gpt2_config())
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        countdown(patch, 6)
        save(source, tmp_path / "run")
    assert not checkpoint.recover_run(tmp_path / "run") and [*(tmp_path / "run").iterdir()] == []
    assert not checkpoint.recover_run(tmp_path / "nothing")


def test_a_damaged_state_is_one_line(tmp_path: Path):
    save(tiny.save(tmp_path / "bare", tiny.gpt2_config()), tmp_path / "run")
    (tmp_path / "run/model/training/state.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="its contents changed"):
        checkpoint.read_train_state(tmp_path / "run", "0" * 64)
