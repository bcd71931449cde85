"""MPNet (Song et al. 2020): BERT without token types. Attention has a bias by the distance of two tokens, the same in all
blocks; positions are counted as in RoBERTa.

Follows `MPNetModel` of `transformers`. Weights keep its names, but query, key and value lie side by side as
`attention.attn.qkv`.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..graph.ops import attention_bias, embed, layer_norm, linear, linear_add
from ..graph.tensor import Array, Tensor
from .architecture import IDS, POSITIONS, SPANS, TILES, Architecture, Shapes, Weights, read_activation, read_heads
from .fields import Fields

BIAS = "encoder.relative_attention_bias.weight"
BUCKETS, FARTHEST = 32, 128  # tokens that are farther apart share a bucket


@dataclass(frozen=True)
class MPNetConfig(Architecture):
    layers: int = 12
    heads: int = 12
    width: int = 768
    inner: int = 3072
    context: int = 512
    vocab: int = 30527
    buckets: int = BUCKETS  # rows of the table of biases, of which the first 32 are used
    activation: str = "gelu_erf"
    eps: float = 1e-12

    title, model, tokenizer = "MPNet", "MPNetModel", "mpnet"
    pad = 1  # whatever pad_token_id says
    table, block = "embeddings.word_embeddings.weight", "encoder.layer.{}.output.dense.bias"
    prefixes = ("", "mpnet.")
    body, buffers = re.compile(r"(embeddings|encoder)\."), re.compile(r"embeddings\.position_ids")
    as_is = ("embeddings.", BIAS)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        width = fields.integer("hidden_size", default=cls.width)
        return cls(
            layers=fields.integer("num_hidden_layers", default=cls.layers),
            heads=read_heads(fields, "num_attention_heads", width=width, default=cls.heads),
            width=width,
            inner=fields.integer("intermediate_size", default=cls.inner),
            context=fields.integer("max_position_embeddings", default=cls.context, least=cls.pad + 2),
            vocab=fields.integer("vocab_size", default=cls.vocab),
            buckets=fields.integer("relative_attention_num_buckets", default=cls.buckets, least=BUCKETS),
            activation=read_activation(fields, "hidden_act", "gelu"),
            eps=fields.number("layer_norm_eps", default=cls.eps),
        )

    def hidden(self, layer: int, operand_dtype: str = "f32") -> Tensor:
        C, D, inner, w = self.width, self.width // self.heads, self.inner, Weights(operand_dtype)

        def norm(x: Tensor, name: str) -> Tensor:
            return layer_norm(x, *w.pair(name, C), eps=self.eps)

        positions = w("embeddings.position_embeddings.weight", self.context, C)  # (S, C)
        bias = Tensor((self.heads, 2 * FARTHEST + 1), "f32", BIAS)  # (H, R)
        x = embed(IDS, POSITIONS, w(self.table, self.vocab, C), positions)  # (T, C)
        x = norm(x, "embeddings.LayerNorm")  # (T, C)
        for i in range(layer):
            at = f"encoder.layer.{i}"
            qkv = linear(x, *w.pair(f"{at}.attention.attn.qkv", C, 3 * C), out=w.dtype)  # (T, 3C)
            a = attention_bias(qkv, SPANS, TILES, bias, head_size=D, scale=1 / math.sqrt(D), causal=False, out=w.dtype)  # (T, C)
            x = linear_add(a, *w.pair(f"{at}.attention.attn.o", C, C), x)  # (T, C)
            x = norm(x, f"{at}.attention.LayerNorm")  # (T, C)
            h = linear(x, *w.pair(f"{at}.intermediate.dense", C, inner), activation=self.activation, out=w.dtype)  # (T, inner)
            x = linear_add(h, *w.pair(f"{at}.output.dense", inner, C), x)  # (T, C)
            x = norm(x, f"{at}.output.LayerNorm")  # (T, C)
        return x

    def parts(self, name: str, shape: tuple[int, ...]) -> Shapes:
        if name == BIAS:
            return {BIAS: (self.buckets, self.heads)}
        if ".attn.qkv." in name:
            return {name.replace("qkv", part): (*shape[:-1], self.width) for part in "qkv"}
        return {name: shape}

    def join(self, name: str, arrays: list[Array]) -> Array:
        """The biases get a row for each head and a column for each distance, key - query, from -128 to 128."""
        return arrays[0][distance_bucket(np.arange(-FARTHEST, FARTHEST + 1))].T if name == BIAS else super().join(name, arrays)

    def split(self, name: str, array: Array) -> dict[str, Array]:
        """The biases are not trained: `beside` saves them as they were read."""
        return {} if name == BIAS else super().split(name, array)

    def beside(self, read: Callable[[str], Array]) -> dict[str, Array]:
        return {BIAS: read(BIAS)}


def distance_bucket(distance: Array) -> Array:
    """The row of the table of biases for a distance, key - query (Raffel et al. 2020, T5).

    Rows 0 to 15 are for keys at or before the query, 16 to 31 for keys after it. In each half, 8 rows are for the distances 0
    to 7, and 8 for ranges that grow by a factor of sqrt(2) up to 128.
    """
    n = np.abs(distance)
    far = 8 + np.floor(2 * np.log2(np.maximum(n, 8) / 8)).astype(int)
    return np.where(n < 8, n, np.minimum(far, 15)) + 16 * (distance > 0)
