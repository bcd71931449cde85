"""The weights of an export: as its file holds them, and as a page computes with them."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from ..checkpoint import Checkpoint
from ..graph.int8 import int8_weights
from ..graph.ops.quantized import dequantize, dequantize_table, quantize_matrix, quantize_table
from ..graph.tensor import Array, Tensor, schedule


def stored_dtype(c: Checkpoint, layer: int) -> str:
    """int8 if the files hold every matrix in it, so that a page has their integers and scales; otherwise f16."""
    tensors = schedule(c.config.hidden(layer))
    names = int8_weights(tensors)
    return "int8" if all(c.stored_int8(t) for t in tensors if t.is_weight and t.name in names) else "f16"


def page_tensors(c: Checkpoint, leaves: Iterable[Tensor], int8: Mapping[str, bool], *, narrow: bool) -> dict[str, Array]:
    """The tensors of weights.safetensors by name.

    leaves: the weights of a graph, whose dtypes they get. int8: the names of those that are stored in int8, and whether each is a
    table; their scales are "NAME scale". narrow: what f16 holds exactly is stored in it.
    """
    found: dict[str, Array] = {}
    for t in leaves:
        if t.name in int8:
            quantize = quantize_table if int8[t.name] else quantize_matrix
            found[t.name], found[f"{t.name} scale"] = c.stored_int8(t) or quantize(c.weights(t), half=True)
        else:
            found[t.name] = c.weights(t)
    return {name: narrow_exactly(array) for name, array in found.items()} if narrow else found


def narrow_exactly(array: Array) -> Array:
    """f32 as f16 where that changes no value; any other array as it is."""
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore", under="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half, array) else array


def weight_digests(path: Path) -> dict[str, str]:
    """SHA-256 of each tensor's bytes in a safetensors file, by name, and of its header, for pages that read it."""
    file = np.memmap(path, np.uint8, "r")
    end = 8 + int(file[:8].view("<u8")[0])
    header = file[8:end]
    found = {f"header of {path.name}": hashlib.sha256(header.data).hexdigest()}
    for name, tensor in json.loads(header.tobytes()).items():
        if name != "__metadata__":
            first, last = tensor["data_offsets"]
            found[name] = hashlib.sha256(file[end + first : end + last].data).hexdigest()
    return found


def page_values(tensors: Mapping[str, Array], int8: Mapping[str, bool]) -> Callable[[Tensor], Array]:
    """The values that a page has of each weight: those in int8 are widened, as `toFloat32` of weights.js does it."""

    def read(t: Tensor) -> Array:
        if t.name not in int8:
            return tensors[t.name]
        widen = dequantize_table if int8[t.name] else dequantize
        return widen(tensors[t.name], tensors[f"{t.name} scale"].astype(np.float32))

    return read
