"""The GPUs, and the environment in which a process sees one of them."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from .packages import LIBRARIES

BACKPORTS = "bookworm-backports"  # runs with this machine's libc
SID = "sid"  # has drivers for more GPUs, and brings its own libc


@dataclass(frozen=True)
class Gpu:
    """A GPU that Mesa compiles for. title: a card with it. lanes: of a subgroup on its matrix units, 0 without any."""

    name: str
    title: str
    suite: str
    driver: str  # of Mesa, in Vulkan's sense
    shim: str  # the no-op driver of the kernel
    chosen_by: tuple[str, str]  # the shim's environment variable
    lanes: int = 0

    @property
    def is_radv(self) -> bool:
        return self.driver == "radeon"


def amd(name: str, title: str, lanes: int) -> Gpu:
    return Gpu(name, title, BACKPORTS, "radeon", "amdgpu", ("AMDGPU_GPU_ID", name), lanes)


def nvidia(name: str, title: str, chipset: str) -> Gpu:
    return Gpu(name, title, SID, "nouveau", "nouveau", ("NOUVEAU_CHIPSET", chipset), 32)


def intel(name: str, title: str) -> Gpu:
    return Gpu(name, title, SID, "intel", "intel", ("INTEL_STUB_GPU_PLATFORM", name))


IN_CI = (
    amd("navi31", "Radeon RX 7900 XTX", 64),
    amd("navi21", "Radeon RX 6800", 0),
    amd("gfx1150", "Radeon 890M", 64),
)
OTHERS = (
    nvidia("turing", "GeForce RTX 20", "164"),
    nvidia("ampere", "GeForce RTX 30", "172"),
    nvidia("ada", "GeForce RTX 40", "192"),
    nvidia("blackwell", "GeForce RTX 50", "1b2"),
    Gpu("m1", "Apple M1", SID, "asahi", "asahi", ("ASAHI_GPU_ID", "m1")),  # the shim has this one only
    Gpu("adreno730", "Adreno 730", SID, "freedreno", "freedreno", ("FD_GPU_ID", "730")),
)
INTEL = (
    intel("skl", "HD Graphics 530"),
    intel("tgl", "Iris Xe"),
    intel("dg2", "Arc A770M"),
    intel("lnl", "Arc 140V"),
)
BY_HAND = (*OTHERS, *INTEL)
GPUS = {gpu.name: gpu for gpu in (*IN_CI, *BY_HAND)}


def write_icd(root: Path, driver: str, scratch: Path) -> Path:
    """A description of an unpacked driver for Vulkan's loader, with its whole path."""
    icd = scratch / "icd.json"
    described = json.loads((root / f"usr/share/vulkan/icd.d/{driver}_icd.json").read_text(encoding="utf-8"))
    described["ICD"]["library_path"] = str((root / LIBRARIES).resolve() / f"libvulkan_{driver}.so")
    icd.write_text(json.dumps(described), encoding="utf-8")
    return icd


def python_command(suite: str, root: Path) -> tuple[list[str], dict[str, str]]:
    """The beginning of a command that runs Python with the libraries of a suite, and what to add to its environment."""
    libraries = (root / LIBRARIES).resolve()
    if suite == BACKPORTS:
        return [sys.executable], {"LD_LIBRARY_PATH": str(libraries)}
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"  # with the suite's libc, which is newer than this machine's
    return [str(loader), "--library-path", str(libraries), sys.executable], {}


def seen_by(gpu: Gpu, root: Path, scratch: Path, wgpu: Path) -> tuple[list[str], dict[str, str]]:
    """The beginning of a command that runs Python where wgpu sees only this GPU, and its environment.

    root: the unpacked packages. scratch: an empty folder for this process. wgpu: the library that grants matrix units.
    """
    icd, shim = write_icd(root, gpu.driver, scratch), (root / LIBRARIES).resolve() / f"lib{gpu.shim}_noop_drm_shim.so"
    (scratch / "spirv").mkdir()
    command, added = python_command(gpu.suite, root)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LD_", "VK_", "MESA_", "RADV_", "WGPU_"))} | {
        "VK_DRIVER_FILES": str(icd),
        "VK_ICD_FILENAMES": str(icd),  # its name in older loaders
        "NODEVICE_SELECT": "1",
        "MESA_SHADER_CACHE_DISABLE": "true",
        "XDG_CACHE_HOME": str(scratch),
        "WGPU_LIB_PATH": str(wgpu),
        gpu.chosen_by[0]: gpu.chosen_by[1],
    }
    if gpu.is_radv:
        environment["RADV_DEBUG"] = "shaderstats,nocache"
    else:
        environment["MESA_SPIRV_DUMP_PATH"] = str(scratch / "spirv")
    if gpu.suite == BACKPORTS:
        return command, environment | added | {"LD_PRELOAD": str(shim)}
    return [*command[:-1], "--preload", str(shim), sys.executable], environment
