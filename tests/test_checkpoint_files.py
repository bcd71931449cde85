"""Files of weights: shards, headers that lie, tensors that are missing or wrong."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from refusals import leaves, one_line, refusal
from safetensors.numpy import save_file

from gpt2wgpu.checkpoint import load_checkpoint
from gpt2wgpu.errors import UserError

# --- files of weights


def shards(folder: Path, **changes: object) -> Path:
    config = tiny.gpt2_config()
    weights = tiny.tensors(config)
    tiny.write_json(folder / "config.json", config)
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    index["weight_map"] |= changes
    tiny.write_json(folder / "model.safetensors.index.json", index)
    return folder


def test_shards(tmp_path: Path):
    c = load_checkpoint(shards(tmp_path))
    for name, leaf in leaves(c).items():
        np.testing.assert_array_equal(c.weights(leaf), tiny.tensors(tiny.gpt2_config())[name])


@pytest.mark.parametrize(
    "file", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..\\m.safetensors", "x.bin", "..", 3, None]
)
def test_shard_names_are_not_trusted(tmp_path: Path, file: object):
    refusal(shards(tmp_path, **{"wte.weight": file}), "index.json", repr(file), "expected a plain name of a .safetensors file")


def test_missing_shard(tmp_path: Path):
    (shards(tmp_path) / "model-00002-of-00002.safetensors").unlink()
    refusal(tmp_path, "model-00002-of-00002.safetensors is missing")


def test_shard_without_its_tensor(tmp_path: Path):
    shards(tmp_path, **{"wte.weight": "model-00001-of-00002.safetensors"})
    refusal(tmp_path, "'wte.weight' should be in 'model-00001-of-00002.safetensors'")


@pytest.mark.parametrize("index", [[], {}, {"weight_map": []}, {"weight_map": None}])
def test_index_of_the_wrong_type(tmp_path: Path, index: object):
    tiny.write_json(shards(tmp_path) / "model.safetensors.index.json", index)
    refusal(tmp_path, "model.safetensors.index.json", "expected")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "gpt2.ckpt", "pytorch_model-00001-of-00002.bin"])
def test_pickles_are_never_read(tmp_path: Path, name: str):
    tiny.write_json(tmp_path / "config.json", tiny.gpt2_config())
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    refusal(tmp_path, name, "pickle", "safetensors")


def test_no_weights(tmp_path: Path):
    tiny.write_json(tmp_path / "config.json", tiny.gpt2_config())
    refusal(tmp_path, "model.safetensors is missing")


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x02",
        b"\xff" * 16,
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 3) + b'{"a',
        struct.pack("<Q", 2) + b"\xff\xfe",
        *(
            struct.pack("<Q", len(h := json.dumps({"wte.weight": {**GOOD, **change}}).encode())) + h + bytes(8)
            for change in (
                {"data_offsets": [0, 16]},
                {"data_offsets": [4, 8]},
                {"data_offsets": [8, 0]},
                {"data_offsets": [-8, 0]},
                {"data_offsets": None},
                {"shape": [3]},
                {"shape": [-2]},
                {"shape": [1 << 40, 1 << 40]},
                {"shape": "2"},
                {"dtype": "F99"},
                {"dtype": 4},
            )
        ),
    ],
    ids=range(19),
)
def test_headers_that_lie(tmp_path: Path, content: bytes):
    tiny.save(tmp_path, tiny.gpt2_config())
    (tmp_path / "model.safetensors").write_bytes(content)
    refusal(tmp_path, "model.safetensors", "truncated or not a safetensors file", "download it again")


def test_git_lfs_pointer(tmp_path: Path):
    tiny.save(tmp_path, tiny.gpt2_config())
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 548105171\n")
    refusal(tmp_path, "model.safetensors is a Git LFS pointer", "git lfs pull")


@pytest.mark.parametrize("keep", [4, 100, 5000, -1])
def test_truncated_file(tmp_path: Path, keep: int):
    file = tiny.save(tmp_path, tiny.gpt2_config()) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refusal(tmp_path, "model.safetensors", "truncated")


def test_weights_are_a_folder(tmp_path: Path):
    (tiny.save(tmp_path, tiny.gpt2_config()) / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()
    refusal(tmp_path, "model.safetensors", "cannot be read")


def test_weights_that_vanish_after_loading(tmp_path: Path):
    c = load_checkpoint(tiny.save(tmp_path, tiny.gpt2_config()))
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError) as caught:
        c.weights(leaves(c)["wte.weight"])
    one_line(caught.value, "model.safetensors", "changed")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As for a user without the right to read it; root, who may run the tests, always has that right."""
    folder = tiny.save(tmp_path, tiny.gpt2_config())

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(folder / "model.safetensors"))

    monkeypatch.setattr("gpt2wgpu.checkpoint.tensors.safe_open", refuse)
    refusal(folder, "model.safetensors", "cannot be read")


