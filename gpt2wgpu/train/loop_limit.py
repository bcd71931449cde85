"""Tests whether a software driver completes the longest loops of the backward pass; devices/loop_limit.py says why."""

from functools import partial

import numpy as np

from ..devices.loop_limit import distinct_ops, largest_fitting, longest_text, run_case
from ..devices.selftest import Case
from ..errors import UserError
from ..gpu import Device
from ..graph.tensor import Tensor
from . import ops


def check_loops(device: Device, output: Tensor, length: int, batch_tokens: int) -> None:
    """Raises UserError if texts of `length` tokens, or batches of `batch_tokens`, are too long for the loops of the device."""
    if not device.adapter.software:
        return
    longest = longest_text(device, output, length)
    for t in distinct_ops(output, "head_size", "window", "kv_heads"):
        longest = largest_fitting(longest, partial(attention_gradient_completes, device, t))
    if longest < length:
        what = f"{device.adapter} ends loops early and cannot train on texts of {length} tokens"
        raise UserError(f"{what}: lower --max-seq-length to {longest}, or use --device numpy")
    if (most_tokens := largest_fitting(batch_tokens, partial(column_sum_completes, device))) < batch_tokens:
        what = f"{device.adapter} ends loops early and cannot train on batches of {batch_tokens} tokens"
        raise UserError(f"{what}: lower --batch-tokens to {most_tokens}, or use --device numpy")


def attention_gradient_completes(device: Device, t: Tensor, tokens: int) -> bool:
    """Whether the loop of a text's first key reaches the last query that sees it, which is the only one with a gradient.

    Keys, `out` and `lse` are 0; queries, values and that gradient are 1. So the attention weight exp(score - lse) is 1, and the
    gradient of the key is the sum over columns of values times queries, times the scale.
    """
    size, kv_heads = t.attrs["head_size"], t.attrs.get("kv_heads") or 1
    width = kv_heads * size
    qkv = np.ones((tokens, 3 * width), np.float32)
    qkv[:, width : 2 * width] = 0
    dout = np.zeros((tokens, width), np.float32)
    dout[min(tokens - 1, t.attrs.get("window") or tokens)] = 1
    given = {"qkv": qkv, "out": np.zeros_like(dout), "dout": dout, "lse": np.zeros((tokens, kv_heads), np.float32)}
    given["tiles"] = np.zeros((1, 2), np.uint32)
    attrs = {"window": 0, "kv_heads": 0, **t.attrs}
    case = Case(ops.attention_dqkv, {"N": 3 * width, "C": width, "H": kv_heads}, (tokens,), attrs, given=given)
    expected = size * t.attrs["scale"]
    found = run_case(device, case)[0, width : 2 * width]
    return bool(np.abs(found - expected).max() <= 0.01 * expected)


def column_sum_completes(device: Device, tokens: int) -> bool:
    """Whether the sum over tokens for a weight's gradient, in one part, reaches the last token, the only one that is not zero."""
    x = np.zeros((tokens, 4), np.float32)
    x[-1] = 1
    given = {"x": x, "dout": np.ones((tokens, 4), np.float32)}
    return bool((run_case(device, Case(ops.linear_dweight, {"K": 4, "N": 4}, (tokens,), {"P": 1}, given=given)) == 1).all())
