"""ModernBERT (Warner et al. 2024): rotary positions, gated linear units, pre-norm blocks, attention in both directions, which
sees only near tokens in two blocks of three.

Follows `ModernBertModel` of `transformers`; weights keep its names.
"""

import re
from dataclasses import dataclass
from typing import Self

from ..graph.ops import attention, embed, glu, layer_norm, linear, linear_add, rotary
from ..graph.tensor import Array, Tensor
from .architecture import IDS, POSITIONS, SPANS, TILES, TYPES, Architecture, Shapes, Weights, read_activation, read_heads
from .fields import Fields
from .rotary import ATTENTION_KINDS, read_context, read_head_size, read_kinds, read_theta, rotary_table


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
    local: tuple[bool, ...] = (False, True, True) * 7 + (False,)  # whether a token sees only near ones, for each block
    window: int = 64  # how far a token sees in local blocks
    thetas: tuple[float, float] = (160_000.0, 10_000.0)  # bases of rotary positions: in global blocks, in local ones
    biases: tuple[str, ...] = ()  # which of norm, attn, mlp have a bias

    title, model = "ModernBERT", "ModernBertModel"
    table, block, prefixes = "embeddings.tok_embeddings.weight", "layers.{}.mlp_norm.weight", ("", "model.")
    body, buffers = re.compile(r"(embeddings|layers|final_norm)\."), re.compile(r"(?!)")
    unused = (
        *("layer_norm_eps", "position_embedding_type", "rope_theta"),  # superseded names of the first releases
        *("reference_compile", "repad_logits_with_grad", "deterministic_flash_attn", "initializer_cutoff_factor"),
        *("decoder_bias", "sparse_prediction", "sparse_pred_ignore_index"),
    )
    as_is = ("embeddings.",)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        layers, width = fields.integer("num_hidden_layers", default=cls.layers), fields.integer("hidden_size", default=cls.width)
        heads = read_heads(fields, "num_attention_heads", width=width, default=cls.heads)
        if read_head_size(fields, width // heads) * heads != width:
            raise fields.refuse("head_dim", f"the width divided by num_attention_heads, {width // heads}")
        every = fields.integer("global_attn_every_n_layers", default=3)
        half = fields.integer("local_attention", default=2 * cls.window, least=2) // 2
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
            window=fields.integer("sliding_window", default=half),  # `transformers` takes this one where both are given
            thetas=(
                read_theta(fields, "global_rope_theta", default=cls.thetas[0], kind=ATTENTION_KINDS[0]),
                read_theta(fields, "local_rope_theta", default=cls.thetas[1], kind=ATTENTION_KINDS[1]),
            ),
            biases=tuple(kind for kind, name in names.items() if fields.flag(name, default=False)),
        )

    def hidden(self, layer: int, operand_dtype: str = "f32") -> Tensor:
        C, H, D, inner, w = self.width, self.heads, self.width // self.heads, self.inner, Weights(operand_dtype)
        angles = [Tensor((self.context, D), name=kind) for kind in ATTENTION_KINDS]  # (S, D) each

        def norm(x: Tensor, name: str, out: str = operand_dtype) -> Tensor:
            return layer_norm(x, *w.pair(name, C), eps=self.eps, out=out)

        x = embed(IDS, TYPES, w(self.table, self.vocab, C), w("zeros", 1, C))  # (T, C)
        x = norm(x, "embeddings.norm", out="f32")  # (T, C)
        for i in range(layer):
            at, local = f"layers.{i}", self.local[i]
            window = self.window if local else 0  # 0: all tokens
            h = norm(x, f"{at}.attn_norm") if i else x  # (T, C); the embeddings have just been normalized
            qkv = linear(h, *w.pair(f"{at}.attn.Wqkv", C, 3 * C), out=w.dtype)  # (T, 3C)
            qkv = rotary(qkv, POSITIONS, angles[local], heads=2 * H, out=w.dtype)  # (T, 3C)
            a = attention(qkv, SPANS, TILES, head_size=D, scale=D**-0.5, causal=False, window=window, out=w.dtype)  # (T, C)
            x = linear_add(a, *w.pair(f"{at}.attn.Wo", C, C), x)  # (T, C)
            h = norm(x, f"{at}.mlp_norm")  # (T, C)
            h = linear(h, *w.pair(f"{at}.mlp.Wi", C, 2 * inner), out=w.dtype)  # (T, 2 inner)
            h = glu(h, activation=self.activation, out=w.dtype)  # (T, inner)
            x = linear_add(h, *w.pair(f"{at}.mlp.Wo", inner, C), x)  # (T, C)
        return norm(x, "final_norm", out="f32") if layer == self.layers else x  # (T, C); hidden_states[-1] is after the last norm

    def parts(self, name: str, shape: tuple[int, ...]) -> Shapes:
        if name in (*ATTENTION_KINDS, "zeros"):
            return {}
        has_bias = any(f"{kind}." in name for kind in self.biases)
        return {} if name.endswith(".bias") and not has_bias else {name: shape}

    def made(self, name: str, shape: tuple[int, ...]) -> Array:
        if name in ATTENTION_KINDS:
            return rotary_table(self.context, self.width // self.heads, self.thetas[ATTENTION_KINDS.index(name)])
        return super().made(name, shape)
