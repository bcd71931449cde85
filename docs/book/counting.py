"""Counts the floating-point operations of a numpy function while it runs, and the elements of its inputs that it needs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpt2wgpu.devices.selftest import Case
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.packing import range_indices
from gpt2wgpu.graph.tensor import Array

FREE = ("greater", "greater_equal", "less", "less_equal", "equal", "isnan", "positive", "logical_not")  # no arithmetic


class Counted(np.ndarray):
    """An array whose arithmetic is counted in `Counted.operations`: one for each result of an elementwise function, such as a
    sum or an exp, and two, a multiplication and an addition, for each step of a product. Rows that are summed by multiplying them
    with ones count as a sum."""

    operations = 0

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [plain_array(x) for x in inputs]
        if "out" in options:
            options["out"] = tuple(plain_array(x) for x in options["out"])
        result = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            summed = any((x == 1).all() for x in plain)
            Counted.operations += (1 if summed else 2) * plain[0].shape[-1] * np.size(result)
        elif method == "reduce":
            Counted.operations += np.size(plain[0]) - np.size(result)
        elif ufunc.__name__ not in FREE:
            Counted.operations += np.size(result)
        return counted_array(result)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = unwrap(args), {name: unwrap(value) for name, value in kwargs.items()}
        if function is np.einsum:
            Counted.operations += len(args[1:]) * max(x.size for x in args[1:])
        elif function is np.bincount:
            Counted.operations += np.size(args[0])
        return counted_array(function(*args, **kwargs))


def unwrap(value: Any) -> Any:
    """Plain arrays in place of counted ones, also inside lists and tuples."""
    return type(value)(map(unwrap, value)) if isinstance(value, list | tuple) else plain_array(value)


def plain_array(x: Any) -> Any:
    return np.asarray(x) if isinstance(x, Counted) else x


def counted_array(result: Any) -> Any:
    """Results in floating point and in int8 are counted further; indices are not."""
    if isinstance(result, np.ndarray) and (result.dtype.kind == "f" or result.dtype == np.int8):
        return result.view(Counted)
    return result


def count_operations(reference: Any, values: Mapping[str, Array], attributes: Mapping[str, Any]) -> int:
    """The operations of an op's numpy function on these inputs, given by name."""
    Counted.operations = 0
    reference(*map(counted_array, values.values()), **attributes)
    return Counted.operations


def count_needed(case: Case, values: Mapping[str, Array]) -> dict[str, int]:
    """The elements of each input that a result of this case depends on, each counted once.

    They are all of them, but for rows of a table that no token names, tokens that pooling leaves out, distances that no two
    tokens have, and edges of no point. values: the inputs by name, from `case_arrays`.
    """
    found = {name: array.size for name, array in values.items()}
    for named_by, table in (("ids", "wte"), ("ids", "scale"), ("positions", "wpe"), ("positions", "table")):
        if {named_by, table} <= values.keys():
            found[table] = len(np.unique(values[named_by])) * values[table].shape[1]
    if case.op is ops.pool:
        kept = np.array(case.lengths) - values["skip"]
        found["x"] = int(len(kept) if case.attrs["mode"] in ("cls", "last") else kept.sum()) * values["x"].shape[1]
    if case.op is ops.attention_bias:
        farthest = min(max(case.lengths) - 1, values["bias"].shape[1] // 2)
        found["bias"] = len(values["bias"]) * (1 + farthest * (1 if case.attrs["causal"] else 2))
    if case.op is ops.attraction:
        begins, ends = values["spans"].astype(np.int64).T
        found["targets"] = found["strengths"] = len(np.unique(range_indices(begins, ends)))
    return found
