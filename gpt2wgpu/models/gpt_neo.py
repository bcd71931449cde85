"""GPT-Neo (Black et al. 2021), the base of SGPT (Muennighoff 2022): GPT-2, but attention is not scaled, sees only the last 256
tokens in every other block, and has no bias in query, key and value.

Follows `GPTNeoModel` of `transformers`. Weights keep its names, but query, key and value lie side by side as
`attn.attention.qkv_proj`.
"""

import re
from dataclasses import dataclass
from typing import Self

from ..graph.ops import attention, embed, layer_norm, linear, linear_add
from ..graph.tensor import Tensor
from .architecture import IDS, MOST_LAYERS, POSITIONS, SPANS, TILES, Architecture, Shapes, Weights, read_activation, read_heads
from .fields import Fields


@dataclass(frozen=True)
class GPTNeoConfig(Architecture):
    layers: int = 24
    heads: int = 16
    width: int = 2048
    inner: int = 8192
    context: int = 2048
    vocab: int = 50257
    local: tuple[bool, ...] = (False, True) * 12  # for each block, whether its attention is local
    window: int = 256  # tokens that local attention sees, the query's own included
    activation: str = "gelu_tanh"
    eps: float = 1e-5

    title, model, tokenizer, decoder = "GPT-Neo", "GPTNeoModel", "gpt2", True
    table, block, prefixes = "wte.weight", "h.{}.ln_1.weight", ("", "transformer.")
    body, buffers = re.compile(r"(wte|wpe|h|ln_f)\."), re.compile(r"h\.\d+\.attn\.attention\.(bias|masked_bias)")
    unused = ("attention_types",)  # superseded by attention_layers
    as_is = ("wte.", "wpe.")

    @classmethod
    def read(cls, fields: Fields) -> Self:
        if not fields.flag("is_causal", default=True):
            raise fields.refuse("is_causal", "true: GPT-Neo attends to earlier tokens only")
        width = fields.integer("hidden_size", default=cls.width)
        layers = fields.integer("num_hidden_layers", "num_layers", default=cls.layers)
        return cls(
            layers=layers,
            heads=read_heads(fields, "num_attention_heads", "num_heads", width=width, default=cls.heads),
            width=width,
            inner=fields.integer("intermediate_size", default=4 * width),
            context=fields.integer("max_position_embeddings", default=cls.context),
            vocab=fields.integer("vocab_size", default=cls.vocab),
            local=read_local(fields, layers),
            window=fields.integer("window_size", default=cls.window, least=2),
            activation=read_activation(fields, "activation_function", "gelu_new"),
            eps=fields.number("layer_norm_epsilon", default=cls.eps),
        )

    def hidden(self, layer: int, operand_dtype: str = "f32") -> Tensor:
        C, D, inner, w = self.width, self.width // self.heads, self.inner, Weights(operand_dtype)

        def norm(x: Tensor, name: str, out: str = operand_dtype) -> Tensor:
            return layer_norm(x, *w.pair(name, C), eps=self.eps, out=out)

        x = embed(IDS, POSITIONS, w("wte.weight", self.vocab, C), w("wpe.weight", self.context, C))  # (T, C)
        for i in range(layer):
            at, window = f"h.{i}.attn.attention", self.window - 1 if self.local[i] else 0  # 0: all tokens
            h = norm(x, f"h.{i}.ln_1")  # (T, C)
            qkv = linear(h, *w.pair(f"{at}.qkv_proj", C, 3 * C), out=w.dtype)  # (T, 3C)
            a = attention(qkv, SPANS, TILES, head_size=D, scale=1.0, causal=True, window=window, out=w.dtype)  # (T, C)
            x = linear_add(a, *w.pair(f"{at}.out_proj", C, C), x)  # (T, C)
            h = norm(x, f"h.{i}.ln_2")  # (T, C)
            h = linear(h, *w.pair(f"h.{i}.mlp.c_fc", C, inner), activation=self.activation, out=w.dtype)  # (T, inner)
            x = linear_add(h, *w.pair(f"h.{i}.mlp.c_proj", inner, C), x)  # (T, C)
        return norm(x, "ln_f", out="f32") if layer == self.layers else x  # (T, C); hidden_states[-1] is after the last norm

    def parts(self, name: str, shape: tuple[int, ...]) -> Shapes:
        if name.endswith(".qkv_proj.bias"):
            return {}
        if ".qkv_proj." in name:
            return {name.replace("qkv", part): (*shape[:-1], self.width) for part in "qkv"}
        return {name: shape}


def is_group(value: object) -> bool:
    """[["global", "local"], 12]: a pattern, and how often it comes."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return isinstance(value[0], list) and isinstance(value[1], int) and 0 <= value[1] <= MOST_LAYERS


def read_local(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Whether each block's attention is local: from a list of "global" and "local", else from patterns and how often each."""
    expected = f'"global" or "local" for each of {layers} layers'
    if layers > MOST_LAYERS:
        raise fields.refuse("num_layers", f"{MOST_LAYERS} at most")
    kinds, name = fields.value("attention_layers"), "attention_layers"
    if kinds is None:
        name = "attention_types"
        groups = fields.value(name) or [[["global", "local"], 12]]
        if isinstance(groups, list) and all(map(is_group, groups)) and sum(len(kinds) * n for kinds, n in groups) == layers:
            kinds = [kind for pattern, times in groups for kind in pattern * times]
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in ("global", "local") for kind in kinds):
        raise fields.refuse(name, expected)
    return tuple(kind == "local" for kind in kinds)
