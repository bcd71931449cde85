"""Tiny random models with rotary positions and gated linear units, for make_golden.py: ModernBERT, Nomic BERT, Qwen3."""

import json
from typing import Any

import transformers
from golden_models import FEW, GOLDEN, LENGTHS, randomise, save, sequences, write_expected, write_json

Config = dict[str, Any]


def modernbert(width: int, heads: int, inner: int, layers: int = 4, local: int = 16, **more: Any) -> Config:
    sizes = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": inner, "num_hidden_layers": layers}
    special = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    fixed = {"model_type": "modernbert", "vocab_size": 64, "max_position_embeddings": 160, "local_attention": local}
    return {**fixed, **sizes, **special, **more}


def nomic(width: int, heads: int, inner: int, layers: int = 2, **more: Any) -> Config:
    sizes = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": inner, "num_hidden_layers": layers}
    return {"model_type": "nomic_bert", "vocab_size": 64, "max_position_embeddings": 160, **sizes, **more}


def qwen3(width: int, heads: int, kv_heads: int, head_dim: int, inner: int, layers: int = 2, **more: Any) -> Config:
    sizes = {"hidden_size": width, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim}
    sizes |= {"intermediate_size": inner, "num_hidden_layers": layers}
    rope = {"rope_type": "default", "rope_theta": 1e6}
    return {"model_type": "qwen3", "vocab_size": 64, "max_position_embeddings": 160, "rope_parameters": rope, **sizes, **more}


# --- config.json as other versions write it


def old_modernbert(config: Config) -> Config:
    """As in answerdotai/ModernBERT-base: the kind of a block by its number, and the two rotary bases as separate fields."""
    kept = {k: v for k, v in config.items() if k not in ("layer_types", "rope_parameters")}
    kept |= {"global_attn_every_n_layers": 2, "global_rope_theta": 80000.0, "local_rope_theta": 5000.0}
    return kept | {"layer_norm_eps": 1e-5, "position_embedding_type": "absolute", "reference_compile": None}


def old_nomic(config: Config) -> Config:
    """As in nomic-ai/nomic-embed-text-v1.5 with its own model code: names of GPT-2."""
    names = {"n_embd": "hidden_size", "n_head": "num_attention_heads", "n_inner": "intermediate_size"}
    names |= {"n_layer": "num_hidden_layers", "n_positions": "max_position_embeddings", "vocab_size": "vocab_size"}
    names |= {"layer_norm_epsilon": "layer_norm_eps", "type_vocab_size": "type_vocab_size", "architectures": "architectures"}
    found: Config = {"model_type": "nomic_bert", **{new: config[old] for new, old in names.items()}}
    found |= {"activation_function": "swiglu", "causal": False, "prenorm": False, "parallel_block": False, "use_rms_norm": False}
    found |= {"qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "use_flash_attn": True}
    found |= {"rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False}
    return found | {"rotary_emb_scale_base": None, "rotary_scaling_factor": None, "max_trained_positions": 120}


def old_qwen3(config: Config) -> Config:
    """As in Qwen/Qwen3-Embedding-0.6B."""
    kept = {k: v for k, v in config.items() if k not in ("layer_types", "rope_parameters")}
    return kept | {"rope_theta": 500000, "rope_scaling": None, "sliding_window": None, "use_sliding_window": False}


# Beside the configuration: save (dtype), lengths (of sequences), lm_head; config: a change to config.json that `transformers`
# reads as well; rewrite: one that only the model code in nomic's repositories would read.
MODERN: dict[str, dict[str, Any]] = {
    "modernbert": modernbert(24, 3, 20, lengths=LENGTHS),
    "modernbert_biases_f16": modernbert(
        30,
        3,
        33,
        layers=3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        hidden_activation="silu",
        norm_bias=True,
        attention_bias=True,
        mlp_bias=True,
        lm_head=True,
        save="f16",
    ),
    "modernbert_old_config_bf16": modernbert(16, 4, 24, local=7, save="bf16", config=old_modernbert),
    "modernbert_wide_window": modernbert(12, 1, 10, layers=2, local=90, lengths=(150, 46, 1), save="f16", lm_head=True),
    "modernbert_sizes_no_tile_divides": modernbert(14, 7, 11, layers=2, local=2, norm_eps=1e-3, hidden_activation="relu"),
    "nomic_bert": nomic(24, 3, 20, lengths=LENGTHS),
    "nomic_bert_head_dim_f16": nomic(20, 3, 17, head_dim=6, type_vocab_size=1, hidden_act="gelu", lm_head=True, save="f16"),
    "nomic_bert_old_config_bf16": nomic(32, 2, 28, save="bf16", rewrite=old_nomic, lengths=(100, 33, 1)),
    "nomic_bert_bases": nomic(15, 1, 9, head_dim=4, rope_parameters={"rope_type": "default", "rope_theta": 1e5}, save="f16"),
    "qwen3": qwen3(20, 4, 2, 8, 28, lengths=LENGTHS, lm_head=True),
    "qwen3_one_kv_head_bias_f16": qwen3(18, 3, 1, 10, 13, attention_bias=True, save="f16", tie_word_embeddings=True),
    "qwen3_every_kv_head_bf16": qwen3(24, 3, 3, 6, 16, layers=3, save="bf16", config=old_qwen3, rms_norm_eps=1e-5, lm_head=True),
    "qwen3_tied": qwen3(16, 6, 2, 4, 21, tie_word_embeddings=True, lm_head=True, hidden_act="gelu", lengths=(150, 33, 1)),
    "qwen3_window": qwen3(18, 2, 1, 6, 15, layers=3, use_sliding_window=True, sliding_window=7, max_window_layers=1, save="f16"),
    "qwen3_both_directions_bf16": qwen3(
        16,
        4,
        2,
        4,
        12,
        is_causal=False,
        use_sliding_window=True,
        sliding_window=5,
        layer_types=["sliding_attention", "full_attention"],
        save="bf16",
        lengths=(100, 33, 1),
    ),
    "qwen3_head_64": qwen3(24, 2, 1, 64, 20, layers=1, save="f16", lengths=(1, 33, 65)),
}


def write_modern(name: str, options: dict[str, Any]) -> None:
    folder = GOLDEN / "models" / name
    special = ("save", "lengths", "lm_head", "config", "rewrite")
    config = transformers.AutoConfig.for_model(**{k: v for k, v in options.items() if k not in special})
    auto = transformers.AutoModel
    if "lm_head" in options:
        auto = transformers.AutoModelForCausalLM if config.model_type == "qwen3" else transformers.AutoModelForMaskedLM
    model = auto.from_config(config)
    randomise(model, name, 0.2)
    save(model, folder, options.get("save", "f32"), None)
    if "config" in options:
        write_json(folder / "config.json", options["config"](json.loads((folder / "config.json").read_text())))
    write_expected(folder, sequences(name, options.get("lengths", FEW), config.vocab_size))
    if "rewrite" in options:
        write_json(folder / "config.json", options["rewrite"](json.loads((folder / "config.json").read_text())))
