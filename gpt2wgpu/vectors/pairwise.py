"""How alike the rows of two matrices are. Similarities have sentence-transformers' names.

Distances are negated, so that higher is closer.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..graph import ops
from ..graph.cores import BLAS_ALONE
from ..graph.crew import Crew
from ..graph.memory import check_result_fits
from ..graph.ops.pooling import SIMILARITIES
from ..graph.tensor import Array, Tensor, schedule
from .convert import to_array

if TYPE_CHECKING:
    from ..gpu import Device

ROWS_COMPARED = 2048  # rows compared at a time
ROWS_TOGETHER = 512  # rows that a core compares with that many others at a time


def check_similarity(name: object) -> str:
    """The name of a similarity, from its name, sentence-transformers' enum, or None (cosine). Raises UserError for others."""
    found = "cosine" if name is None else getattr(name, "value", name)
    if not isinstance(found, str) or found not in SIMILARITIES:
        raise UserError(f"similarity_fn_name must be one of {', '.join(SIMILARITIES)}, not {found!r}")
    return found


def all_pairs(a: Any, b: Any, name: str, device: "Device | None" = None) -> Array:
    """Every row of a (m, C) with every row of b (n, C): float32 (m, n), on the device or in numpy."""
    a, b = as_matrix(a), as_matrix(b)
    if a.shape[1] != b.shape[1]:
        raise UserError(f"similarity needs vectors of one length, got {a.shape[1]} and {b.shape[1]}")
    check_result_fits(4 * len(a) * len(b), f"the similarities of {len(a):,} with {len(b):,} vectors", "compare fewer at a time")
    out = np.empty((len(a), len(b)), np.float32)
    if not out.size:
        return out
    if device is None:
        compare_in_numpy(a, b, name, out)
    else:
        compare_on_device(a, b, name, out, device)
    return np.negative(out, out=out) if name in ("euclidean", "manhattan") else out


def compare_on_device(a: Array, b: Array, name: str, out: Array, device: "Device") -> None:
    from ..devices.graph_check import check_graph
    from ..gpu import GPUProgram

    x, y = Tensor(("M", a.shape[1]), name="a"), Tensor(("N", a.shape[1]), name="b")
    if name == "cosine":
        x, y = ops.l2_normalize(x), ops.l2_normalize(y)
    output = ops.similarity(x, y, metric=SIMILARITIES[name])
    check_graph(device, schedule(output))
    program = GPUProgram(device, output, no_weight, {"M": min(ROWS_COMPARED, len(a)), "N": min(ROWS_COMPARED, len(b))})
    for rows, columns in compared_tiles(len(a), len(b), ROWS_COMPARED):
        out[rows, columns] = program.run({"a": a[rows], "b": b[columns]})
    program.close()


def compare_in_numpy(a: Array, b: Array, name: str, out: Array) -> None:
    """The cores share the tiles, whose size depends on nothing, so the bits depend on nothing but the vectors."""
    if name == "cosine":
        with np.errstate(all="ignore"):
            a, b = (ops.l2_normalize.reference(x) for x in (a, b))
    tiles = compared_tiles(len(a), len(b), ROWS_TOGETHER)

    def compare(i: int) -> None:
        rows, columns = tiles[i]
        with np.errstate(all="ignore"):
            out[rows, columns] = ops.similarity.reference(a[rows], b[columns], metric=SIMILARITIES[name])

    if out.size * a.shape[1] <= BLAS_ALONE:
        for i in range(len(tiles)):
            compare(i)
        return
    with Crew() as crew:
        crew.share(compare, len(tiles))


def compared_tiles(m: int, n: int, rows: int) -> list[tuple[slice, slice]]:
    """The rows and columns of each tile of an (m, n) matrix."""
    return [(slice(i, i + rows), slice(j, j + ROWS_COMPARED)) for i in range(0, m, rows) for j in range(0, n, ROWS_COMPARED)]


def row_by_row(a: Any, b: Any, name: str) -> Array:
    """a[i] with b[i], both (n, C): float32 (n,). One of them may be a single vector, (C,) or (1, C); two (C,) give a
    scalar, (). Raises UserError for other shapes."""
    a, b = to_array(a), to_array(b)
    fits = 1 <= a.ndim <= 2 and 1 <= b.ndim <= 2 and a.shape[-1] == b.shape[-1] > 0
    if not fits or (len(a) != len(b) and 1 not in (a.size // a.shape[-1], b.size // b.shape[-1])):
        raise UserError(f"similarity_pairwise needs as many vectors on both sides, or one on a side, got {a.shape} and {b.shape}")
    if name == "euclidean":
        found = -np.sqrt(np.square(a - b).sum(-1))
    elif name == "manhattan":
        found = -np.abs(a - b).sum(-1)
    else:
        if name == "cosine":
            a, b = (ops.l2_normalize.reference(np.atleast_2d(x)).reshape(x.shape) for x in (a, b))
        found = np.einsum("...c,...c->...", a, b)
    return np.asarray(found)


def as_matrix(vectors: Any) -> Array:
    """Vectors as rows, float32 (n, C); a single vector becomes one row. Raises UserError for other shapes."""
    found = np.atleast_2d(to_array(vectors))
    if found.ndim != 2 or not found.shape[1]:
        raise UserError(f"expected vectors as rows of a matrix, got an array of {found.ndim} dimensions, {found.shape}")
    return found


def no_weight(t: Tensor) -> Array:
    raise LookupError(f"a similarity has no weights, but {t.name} is asked for")
