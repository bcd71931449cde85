"""Cutting arrays into blocks that stay in a core's cache."""

from ..tensor import Array

BLOCK_BYTES = 1 << 20  # a core's second-level cache; more blocks mean more waits for Python's lock between the cores


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def row_blocks(x: Array) -> list[slice]:
    """Slices of about 1 MiB of rows: several steps in place on one block read it from the cache."""
    return cache_blocks(len(x), x.itemsize * x.shape[1])


def cache_blocks(count: int, size: int) -> list[slice]:
    """Slices of about 1 MiB of `count` things of `size` bytes."""
    step = max(1, BLOCK_BYTES // size)
    return [slice(first, first + step) for first in range(0, count, step)]
