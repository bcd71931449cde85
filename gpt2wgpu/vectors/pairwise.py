"""How alike the rows of two matrices of vectors are, by the names that sentence-transformers gives to measures.

Distances are negated, so that higher is closer.
"""

from typing import Any

import numpy as np

from ..errors import UserError
from ..graph import ops, reference
from ..graph.tensor import Array, Tensor

SIMILARITIES = {"cosine": "dot", "dot": "dot", "euclidean": "euclidean", "manhattan": "manhattan"}  # -> the op's metric
BLOCK = 2048  # rows compared at a time


def all_pairs(a: Array, b: Array, name: str, device: Any = None) -> Array:
    """Every row of a (m, C) with every row of b (n, C): float32 (m, n), on the device or in numpy."""
    a, b = as_matrix(a), as_matrix(b)
    if a.shape[1] != b.shape[1]:
        raise UserError(f"similarity needs vectors of one length, got {a.shape[1]} and {b.shape[1]}")
    out = np.empty((len(a), len(b)), np.float32)
    if not out.size:
        return out
    x, y = Tensor(("M", a.shape[1]), name="a"), Tensor(("N", a.shape[1]), name="b")
    if name == "cosine":
        x, y = ops.l2_normalize(x), ops.l2_normalize(y)
    output = ops.similarity(x, y, metric=SIMILARITIES[name])
    if device is None:
        program: Any = reference.NumpyProgram(output, no_weight)
    else:
        from ..gpu import GPUProgram

        program = GPUProgram(device, output, no_weight, {"M": min(BLOCK, len(a)), "N": min(BLOCK, len(b))})
    for i in range(0, len(a), BLOCK):
        for j in range(0, len(b), BLOCK):
            out[i : i + BLOCK, j : j + BLOCK] = program.run({"a": a[i : i + BLOCK], "b": b[j : j + BLOCK]})
    return -out if name in ("euclidean", "manhattan") else out


def row_by_row(a: Array, b: Array, name: str) -> Array:
    """a[i] with b[i], both (n, C): float32 (n,)."""
    a, b = as_matrix(a), as_matrix(b)
    if a.shape != b.shape:
        raise UserError(f"similarity_pairwise needs as many vectors on both sides, got {a.shape} and {b.shape}")
    if name == "euclidean":
        return -np.sqrt(np.square(a - b).sum(1))
    if name == "manhattan":
        return -np.abs(a - b).sum(1)
    if name == "cosine":
        a, b = ops.l2_normalize.reference(a), ops.l2_normalize.reference(b)
    return np.einsum("nc,nc->n", a, b)


def as_matrix(vectors: Array) -> Array:
    """Vectors as rows, float32 (n, C); a lone one is one row."""
    found = np.atleast_2d(np.ascontiguousarray(vectors, np.float32))
    if found.ndim != 2 or not found.shape[1]:
        raise UserError(f"expected vectors as rows of a matrix, got an array of {found.ndim} dimensions, {found.shape}")
    return found


def no_weight(t: Tensor) -> Array:
    raise LookupError(f"a similarity has no weights, but {t.name} is asked for")
