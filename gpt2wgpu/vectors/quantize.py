"""Vectors of fewer bits, with the names and numbers of sentence-transformers' `quantize_embeddings`."""

from typing import Any

import numpy as np

from ..errors import UserError
from ..graph.tensor import Array
from .convert import to_array

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
RANGED = ("int8", "uint8")


def check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


def quantize_embeddings(
    embeddings: Any, precision: str, ranges: Array | None = None, calibration_embeddings: Array | None = None
) -> Array:
    """Vectors, (n, C) or a single one (C,), as arrays, lists or tensors, in another precision.

    "int8", "uint8", of the vectors' shape: 256 steps from the lowest to the highest value of each dimension, numbered from -128
        or 0; a value outside gets the nearest. `ranges` (2, C) holds the lowest and the highest values; without it they are
        those of `calibration_embeddings`, or of the embeddings themselves, at least two of them. A number q stands for
        values from lowest + step (q + 128) on (uint8: lowest + step q), with step = (highest - lowest) / 255.
    "binary" int8, "ubinary" uint8, (n, ceil(C / 8)) or (ceil(C / 8),): the signs, 1 for values above 0, eight to a byte, the
        first dimension in the highest bit, missing ones as 0; "binary" is that byte minus 128.
    "float32": unchanged.

    Raises UserError for another precision, vectors that are quantized already or hold NaN or Inf, ranges that are none, or
    arrays that do not fit together.
    """
    check_precision(precision)
    if getattr(embeddings, "dtype", None) in (np.int8, np.uint8):
        raise UserError(f"expected vectors of floats, got {embeddings.dtype}: they are quantized already")
    embeddings = to_array(embeddings)
    if embeddings.ndim not in (1, 2):
        raise UserError(f"quantize_embeddings takes vectors (n, C), not an array of shape {embeddings.shape}")
    if precision == "float32":
        return embeddings
    finite = np.isfinite(embeddings).all(axis=-1)
    if not finite.all():
        which = f"vector {int(np.argmin(finite))}" if embeddings.ndim == 2 else "the vector"
        raise UserError(f"{which} holds NaN or Inf, which no {precision} stands for: leave it out")
    if precision not in RANGED:
        packed = np.packbits(embeddings > 0, axis=-1)
        return packed if precision == "ubinary" else (packed ^ np.uint8(128)).view(np.int8)
    if not embeddings.size:
        return embeddings.astype(precision)
    if ranges is None:
        sample = embeddings if calibration_embeddings is None else to_array(calibration_embeddings)
        if sample.ndim != 2 or len(sample) < 2:  # with one vector, every number would be the lowest
            raise UserError(f"{precision} needs ranges, or at least two vectors to take them from")
        ranges = np.stack([sample.min(axis=0), sample.max(axis=0)])
    ranges = to_array(ranges)
    if ranges.shape != (2, embeddings.shape[-1]):
        expected = f"expected {(2, embeddings.shape[-1])}: lowest and highest values"
        raise UserError(f"the ranges have shape {ranges.shape}, {expected}")
    lowest, highest = ranges
    if not (lowest <= highest).all() or not np.isfinite(ranges).all():
        raise UserError("the ranges must be finite, lowest values first and highest second: take those of other vectors")
    steps = (highest - lowest) / 255
    steps[steps == 0] = 1  # a dimension that is always the same
    numbers = np.clip(np.floor((embeddings - lowest) / steps), 0, 255)
    return numbers.astype(np.uint8) if precision == "uint8" else (numbers - 128).astype(np.int8)
