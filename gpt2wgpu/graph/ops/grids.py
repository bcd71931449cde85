"""Dispatch grids that many kernels share. x runs over columns, y over rows."""

from collections.abc import Callable
from types import SimpleNamespace

from ..tensor import Grid
from .blocks import cdiv

ELEMENT_THREADS = 64  # threads per workgroup, `@workgroup_size(64)`, of kernels with a thread per element


def per_element(columns: str, rows: str) -> Callable[[SimpleNamespace], Grid]:
    """A thread for each element of a matrix, or for WIDE. The sizes are letters of the signature: `per_element("C", "T")`."""
    return lambda p: (cdiv(getattr(p, columns), ELEMENT_THREADS * getattr(p, "WIDE", 1)), getattr(p, rows), 1)


def per_row(rows: str) -> Callable[[SimpleNamespace], Grid]:
    """A workgroup for each row of a matrix."""
    return lambda p: (1, getattr(p, rows), 1)


def per_columns(columns: str, rows: str = "") -> Callable[[SimpleNamespace], Grid]:
    """A workgroup for some columns of each row; COLUMN_LANES and WIDE are constants of the kernel. rows: none means one."""
    return lambda p: (cdiv(getattr(p, columns), p.COLUMN_LANES * p.WIDE), getattr(p, rows) if rows else 1, 1)


def matmul_grid(p: SimpleNamespace) -> Grid:
    """A workgroup for each tile of an output (T, N); TILE_N and TILE_T are constants of the kernel that was chosen."""
    return cdiv(p.N, p.TILE_N), cdiv(p.T, p.TILE_T), 1
