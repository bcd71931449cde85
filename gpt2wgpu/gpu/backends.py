"""Which backends can be asked for their adapters without crashing this process.

On Windows AMD's Vulkan driver 2.0.388 crashes the process that asks it for its matrix shapes (GPUOpen-Drivers/AMDVLK#422), and
wgpu asks while it lists adapters. So they are listed in a process of its own first, once per set of drivers.
"""

import importlib
import itertools
import sys
from collections.abc import Sequence
from contextlib import suppress

from ..progress import notice
from .child_process import run_in_child
from .device import find_library
from .device_cache import read_entries, save_entries
from .library import BACKENDS, Library

LISTING_SECONDS = 60.0
DISPLAY_ADAPTERS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"  # in Windows' registry


def safe_backends(library: Library) -> Sequence[str]:
    """All backends; on Windows those that a child process could list with this library, which is kept beside the tiles."""
    if not on_windows():
        return BACKENDS
    drivers = windows_drivers()
    key = " | ".join(["listing", *drivers, library.version])
    known = read_entries("selftest", key).get("backends") if drivers else None
    if isinstance(known, list):
        return [name for name in BACKENDS if name in known]
    backends: list[str] = []
    for backends in ([*BACKENDS], ["D3D12"], []):
        found = run_in_child(__name__, "count_adapters", library.prefix, backends, seconds=LISTING_SECONDS)
        if not found.crashed:  # if no process can be started, they are listed as everywhere else
            break
        what = "numpy is used" if backends == ["D3D12"] else "those of D3D12 only are used"
        notice(f"listing the GPUs by {', '.join(backends)} {found.failure}: {what}; update the GPU's driver")
    if drivers and not found.failure:
        save_entries("selftest", key, {"backends": backends}, "which GPUs can be listed is tried again next time")
    return backends


def count_adapters(prefix: str, backends: list[str]) -> int:
    """In the child: how many adapters these backends of a library list."""
    return len(find_library(f"{prefix}gpu")[0].raw_adapters(backends)) if backends else 0


def on_windows() -> bool:
    return sys.platform == "win32"


def windows_drivers() -> list[str]:
    """The display adapters and the versions of their drivers, by the registry; [] if it does not say."""
    found = []
    with suppress(ImportError, OSError):
        winreg = importlib.import_module("winreg")
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, DISPLAY_ADAPTERS) as adapters:
            for i in itertools.count():
                name = winreg.EnumKey(adapters, i)  # OSError after the last one
                with suppress(OSError), winreg.OpenKey(adapters, name) as adapter:
                    values = [str(winreg.QueryValueEx(adapter, field)[0]) for field in ("DriverDesc", "DriverVersion")]
                    found.append(" ".join(values))
    return sorted(found)
