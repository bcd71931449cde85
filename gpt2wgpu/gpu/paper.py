"""A GPU that is not there: which kernels any GPU gets before anything is measured on it. Nothing is opened or compiled."""

from typing import Any, cast

from ..graph.tensor import Tensor
from .device import Adapter, Device
from .kernels import Kernel, find_kernel
from .tiles import tile_ladder

# WebGPU's default limits, on which every kernel runs: https://www.w3.org/TR/webgpu/#limit-default
DEFAULT_LIMITS = {"max-compute-workgroup-storage-size": 16384, "max-compute-invocations-per-workgroup": 256}


def paper_device() -> Device:
    """A GPU with WebGPU's default limits: it chooses kernels and compiles none."""
    adapter = Adapter(0, "a GPU", "DiscreteGPU", "", "", frozenset(), DEFAULT_LIMITS, raw=None)
    return Device(adapter, handle=cast(Any, None), tuned={"tiles": {}})


def paper_kernels(device: Device, t: Tensor) -> list[tuple[float, Kernel]]:
    """The kernels of an op with the most rows T that each is for, ascending; infinity for any number."""
    return [(most, find_kernel(device, t, tile)) for most, tile in tile_ladder(device, t)]
