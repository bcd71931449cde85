"""BERT (Devlin et al. 2018): learned positions, post-norm blocks, attention in both directions.

Follows `BertModel` of `transformers`. Weights keep its names, but query, key and value lie side by side as `attention.self.qkv`,
and row 0 of the token types, which every token of a text has, is added to the positions.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..graph.ops import attention, embed, layer_norm, linear, linear_add
from ..graph.tensor import Array, Tensor
from .architecture import IDS, POSITIONS, SPANS, TILES, Architecture, Shapes, Weights, read_activation, read_heads
from .fields import Fields

POSITION_TABLE, TYPE_TABLE = "embeddings.positions_and_type.weight", "embeddings.token_type_embeddings.weight"


@dataclass(frozen=True)
class BertConfig(Architecture):
    layers: int = 12
    heads: int = 12
    width: int = 768
    inner: int = 3072
    context: int = 512
    vocab: int = 30522
    types: int = 2
    activation: str = "gelu_erf"
    eps: float = 1e-12

    title, model, tokenizer = "BERT", "BertModel", "bert"
    table, block = "embeddings.word_embeddings.weight", "encoder.layer.{}.output.dense.bias"
    prefixes = ("", "bert.", "roberta.", "camembert.", "xlm_roberta.")
    body, buffers = re.compile(r"(embeddings|encoder)\."), re.compile(r"embeddings\.(position_ids|token_type_ids)")
    as_is = ("embeddings.",)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        if fields.text("position_embedding_type", default="absolute") != "absolute":
            raise fields.refuse("position_embedding_type", '"absolute": relative positions are not supported')
        width = fields.integer("hidden_size", default=cls.width)
        return cls(
            layers=fields.integer("num_hidden_layers", default=cls.layers),
            heads=read_heads(fields, "num_attention_heads", width=width, default=cls.heads),
            width=width,
            inner=fields.integer("intermediate_size", default=cls.inner),
            context=fields.integer("max_position_embeddings", default=cls.context),
            vocab=fields.integer("vocab_size", default=cls.vocab),
            types=fields.integer("type_vocab_size", default=cls.types),
            activation=read_activation(fields, "hidden_act", "gelu"),
            eps=fields.number("layer_norm_eps", default=cls.eps),
        )

    def hidden(self, layer: int, operand_dtype: str = "f32") -> Tensor:
        C, D, inner, w = self.width, self.width // self.heads, self.inner, Weights(operand_dtype)

        def norm(x: Tensor, name: str) -> Tensor:
            return layer_norm(x, *w.pair(name, C), eps=self.eps)

        x = embed(IDS, POSITIONS, w(self.table, self.vocab, C), w(POSITION_TABLE, self.context, C))  # (T, C)
        x = norm(x, "embeddings.LayerNorm")  # (T, C)
        for i in range(layer):
            at = f"encoder.layer.{i}"
            qkv = linear(x, *w.pair(f"{at}.attention.self.qkv", C, 3 * C), out=w.dtype)  # (T, 3C)
            a = attention(qkv, SPANS, TILES, head_size=D, scale=1 / math.sqrt(D), causal=False, out=w.dtype)  # (T, C)
            x = linear_add(a, *w.pair(f"{at}.attention.output.dense", C, C), x)  # (T, C)
            x = norm(x, f"{at}.attention.output.LayerNorm")  # (T, C)
            h = linear(x, *w.pair(f"{at}.intermediate.dense", C, inner), activation=self.activation, out=w.dtype)  # (T, inner)
            x = linear_add(h, *w.pair(f"{at}.output.dense", inner, C), x)  # (T, C)
            x = norm(x, f"{at}.output.LayerNorm")  # (T, C)
        return x

    def parts(self, name: str, shape: tuple[int, ...]) -> Shapes:
        if name == POSITION_TABLE:
            return {"embeddings.position_embeddings.weight": shape, TYPE_TABLE: (self.types, self.width)}
        if ".self.qkv." in name:
            return {name.replace("qkv", part): (*shape[:-1], self.width) for part in ("query", "key", "value")}
        return {name: shape}

    def join(self, name: str, arrays: list[Array]) -> Array:
        if name == POSITION_TABLE:
            positions, types = arrays
            return positions.astype(np.float32) + types[0].astype(np.float32)
        return super().join(name, arrays)

    def split(self, name: str, array: Array) -> dict[str, Array]:
        """Row 0 of the types stays added to the positions; `beside` gives types whose row 0 is zero."""
        return {"embeddings.position_embeddings.weight": array} if name == POSITION_TABLE else super().split(name, array)

    def beside(self, read: Callable[[str], Array]) -> dict[str, Array]:
        types = read(TYPE_TABLE)
        return {TYPE_TABLE: types - types[0]}
