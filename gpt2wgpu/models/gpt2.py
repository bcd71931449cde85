"""GPT-2 (Radford et al. 2019): learned positions, pre-norm blocks, causal attention unless config.json has `is_causal` false.

Follows `GPT2Model` of `transformers`; weights keep its names.
"""

import math
import re
from dataclasses import dataclass
from typing import Self

from ..graph.ops import attention, embed, layer_norm, linear, linear_add
from ..graph.tensor import Tensor
from .architecture import IDS, POSITIONS, SPANS, TILES, Architecture, Weights, read_activation, read_heads
from .fields import Fields


@dataclass(frozen=True)
class GPT2Config(Architecture):
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
    causal: bool = True  # a token sees earlier ones only; false in sentence models that were trained so

    title, model, tokenizer, decoder = "GPT-2", "GPT2Model", "gpt2", True
    table, block, prefixes = "wte.weight", "h.{}.ln_1.weight", ("", "transformer.")
    body, buffers = re.compile(r"(wte|wpe|h|ln_f)\."), re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
    unused = ("reorder_and_upcast_attn", "n_special", "predict_special_tokens")  # attention is in f32 anyway
    as_is = ("",)  # its Conv1D is (in, out) in the files

    @classmethod
    def read(cls, fields: Fields) -> Self:
        width = fields.integer("hidden_size", "n_embd", default=cls.width)
        return cls(
            layers=fields.integer("num_hidden_layers", "n_layer", default=cls.layers),
            heads=read_heads(fields, "num_attention_heads", "n_head", width=width, default=cls.heads),
            width=width,
            inner=fields.integer("n_inner", default=4 * width),
            context=fields.integer("max_position_embeddings", "n_positions", "n_ctx", default=cls.context),
            vocab=fields.integer("vocab_size", default=cls.vocab),
            activation=read_activation(fields, "activation_function", "gelu_new"),
            eps=fields.number("layer_norm_epsilon", default=cls.eps),
            scale_attention=fields.flag("scale_attn_weights", default=True),
            scale_by_layer=fields.flag("scale_attn_by_inverse_layer_idx", default=False),
            causal=fields.flag("is_causal", default=True),
        )

    @property
    def default_layer(self) -> int:
        """A raw GPT-2 is best in the middle: the original recommends layers 6 to 8 of 12."""
        return max(1, round(self.layers * 7 / 12))

    def hidden(self, layer: int, operand_dtype: str = "f32") -> Tensor:
        C, D, inner, w = self.width, self.width // self.heads, self.inner, Weights(operand_dtype)

        def norm(x: Tensor, name: str, out: str = operand_dtype) -> Tensor:
            return layer_norm(x, *w.pair(name, C), eps=self.eps, out=out)

        x = embed(IDS, POSITIONS, w("wte.weight", self.vocab, C), w("wpe.weight", self.context, C))  # (T, C)
        for i in range(layer):
            scale = (1 / math.sqrt(D) if self.scale_attention else 1.0) / (i + 1 if self.scale_by_layer else 1)
            h = norm(x, f"h.{i}.ln_1")  # (T, C)
            qkv = linear(h, *w.pair(f"h.{i}.attn.c_attn", C, 3 * C), out=w.dtype)  # (T, 3C)
            a = attention(qkv, SPANS, TILES, head_size=D, scale=scale, causal=self.causal, out=w.dtype)  # (T, C)
            x = linear_add(a, *w.pair(f"h.{i}.attn.c_proj", C, C), x)  # (T, C)
            h = norm(x, f"h.{i}.ln_2")  # (T, C)
            h = linear(h, *w.pair(f"h.{i}.mlp.c_fc", C, inner), activation=self.activation, out=w.dtype)  # (T, inner)
            x = linear_add(h, *w.pair(f"h.{i}.mlp.c_proj", inner, C), x)  # (T, C)
        return norm(x, "ln_f", out="f32") if layer == self.layers else x  # (T, C); hidden_states[-1] is after the last norm
