"""What every field of a sentence-transformers folder does there, for test_checkpoint_settings.py.

    pip install sentence-transformers; python tests/golden_settings.py

golden/settings.json holds for each folder the vectors of a few texts, and for each change of a field in one of its files the
vectors with it: "same" where they stay, "error" where sentence-transformers does not load or does not encode.
"""

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers
import torch
import transformers

GOLDEN = Path(__file__).parent / "golden"
TEXTS = ["The cat is sleeping", "a b c A B C " * 6, "x"]
FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
TRANSFORMER: dict[str, list[Any]] = {
    "max_seq_length": [None, 5, 10**6],
    "do_lower_case": [True, False, 1, 0],
    "transformer_task": ["feature-extraction", "fill-mask"],
    "modality_config": [{"text": FORWARD}, {"text": {**FORWARD, "method_output_name": "pooler_output"}}, {"image": FORWARD}],
    "module_output_name": ["token_embeddings", "sentence_embedding"],
    "processing_kwargs": [
        {},
        {"text": {"max_length": 4}},
        {"common": {"add_special_tokens": False}},
        {"chat_template": {"a": 1}},
    ],
    "unpad_inputs": [True, False, None],
    "query_length": [4],
    "document_length": [4],
    "query_expansion": [None],
    "tokenizer_name_or_path": [None],
    "model_kwargs": [{}, {"attn_implementation": "eager"}, {"torch_dtype": "float32"}, {"variant": "fp16"}],
    "model_args": [{"attn_implementation": "eager"}],
    "processor_kwargs": [{}, {"model_max_length": 4}, {"truncation_side": "left", "model_max_length": 6}],
    "tokenizer_args": [{"do_lower_case": True}, {"model_max_length": 4}],
    "config_kwargs": [{"hidden_act": "relu"}, {"layer_norm_eps": 0.5}, {"num_attention_heads": 1}, {"num_hidden_layers": 1}],
    "config_args": [{"hidden_act": "relu"}, {"unknown_field": 1}],
    "a_field_of_tomorrow": [1],
}
POOLING: dict[str, list[Any]] = {
    "pooling_mode": ["cls", ["cls", "max"], [], "median"],
    **{f"pooling_mode_{mode}_tokens": [True, False, 1] for mode in ("max", "mean", "mean_sqrt_len", "weightedmean")},
    "pooling_mode_cls_token": [True, False],
    "pooling_mode_lasttoken": [True, False],
    "include_prompt": [True, False],
    "word_embedding_dimension": [99],
    "embedding_dimension": [99],
    "a_field_of_tomorrow": [1],
}
FEATURES: dict[str, list[Any]] = {
    "module_input_name": ["sentence_embedding", "token_embeddings"],
    "module_output_name": [None, "sentence_embedding", "x"],
    "a_field_of_tomorrow": [1],
}
DENSE: dict[str, list[Any]] = {
    "in_features": [33],
    "out_features": [13],
    "bias": [True, False],
    "activation_function": [
        f"torch.nn.modules.{name}"
        for name in ("activation.Tanh", "activation.ReLU", "activation.GELU", "activation.Sigmoid", "linear.Identity")
    ]
    + [
        f"torch.nn.modules.activation.{name}"
        for name in ("ReLU6", "LeakyReLU", "ELU", "CELU", "Mish", "Softplus", "SELU", "Hardtanh", "PReLU")
    ]
    + ["torch.nn.Tanh", "torch.nn.ELU", "torch.nn.functional.relu", "my_code.Tanh"],
    "use_residual": [True, False],
    "init_bias": [None],
    **FEATURES,
}
SENTENCE: dict[str, list[Any]] = {
    "prompts": [{}, {"query": "query: "}, {"a": "b: "}],
    "default_prompt_name": [None, "query", "missing"],
    "similarity_fn_name": ["dot", None],
    "truncate_dim": [3, None],
    "model_type": ["SentenceTransformer"],
    "__version__": [{"sentence_transformers": "9.9.9"}],
    "requirements": [{"sentence-transformers": ">=5.0"}],
}
SETTINGS: dict[str, dict[str, dict[str, list[Any]]]] = {
    "old_bert_mean": {
        "sentence_bert_config.json": TRANSFORMER,
        "1_Pooling/config.json": POOLING,
        "2_Normalize/config.json": FEATURES,
        "config_sentence_transformers.json": SENTENCE,
        "tokenizer_config.json": {"model_max_length": [4], "max_len": [4]},
    },
    "new_bert_layer_norm": {
        "sentence_bert_config.json": TRANSFORMER,
        "1_Pooling/config.json": POOLING,
        "2_Dropout/config.json": {"dropout": [0.9, 0], "a_field_of_tomorrow": [1]},
        "3_LayerNorm/config.json": {"dimension": [33, 32], "a_field_of_tomorrow": [1]},
        "4_Dense/config.json": DENSE,
    },
}


def vectors(folder: Path) -> list[list[float]]:
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    found = np.stack([model.encode(text, show_progress_bar=False) for text in TEXTS])
    return [[round(float(x), 6) for x in row] for row in found]


def main() -> None:
    transformers.logging.set_verbosity_error()
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    found: dict[str, Any] = {"version": sentence_transformers.__version__, "texts": TEXTS, "folders": {}}
    for name, files in SETTINGS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / name
            shutil.copytree(GOLDEN / "sentence_models" / name, folder)
            base = vectors(folder)
            cases = []
            for file, fields in files.items():
                path = folder / file
                path.parent.mkdir(exist_ok=True)
                before = path.read_text() if path.exists() else None
                for field, values in fields.items():
                    for value in values:
                        path.write_text(json.dumps({**json.loads(before or "{}"), field: value}))
                        try:
                            now: Any = vectors(folder)
                            same = np.shape(now) == np.shape(base) and np.allclose(now, base, rtol=1e-4, atol=1e-5)
                            now = "same" if same else now
                        except Exception:
                            now = "error"
                        cases.append([file, {field: value}, now])
                if before is None:
                    path.unlink()
                else:
                    path.write_text(before)
        found["folders"][name] = {"base": base, "cases": cases}
        print(name, len(cases), {kind: sum(case[2] == kind for case in cases) for kind in ("same", "error")})
    (GOLDEN / "settings.json").write_text(json.dumps(found, separators=(",", ":")).replace('["', '\n["') + "\n")


if __name__ == "__main__":
    main()
