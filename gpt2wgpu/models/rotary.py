"""What models with rotary positions (Su et al. 2021) share: their fields in config.json and the table of angles."""

from collections.abc import Callable

import numpy as np

from ..graph.tensor import Array
from .architecture import MOST_LAYERS
from .fields import Fields

ATTENTION_KINDS = ("full_attention", "sliding_attention")  # of a block: a token sees all others, or only near ones


def rotary_table(positions: int, head_size: int, theta: float) -> Array:
    """cos | sin of position * theta^(-2i / head_size), f32 (positions, head_size).

    The angles are rounded to f32 where `transformers` rounds them (in `compute_default_rope_parameters` of a model's rotary
    embedding, and in the product with the positions): at large positions the rounding decides most of their digits.
    """
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    powers = np.power(theta, exponents.astype(np.float64)).astype(np.float32)
    angles = (np.arange(positions, dtype=np.float32)[:, None] * (np.float32(1) / powers)).astype(np.float64)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def read_head_size(fields: Fields, default: int) -> int:
    """Columns of a head, which rotary positions take in pairs."""
    found = fields.integer("head_dim", default=default)
    if found % 2 or not found:
        raise fields.refuse("head_dim", f"an even number, as rotary positions need (found {found})")
    return found


def read_kinds(fields: Fields, layers: int, default: Callable[[int], bool]) -> tuple[bool, ...]:
    """Whether each block's attention is local: from a list of ATTENTION_KINDS, else by its number. Raises UserError."""
    kinds = fields.value("layer_types")
    if kinds is None and layers <= MOST_LAYERS:
        return tuple(default(i) for i in range(layers))
    if not isinstance(kinds, list) or len(kinds) != layers or not all(kind in ATTENTION_KINDS for kind in kinds):
        raise fields.refuse("layer_types", f"a list of {' and '.join(ATTENTION_KINDS)}, one for each of {layers} layers")
    return tuple(kind == ATTENTION_KINDS[1] for kind in kinds)


def read_context(fields: Fields, *names: str, default: int) -> int:
    """The longest text in tokens, at most 2^17: no table of weights confirms the number, so its cost is bounded here."""
    return min(fields.integer(*names, default=default), 1 << 17)


def read_theta(fields: Fields, *names: str, default: float, kind: str = "") -> float:
    """The base of the angles: in rope_parameters (there for each kind of block, if there are several), or in a field `names`.

    Raises UserError where the angles are scaled for longer texts (YaRN and others).
    """
    if fields.number("partial_rotary_factor", default=1) != 1:
        raise fields.refuse("partial_rotary_factor", "1: all columns of a head have to turn")
    rope, scaling = fields.object("rope_parameters", default={}), fields.object("rope_scaling", default={})
    rope = {**Fields(fields.path, rope).object(kind, default={}), **scaling} if kind else scaling or rope
    plain = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1}
    if any(value != plain.get(name) for name, value in rope.items() if name != "rope_theta"):
        where = "rope_scaling" if fields.present("rope_scaling") else "rope_parameters"
        raise fields.refuse(where, 'rope_type "default" and a rope_theta: scaled rotary positions are not supported')
    return Fields(fields.path, rope).number("rope_theta", default=fields.number(*names, default=default))
