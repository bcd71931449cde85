"""Steps of a model as linear maps: those that are linear, and those that are so once one number is held at its value.

A norm divides by a length. For a given text that length is a number; with it held, the norm is a linear map plus a constant,
and the sum of what it makes of the parts of its input is exactly what it makes of the whole. The same holds for an activation
whose ratio of output to input is held, and for a maximum whose winner is held.
"""

from dataclasses import dataclass

import numpy as np

from ..graph import ops
from ..graph.ops.activations import ACTIVATIONS
from ..graph.tensor import Array, Tensor
from .trace import Trace


@dataclass(frozen=True)
class HeldMap:
    """y = gain * (centre(x) @ matrix) + offset, for rows x (k, n).

    centred: subtract each row's mean first. matrix: None for the identity. held: what is held; "" where the map is linear.
    """

    gain: Array
    offset: Array
    matrix: Array | None = None
    centred: bool = False
    held: str = ""

    def apply(self, rows: Array) -> Array:
        """What it makes of parts of its input, without the offset."""
        rows = rows - rows.mean(-1, keepdims=True) if self.centred else rows
        return (rows if self.matrix is None else rows @ self.matrix) * self.gain

    def transpose(self, rows: Array) -> Array:
        """The transposed map: <apply(x), y> = <x, transpose(y)>."""
        rows = rows * self.gain
        rows = rows if self.matrix is None else rows @ self.matrix.T
        return rows - rows.mean(-1, keepdims=True) if self.centred else rows


def held_norm(trace: Trace, t: Tensor, what: str) -> HeldMap:
    """A LayerNorm or an RMSNorm of rows, with the factor of each row held."""
    x, weight, eps = trace[t.inputs[0]], trace[t.inputs[1]], float(np.float32(t.attrs["eps"]))
    if t.op is ops.rms_norm:
        factor = 1 / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps)
        return HeldMap(factor * weight, np.zeros(x.shape[1]), held=what)
    factor = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    return HeldMap(factor * weight, trace[t.inputs[2]], centred=True, held=what)


def held_module(trace: Trace, t: Tensor, last: bool) -> HeldMap:
    """A module after the pooling. last: only the vector's direction matters after it, so that its length need not be held."""
    x = trace[t.inputs[0]]
    if t.op is ops.layer_norm:
        return held_norm(trace, t, "the scale of the LayerNorm after the pooling")
    if t.op is ops.l2_normalize:
        factor = np.array(1 / max(float(np.linalg.norm(x)), 1e-12))
        return HeldMap(factor, np.zeros(x.shape[1]), held="" if last else "the length that Normalize divides by")
    matrix, bias, name = trace.matrix(t), trace.linear_bias(t), t.attrs["activation"]
    if name == "none":
        return HeldMap(np.ones(len(bias)), bias, matrix)
    z, at_zero = x @ matrix + bias, np.zeros((1, len(bias)))
    y = z.copy()
    ACTIVATIONS[name](y)
    ACTIVATIONS[name](at_zero)
    gain = np.divide(y - at_zero, z, out=np.zeros_like(z), where=z != 0)[0]
    return HeldMap(gain, gain * bias + at_zero[0], matrix, held=f"the ratio of output to input of the Dense module's {name}")


def pooling_weights(mode: str, x: Array, skip: int) -> Array:
    """How much of each token's state a pooling takes, (T, 1), or (T, C) for "max", where it differs by dimension."""
    n = len(x)
    counted = np.arange(n) >= skip
    weights = np.zeros((n, 1))
    if mode == "mean":
        weights[counted] = 1 / counted.sum()
    elif mode == "sqrt_len_mean":
        weights[counted] = 1 / np.sqrt(counted.sum())
    elif mode == "weighted_mean":
        weights[counted, 0] = np.arange(skip + 1, n + 1) / np.arange(skip + 1, n + 1).sum()
    elif mode == "max":
        return np.eye(n)[skip + x[skip:].argmax(0)].T
    else:
        weights[skip if mode == "cls" else -1] = 1
    return weights
