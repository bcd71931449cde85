"""GPT-2 and BERT in tinygrad, for engines.py: the graph of each model as short as tinygrad lets one write it."""

import json
import os
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np


def find_dawn() -> None:
    """Point tinygrad's WebGPU device at the library that the package dawn-python brings."""
    spec = find_spec("pydawn")
    if spec is None or spec.origin is None:
        raise ImportError("No module named 'pydawn' (package dawn-python)")
    machine = {"aarch64": "aarch64", "arm64": "arm64"}.get(platform.machine(), "x86_64")
    suffix = {"win32": "libwebgpu_dawn.dll", "darwin": f"libwebgpu_dawn_{machine}.dylib"}
    library = Path(spec.origin).parent / "lib" / suffix.get(sys.platform, f"libwebgpu_dawn_{machine}.so")
    os.environ.setdefault("WEBGPU_PATH", str(library))
    os.environ.setdefault("DEV", "WEBGPU")


def read(file: Path) -> dict[str, np.ndarray]:
    """The f32 tensors of a safetensors file."""
    with file.open("rb") as f:
        size = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(size))
    data = np.fromfile(file, np.uint8, offset=8 + size)
    entries = {name: e for name, e in header.items() if e.get("dtype") == "F32"}
    return {name: data[slice(*e["data_offsets"])].view(np.float32).reshape(e["shape"]) for name, e in entries.items()}


class Model:
    """ids (B, T) of texts of one length -> hidden states, mean-pooled, (B, C). One compiled program per shape."""

    def __init__(self, folder: Path, normalize: bool) -> None:
        from tinygrad import Tensor, TinyJit

        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.gpt2 = self.config["model_type"] == "gpt2"
        self.normalize = normalize
        stored = read(folder / "model.safetensors")
        # Rows of the embedding tables are gathered in numpy: tinygrad would compare every token with the whole vocabulary,
        # and GPT-2's table is over the size of a binding on some adapters.
        names = ["wte", "wpe"] if self.gpt2 else [f"embeddings.{n}_embeddings" for n in ("word", "position", "token_type")]
        self.tables = [stored.pop(f"{n}.weight") for n in names]
        self.w = {name: Tensor(array).realize() for name, array in stored.items()}
        self.tensor, self.jits = Tensor, {}
        self.compile = lambda: TinyJit(self.forward_gpt2 if self.gpt2 else self.forward_bert)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        x = self.tables[0][ids] + self.tables[1][: ids.shape[1]] + (0 if self.gpt2 else self.tables[2][0])
        return self.jits.setdefault(ids.shape, self.compile())(self.tensor(x.astype(np.float32)).realize()).numpy()

    def norm(self, x, name):
        eps = self.config["layer_norm_epsilon" if self.gpt2 else "layer_norm_eps"]
        return x.layernorm(eps=eps) * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def linear(self, x, name):
        weight = self.w[f"{name}.weight"]
        return x @ (weight if self.gpt2 else weight.T) + self.w[f"{name}.bias"]

    def attention(self, q, k, v, heads):
        q, k, v = (t.reshape(*t.shape[:2], heads, -1).transpose(1, 2) for t in (q, k, v))
        return q.scaled_dot_product_attention(k, v, is_causal=self.gpt2).transpose(1, 2).flatten(2)

    def pooled(self, x):
        x = x.mean(1)
        return (x / x.square().sum(1, keepdim=True).sqrt() if self.normalize else x).realize()

    def forward_gpt2(self, x):
        for i in range(self.config["n_layer"]):
            q, k, v = self.linear(self.norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").chunk(3, dim=-1)
            x = x + self.linear(self.attention(q, k, v, self.config["n_head"]), f"h.{i}.attn.c_proj")
            h = self.linear(self.norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc").gelu()
            x = x + self.linear(h, f"h.{i}.mlp.c_proj")
        return self.pooled(self.norm(x, "ln_f"))

    def forward_bert(self, x):
        x = self.norm(x, "embeddings.LayerNorm")
        for i in range(self.config["num_hidden_layers"]):
            at = f"encoder.layer.{i}"
            q, k, v = (self.linear(x, f"{at}.attention.self.{n}") for n in ("query", "key", "value"))
            a = self.linear(self.attention(q, k, v, self.config["num_attention_heads"]), f"{at}.attention.output.dense")
            x = self.norm(x + a, f"{at}.attention.output.LayerNorm")
            h = self.linear(x, f"{at}.intermediate.dense").gelu(approximate="none")
            x = self.norm(x + self.linear(h, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return self.pooled(x)
