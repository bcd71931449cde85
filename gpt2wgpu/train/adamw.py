"""AdamW (Loshchilov & Hutter 2019): Adam with decoupled weight decay, here on matrices only; and its learning rate."""

import math
from dataclasses import dataclass

import numpy as np

from ..graph.tensor import Array

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Of step 1, 2, ..., steps: a line from 0 to `peak` at step `warmup`, then a half cosine to 0 after the last step."""
    if step <= warmup:
        return peak * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - 1 - warmup) / max(1, steps - warmup)))


def clipping(norm: float, clip: float) -> float:
    """The factor that brings a gradient of this norm to `clip` at most."""
    return min(1.0, clip / norm) if norm > 0 else 1.0


@dataclass(frozen=True)
class Update:
    """The numbers of one step. The gradient is multiplied by `factor` (micro-batches and clipping) first.

    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  w <- decay w - rate m / (sqrt(v) + eps)
    where rate and eps contain the corrections of m's and v's bias, and decay is 1 but for matrices.
    """

    factor: float
    rate: float
    eps: float
    decay: float

    @classmethod
    def of_step(cls, step: int, lr: float, weight_decay: float, factor: float) -> "Update":
        unbiased = math.sqrt(1 - BETA2**step)
        return cls(factor, lr * unbiased / (1 - BETA1**step), EPS * unbiased, 1 - lr * weight_decay)


def adamw(weight: Array, m: Array, v: Array, gradient: Array, update: Update, decayed: bool, scratch: Array) -> None:
    """In place; the gradient is used up. All are flat and of one length, `scratch` at least as long."""
    s = scratch[: len(weight)]
    gradient *= np.float32(update.factor)
    np.multiply(gradient, gradient, out=s)
    s *= np.float32(1 - BETA2)
    v *= np.float32(BETA2)
    v += s
    gradient -= m
    gradient *= np.float32(1 - BETA1)
    m += gradient
    np.sqrt(v, out=s)
    s += np.float32(update.eps)
    np.divide(m, s, out=s)
    s *= np.float32(update.rate)
    if decayed:
        weight *= np.float32(update.decay)
    weight -= s
