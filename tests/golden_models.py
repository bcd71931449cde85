"""Tiny random transformers in every shape that a folder may have, and their hidden states, for make_golden.py."""

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parent / "golden"
CONTEXT = 48
LENGTHS = (1, 2, 31, 32, 33, 40)
FEW = (1, 31, 33, 2)


def randomise(model: torch.nn.Module, name: str, std: float) -> None:
    """Weights large enough that attention, activations and norms all matter; biases and norms are random too."""
    with torch.no_grad():
        for key, p in model.named_parameters():
            rng = np.random.default_rng(zlib.crc32(f"{name}/{key}".encode()))
            values = rng.standard_normal(tuple(p.shape), np.float32)
            is_norm = "ln_" in key or "norm" in key.lower()
            values = 1 + 0.3 * values if is_norm and key.endswith("weight") else std * values
            p.copy_(torch.from_numpy(np.asarray(values)))


def sequences(name: str, lengths: tuple[int, ...], vocab: int) -> list[np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return [rng.integers(0, vocab, n).astype(np.uint32) for n in lengths]


def write_expected(folder: Path, seqs: list[np.ndarray]) -> None:
    """Every hidden state of the folder's model, one sequence at a time."""
    model, info = transformers.AutoModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    missing = {k for k in info["missing_keys"] if "pooler" not in k}
    assert not missing and not info["mismatched_keys"], (folder.name, info)
    model.eval()
    hidden = []
    for ids in seqs:
        with torch.no_grad():
            states = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None], output_hidden_states=True).hidden_states
        hidden.append(np.stack([h[0].numpy() for h in states]))
    lengths = np.array([len(s) for s in seqs], np.uint32)
    hidden_all = np.concatenate(hidden, axis=1)
    assert np.isfinite(hidden_all).all()
    np.savez_compressed(folder / "expected.npz", ids=np.concatenate(seqs), lengths=lengths, hidden=hidden_all)


# --- what a folder may look like on disk


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    tensors = {k: v.clone() for k, v in load_file(path).items()}
    save_file({k: v.contiguous() for k, v in edit(tensors).items()}, path, metadata={"format": "pt"})


