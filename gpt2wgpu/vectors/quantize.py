"""Vectors of fewer bits, with the names and numbers of sentence-transformers' `quantize_embeddings`."""

import numpy as np

from ..errors import UserError
from ..graph.tensor import Array

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
RANGED = ("int8", "uint8")


def check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


def quantize_embeddings(
    embeddings: Array, precision: str, ranges: Array | None = None, calibration_embeddings: Array | None = None
) -> Array:
    """Vectors, float32 (n, C), in another precision.

    "int8", "uint8" (n, C): 256 steps from the lowest to the highest value of each dimension, numbered from -128 or 0; what lies
        outside gets the nearest. `ranges` (2, C) holds the lowest and the highest values; without it they are those of
        `calibration_embeddings`, or of the embeddings themselves. A number q stands for values from
        lowest + step (q + 128) on (uint8: lowest + step q), with step = (highest - lowest) / 255.
    "binary" int8, "ubinary" uint8 (n, ceil(C / 8)): the signs, 1 for values above 0, eight to a byte, the first dimension in
        the highest bit, missing ones as 0; "binary" is that byte minus 128.
    "float32": as they are.

    Raises UserError for another precision, or arrays that do not fit together.
    """
    check_precision(precision)
    embeddings = np.asarray(embeddings, np.float32)
    if embeddings.ndim != 2:
        raise UserError(f"quantize_embeddings takes vectors (n, C), not an array of shape {embeddings.shape}")
    if precision == "float32":
        return embeddings
    if precision not in RANGED:
        packed = np.packbits(embeddings > 0, axis=1)
        return packed if precision == "ubinary" else (packed ^ np.uint8(128)).view(np.int8)
    if ranges is None:
        sample = embeddings if calibration_embeddings is None else np.asarray(calibration_embeddings, np.float32)
        if len(sample) < 2:  # of one, every number would be the lowest
            raise UserError(f"{precision} needs ranges, or at least two vectors to take them from")
        ranges = np.stack([sample.min(axis=0), sample.max(axis=0)])
    ranges = np.asarray(ranges, np.float32)
    if ranges.shape != (2, embeddings.shape[1]):
        raise UserError(f"the ranges have shape {ranges.shape}, expected {(2, embeddings.shape[1])}: lowest and highest values")
    lowest, highest = ranges
    steps = (highest - lowest) / 255
    steps[steps == 0] = 1  # a dimension that is always the same
    numbers = np.clip(np.floor((embeddings - lowest) / steps), 0, 255)
    return numbers.astype(np.uint8) if precision == "uint8" else (numbers - 128).astype(np.int8)
