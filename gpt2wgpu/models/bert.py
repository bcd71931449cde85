"""BERT (Devlin et al. 2018) and RoBERTa / XLM-R, which differ from it in how positions are counted.

Post-norm blocks, attention in both directions. The model code followed is `transformers`' `BertModel`;
weights keep its names, with query, key and value side by side as `attention.self.qkv`.
"""

import math
from dataclasses import dataclass

from ..graph import Tensor
from ..ops import attention, embed, layer_norm, linear, linear_add


@dataclass(frozen=True)
class BertConfig:
    layers: int = 12
    heads: int = 12
    width: int = 768
    inner: int = 3072
    context: int = 512  # rows of the position table
    vocab: int = 30522
    types: int = 2
    activation: str = "gelu_erf"
    eps: float = 1e-12
    pad: int | None = None  # RoBERTa: positions count from pad + 1; BERT: from 0


def bert(c: BertConfig, layer: int, half: str = "f32") -> Tensor:
    """The hidden state after block `layer` (0: the embeddings) of packed sequences, f32 (T, C).

    `half` is the dtype of matrices and of what is fed to them: "f32" or "f16".
    """
    W = c.width

    def weight(name: str, *shape: int) -> Tensor:
        return Tensor(shape, half if len(shape) == 2 else "f32", name)

    def norm(x: Tensor, name: str) -> Tensor:
        return layer_norm(x, weight(f"{name}.weight", W), weight(f"{name}.bias", W), eps=c.eps)

    def dense(name: str, k: int, n: int) -> tuple[Tensor, Tensor]:
        return weight(f"{name}.weight", k, n), weight(f"{name}.bias", n)

    ids, positions = Tensor(("T",), "u32", "ids"), Tensor(("T",), "u32", "positions")
    spans, tiles = Tensor(("B", 2), "u32", "spans"), Tensor(("G", 2), "u32", "tiles")

    # every token of a text is of type 0, so the checkpoint reader adds that row to the position table
    tables = weight("embeddings.word_embeddings.weight", c.vocab, W), weight("embeddings.positions_and_type.weight", c.context, W)
    x = norm(embed(ids, positions, *tables), "embeddings.LayerNorm")  # (T, C)
    for i in range(layer):
        at = f"encoder.layer.{i}"
        qkv = linear(x, *dense(f"{at}.attention.self.qkv", W, 3 * W), out=half)  # (T, 3C)
        scale = 1 / math.sqrt(W // c.heads)
        a = attention(qkv, spans, tiles, head_size=W // c.heads, scale=scale, causal=False, out=half)  # (T, C)
        x = norm(linear_add(a, *dense(f"{at}.attention.output.dense", W, W), x), f"{at}.attention.output.LayerNorm")
        h = linear(x, *dense(f"{at}.intermediate.dense", W, c.inner), activation=c.activation, out=half)
        x = norm(linear_add(h, *dense(f"{at}.output.dense", c.inner, W), x), f"{at}.output.LayerNorm")
    return x
