"""The adapters of this machine, and opening one as a device."""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import wgpu
from wgpu.backends.wgpu_native import extras

from ..errors import UserError
from . import native
from .failures import GPUError, last_cause, name_failure

if TYPE_CHECKING:
    from .kernels import Kernel
    from .tiles import TileTable

FORKED = (
    "this process was forked from one that uses a GPU, which does not survive a fork: open the model in the worker only "
    "(gunicorn: without --preload; multiprocessing: start method 'spawn'), or use device='numpy'"
)
DRIVER_HELP = (
    "install a driver (Debian, Ubuntu: apt install mesa-vulkan-drivers; NVIDIA: its own driver, which brings Vulkan; "
    "macOS and Windows have one), or use device='numpy'"
)

MATRICES = ("cooperative-matrix", "subgroup")


@dataclass(frozen=True)
class Adapter:
    """One way to reach one GPU, as WebGPU lists it."""

    index: int
    name: str
    kind: str  # "DiscreteGPU", "IntegratedGPU", "CPU" (a software driver) or "Unknown"
    backend: str  # "Vulkan", "Metal" or "D3D12"
    driver: str
    features: frozenset[str]
    limits: dict[str, int]
    raw: Any = field(repr=False, compare=False)
    chip: str = ""  # the numbers of its vendor and its model, in hexadecimal

    @property
    def software(self) -> bool:
        return self.kind == "CPU"

    @property
    def uses_main_memory(self) -> bool:
        return self.kind in ("CPU", "IntegratedGPU")

    @property
    def limit(self) -> int:
        """The most bytes that one binding of a kernel can hold."""
        return min(self.limits["max-buffer-size"], self.limits["max-storage-buffer-binding-size"])

    @property
    def unrolls(self) -> bool:
        """Whether the driver unrolls loops, so that an array indexed by a loop variable can live in registers."""
        return "SwiftShader" not in self.name

    def __str__(self) -> str:
        return f"{self.name} ({self.backend}, {self.kind})"


class MatrixUnits(NamedTuple):
    """How a device multiplies cooperative matrices: square fragments of `size` x `size`, by subgroups of up to `lanes`."""

    size: int
    lanes: int


class Handle:
    """Owns wgpu's device. Its memory is freed with the last reference to this and to everything made on the device."""

    def __init__(self, raw: Any) -> None:
        self._raw, self.pid = raw, os.getpid()
        weakref.finalize(self, native.break_cycles, raw).atexit = False

    @property
    def raw(self) -> Any:
        """wgpu's device. Raises UserError in a process forked after it was opened, where every call would hang."""
        if os.getpid() != self.pid:
            raise UserError(FORKED)
        return self._raw


@dataclass(frozen=True)
class Device:
    """An opened adapter, for this process only. checked: shaders keep wgpu's bounds checks and loop counters, as in tests."""

    adapter: Adapter
    handle: Handle = field(repr=False)
    checked: bool = False
    granted: frozenset[str] = frozenset()  # the features asked for and got
    refused: str = ""  # why cooperative-matrix was not granted
    matrix_units: MatrixUnits | None = None  # for f16 matmuls, once devices/selftest.py has approved them
    # Shared by all programs of the device and kept until it is freed.
    kernels: "dict[str, Kernel]" = field(default_factory=dict, repr=False)  # by their source
    layouts: dict[tuple[int, int], Any] = field(default_factory=dict, repr=False)  # of bind groups, by (bindings, written)
    tuned: "dict[str, TileTable]" = field(default_factory=dict, repr=False)  # filled by tiles.py and tuning.py
    agreed: dict[str, str] = field(default_factory=dict, repr=False)  # kernels that agreed with numpy: devices/graph_check.py

    @property
    def raw(self) -> Any:
        """wgpu's device. Raises UserError in a forked process."""
        return self.handle.raw

    @property
    def clock(self) -> bool:
        """Whether it can record when a compute pass begins and ends."""
        return "timestamp-query" in self.granted

    @property
    def has_f16(self) -> bool:
        """Whether shaders may use f16."""
        return "shader-f16" in self.granted

    def matmul(self, dtype: str) -> str:
        """The name of the shader that multiplies operands of a dtype (see kernels.operand_types)."""
        if self.matrix_units and dtype.endswith("f16"):
            return "matmul_cooperative"
        if not self.adapter.software:
            return "matmul_workgroup"
        return "matmul_registers" if self.adapter.unrolls else "matmul_unrolled"


