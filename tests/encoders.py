"""Models and texts that the tests of the Encoder share."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from gpt2wgpu import UserError
from gpt2wgpu.graph.tensor import Array

GOLDEN = Path(__file__).parent / "golden"
TEXTS = ["The cat is sleeping.", "a", "Über den Wolken: 12 °C, 東京, 🙂", "", "A feline is resting on the warm windowsill."]
LONG = "word " * 1000  # more than the built-in model reads


def add_tokenizer(folder: Path, vocab: int) -> Path:
    """ "t5" is token 5; t0 stands for empty text."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocab)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "t0"}', encoding="utf-8")
    return folder


def golden(name: str, folder: Path) -> Path:
    """A golden model with a tokenizer, in `folder`."""
    shutil.copytree(GOLDEN / "models" / name, folder / name)
    config = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
    return add_tokenizer(folder / name, config["vocab_size"])


def tiny_gpt2(folder: Path, *, layers: int = 1, change: dict[str, Any] | None = None, **config: Any) -> Path:
    """A random GPT-2 of width 8 with 16 tokens and 32 positions. `change`: f(weights) for some of its tensors."""
    C, rng = 8, np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (16, C), "wpe.weight": (32, C)}
    for i in range(layers):
        shapes |= {f"h.{i}.{n}": (C,) for n in ("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias")}
        for name, k, n in (("attn.c_attn", C, 3 * C), ("attn.c_proj", C, C), ("mlp.c_fc", C, 4 * C), ("mlp.c_proj", 4 * C, C)):
            shapes |= {f"h.{i}.{name}.weight": (k, n), f"h.{i}.{name}.bias": (n,)}
    shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,)}
    weights = {name: rng.standard_normal(shape, dtype=np.float32) * np.float32(0.3) for name, shape in shapes.items()}
    for name, f in (change or {}).items():
        weights[name] = np.ascontiguousarray(f(weights[name]), np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    settings = {"model_type": "gpt2", "n_layer": layers, "n_head": 2, "n_embd": C, "n_positions": 32, "vocab_size": 16, **config}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return add_tokenizer(folder, 16)


def with_row(row: int, value: float) -> Callable[[Array], Array]:
    """The weights with one row filled with a value."""

    def change(weights: Array) -> Array:
        weights[row] = value
        return weights

    return change


def refusal(call: Callable[[], object]) -> str:
    """The one line of the UserError that a call raises."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
