"""A folder's tensors -> one safetensors file in another dtype: the matrices in int8 with scales, or everything in a float."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..graph.ops.quantized import quantize_matrix, quantize_table
from ..graph.tensor import Array
from .tensors import FLOATS, SCALE, Tensors, is_finite, scales_shape

CODES = {"float32": "F32", "float16": "F16", "int8": "I8"}  # what a folder can be saved in -> the name in safetensors
TYPE_SIZES = {"F64": 8, "C64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4}  # bytes of a value; types not listed: 1
TYPE_SIZES |= dict.fromkeys(("F16", "BF16", "I16", "U16"), 2)

Parts = dict[str, tuple[str, tuple[int, ...]]]  # tensors of the new file, by name: dtype and shape


def write_tensors(path: Path, tensors: Tensors, group_axes: Mapping[str, int], dtype: str) -> None:
    """Write all tensors of a folder to one file, one at a time, so that memory holds only one.

    dtype: "int8" quantises the floats in `group_axes`, with scales in f16 whose groups lie along the axis that it gives, and
    copies all others; "float32" and "float16" convert all floats, int8 tensors with scales too. Integers that are no
    weights, such as masks, are copied. Raises UserError for NaN, infinity, and values that overflow f16.
    """
    plan = {name: plan_tensor(tensors, name, group_axes.get(name), dtype) for name in tensors.entries}
    parts: Parts = {part: about for found in plan.values() for part, about in found.items()}
    at = 0
    header: dict[str, dict[str, Any]] = {}
    for part, (code, shape) in sorted(parts.items(), key=lambda item: -TYPE_SIZES.get(item[1][0], 1)):  # so that all are aligned
        end = at + TYPE_SIZES.get(code, 1) * math.prod(shape)
        header[part] = {"dtype": code, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, found in plan.items():
            arrays = convert_tensor(tensors, name, found, group_axes.get(name))
            tensors.forget()
            for part, array in arrays.items():
                file.seek(8 + len(text) + header[part]["data_offsets"][0])
                file.write(np.ascontiguousarray(array).data)


def plan_tensor(tensors: Tensors, name: str, axis: int | None, dtype: str) -> Parts:
    """What the new file holds of a tensor. axis: of the groups if it is a weight that may be int8."""
    entry = tensors.entries[name]
    if axis is not None and dtype == "int8" and entry.dtype != "I8":
        return {name: ("I8", entry.shape), name + SCALE: ("F16", scales_shape(entry.shape, axis))}
    if dtype == "int8":
        return {name: (entry.dtype, entry.shape)}
    owner = tensors.entries.get(name.removesuffix(SCALE))
    if owner is not None and owner is not entry and owner.dtype == "I8":
        return {}  # scales, which the values include
    return {name: (CODES[dtype] if axis is not None or entry.dtype in FLOATS else entry.dtype, entry.shape)}


def convert_tensor(tensors: Tensors, name: str, parts: Parts, axis: int | None) -> dict[str, Array]:
    """The arrays of a tensor's `parts`."""
    if not parts:
        return {}
    kind = parts[name][0]
    if len(parts) == 1 and kind == tensors.entries[name].dtype:
        return {name: tensors.stored_bytes(name)}
    array = tensors.read(name)
    if len(parts) == 1:
        with np.errstate(over="ignore", under="ignore"):
            new = array.astype(FLOATS[kind])
        return {name: refuse_overflow(name, new)}
    q, scale = (quantize_table if axis else quantize_matrix)(array, half=True)
    with np.errstate(over="ignore"):
        return {name: q, name + SCALE: refuse_overflow(name, scale.astype(np.float16))}


def refuse_overflow(name: str, array: Array) -> Array:
    """`array`. Raises UserError if it is not finite, as the values that it was made from are."""
    if not is_finite(array):
        raise UserError(f"tensor {name} has values that overflow f16: save this model in float32")
    return array
