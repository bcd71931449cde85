"""The adapters of this machine, and opening one as a device."""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .failures import GPUError, last_cause, name_failure
from .library import Library, MatrixUnits, is_forked
from .native import NATIVE

if TYPE_CHECKING:
    from .kernels import Kernel
    from .tiles import TileTable

FORKED = (
    "this process was forked from one that uses a GPU, which does not survive a fork: open the model in the worker only "
    "(gunicorn: without --preload; multiprocessing: start method 'spawn'), or use device='numpy'"
)
WGPUDAWN = "0.32"  # whose private names dawn.py uses


@dataclass(frozen=True)
class Adapter:
    """One way to reach one GPU, as WebGPU lists it."""

    index: int
    name: str
    kind: str  # "DiscreteGPU", "IntegratedGPU", "CPU" (a software driver) or "Unknown"
    backend: str  # "Vulkan", "Metal" or "D3D12"; "Dawn on Vulkan" and so on
    driver: str
    features: frozenset[str]
    limits: dict[str, int]
    raw: Any = field(repr=False, compare=False)
    chip: str = ""  # the numbers of its vendor and its model, in hexadecimal
    library: Library = field(default=NATIVE, repr=False)

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


class Handle:
    """Owns a library's device. Its memory is freed with the last reference to this and to everything made on the device."""

    def __init__(self, raw: Any, library: Library) -> None:
        self._raw, self.pid = raw, os.getpid()
        weakref.finalize(self, library.break_cycles, raw).atexit = False

    @property
    def raw(self) -> Any:
        """The library's device. Raises UserError in a process forked after it was opened, where every call would hang."""
        if os.getpid() != self.pid:
            raise UserError(FORKED)
        return self._raw


@dataclass(frozen=True)
class Device:
    """An opened adapter, for this process only. checked: shaders keep the library's bounds checks and loop counters, as in
    tests."""

    adapter: Adapter
    handle: Handle = field(repr=False)
    checked: bool = False
    granted: frozenset[str] = frozenset()  # the features asked for and got
    refused: str = ""  # why the features of matrix units were not granted
    matrix_units: MatrixUnits | None = None  # for f16 matmuls, once devices/matrix_units.py has approved them
    matrix_attention: bool = True  # whether attention uses matrix_units too
    # Shared by all programs of the device and kept until it is freed.
    kernels: "dict[str, Kernel]" = field(default_factory=dict, repr=False)  # by their source
    layouts: dict[tuple[int, int], Any] = field(default_factory=dict, repr=False)  # of bind groups, by (bindings, written)
    tuned: "dict[str, TileTable]" = field(default_factory=dict, repr=False)  # filled by tiles.py and tuning.py
    agreed: dict[str, str] = field(default_factory=dict, repr=False)  # kernels that agreed with numpy: devices/graph_check.py

    @property
    def raw(self) -> Any:
        """The library's device. Raises UserError in a forked process."""
        return self.handle.raw

    @property
    def library(self) -> Library:
        return self.adapter.library

    @property
    def grants_matrices(self) -> bool:
        """Whether shaders may use matrix units, right or wrong."""
        return self.granted.issuperset(self.library.matrix_features)

    @property
    def clock(self) -> bool:
        """Whether it can record when a compute pass begins and ends."""
        return "timestamp-query" in self.granted

    @property
    def has_f16(self) -> bool:
        """Whether shaders may use f16."""
        return "shader-f16" in self.granted

    def attention(self, dtype: str) -> str:
        """The matmul shader whose kind of attention runs (see kernels.shader_files)."""
        return self.matmul(dtype if self.matrix_attention else "f32")

    def matmul(self, dtype: str) -> str:
        """The name of the shader that multiplies operands of a dtype (see kernels.operand_types)."""
        if self.matrix_units and dtype.endswith("f16"):
            return "matmul_cooperative"
        if not self.adapter.software:
            return "matmul_workgroup"
        return "matmul_registers" if self.adapter.unrolls else "matmul_unrolled"


