"""A model to train from scratch: GPT-2 with random weights, as a sentence-transformers folder."""

import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.saving import store_tensors
from ..diagnose.token_report import find_tokenizer
from ..errors import UserError, between, show
from ..graph import memory
from ..graph.tensor import Array, schedule
from ..models.gpt2 import GPT2Config
from . import vocabulary

STD = 0.02  # standard deviation of random weights, as in GPT-2


def write_model(folder: Path, config: GPT2Config, end_of_text: int | None, seed: int) -> None:
    """Write configuration and weights into a folder that already holds the tokenizer. end_of_text: the id of <|endoftext|>.

    Raises UserError if the model cannot be made.
    """
    between("layers", config.layers, 1, 1 << 10)
    between("heads", config.heads, 1, 1 << 10)
    between("width", config.width, 1, 1 << 14)
    between("context", config.context, 2, 1 << 20)
    if config.width % config.heads:
        raise UserError(f"width {config.width} cannot be divided among {config.heads} heads: make it a multiple")
    check_memory(config)
    values = {
        "model_type": "gpt2",
        "vocab_size": config.vocab,
        "n_positions": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.eps,
        **({} if config.causal else {"is_causal": False}),
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
    }
    write_sentence_model(folder, values, random_weights(config, seed))


def write_sentence_model(folder: Path, values: dict[str, Any], weights: dict[str, Array]) -> None:
    """Write a GPT-2 with mean pooling and L2 normalisation into a folder. values: of config.json."""
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds)
    ]
    pooling = {"word_embedding_dimension": values["n_embd"], "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling").mkdir()
    for name, value in {"config.json": values, "modules.json": modules, "1_Pooling/config.json": pooling}.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    store_tensors(weights, folder / "model.safetensors")


def check_memory(config: GPT2Config) -> None:
    """Raises UserError if this machine has no room for the weights, their gradients and both moments of AdamW."""
    leaves = [t for t in schedule(config.hidden(config.layers)) if t.is_weight]
    need, room = 4 * sum(memory.tensor_bytes(t, {}) for t in leaves), memory.available_memory()
    if room is not None and need > room:
        shape = f"a model of {config.layers} layers, width {config.width}, context {config.context} and {config.vocab} tokens"
        found = f"{memory.readable_bytes(need)} to be trained, this machine has {memory.readable_bytes(room)} free"
        raise UserError(f"{shape} needs {found}: make it smaller")


def random_weights(config: GPT2Config, seed: int) -> dict[str, Array]:
    """The first weights of GPT-2 (Radford et al. 2019; `_init_weights` of `transformers`): matrices are normal with standard
    deviation 0.02, which is divided by sqrt(2 layers) for those that end a residual branch; biases are 0, norms 1."""
    rng = np.random.default_rng([seed, 0])
    found = {}
    for leaf in schedule(config.hidden(config.layers)):
        if leaf.is_weight:
            shape = tuple(int(d) for d in leaf.shape)
            if len(shape) == 2:
                std = STD / math.sqrt(2 * config.layers) if leaf.name.endswith("c_proj.weight") else STD
                found[leaf.name] = rng.standard_normal(shape, np.float32) * np.float32(std)
            else:
                found[leaf.name] = np.full(shape, ".ln_" in f".{leaf.name}" and leaf.name.endswith("weight"), np.float32)
    return found


def add_tokenizer(folder: Path, given: str | None, vocab: int, texts: Iterable[str]) -> tuple[int, int | None]:
    """Put a tokenizer into the folder: the given one, else one trained on the texts. Returns its size and the id of
    <|endoftext|>, if it has that token."""
    if given is None:
        vocabulary.save_tokenizer(vocabulary.train_tokenizer(texts, vocab=vocab, min_frequency=2, lower_case=False), folder)
    else:
        if not (Path(given) / "tokenizer.json").is_file():
            raise UserError(f"{show(Path(given))} has no tokenizer.json: give a folder that `gpt2wgpu tokens create` made")
        for name in vocabulary.FILES:
            if (Path(given) / name).exists():
                shutil.copyfile(Path(given) / name, folder / name)
    ids = find_tokenizer(folder).vocabulary()
    return max(ids.values()) + 1, ids.get(vocabulary.END_OF_TEXT)
