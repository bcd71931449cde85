"""Qwen3 (Yang et al. 2025): a decoder with RMS norms, also for each query and key, rotary positions, gated linear units, and keys
and values that several heads of queries share.

Follows `Qwen3Model` of `transformers`. Weights keep its names, but layers with the same input lie side by side as
`self_attn.qkv` and `mlp.gated`, and the norms of queries and keys are one weight for all heads.
"""

import re
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..graph.ops import attention, embed, glu, linear, linear_add, norm_rotary, rms_norm
from ..graph.tensor import Array, Tensor
from .architecture import IDS, POSITIONS, SPANS, TILES, TYPES, Architecture, Shapes, Weights, read_activation
from .fields import Fields
from .rotary import read_context, read_head_size, read_kinds, read_theta, rotary_table


@dataclass(frozen=True)
class Qwen3Config(Architecture):
    layers: int = 32
    heads: int = 32
    kv_heads: int = 32
    width: int = 4096
    head_size: int = 128
    inner: int = 22016
    context: int = 32768
    vocab: int = 151936
    activation: str = "silu"
    eps: float = 1e-6
    theta: float = 10_000.0
    bias: bool = False  # whether the four linear layers of attention have one
    causal: bool = True  # a token sees earlier ones only; false in encoders made from a decoder
    local: tuple[bool, ...] = (False,) * 32  # whether a token sees only those at most `window` away, for each block
    window: int = 0

    title, model, tokenizer, decoder = "Qwen3", "Qwen3Model", "qwen2", True
    table, block, prefixes = "embed_tokens.weight", "layers.{}.input_layernorm.weight", ("", "model.")
    body, buffers = re.compile(r"(embed_tokens|layers|norm)\."), re.compile(r".*\.inv_freq")
    unused = ("max_window_layers", "sliding_window")  # without use_sliding_window
    as_is = ("embed_tokens.",)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        layers = fields.integer("num_hidden_layers", default=cls.layers)
        causal, sliding = fields.flag("is_causal", default=True), fields.flag("use_sliding_window", default=False)
        sliding = sliding and fields.values.get("sliding_window", 4096) is not None  # null: no block is local
        full = fields.integer("max_window_layers", default=28, least=0) if sliding else layers  # blocks before the local ones
        local = read_kinds(fields, layers, lambda i: i >= full)
        if any(local) and not sliding:
            raise fields.refuse("layer_types", "full_attention in every layer, as use_sliding_window is not true")
        heads = fields.integer("num_attention_heads", default=cls.heads)
        # null means as many as query heads; an absent field has its own default
        default = heads if "num_key_value_heads" in fields.values else cls.kv_heads
        kv_heads = fields.integer("num_key_value_heads", default=default)
        if heads % kv_heads:
            raise fields.refuse("num_key_value_heads", f"a divisor of num_attention_heads, {heads}")
        return cls(
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            width=fields.integer("hidden_size", default=cls.width),
            head_size=read_head_size(fields, cls.head_size),
            inner=fields.integer("intermediate_size", default=cls.inner),
            context=read_context(fields, "max_position_embeddings", default=cls.context),
            vocab=fields.integer("vocab_size", default=cls.vocab),
            activation=read_activation(fields, "hidden_act", "silu"),
            eps=fields.number("rms_norm_eps", default=cls.eps),
            theta=read_theta(fields, "rope_theta", default=cls.theta),
            bias=fields.flag("attention_bias", default=False),
            causal=causal,
            local=local,
            # `transformers` counts a token itself among those that it sees before it, but not among those around it
            window=fields.integer("sliding_window", default=4096, least=2) - causal if any(local) else 0,
        )

    def hidden(self, layer: int, operand_dtype: str = "f32") -> Tensor:
        C, H, KV, D, inner, w = self.width, self.heads, self.kv_heads, self.head_size, self.inner, Weights(operand_dtype)
        angles = Tensor((self.context, D), name="angles")  # (S, D)

        def norm(x: Tensor, name: str, out: str = operand_dtype) -> Tensor:
            return rms_norm(x, w(f"{name}.weight", C), eps=self.eps, out=out)

        x = embed(IDS, TYPES, w(self.table, self.vocab, C), w("zeros", 1, C))  # (T, C)
        for i in range(layer):
            at, window = f"layers.{i}", self.window if self.local[i] else 0  # 0: all tokens
            h = norm(x, f"{at}.input_layernorm")  # (T, C)
            qkv = linear(h, *w.pair(f"{at}.self_attn.qkv", C, (H + 2 * KV) * D))  # (T, (H+2KV)D)
            weight = w(f"{at}.self_attn.qk_norm", (H + KV) * D)
            qkv = norm_rotary(qkv, weight, POSITIONS, angles, eps=self.eps, out=w.dtype)  # (T, (H+2KV)D)
            a = attention(
                qkv, SPANS, TILES, head_size=D, scale=D**-0.5, causal=self.causal, window=window, kv_heads=KV, out=w.dtype
            )  # (T, HD)
            x = linear_add(a, *w.pair(f"{at}.self_attn.o_proj", H * D, C), x)  # (T, C)
            h = norm(x, f"{at}.post_attention_layernorm")  # (T, C)
            h = linear(h, *w.pair(f"{at}.mlp.gated", C, 2 * inner), out=w.dtype)  # (T, 2 inner)
            h = glu(h, activation=self.activation, out=w.dtype)  # (T, inner)
            x = linear_add(h, *w.pair(f"{at}.mlp.down_proj", inner, C), x)  # (T, C)
        return norm(x, "norm", out="f32") if layer == self.layers else x  # (T, C); hidden_states[-1] is after the last norm

    def parts(self, name: str, shape: tuple[int, ...]) -> Shapes:
        if name in ("angles", "zeros") or (name.endswith(".bias") and not (self.bias and ".self_attn." in name)):
            return {}
        if name.endswith(".qk_norm"):
            return {name.replace("qk_norm", f"{part}_norm.weight"): (self.head_size,) for part in "qk"}
        if ".self_attn.qkv." in name:
            sizes = {"q_proj": self.heads, "k_proj": self.kv_heads, "v_proj": self.kv_heads}
            return {name.replace("qkv", part): (*shape[:-1], n * self.head_size) for part, n in sizes.items()}
        if ".mlp.gated." in name:
            return {name.replace("gated", part): (self.width, self.inner) for part in ("gate_proj", "up_proj")}
        return {name: shape}

    def join(self, name: str, arrays: list[Array]) -> Array:
        if name.endswith(".qk_norm"):
            return np.concatenate([np.tile(arrays[0], self.heads), np.tile(arrays[1], self.kv_heads)])
        return super().join(name, arrays)

    def made(self, name: str, shape: tuple[int, ...]) -> Array:
        return rotary_table(self.context, self.head_size, self.theta) if name == "angles" else super().made(name, shape)
