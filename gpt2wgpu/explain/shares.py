"""The cosine of two texts as exact sums: over tokens, pairs of tokens, dimensions, and what each part of the model wrote.

A text's vector u is a chain of maps of held.py applied to the sum of everything that was written to the residual stream. So
cos(a, b) = <u_a, u_b> / (|u_a| |u_b|) splits over the parts of u_a, over those of u_b, and over pairs of both.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import UserError
from ..graph.tensor import Array
from .held import held_module, held_norm, pooling_weights
from .trace import ADDS, NORMS, Anatomy, Trace

SUM_TOLERANCE = 1e-5  # of every sum; float64 reaches 1e-12


@dataclass(frozen=True)
class PartShares:
    """What each part of the model gave, through what it wrote to the residual stream. All of it together is `total`.

    With L blocks of H heads. tokens, positions: the two rows of the embedding. heads (L, H). attention_bias (L,): the bias of
    the layer that joins the heads. mlps (L,): each with its bias. norms (L + 1,): the biases of norms on the stream, after the
    embedding [0] and in block i [i]. final_norm: the bias of the norm after the last block. constant: biases after the pooling.
    """

    tokens: float
    positions: float
    heads: Array
    attention_bias: Array
    mlps: Array
    norms: Array
    final_norm: float
    constant: float

    @property
    def layers(self) -> Array:
        """(L + 1,): the embedding [0], then each block's heads, MLP and biases. Without `final_norm` and `constant`."""
        blocks = self.heads.sum(1) + self.attention_bias + self.mlps
        return np.concatenate([[self.tokens + self.positions], blocks]) + self.norms

    @property
    def total(self) -> float:
        return float(self.layers.sum() + self.final_norm + self.constant)

    def mean_with(self, other: "PartShares") -> "PartShares":
        """The mean of two splits of the same number."""
        both = ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return PartShares(*((a + b) / 2 for a, b in both))


class TextParts:
    """The parts of one text's vector.

    skip: leading tokens that the pooling leaves out. dims: how many dimensions of the vector are kept.
    """

    def __init__(self, trace: Trace, anatomy: Anatomy, skip: int, dims: int) -> None:
        self.trace, self.anatomy, self.skip, self.dims = trace, anatomy, skip, dims
        state = trace[anatomy.stages[-1]]
        self.pooling = [pooling_weights(p.attrs["mode"], state, skip) for p in anatomy.pools]
        last = len(anatomy.modules) - 1
        self.modules = [held_module(trace, t, i == last) for i, t in enumerate(anatomy.modules)]
        rows = np.concatenate([weights * state for weights in self.pooling], axis=1)
        constant = np.zeros((1, rows.shape[1]))
        for m in self.modules:
            rows, constant = m.apply(rows), m.apply(constant) + m.offset
        self.width = rows.shape[1]  # before it is cut to `dims`
        self.rows, self.constant = rows[:, :dims], constant[0, :dims]  # what each token, and what no token gives to the vector
        self.vector = self.rows.sum(0) + self.constant
        whole = trace[anatomy.modules[-1]][0] if anatomy.modules else np.concatenate([trace[p][0] for p in anatomy.pools])
        check_sum("the tokens' parts of the vector", self.vector, whole[:dims])

    @cached_property
    def has_constant(self) -> bool:
        """Whether modules after the pooling add something that no token gives."""
        return bool(np.any(self.constant))

    @property
    def held_after(self) -> tuple[str, ...]:
        """What is held in the poolings and in the modules after them."""
        winner = ["which token wins each dimension of the max pooling"] * any(w.shape[1] > 1 for w in self.pooling)
        return (*winner, *(m.held for m in self.modules if m.held))

    def part_shares(self, direction: Array) -> PartShares:
        """<u, direction> (dims,) as a sum over what wrote to the residual stream.

        The direction is carried back through the transposed maps; at each stage it meets what was written there.
        """
        a, trace = self.anatomy, self.trace
        g = np.zeros(self.width)
        g[: self.dims] = direction
        constant = 0.0
        for m in reversed(self.modules):
            constant += float(np.broadcast_to(m.offset, g.shape) @ g)
            g = m.transpose(g[None])[0]
        parts = np.split(g, len(self.pooling))
        back = np.zeros_like(trace[a.stages[-1]])
        for weights, part in zip(self.pooling, parts, strict=True):
            back += weights * part
        blocks, counts = a.blocks, [int(w.attention.dims["H"]) for w in a.writes if w.attention is not None]
        heads, biases, mlps = np.zeros((blocks, max(counts, default=0))), np.zeros(blocks), np.zeros(blocks)
        norms, final = np.zeros(blocks + 1), 0.0
        written = {w.added: w for w in a.writes}
        for at, stage in reversed([*enumerate(a.stages)]):
            if stage.op in NORMS:
                norm = held_norm(trace, stage, "")
                fixed = float((norm.offset * back).sum())
                if stage is a.final_norm:
                    final = fixed
                else:
                    norms[max((w.block for w in a.writes if w.added in a.stages[:at]), default=0)] += fixed
                back = norm.transpose(back)
            elif stage.op in ADDS:
                w, matrix = written[stage], trace.matrix(stage)
                # each column of the layer's input times what the direction asks of it, over all tokens
                columns = (trace[w.source] * (back @ matrix.T)).sum(0)
                fixed = float((trace.linear_bias(stage) * back).sum())
                if w.attention is None:
                    mlps[w.block - 1] = columns.sum() + fixed
                else:
                    heads[w.block - 1] = columns.reshape(heads.shape[1], -1).sum(1)
                    biases[w.block - 1] = fixed
        tokens, positions = (float((rows * back).sum()) for rows in (trace.token_vectors, trace.position_vectors))
        return PartShares(tokens, positions, heads, biases, mlps, norms, final, constant)

    @property
    def held_on_stream(self) -> tuple[str, ...]:
        """The norms that stand on the residual stream, whose scales are held for each token."""
        norms = [stage for stage in self.anatomy.stages if stage.op in NORMS]
        final = ["the scale of the final norm at each token"] * (self.anatomy.final_norm is not None)
        if (count := len(norms) - len(final)) == 1:
            return ("the scale of the norm after the embedding at each token", *final)
        return (*[f"the scales of {count} norms on the residual stream at each token"] * (count > 0), *final)


def check_sum(what: str, found: Array | float, expected: Array | float) -> None:
    """Raise UserError unless a sum is what it splits, within 1e-5 of the largest value."""
    scale = max(1.0, float(np.max(np.abs(expected), initial=0)))
    error = float(np.max(np.abs(np.asarray(found) - expected), initial=0))
    if not error <= SUM_TOLERANCE * scale:
        raise UserError(f"{what} differ by {error:g} from what they add up to: the model's numbers are too large to explain")
