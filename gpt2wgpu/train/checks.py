"""Every kernel of training on a device against numpy: cases for `check_op` of gpt2wgpu/checks.py."""

from collections.abc import Sequence

import numpy as np

from .. import packing
from ..checks import Case
from ..ops import ACTIVATIONS, POOLINGS, Array, attention
from . import ops

LENGTHS = (1, 5, 33)


def cases() -> list[Case]:
    """Every op on sizes that no tile divides."""
    return [
        Case(ops.add, {"C": 70}),
        *(Case(ops.activate, {"C": 70}, attrs={"activation": a}) for a in ACTIVATIONS),
        *(activate_dx(a, 70) for a in ACTIVATIONS if a != "none"),
        dropout(70),
        Case(ops.linear_dx, {"K": 70, "N": 37}),
        Case(ops.linear_dweight, {"K": 70, "N": 37}),
        Case(ops.sum_rows, {"C": 70}),
        *layer_norm(70),
        *(c for d in (10, 64) for causal in (True, False) for c in attention_cases(3 * d, d, causal, (1, 70, 17))),
        *attention_cases(40, 10, True, (1, 70, 17), window=20, kv_heads=2),
        scatter_rows(77, 52),
        *(Case(ops.pool_dx, {"C": 70}, attrs={"mode": mode}) for mode in POOLINGS),
        Case(ops.columns, {"N": 70}, attrs={"M": 33, "first": 36}),
        Case(ops.l2_normalize_dx, {"C": 70}),
    ]


# --- ops some of whose inputs are results of others


def activate_dx(activation: str, width: int, lengths: Sequence[int] = LENGTHS) -> Case:
    x = 3 * noise(sum(lengths), width)
    x[0, 0] = 0
    given = {"x": x, "y": ops.activate.reference(x, activation=activation)}
    return Case(ops.activate_dx, {"C": width}, lengths, {"activation": activation}, given=given)


def dropout(width: int, lengths: Sequence[int] = LENGTHS) -> Case:
    given = {"tokens": np.arange(sum(lengths), dtype=np.uint32), "seed": np.array([0xFFFFFFFF], np.uint32)}
    return Case(ops.dropout, {"C": width}, lengths, {"threshold": 3 << 30, "scale": 4.0, "site": 5}, given=given)


def layer_norm(width: int, lengths: Sequence[int] = LENGTHS) -> list[Case]:
    x = noise(sum(lengths), width) + 2
    given = {"x": x, "stats": ops.layer_norm_stats.reference(x, eps=1e-5)}
    return [
        Case(ops.layer_norm_stats, {"C": width}, lengths, {"eps": 1e-5}),
        Case(ops.layer_norm_dx, {"C": width}, lengths, given=given),
        Case(ops.layer_norm_dweight, {"C": width}, lengths, given=given),
    ]


def attention_cases(
    width: int, head_size: int, causal: bool, lengths: Sequence[int], window: int = 0, kv_heads: int = 0
) -> list[Case]:
    """width: of the queries."""
    attrs = {"head_size": head_size, "scale": 0.3, "causal": causal, "window": window, "kv_heads": kv_heads}
    heads = width // head_size
    row = width + 2 * (kv_heads or heads) * head_size
    empty = [np.zeros(n) for n in lengths]
    batch = packing.pack(empty, empty, [0] * len(lengths))
    qkv, on = noise(sum(lengths), row), (batch["spans"], batch["tiles"])
    lse = ops.attention_lse.reference(qkv, *on, **attrs)
    given = {"qkv": qkv, "out": attention.reference(qkv, *on, **attrs), "lse": lse}
    return [
        Case(ops.attention_lse, {"N": row}, lengths, attrs),
        Case(ops.attention_dqkv, {"N": row, "C": width, "H": heads}, lengths, attrs, given=given),
    ]


def scatter_rows(count: int, width: int, lengths: Sequence[int] = LENGTHS) -> Case:
    taken = np.random.default_rng(0).integers(count, size=sum(lengths))
    taken[: len(taken) // 2] = taken[0]
    order, rows = ops.sorted_rows(taken, count)
    return Case(ops.scatter_rows, {"V": count, "C": width}, lengths, given={"order": order, "rows": rows})


def noise(rows: int, width: int) -> Array:
    return np.random.default_rng(1).standard_normal((rows, width), dtype=np.float32)
