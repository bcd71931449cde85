"""Chooses where a graph runs, a WebGPU device or numpy, and in which dtype."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..graph.cores import usable_cores
from ..progress import notice

if TYPE_CHECKING:
    from ..gpu import Device

MAX_TOKENS = {"discrete": 16384, "integrated": 2048, "software": 2048, "numpy": 2048}  # per batch; fewer on a slow GPU
CORE_TOKENS = 1024  # a batch in numpy has at least this many for each core: fewer, and the cores wait for Python's lock


def device_name(asked: object) -> str:
    """The name of a device as text: None is "auto", torch's cpu is "numpy". Raises UserError for torch's GPUs."""
    name = "auto" if asked is None else str(asked)
    if re.fullmatch(r"(cuda|mps|xpu|hpu|npu|musa|xla)(:\d+)?", name):
        advice = "use 'gpu' for the best GPU, or a part of its name (`gpt2wgpu info` lists them)"
        raise UserError(f"device {name!r} is a torch device, and torch is not used here: {advice}")
    return "numpy" if name in ("numpy", "cpu", "cpu:0") else name


def find_device(asked: object) -> "tuple[Device | None, str]":
    """The opened device (None for numpy), and one line saying why. GPT2WGPU_DEVICE sets what "auto" means.

    Its kernels are tested when a graph is compiled (graph_check.py). Raises UserError if there is no such device.
    """
    wanted = device_name(asked)
    in_environment = os.environ.get("GPT2WGPU_DEVICE") if wanted == "auto" else None
    if in_environment:
        try:
            return open_named(device_name(in_environment))
        except UserError as error:
            raise UserError(f"GPT2WGPU_DEVICE: {error}") from None
    return open_named(wanted)


def open_named(wanted: str) -> "tuple[Device | None, str]":
    """`find_device` for a name that no environment variable changes."""
    if wanted == "numpy":
        return None, "numpy on the CPU, as asked"
    if wanted == "auto" and not has_gpu_node():
        return None, "no GPU found: computing with numpy on the CPU"
    from ..gpu import choose_adapter, open_device

    adapter = choose_adapter(wanted)
    if adapter is None:
        return None, "no GPU found: computing with numpy on the CPU"
    return open_device(adapter), "the best GPU found" if wanted == "auto" else f"{wanted!r}, as asked"


def has_gpu_node() -> bool:
    """Whether this machine can have a GPU. On Linux every driver has a device file, and looking for one is a thousand times
    cheaper than loading wgpu and every Vulkan driver."""
    nodes = ("dri", "nvidia0", "nvidiactl", "dxg", "kgsl-3d0", "mali0", "pvr_sync", "nvgpu", "nvmap", "kfd")
    return not sys.platform.startswith("linux") or any(Path("/dev", node).exists() for node in nodes)


def device_kind(device: "Device | None") -> str:
    """The kind of an opened device: "numpy", "software", "discrete" or "integrated", which every other GPU counts as."""
    if device is None:
        return "numpy"
    return "software" if device.adapter.software else "discrete" if device.adapter.kind == "DiscreteGPU" else "integrated"


def default_tokens(device: "Device | None") -> int:
    """Most tokens in a batch, if the caller does not say. In numpy it grows with the cores that this process may use."""
    tokens = MAX_TOKENS[device_kind(device)]
    return max(tokens, CORE_TOKENS * usable_cores()) if device is None else tokens


def find_dtype(wanted: str, device: "Device | None") -> str:
    """The dtype of weights on a device (None: numpy): "float32", "float16" or "int8". wanted: one of these, or "auto", which
    is float16 on a GPU that computes it as numpy does; a notice says if one does not.

    Raises UserError for another one, and for float16 where it is unsupported or wrong.
    """
    names = {"auto": "auto", "float32": "float32", "f32": "float32", "float16": "float16", "f16": "float16", "int8": "int8"}
    if wanted not in names:
        raise UserError(f"dtype must be auto, float32, float16 or int8, not {wanted!r}")
    wanted = names[wanted]
    if wanted == "auto":
        if device is None or not device.has_f16 or device.adapter.software:
            return "float32"
        if wrong := f16_error(device):
            notice(f"{device.adapter} has float16, but {wrong}: computing in float32; update its driver")
        return "float32" if wrong else "float16"
    if wanted == "float16":
        if device is None:
            raise UserError("dtype float16 needs a GPU: numpy computes in float32")
        if not device.has_f16:
            raise UserError(f"dtype float16: {device.adapter.name} has no shader-f16; use float32")
        if wrong := f16_error(device):
            raise UserError(f"dtype float16: {device.adapter}: {wrong}; update its driver, or use float32")
    return wanted


def f16_error(device: "Device") -> str:
    """What is wrong with float16 on a device; "" if nothing is."""
    from .f16_check import find_f16_error

    return find_f16_error(device)


def find_operand_dtype(dtype: str, device: "Device | None") -> str:
    """The dtype of the other operands of matmuls, "f16" or "f32"; with int8 weights it is what "auto" would choose."""
    return "f16" if (find_dtype("auto", device) if dtype == "int8" else dtype) == "float16" else "f32"


def find_matmul(device: "Device | None", dtype: str) -> "tuple[Device | None, str]":
    """The device with matrix units switched on if f16 matmuls can use them, and one line that names the matmul kernel.

    A software driver may have matrix units too, but they are not faster.
    """
    if device is None:
        return None, "BLAS"
    half, why = find_operand_dtype(dtype, device), ""
    if half == "f16" and not device.adapter.software:
        from .matrix_units import find_matrix_units

        device, why = find_matrix_units(device)
    name = device.matmul(half)
    return device, f"{name} ({why})" if why else name


@contextmanager
def enough_memory(refuse: Callable[[str], UserError]) -> Iterator[None]:
    """Turn a MemoryError, of the host or of a device, into `refuse(phrase)`; the phrase says that {device} lacks memory."""
    try:
        yield
    except MemoryError:  # gpu.OutOfDeviceMemory is one too
        raise refuse("more than {device} has free") from None
