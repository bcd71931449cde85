"""GPT-2 (Radford et al. 2019): learned positions, pre-norm blocks, causal attention.

The model code followed is `transformers`' `GPT2Model`; weights keep its names.
"""

import math
from dataclasses import dataclass

from ..graph import Tensor
from ..ops import attention, embed, layer_norm, linear, linear_add


@dataclass(frozen=True)
class GPT2Config:
    layers: int = 12
    heads: int = 12
    width: int = 768
    inner: int = 3072
    context: int = 1024
    vocab: int = 50257
    activation: str = "gelu_tanh"
    eps: float = 1e-5
    scale_attention: bool = True  # by 1/sqrt(head size)
    scale_by_layer: bool = False  # and by 1/(layer index + 1)


def gpt2(c: GPT2Config, layer: int, half: str = "f32") -> Tensor:
    """The hidden state after block `layer` (0: the embeddings) of packed sequences, f32 (T, C).

    The last one includes the final norm, as `hidden_states[layer]` of `transformers` does.
    `half` is the dtype of matrices and of what is fed to them: "f32" or "f16".
    """
    W = c.width

    def weight(name: str, *shape: int) -> Tensor:
        return Tensor(shape, half if len(shape) == 2 else "f32", name)

    def norm(x: Tensor, name: str, out: str = half) -> Tensor:
        return layer_norm(x, weight(f"{name}.weight", W), weight(f"{name}.bias", W), eps=c.eps, out=out)

    def dense(name: str, k: int, n: int) -> tuple[Tensor, Tensor]:
        return weight(f"{name}.weight", k, n), weight(f"{name}.bias", n)

    ids, positions = Tensor(("T",), "u32", "ids"), Tensor(("T",), "u32", "positions")
    spans, tiles = Tensor(("B", 2), "u32", "spans"), Tensor(("G", 2), "u32", "tiles")

    x = embed(ids, positions, weight("wte.weight", c.vocab, W), weight("wpe.weight", c.context, W))  # (T, C)
    for i in range(layer):
        scale = (1 / math.sqrt(W // c.heads) if c.scale_attention else 1.0) / (i + 1 if c.scale_by_layer else 1)
        qkv = linear(norm(x, f"h.{i}.ln_1"), *dense(f"h.{i}.attn.c_attn", W, 3 * W), out=half)  # (T, 3C)
        a = attention(qkv, spans, tiles, head_size=W // c.heads, scale=scale, causal=True, out=half)  # (T, C)
        x = linear_add(a, *dense(f"h.{i}.attn.c_proj", W, W), x)  # (T, C)
        h = linear(norm(x, f"h.{i}.ln_2"), *dense(f"h.{i}.mlp.c_fc", W, c.inner), activation=c.activation, out=half)
        x = linear_add(h, *dense(f"h.{i}.mlp.c_proj", c.inner, W), x)  # (T, C)
    return norm(x, "ln_f", out="f32") if layer == c.layers else x
