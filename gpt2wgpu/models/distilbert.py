"""DistilBERT (Sanh et al. 2019): BERT with other names and without token types.

Follows `DistilBertModel` of `transformers`. Weights keep its names, but query, key and value lie side by side as
`attention.qkv_lin`. The files hold sinusoidal positions just as they hold learned ones.
"""

import math
import re
from dataclasses import dataclass
from typing import ClassVar, Self

from ..graph.ops import attention, embed, layer_norm, linear, linear_add
from ..graph.tensor import Tensor
from .architecture import IDS, POSITIONS, SPANS, TILES, Architecture, Shapes, Weights, read_activation, read_heads
from .fields import Fields


@dataclass(frozen=True)
class DistilBertConfig(Architecture):
    layers: int = 6
    heads: int = 12
    width: int = 768
    inner: int = 3072
    context: int = 512
    vocab: int = 30522
    activation: str = "gelu_erf"
    eps: ClassVar[float] = 1e-12

    title, model, tokenizer = "DistilBERT", "DistilBertModel", "bert"
    table, block = "embeddings.word_embeddings.weight", "transformer.layer.{}.ffn.lin2.bias"
    prefixes = ("", "distilbert.")
    body, buffers = re.compile(r"(embeddings|transformer)\."), re.compile(r"embeddings\.position_ids")
    unused = ("sinusoidal_pos_embds", "tie_weights_")  # the files hold the positions, learned or sinusoidal
    as_is = ("embeddings.",)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        width = fields.integer("hidden_size", "dim", default=cls.width)
        return cls(
            layers=fields.integer("num_hidden_layers", "n_layers", default=cls.layers),
            heads=read_heads(fields, "num_attention_heads", "n_heads", width=width, default=cls.heads),
            width=width,
            inner=fields.integer("hidden_dim", default=cls.inner),
            context=fields.integer("max_position_embeddings", default=cls.context),
            vocab=fields.integer("vocab_size", default=cls.vocab),
            activation=read_activation(fields, "activation", "gelu"),
        )

    def hidden(self, layer: int, operand_dtype: str = "f32") -> Tensor:
        C, D, inner, w = self.width, self.width // self.heads, self.inner, Weights(operand_dtype)

        def norm(x: Tensor, name: str) -> Tensor:
            return layer_norm(x, *w.pair(name, C), eps=self.eps)

        positions = w("embeddings.position_embeddings.weight", self.context, C)  # (S, C)
        x = embed(IDS, POSITIONS, w(self.table, self.vocab, C), positions)  # (T, C)
        x = norm(x, "embeddings.LayerNorm")  # (T, C)
        for i in range(layer):
            at = f"transformer.layer.{i}"
            qkv = linear(x, *w.pair(f"{at}.attention.qkv_lin", C, 3 * C), out=w.dtype)  # (T, 3C)
            a = attention(qkv, SPANS, TILES, head_size=D, scale=1 / math.sqrt(D), causal=False, out=w.dtype)  # (T, C)
            x = linear_add(a, *w.pair(f"{at}.attention.out_lin", C, C), x)  # (T, C)
            x = norm(x, f"{at}.sa_layer_norm")  # (T, C)
            h = linear(x, *w.pair(f"{at}.ffn.lin1", C, inner), activation=self.activation, out=w.dtype)  # (T, inner)
            x = linear_add(h, *w.pair(f"{at}.ffn.lin2", inner, C), x)  # (T, C)
            x = norm(x, f"{at}.output_layer_norm")  # (T, C)
        return x

    def parts(self, name: str, shape: tuple[int, ...]) -> Shapes:
        if ".qkv_lin." in name:
            return {name.replace("qkv", part): (*shape[:-1], self.width) for part in "qkv"}
        return {name: shape}
