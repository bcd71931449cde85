"""Compiles every kernel on the GPU that this process sees, and writes what its compiler says of each, one JSON per line.

Run by __main__.py in an environment of gpus.py: python -m gpu_compilers.kernels GPU FILE
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gpt2wgpu.devices.selftest import Case, forward_cases
from gpt2wgpu.gpu import Device, GPUError, MatrixUnits, first_reason, list_adapters, open_device
from gpt2wgpu.gpu.kernels import (
    compile_pipeline,
    find_kernel,
    for_matrix_units,
    is_tiled,
    operand_types,
    read_shader,
    shader_files,
)
from gpt2wgpu.gpu.tiles import tile_candidates
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Tensor
from gpt2wgpu.train.selftest import attention_cases, backward_cases

from .gpus import GPUS, SID, Gpu
from .vulkan import Vulkan

HEADS = (32, 64, 80, 96, 128)  # the head sizes of the models that people use
WIDTHS = (384, 768, 1024, 4096)  # and their widths, for kernels that hold a row in registers
LENGTHS = (1, 70, 17)
ALONE = (
    ("adamw",),
    ("average",),
    ("square_sum", "row_sum"),
    ("ceiling_copy",),
    ("ceiling_fma",),
)  # the files of kernels of no op
# The driver's names for the fields of Row; several are added up
RADV = {
    "registers": ["VGPRs"],
    "spills": ["Spilled VGPRs", "Spilled SGPRs"],
    "scratch": ["Scratch size"],
    "memory": ["LDS size"],
    "waves": ["Subgroups per SIMD"],
}
OTHERS = {
    "nouveau": {
        "registers": ["Number of GPRs"],
        "spills": ["Spills to memory"],
        "scratch": ["SLM size"],
        "waves": ["Max warps/SM"],
    },
    "asahi": {
        "registers": ["GPRs"],
        "spills": ["Spills"],
        "scratch": ["Scratch"],
        "waves": ["Threads"],
    },
    "freedreno": {
        "registers": ["Registers used"],
        "spills": ["STP Count"],
        "waves": ["Max Waves Per Core"],
    },
    "intel": {
        "registers": ["Max live registers"],
        "spills": ["Spills"],
        "scratch": ["Scratch Memory Size"],
        "memory": ["Workgroup Memory Size"],
        "waves": ["Max dispatch width"],
    },
}


def every_case(half: bool) -> list[Case]:
    """The cases of the self-tests, these with the columns of WIDTHS, and attention with heads of HEADS."""
    found = [*forward_cases(half), *backward_cases()]
    wide = [case for case in found if "C" in case.sizes and "head_size" not in case.attrs]
    found += [replace(case, sizes=case.sizes | {"C": width}) for case in wide for width in WIDTHS]
    for size in HEADS:
        for causal in (True, False):
            attrs = {"head_size": size, "scale": 0.3, "causal": causal}
            for h in (False, True) if half else (False,):
                found.append(Case(ops.attention, {"N": 9 * size}, LENGTHS, attrs, half=h))
                found.append(Case(ops.attention_bias, {"N": 9 * size, "H": 3, "R": 33}, LENGTHS, attrs, half=h))
            found += attention_cases(3 * size, size, causal, LENGTHS)
    return found


def name_kernel(t: Tensor, files: tuple[str, ...], source: str, tile: str) -> str:
    """Such as "linear f16 activation=relu 64x64/8": the shader, its dtype, the attributes that are baked in, its tile.

    f16(X): only the type letter X stands for f16.
    """
    constants = set(re.findall(r"^const (\w+): u32 = ", source, re.M))
    baked = [f"{name}={int(v) if isinstance(v, bool) else v}" for name, v in t.attrs.items() if v and name.upper() in constants]
    halves = "".join(sorted(letter for letter, dtype in t.types.items() if dtype == "f16"))
    dtype = "f32" if not halves else "f16" if len(halves) == len(t.types) else f"f16({halves})"
    matrix = ["matrix"] if any(f.endswith("_cooperative") for f in files) else []
    return " ".join([files[0], dtype, *baked, *matrix, *[tile] * bool(tile)])


def find_kernels(device: Device, all_tiles: bool) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Every kernel of a device by its name: its source, and a function that compiles it.

    all_tiles: every matmul in every tile shape; else only `linear` and `linear_int8` without an activation, and the others
    in their first one.
    """
    found: dict[str, tuple[str, Callable[[], Any]]] = {}
    sources: set[str] = set()
    for case in every_case(device.has_f16):
        t = case.output()
        tiles: list[Any] = [None]
        if is_tiled(t):
            tiles = tile_candidates(device, operand_types(t))
            if not all_tiles and (t.op not in (ops.linear, ops.linear_int8) or t.attrs["activation"] != "none"):
                tiles = tiles[:1]
        for tile in tiles:
            kernel = find_kernel(device, t, tile)
            files = shader_files(t, device.matmul(operand_types(t)))
            name = name_kernel(t, files, kernel.source, str(tile or ""))
            if name in found and found[name][0] != kernel.source:  # the source depends on sizes
                name += " " + " ".join(f"{letter}={n}" for letter, n in case.sizes.items())
                if kernel.source in sources:
                    continue
            sources.add(kernel.source)
            assert found.setdefault(name, (kernel.source, partial(kernel.compile, device)))[0] == kernel.source, name
    for files in ALONE:
        found[files[0]] = compile_files(device, "\n".join(map(read_shader, files)), files[0])
    return found