def list_adapters() -> tuple[Adapter, ...]:
    """Every adapter of a native backend. OpenGL is left out: it lists the same hardware again, with fewer features.

    Raises UserError in a process whose parent used wgpu before the fork.
    """
    if native.is_forked():
        raise UserError(FORKED)
    return find_adapters()


@cache
def find_adapters() -> tuple[Adapter, ...]:
    """`list_adapters` without its check. Finding them takes long, so it is done once per process."""
    with quiet_layer():
        with suppress(RuntimeError):  # the application already uses wgpu; the filter below suffices
            extras.set_instance_extras(backends=["Vulkan", "Metal", "DX12"])
        found = [a for a in wgpu.gpu.enumerate_adapters_sync() if a.info["backend_type"] != "OpenGL"]
    return tuple(
        Adapter(
            index=i,
            name=a.info["device"] or a.info["vendor"] or "unnamed adapter",
            kind=a.info["adapter_type"],
            backend=a.info["backend_type"],
            driver=a.info["description"] or a.info["vendor"],  # D3D12 has its version there
            chip=f"{a.info['vendor_id']:04x}:{a.info['device_id']:04x}",
            features=frozenset(a.features),
            limits=dict(a.limits),
            raw=a,
        )
        for i, a in enumerate(found)
    )


@contextmanager
def quiet_layer() -> Iterator[None]:
    """Switch off Mesa's device-select layer, which complains on stderr where XDG_RUNTIME_DIR is not set."""
    if "XDG_RUNTIME_DIR" in os.environ or "NODEVICE_SELECT" in os.environ:
        yield
        return
    os.environ["NODEVICE_SELECT"] = "1"
    try:
        yield
    finally:
        os.environ.pop("NODEVICE_SELECT", None)


def choose_adapter(wanted: str) -> Adapter | None:
    """The adapter that a device name stands for.

    "auto": the best real GPU, None without one. "gpu": the best real GPU, else a software adapter.
    A number: that adapter of the list. Anything else: the first adapter whose name contains it.
    Raises UserError if there is no such adapter.
    """
    order = ["DiscreteGPU", "IntegratedGPU"]
    ranked = sorted(list_adapters(), key=lambda a: (a.software, order.index(a.kind) if a.kind in order else len(order), a.index))
    if wanted == "auto":
        return next((a for a in ranked if not a.software), None)
    if not ranked:
        raise UserError(f"device {wanted!r}: no WebGPU adapter found; {DRIVER_HELP}")
    if wanted == "gpu":
        return ranked[0]
    for a in list_adapters():
        if wanted == str(a.index) or (wanted and not wanted.isdigit() and wanted.lower() in a.name.lower()):
            return a
    listed = "; ".join(f"{a.index}: {a.name}" for a in list_adapters())
    raise UserError(f"device {wanted!r} is none of the adapters found ({listed}); choose one of them, 'auto', 'gpu' or 'numpy'")


def open_device(adapter: Adapter, checked: bool = False) -> Device:
    """Open an adapter with its own limits and the features that the kernels use.

    Raises UserError if the driver refuses, and in a process whose parent used wgpu before the fork.
    """
    if native.is_forked():
        raise UserError(FORKED)
    features: list[str] = [f for f in ("shader-f16", "timestamp-query") if f in adapter.features]
    missing = [f for f in ("shader-f16", *MATRICES) if f not in adapter.features]
    refused = f"it has no {missing[0]}" if missing else ""
    if not missing:
        try:
            return request_device(adapter, checked, [*features, *MATRICES])
        except (GPUError, RuntimeError) as error:  # wgpu-native 29 lists the feature but never grants it, as it is experimental
            refused = last_cause(error)
    try:
        return replace(request_device(adapter, checked, features), refused=refused)
    except (GPUError, RuntimeError) as error:
        why = name_failure(error, adapter) or UserError(f"{adapter} cannot be opened: {last_cause(error)}")
        raise why from None


def request_device(adapter: Adapter, checked: bool, features: list[str]) -> Device:
    raw = adapter.raw.request_device_sync(required_features=features, required_limits=adapter.limits)
    return Device(adapter, Handle(raw), checked, frozenset(features))
