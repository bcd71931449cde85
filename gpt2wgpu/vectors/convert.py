"""Vectors from and to other containers: lists, numpy arrays, tensors of torch, which is imported only to make tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UserError, show
from ..graph.tensor import Array

CONTAINERS = ("numpy", "tensor", "list")


def to_array(values: Any, dtype: type[np.floating[Any]] = np.float32) -> Array:
    """Numbers in any container -> an array in C order. A tensor may be on any device, of any dtype, and carry a gradient.

    Raises UserError for anything but numbers, and for rows of different lengths.
    """
    if isinstance(values, list | tuple) and len(values) and hasattr(values[0], "detach"):
        values = [to_array(v, dtype) for v in values]
    if hasattr(values, "detach"):
        values = values.detach().to_dense().cpu().double().numpy()  # numpy has no bfloat16
    try:
        found = np.asarray(values)
    except ValueError:  # rows of different lengths
        found = np.empty(0, object)
    if found.dtype.kind not in "fiub":  # None would become NaN
        raise UserError(f"expected vectors of numbers, all of one length, got {show(values, 40)}")
    return np.asarray(found, dtype, order="C")


def to_container(vectors: Array | Sequence[Array], container: str) -> Any:
    """Vectors unchanged ("numpy"), as one "tensor", or as a "list" of tensors. Raises UserError where torch is missing."""
    if container == "numpy":
        return vectors
    try:
        import torch
    except ImportError:
        keyword = "convert_to_tensor=True" if container == "tensor" else "convert_to_numpy=False"
        raise UserError(f"{keyword} gives tensors of torch, which is not installed: pip install torch, or leave it out") from None
    if container == "tensor":
        return torch.from_numpy(np.ascontiguousarray(vectors))
    return [torch.from_numpy(np.ascontiguousarray(v)) for v in vectors]
