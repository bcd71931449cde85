"""Modules fitted on vectors: they are part of a checkpoint in memory, and get files when it is saved."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..graph.tensor import Array
from . import Checkpoint
from .modules import Dense, Module, Normalize


def add_affine(c: Checkpoint, modules: Sequence[Module], matrix: Array, bias: Array) -> tuple[Checkpoint, tuple[Module, ...]]:
    """A checkpoint with vectors @ matrix + bias after its modules, as a Dense without activation; and its modules.

    modules: those of the Encoder, which may have another pooling. Where they end in Normalize, vectors are normalised again.
    """
    i = len(modules) + 1
    while (c.path / f"{i}_Postprocess").exists() or f"{i}_Postprocess.linear.weight" in c.fitted:
        i += 1
    inputs, outputs = matrix.shape
    added = Dense(f"{i}_Postprocess", inputs, outputs, "none")
    values = {f"{added.name}.linear.weight": matrix, f"{added.name}.linear.bias": bias}
    new = {name: np.ascontiguousarray(a, np.float32) for name, a in values.items()}
    after = (*modules, added, *([Normalize()] if isinstance(modules[-1], Normalize) else []))
    return replace(c, modules=(c.modules[0], *after[1:]), fitted={**c.fitted, **new}), after
