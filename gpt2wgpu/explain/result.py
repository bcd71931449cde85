"""What `Encoder.explain` returns: an Explanation, whose numbers are float64 arrays, and which writes itself as JSON, text or a
page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph.tensor import Array
from ..tokenizer.words import TokenFacts, WordSteps
from .dispatches import DispatchFacts, OpFacts
from .shares import PartShares


@dataclass(frozen=True)
class TextTrace:
    """How one text became a vector. n tokens, C columns, L blocks that are run, H heads, P = C or, with several poolings side by
    side, a multiple of it.

    text: the text as given; read: with the prompt before it and, where the model lowercases, as it was read. tokens, words: see
    tokenizer/words.py. token_vectors, position_vectors (n, C): the rows of the two tables that the embedding adds. states
    (L + 1, n, C): the hidden state before the first block [0] and after each. attention (L, H, n, n): [l, h, i, j] is how much
    of token j head h of block l + 1 gives to token i; each row sums to 1. pooling: for each pooling its name and what it takes
    of each token, (n, 1), or (n, C) for max. pooled (P,): the vector after the pooling. vector: the one that `encode` gives,
    computed in float64. encoded: the same as the model's device computed it, float32.
    """

    text: str
    read: str
    tokens: tuple[TokenFacts, ...]
    words: tuple[WordSteps, ...]
    token_vectors: Array
    position_vectors: Array
    states: Array
    attention: Array
    pooling: tuple[tuple[str, Array], ...]
    pooled: Array
    vector: Array
    encoded: Array


@dataclass(frozen=True)
class CosineShares:
    """The cosine of two texts a and b as sums; of one text, of its vector with itself, which is 1.

    Every sum below is the cosine within 1e-5 (measured: 1e-12).

    tokens_a, tokens_b: what each token of a, and of b, gives; `constant_a` and `constant_b` are what modules after the pooling
    add that is no token's. pairs (n_a, n_b): what each pair of tokens gives; with constant_a, constant_b and constant_both (of
    the two constants) it adds up. dimensions: what each dimension of the vector gives. parts_a: what the parts of the model
    give through the vector of a (that of b unchanged), parts_b through b's; parts: the mean of the two.
    held_tokens, held_parts: what is held at its value for the two groups of sums. With nothing held, the model is linear there:
    a share is also what would be missing without it. With something held, the sum is exact for these texts, but another
    text, or a part left out, would change what is held.
    """

    tokens_a: Array
    tokens_b: Array
    pairs: Array
    constant_a: float
    constant_b: float
    constant_both: float
    dimensions: Array
    parts_a: PartShares
    parts_b: PartShares
    parts: PartShares
    held_tokens: tuple[str, ...]
    held_parts: tuple[str, ...]

    @property
    def pairs_total(self) -> float:
        """The pairs of tokens and the constants together."""
        return float(self.pairs.sum() + self.constant_a + self.constant_b - self.constant_both)


@dataclass(frozen=True)
class Explanation:
    """How one text, or two, became vectors, and why these are alike.

    model: facts of the model, by name. positions: how it knows the order of tokens: "learned", "rotary" or "distance". texts:
    one or two. cosine: of the two vectors, in float64; 1 for one text. encoded_cosine: of the vectors that the device computed.
    shares: the cosine as exact sums. layer_cosines (L + 1,): of the pooled hidden states after each block, before anything that
    follows the pooling; None for one text. dispatches: the kernels that compute these texts in one batch, in order; shaders: the
    WGSL that they run; ops: what they compute. timed: whether the dispatches have times.
    """

    model: dict[str, str | int]
    positions: str
    texts: tuple[TextTrace, ...]
    cosine: float
    encoded_cosine: float
    shares: CosineShares
    layer_cosines: Array | None
    dispatches: tuple[DispatchFacts, ...]
    shaders: tuple[str, ...]
    ops: tuple[OpFacts, ...]
    timed: bool

    @property
    def has_final_norm(self) -> bool:
        """Whether a norm stands between the last block and the last hidden state."""
        return any(d.part == "final norm" for d in self.dispatches)

    def token_cosines(self, text: int = 0, other: int | None = None) -> Array:
        """The cosine of each token's hidden state with each other token's, after each block: (L + 1, n, n), or (L + 1, n_a, n_b)
        with the tokens of another text."""
        a, b = (unit_rows(self.texts[i].states) for i in (text, text if other is None else other))
        return a @ b.swapaxes(-1, -2)

    def to_json(self) -> dict[str, Any]:
        """Everything but the hidden states as plain dicts, lists and numbers of 6 digits; `json.dumps` writes it."""
        return dict(plain_fields(self))

    def to_text(self, width: int = 100) -> str:
        """A summary for a terminal."""
        from .terminal import write_text

        return write_text(self, width)

    def to_html(self) -> str:
        """A page that needs nothing else: no network, no library. It works from a file."""
        from .page import write_page

        return write_page(self)


def unit_rows(rows: Array) -> Array:
    """Rows of length 1; a zero row stays zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-30)


def plain_fields(value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass as plain values, without hidden states."""
    for name in value.__dataclass_fields__:
        if name != "states":
            yield name, plain_value(getattr(value, name))


def plain_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return round_numbers(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        found = dict(plain_fields(value))
        return (
            found | {"layers": round_numbers(value.layers.tolist()), "total": value.total}
            if isinstance(value, PartShares)
            else found
        )
    return value


def round_numbers(values: Any) -> Any:
    """Nested lists of floats, with 6 significant digits."""
    return [round_numbers(v) for v in values] if isinstance(values, list) else float(f"{values:.6g}")
