"""Refuses a device whose grids are too small for a graph, before anything is compiled."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import UserError
from ..graph.tensor import Tensor
from .device import Device
from .tiles import default_kernel


def distinct_results(tensors: Iterable[Tensor]) -> list[Tensor]:
    """One result of each op, sizes, dtypes and attributes: layers repeat them."""
    found: dict[Any, Tensor] = {}
    for t in tensors:
        if t.op is not None:
            found.setdefault((t.op.name, *t.types.items(), *t.dims.items(), *t.attrs.items()), t)
    return [*found.values()]


def check_grids(device: Device, tensors: Iterable[Tensor], capacity: Mapping[str, int]) -> None:
    """Raises UserError if a kernel needs more workgroups side by side, for a batch of this size, than the device allows."""
    most = device.adapter.limits["max-compute-workgroups-per-dimension"]
    for t in distinct_results(tensors):
        assert t.op is not None
        params = {name: capacity.get(v, v) if isinstance(v, str) else v for name, v in {**t.dims, **t.attrs}.items()}
        needed = max(default_kernel(device, t, int(params.get("T", 1))).grid(t, params))
        if needed > most:
            tokens = f"{t.op.name} needs {needed} for batches of {capacity['T']} tokens"
            raise UserError(f"{device.adapter} allows {most} workgroups side by side, {tokens}: use device='numpy'")
