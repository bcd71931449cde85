"""Linear layers: a product with a matrix laid out (in, out), then bias and activation or residual before it is stored.

The twins that end in _int8 read their matrix in int8 (quantized.py).
"""

from ..tensor import Array, op
from .activations import ACTIVATIONS
from .blocks import row_blocks
from .grids import matmul_grid
from .quantized import multiply_int8


@op("x:X[T,K] weight:W[K,N] bias[N] -> out:O[T,N]", grid=matmul_grid)
def linear(x: Array, weight: Array, bias: Array, *, activation: str = "none") -> Array:
    """activation(x @ weight + bias)"""
    return finish_linear(x @ weight, bias, activation)


@op("x:X[T,K] weight:i8[K,N] scale[J,N] bias[N] -> out:O[T,N]", grid=matmul_grid)
def linear_int8(x: Array, weight: Array, scale: Array, bias: Array, *, activation: str = "none") -> Array:
    """activation(x @ weight + bias)"""
    return finish_linear(multiply_int8(x, weight, scale), bias, activation)


@op("x:X[T,K] weight:W[K,N] bias[N] residual[T,N] -> out[T,N]", grid=matmul_grid)
def linear_add(x: Array, weight: Array, bias: Array, residual: Array) -> Array:
    """residual + (x @ weight + bias)"""
    return finish_add(x @ weight, bias, residual)


@op("x:X[T,K] weight:i8[K,N] scale[J,N] bias[N] residual[T,N] -> out[T,N]", grid=matmul_grid)
def linear_add_int8(x: Array, weight: Array, scale: Array, bias: Array, residual: Array) -> Array:
    """residual + (x @ weight + bias)"""
    return finish_add(multiply_int8(x, weight, scale), bias, residual)


def finish_linear(out: Array, bias: Array, activation: str) -> Array:
    """activation(out + bias), in place and block by block: each block is read from memory once."""
    for at in row_blocks(out):
        out[at] += bias
        ACTIVATIONS[activation](out[at])
    return out


def finish_add(out: Array, bias: Array, residual: Array) -> Array:
    """residual + (out + bias), in place and block by block."""
    for at in row_blocks(out):
        out[at] += bias
        out[at] += residual[at]
    return out