def compile_files(device: Device, source: str, name: str) -> tuple[str, Callable[[], Any]]:
    access = re.findall(r"@binding\(\d+\) var<\w+(?:, (\w+))?>", source)
    return source, partial(compile_pipeline, device, name, source, len(access), access.count("read_write"))


def matrix_kernels(device: Device, all_tiles: bool) -> dict[str, tuple[str, Callable[[], Any]]]:
    """The kernels that a device has on its matrix units only."""
    found = {name: kernel for name, kernel in find_kernels(device, all_tiles).items() if "coop_mat" in kernel[0]}
    source = for_matrix_units(device, read_shader("ceiling_matrix"))
    return found | {"ceiling_matrix": compile_files(device, source, "ceiling_matrix")}


def compile_kernels(gpu: Gpu, keep: Path | None = None) -> Iterator[dict[str, Any]]:
    """First the driver's name and version, then a dict per kernel: its name, and the fields of Row or an `error`.

    keep: a folder for the SPIR-V that the driver gets, by kernel. RADV prints its statistics without it.
    """
    adapters = list_adapters()
    if not adapters:
        raise SystemExit(f"{gpu.name}: the driver shows no adapter")
    device = open_device(adapters[0])
    yield {"driver": device.adapter.driver, "adapter": device.adapter.name}
    all_tiles = gpu.suite != SID  # whose drivers take seconds for a kernel
    found = find_kernels(device, all_tiles)
    if gpu.lanes:
        if not device.grants_matrices:
            raise SystemExit(f"{gpu.name}: cooperative-matrix is not granted: {device.refused}")
        found |= matrix_kernels(replace(device, matrix_units=MatrixUnits(16, gpu.lanes), tuned={}), all_tiles)
    read = ShaderStats() if gpu.is_radv else PipelineStats(gpu)
    for name, (_, make) in sorted(found.items()):
        try:
            yield {"kernel": name, **read(make)}
            if keep is not None and isinstance(read, PipelineStats):
                file = re.sub(r"[^\w.=-]+", "_", name)
                (keep / f"{file}.spv").write_bytes(read.code)
        except GPUError as error:
            yield {"kernel": name, "error": first_reason(error)}


class ShaderStats:
    """RADV's own statistics, which it prints on stderr while it compiles."""

    def __call__(self, make: Callable[[], Any]) -> dict[str, int]:
        with tempfile.TemporaryFile() as file:
            sys.stderr.flush()
            before = os.dup(2)
            os.dup2(file.fileno(), 2)
            try:
                make()
            finally:
                os.dup2(before, 2)
                os.close(before)
            file.seek(0)
            printed = re.findall(r"^([A-Z][\w ]+): (\d+)$", file.read().decode(errors="replace"), re.M)
        if [name for name, _ in printed].count("VGPRs") != 1:
            raise SystemExit("RADV printed the statistics of no shader, or of several")
        return fields_of(RADV, {name: int(value) for name, value in printed})


class PipelineStats:
    """Any other driver's: the SPIR-V that wgpu hands to the driver is compiled once more, and the driver asked about it."""

    def __init__(self, gpu: Gpu) -> None:
        self.names, self.folder, self.vulkan = OTHERS[gpu.driver], Path(os.environ["MESA_SPIRV_DUMP_PATH"]), Vulkan()

    def __call__(self, make: Callable[[], Any]) -> dict[str, int]:
        before = set(self.folder.iterdir())
        make()
        new = set(self.folder.iterdir()) - before
        if len(new) != 1:
            raise SystemExit(f"the driver wrote {len(new)} SPIR-V modules, not one")
        self.code = new.pop().read_bytes()
        return fields_of(self.names, self.vulkan.statistics(self.code))


def fields_of(names: dict[str, list[str]], values: dict[str, int]) -> dict[str, int]:
    """The fields of Row that the driver knows. Raises SystemExit if it has dropped one of its names."""
    lacking = [name for wanted in names.values() for name in wanted if name not in values]
    if lacking:
        raise SystemExit(f"the driver no longer says {lacking[0]!r}; it says {', '.join(values)}")
    return {field: sum(values[name] for name in wanted) for field, wanted in names.items()}


def main() -> None:
    gpu, file = GPUS[sys.argv[1]], Path(sys.argv[2])
    keep = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    with file.open("w", encoding="utf-8") as out:
        for line in compile_kernels(gpu, keep):
            out.write(json.dumps(line) + "\n")
            out.flush()  # a driver that crashes leaves the names of the kernels before


if __name__ == "__main__":
    main()
