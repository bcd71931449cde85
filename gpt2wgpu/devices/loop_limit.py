"""The longest text over which a software driver can compute attention.

llvmpipe (lavapipe) silently ends a thread's loops after 65,535 iterations of all of them together (Mesa's gallivm:
LP_MAX_TGSI_LOOP_ITERATIONS). Unrolled loops do not count, and what it unrolls depends on its version and on the model. So
the longest loops of a graph are tried once, with inputs for which only the last iteration contributes to the result.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..errors import UserError
from ..gpu import Device
from ..graph.ops.blocks import cdiv
from ..graph.ops.quantized import GROUP
from ..graph.packing import QUERY_TILE
from ..graph.tensor import Array, Tensor, schedule
from .selftest import Case, case_arrays, run_op

STEP = 128  # tokens; the search is exact to this many


def longest_text(device: Device, output: Tensor, wanted: int) -> int:
    """How many tokens a text may have, up to `wanted`, so that every attention of a graph reaches the last one.

    Raises UserError if a matmul does not reach the end of its rows.
    """
    if not device.adapter.software:
        return wanted
    for t in distinct_ops(output, "K", "N"):
        if is_matmul(t) and not matmul_completes(device, t):
            what = f"{device.adapter} ends the loops of products over {t.dims['K']} columns early"
            raise UserError(f"{what}: update its driver, or use device='numpy'")
    for t in distinct_ops(output, "head_size", "window", "kv_heads"):
        wanted = largest_fitting(wanted, partial(attention_completes, device, t))
    if wanted < 1:
        raise UserError(f"{device.adapter} ends the loops of attention early: update its driver, or use device='numpy'")
    return wanted


def distinct_ops(output: Tensor, *names: str) -> list[Tensor]:
    """The results of a graph that have the first of these sizes or attributes: one for each op, dtype and their values."""
    found: dict[Any, Tensor] = {}
    for t in schedule(output):
        values = {**t.dims, **t.attrs} if t.op is not None else {}
        if names[0] in values:
            found.setdefault((t.op, *t.types.values(), *map(values.get, names)), t)
    return [*found.values()]


def largest_fitting(wanted: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `wanted` that fits, in steps of STEP; 0 if none does."""
    if fits(wanted):
        return wanted
    low, high = 0, -(-wanted // STEP)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * STEP) else (low, middle)
    return low * STEP


def attention_completes(device: Device, t: Tensor, tokens: int) -> bool:
    """Whether the last query of a text reaches the last token, the only one with a value."""
    size, kv_heads = t.attrs["head_size"], t.attrs.get("kv_heads") or 1
    columns = 3 * kv_heads * size
    qkv = np.zeros((tokens, columns), np.float32)
    qkv[-1, -kv_heads * size :] = 256
    tiles = np.array([[0, (tokens - 1) // QUERY_TILE * QUERY_TILE]], np.uint32)
    given = {"qkv": qkv, "tiles": tiles, "bias": np.zeros((1, 1), np.float32)}
    seen = min(tokens, (t.attrs.get("window") or tokens) + 1)
    found = run_case(device, case_of(t, {"N": columns, "H": kv_heads, "R": 1}, tokens, given))[-1]
    return bool(np.abs(found.astype(np.float32) - 256 / seen).max() <= 0.01 * 256 / seen)


def is_matmul(t: Tensor) -> bool:
    return t.op is not None and any(name == "weight" and len(dims) == 2 for name, _, dims in t.op.args)


def matmul_completes(device: Device, t: Tensor) -> bool:
    """Whether a matmul reaches the last column, the only one that is not zero."""
    k, n = int(t.dims["K"]), 4 if int(t.dims["N"]) % 4 == 0 else 3  # the kernel depends on it
    x, bias = np.zeros((1, k), np.float32), np.zeros((1, n), np.float32)
    x[0, -1] = 256
    weight = np.ones((k, n), np.int8 if t.op is not None and "int8" in t.op.name else np.float32)
    given = {"x": x, "weight": weight, "scale": np.ones((cdiv(k, GROUP), n), np.float32), "bias": bias[0], "residual": bias}
    return bool(run_case(device, case_of(t, {"K": k, "N": n}, 1, given)).min() > 0.5)  # 256, or less after an activation


def case_of(t: Tensor, sizes: dict[str, int], tokens: int, given: dict[str, Array]) -> Case:
    """An op of a graph for one text, with these sizes and inputs."""
    assert t.op is not None
    return Case(t.op, sizes, (tokens,), t.attrs, "f16" in t.types.values(), given)


def run_case(device: Device, case: Case) -> Array:
    return run_op(device, case, *case_arrays(case))