def find_library(device: str) -> tuple[Library, str]:
    """The library that a device name asks for, and the rest of the name: "dawn:gpu" is Dawn's "gpu".

    Raises UserError if it is not installed.
    """
    if not device.startswith("dawn:"):
        return NATIVE, device
    try:
        found = version("wgpudawn")
    except PackageNotFoundError:
        raise UserError(f"device {device!r} needs wgpudawn: pip install 'wgpudawn~={WGPUDAWN}.0' (the extra `dawn`)") from None
    if not found.startswith(f"{WGPUDAWN}."):
        wanted = f"'wgpudawn~={WGPUDAWN}.0' (the extra `dawn`)"
        raise UserError(f"device {device!r} needs wgpudawn {WGPUDAWN}, and {found} is installed: pip install {wanted}")
    from .dawn import DAWN

    return DAWN, device.removeprefix(DAWN.prefix)


def list_adapters(library: Library = NATIVE) -> tuple[Adapter, ...]:
    """Every adapter of a native backend. Raises UserError in a process whose parent used a WebGPU library before the fork."""
    if is_forked():
        raise UserError(FORKED)
    return find_adapters(library)


@cache
def find_adapters(library: Library) -> tuple[Adapter, ...]:
    """`list_adapters` without its check. Finding them takes long, so it is done once per process."""
    from .backends import safe_backends

    with quiet_layer():
        backends = safe_backends(library)
        found = library.raw_adapters(backends) if backends else []
    return tuple(
        Adapter(
            index=i,
            name=a.info["device"] or a.info["vendor"] or "unnamed adapter",
            kind=a.info["adapter_type"],
            backend=library.title + a.info["backend_type"],
            driver=a.info["description"] or a.info["vendor"],  # D3D12 has its version there
            chip=f"{a.info['vendor_id']:04x}:{a.info['device_id']:04x}",
            features=frozenset(a.features),
            limits=dict(a.limits),
            raw=a,
            library=library,
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
    With "dawn:" before it: the same among those that Dawn finds.
    Raises UserError if there is no such adapter, or if wgpudawn is not installed.
    """
    library, name = find_library(wanted)
    found, order = list_adapters(library), ["DiscreteGPU", "IntegratedGPU"]
    ranked = sorted(found, key=lambda a: (a.software, order.index(a.kind) if a.kind in order else len(order), a.index))
    if name == "auto":
        return next((a for a in ranked if not a.software), None)
    if not ranked:
        raise UserError(f"device {wanted!r}: {library.no_adapter}, or use device='numpy'")
    if name == "gpu":
        return ranked[0]
    for a in found:
        if name == str(a.index) or (name and not name.isdigit() and name.lower() in a.name.lower()):
            return a
    listed = "; ".join(f"{a.index}: {a.name}" for a in found)
    others = ", ".join(f"'{library.prefix}{word}'" for word in ("auto", "gpu"))
    raise UserError(f"device {wanted!r} is none of the adapters found ({listed}); choose one of them, {others} or 'numpy'")


def open_device(adapter: Adapter, checked: bool = False) -> Device:
    """Open an adapter with its own limits and the features that the kernels use.

    Raises UserError if the driver refuses, and in a process whose parent used wgpu before the fork.
    """
    if is_forked():
        raise UserError(FORKED)
    library = adapter.library
    features = [f for f in library.features if f in adapter.features]
    missing = [f for f in ("shader-f16", *library.matrix_features) if f not in adapter.features]
    refused = f"it has no {missing[0]}" if missing else ""
    if not missing:
        try:
            return request_device(adapter, checked, [*features, *library.matrix_features])
        except (GPUError, RuntimeError) as error:  # wgpu-native 29 lists the feature but never grants it, as it is experimental
            refused = last_cause(error)
    try:
        return replace(request_device(adapter, checked, features), refused=refused)
    except (GPUError, RuntimeError) as error:
        why = name_failure(error, adapter) or UserError(f"{adapter} cannot be opened: {last_cause(error)}")
        raise why from None


def request_device(adapter: Adapter, checked: bool, features: list[str]) -> Device:
    raw = adapter.library.request_device(adapter.raw, features, adapter.limits, checked)
    return Device(adapter, Handle(raw, adapter.library), checked, frozenset(features))
