"""Mesa's no-op driver of the kernel for Intel's GPUs, built from Debian's source of Mesa, as Debian does not package it.

Nothing is installed: the source, libdrm's headers and what Mesa's scripts need of PyPI go into a temporary folder. The source
is older than sid's driver, which does not matter: what the two say to each other is the kernel's interface.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from .packages import LIBRARIES, extract_packages, run_apt, write_settings

SUITE = "trixie"  # whose Mesa, 25.0, these lists fit
LIBRARY = "libintel_noop_drm_shim.so"
UTIL = ("anon_file", "blob", "futex", "hash_table", "log", "os_file", "os_misc", "parson", "ralloc", "set", "u_debug")
INTEL = ("i915/intel_device_info", "xe/intel_device_info", "intel_device_info", "intel_hwconfig", "intel_kmd")
SOURCES = (
    "drm-shim/device.c",
    "drm-shim/drm_shim.c",
    "intel/tools/intel_noop_drm_shim.c",
    "c11/impl/threads_posix.c",
    *(f"intel/dev/{name}.c" for name in INTEL),
    *(f"util/{name}.c" for name in (*UTIL, "u_printf", "u_process", "vma")),
)
GENERATED = {  # by a script of src/intel/dev, from its arguments
    "intel_device_info_serialize_gen_c.py": ("intel_device_info_serialize_gen.c",),
    "intel_device_info_gen_h.py": ("intel_device_info_gen.h",),
    "gen_wa_helpers.py": ("mesa_defs.json", "intel_wa.h", "intel_wa.c"),
}
# What Mesa's build finds out about Debian's C library and compiler
FOUND = ("PTHREAD", "LIBDRM", "SECURE_GETENV", "MEMFD_CREATE", "REALLOCARRAY", "STRUCT_TIMESPEC", "LINUX_FUTEX_H", "ENDIAN_H")
HAVE = (*FOUND, "FLOCK", "MKOSTEMP", "PROGRAM_INVOCATION_NAME", "DIRENT_D_TYPE")
DEFINED = ("MAJOR_IN_SYSMACROS", "USE_GCC_ATOMIC_BUILTINS", "SUPPORT_INTEL_INTEGRATED_GPUS", "NDEBUG", "_GNU_SOURCE")
COMPILER = ("cc", "-shared", "-fPIC", "-O1", "-w", "-std=gnu11", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections")
LINKER = ("-Wl,--gc-sections", "-Wl,--allow-shlib-undefined", "-l:libdrm.so.2", "-lm", "-pthread")


def add_intel_shim(root: Path) -> None:
    """Builds the library into the unpacked packages of a suite, unless it is there.

    Raises SystemExit with one line if it cannot.
    """
    if (root / LIBRARIES / LIBRARY).exists():
        return
    if not shutil.which("cc"):
        raise SystemExit("the no-op driver for Intel's GPUs is built from source, and there is no C compiler: install gcc")
    with tempfile.TemporaryDirectory(dir=root.parent) as unfinished:
        folder = Path(unfinished)
        source, mako = fetch_source(folder), str(folder / "pypi")
        run_step("install mako", [sys.executable, "-m", "pip", "install", "--quiet", "--target", mako, "mako"])
        generated = folder / "generated/intel/dev"
        generated.mkdir(parents=True)
        scripts = source / "src/intel/dev"
        for script, files in GENERATED.items():
            paths = [scripts / file if (scripts / file).exists() else generated / file for file in files]
            run_step(f"run {script}", [sys.executable, scripts / script, *paths], {"PYTHONPATH": mako})
        includes = [generated, *generated.parents[:2], source / "include", scripts, *scripts.parents[:2]]
        includes += [folder / "usr/include", folder / "usr/include/libdrm"]
        flags = [f"-DHAVE_{name}" for name in HAVE] + [f"-D{name}" for name in DEFINED] + [f"-I{path}" for path in includes]
        files = [*(source / "src" / name for name in SOURCES), *generated.glob("*.c")]
        run_step("compile it", [*COMPILER, *flags, *files, f"-L{root / LIBRARIES}", *LINKER, "-o", folder / LIBRARY])
        (folder / LIBRARY).rename(root / LIBRARIES / LIBRARY)


def fetch_source(folder: Path) -> Path:
    """Mesa's source, and libdrm's headers under `folder`/usr/include."""
    apt = write_settings(folder / "apt", SUITE, sources=True)
    run_apt(apt, "update", "-qq")
    run_apt(apt, "source", "-qq", "--download-only", "mesa", folder=folder)
    run_apt(apt, "download", "-qq", "libdrm-dev", folder=folder)
    extract_packages(folder, folder)
    (archive,) = folder.glob("mesa_*.orig.tar.xz")
    run_step("unpack it", ["tar", "--directory", folder, "-xf", archive, "--wildcards", "mesa-*/src", "mesa-*/include"])
    (source,) = folder.glob("mesa-*/")
    return source


def run_step(what: str, command: Sequence[str | Path], added: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, env={**os.environ, **(added or {})}, capture_output=True, text=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "rror" in line] or done.stderr.splitlines() or ["no word"]
        raise SystemExit(f"the no-op driver for Intel's GPUs cannot be built: could not {what}: {said[0].strip()}")
