"""Activations, and the gated linear unit. They work in place, on a block of rows that fits the cache."""

from collections.abc import Callable

import numpy as np

from ..tensor import Array, op
from .blocks import row_blocks
from .grids import per_element

# Both GELUs are 0.5 x (1 + tanh(x P(x^2))) = x / (1 + exp(-2x P(x^2))); these are the coefficients of P, lowest first.
GELU_TANH = (0.7978845608028654, 0.035677408136300125)  # Hendrycks & Gimpel 2016: sqrt(2/pi) (1 + 0.044715 x^2)
# x Phi(x) with P(x^2) = logit(Phi(x)) / 2x, a minimax fit on |x| <= 5.6 (benchmarks/fit_gelu.py): within 6e-7 in f32
GELU_ERF = (0.79788425, 0.0363341492, -3.30267184e-05, -5.52733815e-05, 3.97407004e-06, -1.33783154e-07, 1.81392624e-09)


def gelu(x: Array, coefficients: tuple[float, ...]) -> None:
    """x / (1 + exp(-2x P(x^2))). An exp that overflows gives 0."""
    lowest, *middle, highest = (np.float32(-2 * c) for c in coefficients)
    square = x * x
    p = square * highest  # Horner's scheme
    for c in reversed(middle):
        p += c
        p *= square
    p += lowest
    p *= x
    divide_gate(x, p)


def silu(x: Array) -> None:
    """x sigmoid(x) = x / (1 + exp(-x))"""
    divide_gate(x, -x)


def divide_gate(x: Array, u: Array) -> None:
    """x / (1 + exp(u)); overwrites u too. numpy's exp takes half the time of its tanh on AVX2, as long on AVX-512."""
    with np.errstate(over="ignore"):  # x / inf is 0
        np.exp(u, out=u)
    u += 1
    x /= u


def sigmoid(x: Array) -> None:
    """1 / (1 + exp(-x)) as 0.5 (1 + tanh(x / 2)), which cannot overflow."""
    x *= np.float32(0.5)
    np.tanh(x, out=x)
    x += 1
    x *= np.float32(0.5)


def relu(x: Array) -> None:
    np.maximum(x, 0, out=x)


def relu6(x: Array) -> None:
    np.clip(x, 0, 6, out=x)


def leaky_relu(x: Array) -> None:
    """x where it is positive, else 0.01 x"""
    np.maximum(x, x * np.float32(0.01), out=x)


def elu(x: Array) -> None:
    """x where it is positive, else exp(x) - 1 (Clevert et al. 2015)"""
    negative = np.expm1(np.minimum(x, 0))
    np.maximum(x, 0, out=x)
    x += negative


def tanh(x: Array) -> None:
    np.tanh(x, out=x)


ACTIVATIONS: dict[str, Callable[[Array], None]] = {
    "none": lambda x: None,
    "gelu_tanh": lambda x: gelu(x, GELU_TANH),
    "gelu_erf": lambda x: gelu(x, GELU_ERF),
    "relu": relu,
    "silu": silu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "relu6": relu6,
    "leaky_relu": leaky_relu,
    "elu": elu,
}


@op("x:X[T,2N] -> out:O[T,N]", grid=per_element("N", "T"))
def glu(x: Array, *, activation: str) -> Array:
    """activation(a) * b, where x is a|b: a gated linear unit (Shazeer 2020)."""
    N = x.shape[1] // 2
    out = x[:, :N].copy()
    for at in row_blocks(out):
        ACTIVATIONS[activation](out[at])
        out[at] *= x[at, N:]
    return out
