"""Is this device right? Compares every kernel and the chosen model with numpy, and collects the facts for a report."""

import platform
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np

from .. import __version__
from ..devices.choose import find_operand_dtype
from ..devices.selftest import Check, check_op, compare_results, forward_cases
from ..encoder import Encoder
from ..gpu import Adapter, Device, first_reason
from ..graph.cores import usable_cores
from ..graph.memory import available_memory

TEXTS = (
    "The cat is sleeping.",
    "A feline is resting on the warm windowsill while rain falls outside.",
    "Über den Wolken: 12 °C, 東京, 🙂",
    "",
    "one two three four five six seven eight nine ten " * 5,
)
MODEL_TOLERANCE = 1e-4  # for a model's vectors: in f32 relative to the largest value, in f16 as 1 - cosine


def check_kernels(device: Device) -> Iterator[Check]:
    """Every op of inference, on sizes that no tile divides."""
    for case in forward_cases(device.has_f16):
        yield check_op(device, case)


def check_model(encoder: Encoder, twin: Encoder) -> Iterator[Check]:
    """The vectors of an encoder on a device against its twin's in numpy; then each text alone against the batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # texts may be too long for the model
        expected, found = twin.encode(TEXTS), encoder.encode(TEXTS)
        alone = np.stack([encoder.encode(t) for t in TEXTS])
    place = encoder.engine.place
    shape = f"{len(TEXTS)} texts, layer {encoder.layer}, {encoder.dtype}"
    name = f"{encoder.model} model"
    if find_operand_dtype(place.dtype, place.device) == "f32":
        yield compare_results(name, shape, expected, found, MODEL_TOLERANCE)
    else:
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        cosines = np.einsum("bc,bc->b", found, expected, dtype=np.float64) / lengths
        yield Check(f"{name} (1 - cosine)", shape, float(1 - cosines.min()), MODEL_TOLERANCE)
    yield Check("alone = in a batch", shape, float(np.abs(alone - found).max()), 0.0)


def failed_model(options: dict[str, Any], error: Exception) -> Check:
    """The check of a model that could not be opened on the device."""
    return Check(f"{options['model'] or 'built-in'} model", "opening it", float("nan"), MODEL_TOLERANCE, first_reason(error))


def describe_machine() -> dict[str, Any]:
    """The machine, and the versions of the packages that compute on it."""
    return {
        "machine": {
            "system": platform.platform(),
            "architecture": platform.machine(),
            "cores": usable_cores(),
            "memory_available": available_memory(),
        },
        "versions": {
            "gpt2wgpu": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "wgpu", "tokenizers", "safetensors")},
        },
    }


def describe_adapter(a: Adapter) -> dict[str, Any]:
    """An adapter as its driver describes it, with its features and limits."""
    names = {"index": a.index, "name": a.name, "kind": a.kind, "backend": a.backend, "driver": a.driver}
    return {**names, "features": sorted(a.features), "limits": a.limits}


def describe_check(check: Check) -> dict[str, Any]:
    """A check for JSON, where null stands for an error of Inf or NaN."""
    error = check.error if np.isfinite(check.error) else None
    named = {"name": check.name, "shape": check.shape, "error": error, "tolerance": check.tolerance, "ok": check.ok}
    return {**named, **({"failure": check.failure} if check.failure else {})}
