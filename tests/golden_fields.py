"""What every field of config.json does in `transformers`, for test_fields.py.

    pip install torch transformers; python tests/golden_fields.py

For each architecture a tiny golden model, and for each field a value that the model does not have: fields of all architectures,
of the base class, old names, and some that only the code of repositories reads. golden/fields.json holds the hidden state of
one sequence, reduced to its mean and its last token: of the unchanged model as `base`, and in `cases` of each change. There
"same" stands for the unchanged state, "error" for a model that cannot be loaded or has weights that no file holds.
"""

import dataclasses
import json
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from gpt2wgpu.models import ARCHITECTURES
from gpt2wgpu.models.unused import UNUSED

GOLDEN = Path(__file__).parent / "golden"
MODELS = (
    "gpt2_head_2",
    "bert",
    "roberta",
    "xlm_roberta",
    "camembert",
    "modernbert",
    "nomic_bert",
    "qwen3",
    "distilbert",
    "mpnet",
)
MODELS = (*MODELS, "gpt_neo")
TOKENS = 40
# values for fields whose type does not suggest any: aliases, old names, and choices
VALUES: dict[str, list[Any]] = {
    **{
        key: ["relu", "gelu", "tanh", "mish", "leaky_relu", "relu6"]
        for key in ("hidden_act", "activation", "activation_function", "hidden_activation")
    },
    **{key: [8] for key in ("hidden_size", "n_embd", "dim")},
    **{key: [1, 2] for key in ("num_attention_heads", "n_head", "n_heads", "num_heads")},
    **{key: [1] for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers")},
    **{key: [0.5, 1] for key in ("layer_norm_eps", "layer_norm_epsilon", "norm_eps", "rms_norm_eps")},
    **{key: [77.0, 9] for key in ("rope_theta", "global_rope_theta", "local_rope_theta", "rotary_emb_base")},
    **{key: [3, 6] for key in ("sliding_window", "local_attention", "window_size")},
    **{key: [True, False, 1, 0] for key in ("use_sliding_window", "is_causal", "is_decoder", "add_cross_attention", "causal")},
    **{key: [True, False] for key in ("attention_bias", "mlp_bias", "norm_bias", "qkv_proj_bias", "use_rms_norm", "prenorm")},
    "layer_types": [["full_attention"] * 4, ["sliding_attention"] * 4, ["full_attention"] * 2, ["sliding_attention"] * 2],
    "rope_parameters": [{"rope_type": "default", "rope_theta": 77.0}, {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}],
    "rope_scaling": [{"rope_type": "default", "rope_theta": 77.0}, {"type": "linear", "factor": 3.0}],
    "attention_types": [[[["global"], 4]], [[["local"], 4]]],
    "attention_layers": [["local"] * 4, ["global", "global", "local", "local"]],
    "position_embedding_type": ["absolute", "relative_key"],
    "pruned_heads": [{}, {"0": [0]}],
    "per_layer_config": [{}, {"0": {"layer_norm_eps": 0.5}}],
    "num_key_value_heads": [1, 4],
    "head_dim": [4, 6, 8],
    "max_position_embeddings": [45, 64],
    "n_positions": [30, 64],
    "n_ctx": [30],
    "max_window_layers": [0, 1],
    "global_attn_every_n_layers": [1, 2],
    "pad_token_id": [0, 3],
    "type_vocab_size": [1, 3],
    "relative_attention_num_buckets": [16, 40],
    "partial_rotary_factor": [0.5, 1.0],
    "rotary_emb_fraction": [0.5, 1.0],
    "rotary_emb_interleaved": [True, False],
    "max_trained_positions": [64],
    "tie_word_embeddings": [True, False],
    "auto_map": [{}, {"AutoConfig": "configuration.Config"}, {"AutoModel": "modeling.Model"}],
    "quantization_config": [{"quant_method": "gptq", "bits": 4}],
    "chunk_size_feed_forward": [0, 4],
    "dtype": ["float32"],
    "torch_dtype": ["float32"],
    "num_labels": [3],
    "id2label": [{"0": "a"}],
    "label2id": [{"a": 0}],
    "problem_type": ["regression"],
    "tokenizer_class": ["BertTokenizer"],
    "architectures": [["SomethingElse"]],
    "_attn_implementation": ["eager"],
    "attn_implementation": ["eager"],
    "task_specific_params": [{"a": {"max_length": 3}}],
    "classifier_pooling": ["mean"],
    "use_bidirectional_attention": [True, False],
    "is_encoder_decoder": [False],
    "sinusoidal_pos_embds": [True],
    "scale_attn_weights": [False],
    "scale_attn_by_inverse_layer_idx": [True],
    "reorder_and_upcast_attn": [True],
    "num_experts": [4],
    "do_lower_case": [True],  # of config.json, where no tokenizer reads it
    "embedding_size": [8],
    "model_max_length": [7],
    "a_field_of_tomorrow": [1],
}
# several fields at once, for the models that read them
SEVERAL: dict[str, list[dict[str, Any]]] = {
    "qwen3": [
        {"use_sliding_window": True, "layer_types": None, "sliding_window": window, "max_window_layers": full}
        for window in (None, 4)
        for full in (0, 1)
    ]
    + [{"num_key_value_heads": None}, {"rope_parameters": None, "rope_theta": 50.0}, {"rope_parameters": None}]
    + [{"use_sliding_window": True, "sliding_window": 4, "is_causal": False, "layer_types": ["sliding_attention"] * 2}],
    "modernbert": [
        {"local_attention": 8, "sliding_window": 2},
        {"rope_parameters": None, "global_rope_theta": 50.0, "local_rope_theta": 7.0},
        {"rope_parameters": None, "rope_scaling": {"rope_type": "default", "rope_theta": 7.0}},
        {"rope_parameters": {"full_attention": {"rope_theta": 50.0}}},
        {"rope_parameters": {"full_attention": {"rope_theta": 50.0}, "sliding_attention": None}},
        {"layer_types": None, "global_attn_every_n_layers": 2},
        {"layer_types": None},
    ],
    "nomic_bert": [
        {"activation_function": "geglu", "hidden_act": "gelu"},
        {"activation_function": "swiglu", "hidden_act": "gelu"},
        {"rope_parameters": None, "rope_theta": 50.0},
    ],
    "gpt_neo": [{"attention_types": [[["local"], 4]], "attention_layers": ["global"] * 4}, {"window_size": 3}],
    "roberta": [{"pad_token_id": 0, "max_position_embeddings": 50}],
}


def candidates(field: str, default: object) -> list[Any]:
    """Values to try for a field, where VALUES does not say: another one of its default's type."""
    if field in VALUES:
        return VALUES[field]
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [default + 1]
    if isinstance(default, float):
        return [default / 2 + 0.25]
    return ["other"] if isinstance(default, str) else [3]


def fields_of(model_type: str) -> dict[str, object]:
    config = transformers.models.auto.configuration_auto.CONFIG_MAPPING[model_type]
    return {f.name: None if f.default is dataclasses.MISSING else f.default for f in dataclasses.fields(config)}


def hidden(folder: Path, ids: np.ndarray) -> list[float]:
    model, info = transformers.AutoModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    if [k for k in info["missing_keys"] if "pooler" not in k] or info["mismatched_keys"]:
        raise ValueError(info)
    with torch.no_grad():
        state = model.eval()(input_ids=torch.from_numpy(ids)[None]).last_hidden_state[0].numpy()
    return [round(float(x), 6) for x in [*state.mean(0), *state[-1]]]


def main() -> None:
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"version": transformers.__version__, "models": {}}
    configs = {name: json.loads((GOLDEN / "models" / name / "config.json").read_text()) for name in MODELS}
    every = {k: v for name in MODELS for k, v in fields_of(configs[name]["model_type"]).items()}
    every |= dict.fromkeys(VALUES) | dict.fromkeys(k for config in configs.values() for k in config)
    every |= {k: every.get(k) for k in UNUSED}  # whose harmlessness is claimed
    every.pop("model_type", None)
    for name in MODELS:
        own = fields_of(configs[name]["model_type"])
        names = {**every, **{k: every.get(k) for k in ARCHITECTURES[configs[name]["model_type"]].unused}}
        ids = np.random.default_rng(zlib.crc32(name.encode())).integers(2, 64, TOKENS)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / name
            shutil.copytree(GOLDEN / "models" / name, folder)
            base = hidden(folder, ids)
            changes = [*SEVERAL.get(name, [])]
            for field in sorted(names):
                for value in candidates(field, own.get(field, names[field])):
                    if field not in configs[name] or configs[name][field] != value:
                        changes.append({field: value})
            cases = []
            for change in changes:
                (folder / "config.json").write_text(json.dumps(configs[name] | change))
                try:
                    state: Any = hidden(folder, ids)
                    state = "same" if np.allclose(state, base, rtol=1e-4, atol=1e-5 * np.abs(base).max()) else state
                except Exception:
                    state = "error"
                cases.append([change, state, change.keys() <= own.keys()])
        found["models"][name] = {"ids": ids.tolist(), "base": base, "cases": cases}
        count = {kind: sum(case[1] == kind for case in cases) for kind in ("same", "error")}
        print(f"{name:12s} {len(cases)} cases: {count}, the rest differ")
    text = json.dumps(found, separators=(",", ":")).replace("[{", "\n[{")
    (GOLDEN / "fields.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
