"""ModernBERT (Warner et al. 2024): rotary positions, gated linear units, pre-norm blocks, attention in both directions,
in two blocks of three to near tokens only.

The model code followed is `transformers`' `ModernBertModel`; weights keep its names.
"""

import re
from dataclasses import dataclass
from typing import Self

from ..graph.ops import attention, embed, glu, layer_norm, linear, linear_add, rotary
from ..graph.tensor import Array, Tensor
from .architecture import IDS, POSITIONS, SPANS, TILES, TYPES, Architecture, Shapes, Weights, read_activation, read_heads
from .fields import Fields
from .rotary import KINDS, read_context, read_head_size, read_kinds, read_theta, rotary_table


@dataclass(frozen=True)
class ModernBertConfig(Architecture):
    layers: int = 22
    heads: int = 12
    width: int = 768
    inner: int = 1152
    context: int = 8192
    vocab: int = 50368
    activation: str = "gelu_erf"
    eps: float = 1e-5
    local: tuple[bool, ...] = ()  # of each block: whether a token sees only those at most `window` away
    window: int = 64
    thetas: tuple[float, float] = (160_000.0, 10_000.0)  # of rotary positions, in the other blocks and in local ones
    biases: tuple[str, ...] = ()  # of norm, attn, mlp: those whose layers have a bias

    title, model = "ModernBERT", "ModernBertModel"
    table, block, prefixes = "embeddings.tok_embeddings.weight", "layers.{}.mlp_norm.weight", ("", "model.")
    body, buffers = re.compile(r"(embeddings|layers|final_norm)\."), re.compile(r"(?!)")
    as_is = ("embeddings.",)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        layers, width = fields.integer("num_hidden_layers", default=cls.layers), fields.integer("hidden_size", default=cls.width)
        heads = read_heads(fields, "num_attention_heads", width=width, default=cls.heads)
        if read_head_size(fields, width // heads) * heads != width:
            raise fields.refuse("head_dim", f"the width divided by num_attention_heads, {width // heads}")
        every = fields.integer("global_attn_every_n_layers", default=3)
        names = {"norm": "norm_bias", "attn": "attention_bias", "mlp": "mlp_bias"}
        return cls(
            layers=layers,
            heads=heads,
            width=width,
            inner=fields.integer("intermediate_size", default=cls.inner),
            context=read_context(fields, "max_position_embeddings", default=cls.context),
            vocab=fields.integer("vocab_size", default=cls.vocab),
            activation=read_activation(fields, "hidden_activation", "gelu"),
            eps=fields.number("norm_eps", default=cls.eps),
            local=read_kinds(fields, layers, lambda i: i % every > 0),
            window=fields.integer("local_attention", default=2 * cls.window, least=2) // 2,
            thetas=(
                read_theta(fields, "global_rope_theta", default=cls.thetas[0], kind=KINDS[0]),
                read_theta(fields, "local_rope_theta", default=cls.thetas[1], kind=KINDS[1]),
            ),
            biases=tuple(kind for kind, name in names.items() if fields.flag(name, default=False)),
        )

    def hidden(self, layer: int, half: str = "f32") -> Tensor:
        W, w, D = self.width, Weights(half), self.width // self.heads
        angles = [Tensor((self.context, D), name=kind) for kind in KINDS]

        def norm(x: Tensor, name: str, out: str = half) -> Tensor:
            return layer_norm(x, *w.pair(name, W), eps=self.eps, out=out)

        x = embed(IDS, TYPES, w(self.table, self.vocab, W), w("zeros", 1, W))  # (T, C)
        x = norm(x, "embeddings.norm", out="f32")
        for i in range(layer):
            at, local = f"layers.{i}", self.local[i]
            h = norm(x, f"{at}.attn_norm") if i else x  # the embeddings have just been normalised
            qkv = linear(h, *w.pair(f"{at}.attn.Wqkv", W, 3 * W), out=half)  # (T, 3C)
            qkv = rotary(qkv, POSITIONS, angles[local], heads=2 * self.heads, out=half)
            a = attention(
                qkv, SPANS, TILES, head_size=D, scale=D**-0.5, causal=False, window=self.window if local else 0, out=half
            )  # (T, C)
            x = linear_add(a, *w.pair(f"{at}.attn.Wo", W, W), x)
            h = linear(norm(x, f"{at}.mlp_norm"), *w.pair(f"{at}.mlp.Wi", W, 2 * self.inner), out=half)
            x = linear_add(glu(h, activation=self.activation, out=half), *w.pair(f"{at}.mlp.Wo", self.inner, W), x)
        return norm(x, "final_norm", out="f32") if layer == self.layers else x

    def parts(self, name: str, shape: tuple[int, ...]) -> Shapes:
        if name in (*KINDS, "zeros"):
            return {}
        has_bias = any(f"{kind}." in name for kind in self.biases)
        return {} if name.endswith(".bias") and not has_bias else {name: shape}

    def made(self, name: str, shape: tuple[int, ...]) -> Array:
        if name in KINDS:
            return rotary_table(self.context, self.width // self.heads, self.thetas[KINDS.index(name)])
        return super().made(name, shape)
