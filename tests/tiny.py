"""Tiny model folders for tests: random weights, real file formats."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

Json = dict[str, Any]


def gpt2_config(**changes: Any) -> Json:
    config = {"model_type": "gpt2", "vocab_size": 11, "n_positions": 7, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_inner": None}
    return {**config, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, **changes}


def bert_config(**changes: Any) -> Json:
    config = {"model_type": "bert", "vocab_size": 13, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config |= {"intermediate_size": 12, "max_position_embeddings": 9, "type_vocab_size": 2, "hidden_act": "gelu"}
    return {**config, "layer_norm_eps": 1e-12, "pad_token_id": 0, **changes}


def gpt2_shapes(config: Json) -> dict[str, tuple[int, ...]]:
    width, inner = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]
    shapes = {"wte.weight": (config["vocab_size"], width), "wpe.weight": (config["n_positions"], width)}
    for i in range(config["n_layer"]):
        linear = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width)}
        linear |= {"mlp.c_fc": (width, inner), "mlp.c_proj": (inner, width)}
        for name, shape in linear.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[1:]}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h.{i}.{name}.weight": (width,), f"h.{i}.{name}.bias": (width,)}
    return shapes | {"ln_f.weight": (width,), "ln_f.bias": (width,)}


def bert_shapes(config: Json) -> dict[str, tuple[int, ...]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    tables = {
        "word": config["vocab_size"],
        "position": config["max_position_embeddings"],
        "token_type": config["type_vocab_size"],
    }
    shapes: dict[str, tuple[int, ...]] = {f"embeddings.{name}_embeddings.weight": (n, width) for name, n in tables.items()}
    norms = ["embeddings.LayerNorm"]
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        linear = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")}
        linear |= {"attention.output.dense": (width, width), "intermediate.dense": (inner, width), "output.dense": (width, inner)}
        for name, shape in linear.items():
            shapes |= {f"{at}.{name}.weight": shape, f"{at}.{name}.bias": shape[:1]}
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
    return shapes | {f"{name}.{part}": (width,) for name in norms for part in ("weight", "bias")}


def tensors(config: Json, dtype: Any = np.float32, prefix: str = "") -> dict[str, np.ndarray]:
    """Random weights for a config, by the names they have in the files."""
    rng = np.random.default_rng(0)
    shapes = gpt2_shapes(config) if config["model_type"] == "gpt2" else bert_shapes(config)
    return {prefix + name: rng.standard_normal(shape, np.float32).astype(dtype) for name, shape in shapes.items()}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def save(folder: Path, config: Json, weights: dict[str, np.ndarray] | None = None) -> Path:
    """config.json and model.safetensors."""
    write_json(folder / "config.json", config)
    save_file(tensors(config) if weights is None else weights, folder / "model.safetensors")
    return folder


def save_modules(folder: Path, *modules: str) -> None:
    """modules.json; "Dense" lies in "2_Dense" if it is the third."""
    entries = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if name == "Transformer" else f"{i}_{name}",
            "type": f"sentence_transformers.models.{name}",
        }
        for i, name in enumerate(modules)
    ]
    write_json(folder / "modules.json", entries)


def save_dense(folder: Path, inputs: int, outputs: int, **config: Any) -> dict[str, np.ndarray]:
    """A Dense module's folder; gives its weights."""
    found = {
        "in_features": inputs,
        "out_features": outputs,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    found |= config
    write_json(folder / "config.json", found)
    rng = np.random.default_rng(1)
    weights = {"linear.weight": rng.standard_normal((outputs, inputs), np.float32)}
    if found["bias"]:
        weights["linear.bias"] = rng.standard_normal(outputs, np.float32)
    save_file(weights, folder / "model.safetensors")
    return weights


def save_layer_norm(folder: Path, width: int, *names: str) -> None:
    """A LayerNorm module's folder, with both of its tensors unless some are named."""
    write_json(folder / "config.json", {"dimension": width})
    rng = np.random.default_rng(2)
    names = names or ("norm.weight", "norm.bias")
    save_file({name: rng.standard_normal(width, np.float32) for name in names}, folder / "model.safetensors")


def sentence_model(folder: Path, config: Json | None = None, *modules: str, **pooling: Any) -> Path:
    """A sentence-transformers folder with the given modules after the transformer (Pooling alone if none are given)."""
    config = config or bert_config()
    save(folder, config)
    save_modules(folder, "Transformer", *(modules or ("Pooling",)))
    width = config["n_embd"] if config["model_type"] == "gpt2" else config["hidden_size"]
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **pooling})
    return folder