def test_weights_without_the_right_to_read_them_are_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """safe_open raises FileNotFoundError for any file that it cannot open."""
    folder = tiny.save(tmp_path, tiny.gpt2_config())
    opened = Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path.suffix == ".safetensors":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **options)

    def fail(path: Path, **options: Any) -> None:
        raise FileNotFoundError(f"No such file or directory: {path}")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("gpt2wgpu.checkpoint.tensors.safe_open", fail)
    assert "missing" not in refusal(folder, "model.safetensors cannot be read: Permission denied")


def test_a_header_of_absurd_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.checkpoint.tensors.LARGEST_FILE", 1000)
    refusal(tiny.save(tmp_path, tiny.gpt2_config()), "model.safetensors has a header of", "expected at most 1000")


# --- tensors


@pytest.mark.parametrize("config", [tiny.gpt2_config(), tiny.bert_config()], ids=["gpt2", "bert"])
def test_every_missing_tensor_is_named(tmp_path: Path, config: tiny.Json):
    weights = tiny.tensors(config)
    tiny.write_json(tmp_path / "config.json", config)
    for name in weights:
        save_file({n: w for n, w in weights.items() if n != name}, tmp_path / "model.safetensors")
        refusal(tmp_path, f"tensor {name} is missing", "config.json")


@pytest.mark.parametrize("config", [tiny.gpt2_config(), tiny.bert_config()], ids=["gpt2", "bert"])
def test_every_misshapen_tensor_is_named(tmp_path: Path, config: tiny.Json):
    weights = tiny.tensors(config)
    tiny.write_json(tmp_path / "config.json", config)
    for name, w in weights.items():
        for wrong in (np.zeros((*w.shape[:-1], w.shape[-1] + 1), np.float32), w[None]):
            save_file(weights | {name: wrong}, tmp_path / "model.safetensors")
            refusal(tmp_path, f"tensor {name} has shape {list(wrong.shape)}", f"expected {list(w.shape)}")


def test_linear_stored_the_wrong_way_round(tmp_path: Path):
    config = tiny.gpt2_config()
    name = "h.0.mlp.c_fc.weight"
    weights = tiny.tensors(config)
    refusal(tiny.save(tmp_path, config, weights | {name: np.ascontiguousarray(weights[name].T)}), name, "[32, 8]", "[8, 32]")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.bool_])
def test_quantised_tensors(tmp_path: Path, dtype: type):
    config = tiny.gpt2_config()
    weights = tiny.tensors(config)
    refusal(
        tiny.save(tmp_path, config, weights | {"wpe.weight": np.ones((7, 8), dtype)}),
        "wpe.weight is ",
        "expected F32, F16 or BF16",
    )


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (tiny.gpt2_config(), "h.0.crossattention.c_attn.weight"),
        (tiny.gpt2_config(), "h.0.attn.c_attn.lora_A.weight"),
        (tiny.gpt2_config(), "h.2.ln_1.weight"),
        (tiny.bert_config(), "encoder.layer.2.output.dense.bias"),
        (tiny.bert_config(), "encoder.layer.0.attention.self.distance_embedding.weight"),
        (tiny.bert_config(), "embeddings.new_table.weight"),
    ],
)
def test_tensors_that_nothing_would_read(tmp_path: Path, config: tiny.Json, name: str):
    weights = tiny.tensors(config) | {name: np.ones(3, np.float32)}
    refusal(tiny.save(tmp_path, config, weights), "unexpected tensor", name, "2 layers")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("half", ["f32", "f16"])
def test_values_that_are_not_finite(tmp_path: Path, value: float, dtype: type, half: str):
    config = tiny.gpt2_config()
    weights = tiny.tensors(config, dtype)
    weights["h.1.mlp.c_fc.weight"][3, 5] = value
    c = load_checkpoint(tiny.save(tmp_path, config, weights))
    with pytest.raises(UserError) as caught:
        c.weights(leaves(c, half)["h.1.mlp.c_fc.weight"])
    one_line(caught.value, "h.1.mlp.c_fc.weight", "NaN or infinity")
    c.weights(leaves(c, half)["h.0.mlp.c_fc.weight"])


def test_large_values_are_finite(tmp_path: Path):
    config = tiny.gpt2_config()
    weights = tiny.tensors(config)
    weights["wpe.weight"][:] = 3e38  # whose sum is infinite
    c = load_checkpoint(tiny.save(tmp_path, config, weights))
    assert c.weights(leaves(c)["wpe.weight"]).max() == np.float32(3e38)
    with pytest.raises(UserError) as caught:
        c.weights(leaves(c, "f16")["wpe.weight"])
    one_line(caught.value, "wpe.weight", "65504", "use f32")
