"""Nomic BERT (Nussbaum et al. 2024): BERT with rotary positions, gated linear units and linear layers without bias.

Follows `NomicBertModel` of `transformers`. Weights keep the names of nomic's own code, as in its files, but the two layers of
a gated linear unit lie side by side as `mlp.gated`.
"""

import re
from dataclasses import dataclass
from typing import Self

from ..graph.ops import attention, embed, glu, layer_norm, linear, linear_add, rotary
from ..graph.tensor import Array, Tensor
from .architecture import IDS, POSITIONS, SPANS, TILES, TYPES, Architecture, Shapes, Weights, read_activation
from .fields import Fields
from .rotary import read_context, read_head_size, read_theta, rotary_table

GATED = {"swiglu": "silu", "geglu": "gelu_erf", "glu": "sigmoid"}  # what nomic's code calls activations
# fields of nomic's own configuration, and what they have to be
ONLY: dict[str, object] = {"causal": False, "prenorm": False, "parallel_block": False, "use_rms_norm": False}
ONLY |= {"qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "rotary_emb_interleaved": False}
ONLY |= {"rotary_emb_fraction": 1, "rotary_emb_scale_base": None, "scale_attn_weights": True}
ONLY |= {"scale_attn_by_inverse_layer_idx": False}


@dataclass(frozen=True)
class NomicBertConfig(Architecture):
    layers: int = 12
    heads: int = 12
    width: int = 768
    head_size: int = 64
    inner: int = 3072
    context: int = 2048
    vocab: int = 30528
    types: int = 2
    activation: str = "silu"
    eps: float = 1e-12
    theta: float = 1000.0

    title, model, tokenizer = "Nomic BERT", "NomicBertModel", "bert"
    table, block = "embeddings.word_embeddings.weight", "encoder.layers.{}.norm2.weight"
    prefixes = ("", "nomic_bert.", "bert.")
    body, buffers = re.compile(r"(embeddings|emb_ln|encoder)\."), re.compile(r".*\.inv_freq")
    unused = (
        "rotary_scaling_factor",  # for texts beyond max_trained_positions, which are not read
        *("dense_seq_output", "fused_bias_fc", "fused_dropout_add_ln", "pad_vocab_size_multiple", "parallel_block_tied_norm"),
        *("reorder_and_upcast_attn", "use_flash_attn", "use_xentropy"),
    )
    as_is = ("embeddings.",)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Fields have the names of `transformers`, or those of GPT-2 as in nomic's own code, or both."""
        for name, value in ONLY.items():
            if fields.present(name) and fields.value(name) != value:
                raise fields.refuse(name, f"{str(value).lower()}: other variants of Nomic BERT are not supported")
        width = fields.integer("hidden_size", "n_embd", default=cls.width)
        heads = fields.integer("num_attention_heads", "n_head", default=cls.heads)
        activation = read_activation(fields, "hidden_act", "silu")
        if fields.present("activation_function"):
            if (gate := fields.text("activation_function")) not in GATED:
                raise fields.refuse("activation_function", f"one of {', '.join(GATED)}")
            if fields.present("hidden_act") and activation != GATED[gate]:
                raise fields.refuse("activation_function", f"the gated form of hidden_act, {fields.value('hidden_act')}")
            activation = GATED[gate]
        context = read_context(fields, "max_position_embeddings", "n_positions", default=cls.context)
        return cls(
            layers=fields.integer("num_hidden_layers", "n_layer", default=cls.layers),
            heads=heads,
            width=width,
            head_size=read_head_size(fields, width // heads),
            inner=fields.integer("intermediate_size", "n_inner", default=4 * width),
            # beyond it, nomic's code turns by other angles, which depend on the longest text of a batch
            context=min(context, fields.integer("max_trained_positions", default=context)),
            vocab=fields.integer("vocab_size", default=cls.vocab),
            types=fields.integer("type_vocab_size", default=cls.types),
            activation=activation,
            eps=fields.number("layer_norm_eps", "layer_norm_epsilon", default=cls.eps),
            theta=read_theta(fields, "rope_theta", "rotary_emb_base", default=cls.theta),
        )

    def hidden(self, layer: int, operand_dtype: str = "f32") -> Tensor:
        C, H, D, inner, w = self.width, self.heads, self.head_size, self.inner, Weights(operand_dtype)
        angles = Tensor((self.context, D), name="angles")  # (S, D)

        def norm(x: Tensor, name: str) -> Tensor:
            return layer_norm(x, *w.pair(name, C), eps=self.eps)

        types = w("embeddings.token_type_embeddings.weight", self.types, C)  # (types, C)
        x = embed(IDS, TYPES, w(self.table, self.vocab, C), types)  # (T, C)
        x = norm(x, "emb_ln")  # (T, C)
        for i in range(layer):
            at = f"encoder.layers.{i}"
            qkv = linear(x, *w.pair(f"{at}.attn.Wqkv", C, 3 * H * D), out=w.dtype)  # (T, 3HD)
            qkv = rotary(qkv, POSITIONS, angles, heads=2 * H, out=w.dtype)  # (T, 3HD)
            a = attention(qkv, SPANS, TILES, head_size=D, scale=D**-0.5, causal=False, out=w.dtype)  # (T, HD)
            x = linear_add(a, *w.pair(f"{at}.attn.out_proj", H * D, C), x)  # (T, C)
            x = norm(x, f"{at}.norm1")  # (T, C)
            h = linear(x, *w.pair(f"{at}.mlp.gated", C, 2 * inner), out=w.dtype)  # (T, 2 inner)
            h = glu(h, activation=self.activation, out=w.dtype)  # (T, inner)
            x = linear_add(h, *w.pair(f"{at}.mlp.fc2", inner, C), x)  # (T, C)
            x = norm(x, f"{at}.norm2")  # (T, C)
        return x

    def parts(self, name: str, shape: tuple[int, ...]) -> Shapes:
        if name == "angles" or re.search(r"(attn\.\w+|mlp\.\w+)\.bias$", name):
            return {}
        if ".mlp.gated." in name:
            return {name.replace("gated", part): (self.width, self.inner) for part in ("fc12", "fc11")}
        return {name: shape}

    def made(self, name: str, shape: tuple[int, ...]) -> Array:
        return rotary_table(self.context, self.head_size, self.theta) if name == "angles" else super().made(name, shape)