def language_model_extras(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What older saves of GPT2LMHeadModel and GPTNeoForCausalLM hold as well: the tied head and the mask buffers."""
    mask = torch.tril(torch.ones(CONTEXT, CONTEXT))[None, None]
    extras = {"lm_head.weight": tensors["transformer.wte.weight"].clone()}
    attention = "attn.attention" if "transformer.h.0.attn.attention.q_proj.weight" in tensors else "attn"
    for i in range(2):
        extras[f"transformer.h.{i}.{attention}.bias"] = mask.to([torch.float32, torch.uint8][i])
        extras[f"transformer.h.{i}.{attention}.masked_bias"] = torch.tensor(-1e4)
    return tensors | extras


def old_norm_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """LayerNorm.gamma and LayerNorm.beta, and the position_ids buffer, as converted TensorFlow checkpoints have them."""

    def norm_name(k: str) -> str:
        return k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    renamed = {norm_name(k): v for k, v in tensors.items()}
    return renamed | {"bert.embeddings.position_ids": torch.arange(CONTEXT)[None]}


def sinusoids(model: torch.nn.Module) -> None:
    """The positions that DistilBERT begins with where its configuration says sinusoidal_pos_embds."""
    positions = model.embeddings.position_embeddings.weight
    transformers.models.distilbert.modeling_distilbert.create_sinusoidal_embeddings(*positions.shape, positions)


def outliers(model: torch.nn.Module) -> None:
    """GPT-2's habit: a few channels of the residual stream are hundreds of times larger than the others."""
    with torch.no_grad():
        model.h[0].mlp.c_proj.bias[3] = 300.0
        model.h[0].mlp.c_proj.bias[11] = -900.0
        model.wpe.weight[0, 5] = 80.0


def gpt2(
    width: int, heads: int, layers: int, inner: int | None = None, activation: str = "gelu_new", **more: Any
) -> dict[str, Any]:
    sizes = {"n_embd": width, "n_head": heads, "n_layer": layers, "n_inner": inner, "activation_function": activation}
    fixed = {"model_type": "gpt2", "vocab_size": 64, "n_positions": CONTEXT, "bos_token_id": 0, "eos_token_id": 0}
    return {**fixed, **sizes, **more}


def bert(
    width: int, heads: int, inner: int, act: str = "gelu", model_type: str = "bert", layers: int = 2, **more: Any
) -> dict[str, Any]:
    sizes = {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": layers, "intermediate_size": inner}
    rest: dict[str, Any] = {"model_type": model_type, "hidden_act": act, "vocab_size": 64}
    if model_type == "bert":
        rest |= {"max_position_embeddings": CONTEXT}
    else:  # positions start after the padding token's
        rest |= {"max_position_embeddings": CONTEXT + more.get("pad_token_id", 1) + 1}
    if model_type not in ("bert", "mpnet"):
        rest |= {"type_vocab_size": 1}
    return {**sizes, **rest, **more}


def distilbert(width: int, heads: int, inner: int, activation: str = "gelu", layers: int = 2, **more: Any) -> dict[str, Any]:
    sizes = {"dim": width, "n_heads": heads, "n_layers": layers, "hidden_dim": inner, "activation": activation}
    return {"model_type": "distilbert", "vocab_size": 64, "max_position_embeddings": CONTEXT, **sizes, **more}


def mpnet(width: int, heads: int, inner: int, act: str = "gelu", **more: Any) -> dict[str, Any]:
    return bert(width, heads, inner, act, "mpnet", **more)


def gpt_neo(width: int, heads: int, attention: list[Any], window: int, **more: Any) -> dict[str, Any]:
    """attention: patterns of "global" and "local", and how often each comes."""
    layers = sum(len(pattern) * times for pattern, times in attention)
    sizes = {"hidden_size": width, "num_heads": heads, "num_layers": layers, "max_position_embeddings": CONTEXT}
    fixed = {"model_type": "gpt_neo", "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 0}
    return {**fixed, **sizes, "attention_types": attention, "window_size": window, **more}


# Beside the configuration: save (dtype), std (of weights), lengths (of sequences), shard, lm_head, touch, edit, old_config.
MODELS: dict[str, dict[str, Any]] = {
    "gpt2_25_heads_f16": gpt2(100, 25, 1, 52, save="f16", std=0.12),
    "gpt2_head_64": gpt2(64, 1, 2, 30, "gelu", save="f16", std=0.15),
    "gpt2_2_heads_of_64_bf16": gpt2(128, 2, 1, 20, save="bf16", std=0.1, lengths=(1, 33, 2)),
    "gpt2_head_96": gpt2(96, 1, 1, 20, save="f16", std=0.1, lengths=(1, 33, 2)),
    "gpt2_head_2": gpt2(10, 5, 5, std=0.4),
    "gpt2_head_1": gpt2(7, 7, 2, 3, vocab_size=65, save="f16", std=0.4),
    "gpt2_relu": gpt2(36, 3, 2, 50, "relu", layer_norm_epsilon=1e-3, save="f16"),
    "gpt2_silu": gpt2(40, 2, 2, 33, "silu", save="f16"),
    "gpt2_tanh": gpt2(25, 5, 2, 51, "tanh", vocab_size=97, save="f16"),
    "gpt2_inverse_layer": gpt2(24, 2, 4, 32, scale_attn_by_inverse_layer_idx=True, save="bf16", std=0.3),
    "gpt2_unscaled": gpt2(20, 5, 2, scale_attn_weights=False, layer_norm_epsilon=1e-6),
    "gpt2_reorder_upcast": gpt2(20, 1, 3, reorder_and_upcast_attn=True, scale_attn_by_inverse_layer_idx=True, save="f16"),
    "gpt2_prefixed": gpt2(20, 4, 2, 24, lm_head=True, edit=language_model_extras),
    "gpt2_sharded": gpt2(24, 4, 2, shard="20KB"),
    "gpt2_long": gpt2(12, 3, 2, n_positions=320, lengths=(300, 3, 130), std=0.3),
    "gpt2_one_layer": gpt2(20, 2, 1, layer_norm_epsilon=1e-2, lengths=LENGTHS),
    "gpt2_five_layers_bf16": gpt2(24, 3, 5, 40, save="bf16", std=0.3),
    "gpt2_outliers": gpt2(32, 2, 2, 48, touch=outliers, save="bf16"),
    "gpt2_old_config": gpt2(16, 4, 2, old_config=True, lengths=LENGTHS),
    "bert": bert(24, 3, 40, lengths=LENGTHS),
    "bert_relu_odd": bert(30, 5, 37, "relu", type_vocab_size=1),
    "bert_gelu_new_f16": bert(32, 1, 48, "gelu_new", save="f16"),
    "bert_silu_f16": bert(36, 3, 48, "silu", save="f16", layer_norm_eps=1e-5),
    "bert_tanh_bf16": bert(20, 5, 48, "tanh", layers=3, save="bf16"),
    "bert_prefixed": bert(20, 2, 28, lm_head=True),
    "bert_old_norm_names": bert(20, 2, 28, lm_head=True, edit=old_norm_names),
    "bert_long": bert(12, 1, 16, max_position_embeddings=300, lengths=(280, 4)),
    "roberta": bert(24, 2, 40, model_type="roberta", layer_norm_eps=1e-5),
    "roberta_prefixed_f16": bert(28, 7, 48, model_type="roberta", lm_head=True, save="f16"),
    "roberta_pad_5": bert(16, 2, 24, model_type="roberta", pad_token_id=5),
    "xlm_roberta": bert(20, 4, 30, model_type="xlm-roberta"),
    "camembert": bert(16, 4, 24, model_type="camembert", save="bf16"),
    "bert_9_heads_sharded_f16": bert(27, 9, 19, shard="4KB", save="f16", layer_norm_eps=1e-3),
    "xlm_roberta_sharded": bert(14, 7, 33, "relu", model_type="xlm-roberta", shard="8KB", lm_head=True, layer_norm_eps=1e-5),
    "distilbert": distilbert(24, 3, 40, lengths=LENGTHS),
    "distilbert_relu_odd_f16": distilbert(35, 7, 37, "relu", layers=3, save="f16"),
    "distilbert_prefixed_bf16": distilbert(20, 5, 28, "gelu_new", lm_head=True, save="bf16"),
    "distilbert_sinusoids_sharded": distilbert(20, 2, 24, sinusoidal_pos_embds=True, touch=sinusoids, shard="8KB"),
    "mpnet": mpnet(24, 3, 40),
    "mpnet_long": mpnet(12, 2, 16, max_position_embeddings=300, lengths=(298, 130, 3), pad_token_id=0),
    "mpnet_prefixed_f16": mpnet(28, 7, 37, "relu", lm_head=True, save="f16", layer_norm_eps=1e-5),
    "mpnet_40_buckets_bf16": mpnet(20, 1, 24, "gelu_new", layers=3, save="bf16", relative_attention_num_buckets=40),
    "gpt_neo": gpt_neo(24, 3, [[["global", "local"], 2]], 5, lengths=LENGTHS, std=0.15),
    "gpt_neo_local_f16": gpt_neo(35, 7, [[["local"], 2]], 2, activation_function="gelu", intermediate_size=41, save="f16"),
    "gpt_neo_prefixed": gpt_neo(20, 1, [[["local", "global"], 1]], 31, lm_head=True, edit=language_model_extras, std=0.15),
    "gpt_neo_mixed_sharded_bf16": gpt_neo(16, 4, [[["global"], 2], [["local"], 1]], 33, shard="4KB", save="bf16"),
    "gpt_neo_long": gpt_neo(12, 3, [[["local", "global"], 1]], 130, max_position_embeddings=320, lengths=(300, 3, 131)),
    "gpt_neo_layer_list": gpt_neo(18, 2, [[["global", "local"], 1]], 9, attention_layers=["local", "local"], std=0.15),
}

# of OpenAI's original config.json, which also has n_ctx
OLD_FIELDS = "activation_function architectures layer_norm_epsilon model_type n_embd n_head n_layer n_positions vocab_size"


def save(model: Any, folder: Path, dtype: str, shard: str | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.to({"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype])
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)


def write_model(name: str, options: dict[str, Any]) -> None:
    folder = GOLDEN / "models" / name
    special = ("save", "std", "lengths", "shard", "lm_head", "touch", "edit", "old_config")
    is_decoder = options["model_type"] in ("gpt2", "gpt_neo")
    config = transformers.AutoConfig.for_model(**{k: v for k, v in options.items() if k not in special})
    auto = transformers.AutoModel
    if "lm_head" in options:
        auto = transformers.AutoModelForCausalLM if is_decoder else transformers.AutoModelForMaskedLM
    model = auto.from_config(config)
    randomise(model, name, options.get("std", 0.2))
    if "touch" in options:
        options["touch"](model)
    save(model, folder, options.get("save", "f32"), options.get("shard"))
    if "edit" in options:
        edit_tensors(folder, options["edit"])
    if "old_config" in options:
        whole = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", {k: whole[k] for k in OLD_FIELDS.split()} | {"n_ctx": whole["n_positions"]})
    seqs = sequences(name, options.get("lengths", FEW), config.vocab_size)
    if options["model_type"] in ("roberta", "xlm-roberta", "camembert", "mpnet"):  # a padding token takes no position
        pad = 1 if options["model_type"] == "mpnet" else config.pad_token_id
        seqs[1][[0, 7, 8, 20]] = pad
        seqs[-1][-1] = pad
    write_expected(folder, seqs)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
