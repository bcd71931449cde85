"""AdamW (Loshchilov & Hutter 2019): Adam (Kingma & Ba 2015) with decoupled weight decay, here of matrices only; and the
learning rate."""

import math
from dataclasses import dataclass

import numpy as np

from ..graph.tensor import Array

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """The rate of a step in 1, ..., `steps`: linear from 0 to `peak` at step `warmup`, then half a cosine, which would reach 0
    one step after the last (Loshchilov & Hutter 2017, without restarts)."""
    if step <= warmup:
        return peak * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - 1 - warmup) / max(1, steps - warmup)))


def clip_factor(norm: float, clip: float) -> float:
    """What a gradient of this norm is multiplied by, so that its norm is at most `clip` (Pascanu et al. 2013)."""
    return min(1.0, clip / norm) if norm > 0 else 1.0


@dataclass(frozen=True)
class Update:
    """The numbers of one step. First the gradient g is multiplied by `factor` (mean over micro-batches, and clipping); then

    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  w <- decay w - rate m / (sqrt(v) + eps)
    where `rate` and `eps` contain the corrections for the bias of m and v (Kingma & Ba 2015, section 3), and `decay` is 1 for
    all but matrices.
    """

    factor: float
    rate: float
    eps: float
    decay: float

    @classmethod
    def of_step(cls, step: int, lr: float, weight_decay: float, factor: float) -> "Update":
        """The update of a step; `step` counts from 1."""
        unbiased = math.sqrt(1 - BETA2**step)
        return cls(factor, lr * unbiased / (1 - BETA1**step), EPS * unbiased, 1 - lr * weight_decay)


def adamw(weight: Array, m: Array, v: Array, gradient: Array, update: Update, decayed: bool, scratch: Array) -> None:
    """Update weight, m and v in place. All arrays are flat, f32 and of one length, `scratch` at least as long; the gradient is
    overwritten. decayed: whether the weight is a matrix."""
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
