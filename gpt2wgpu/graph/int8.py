"""A whole graph in int8: its vocabulary table and its linear layers' matrices, in the format of ops/quantized.py.

Activations and sums keep their dtype, and so do norms, biases, position tables and Dense heads, which are small.
"""

from collections.abc import Callable, Iterable

from .ops import embed, embed_int8, linear, linear_add, linear_add_int8, linear_int8
from .ops.blocks import cdiv
from .ops.quantized import GROUP, quantize_matrix, quantize_table
from .tensor import Array, Op, Tensor, schedule

TWINS: dict[Op, Op] = {embed: embed_int8, linear: linear_int8, linear_add: linear_add_int8}


def graph_to_int8(output: Tensor) -> Tensor:
    """The same graph with the int8 twins of its embedding and its linear layers."""
    new: dict[Tensor, Tensor] = {}
    leaves: dict[Tensor, tuple[Tensor, Tensor]] = {}  # one pair for a weight, however many ops read it
    for t in schedule(output):
        inputs = [new[x] for x in t.inputs]
        if t.op is None:
            new[t] = t
        elif t.op in TWINS:
            at = 2 if t.op is embed else 1  # which input is the matrix
            weight = inputs[at]
            if weight not in leaves:
                leaves[weight] = int8_leaves(weight, is_table=t.op is embed)
            inputs[at : at + 1] = leaves[weight]
            new[t] = TWINS[t.op](*inputs, out=t.dtype, **t.attrs)
        else:
            new[t] = Tensor(t.shape, t.dtype, t.name, t.op, tuple(inputs), t.dims, t.types, t.attrs)
    return new[output]


def int8_leaves(weight: Tensor, *, is_table: bool) -> tuple[Tensor, Tensor]:
    """A matrix (K, N) in int8 and its scales (J, N), or a table (V, C) and its scales (V, J), in place of an f32 or f16 leaf."""
    rows, columns = map(int, weight.shape)
    scales = (rows, cdiv(columns, GROUP)) if is_table else (cdiv(rows, GROUP), columns)
    return Tensor(weight.shape, "i8", weight.name, attrs={"table": is_table}), Tensor(scales, "f32", f"{weight.name} scale")


def int8_weights(tensors: Iterable[Tensor]) -> dict[str, bool]:
    """The names of the weights that are in int8 in a graph's int8 twin, and whether each is a table."""
    ops = [(t.op, t.inputs) for t in tensors if t.op in TWINS]
    return {inputs[2 if op is embed else 1].name: op is embed for op, inputs in ops}


def quantize_weights(
    read: Callable[[Tensor], Array], stored: Callable[[Tensor], tuple[Array, Array] | None] = lambda t: None
) -> Callable[[Tensor], Array]:
    """The weights of a graph in int8, from `read`, which gives those of the f32 graph. A matrix is quantized when it is read,
    unless `stored` gives its integers and scales as the files hold them.

    Relies on the graph's order: a runner asks for a matrix before it asks for its scales.
    """
    scales: dict[str, Array] = {}

    def weights(t: Tensor) -> Array:
        if t.dtype != "i8":
            return scales.pop(t.name) if t.name in scales else read(t)
        quantize = quantize_table if t.attrs["table"] else quantize_matrix
        leaf = Tensor(t.shape, "f32", t.name)
        q, scales[f"{t.name} scale"] = stored(leaf) or quantize(read(leaf))
        return q

    return weights
