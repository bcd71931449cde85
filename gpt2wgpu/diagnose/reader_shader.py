"""A reader's WGSL file as the kernel of an op: which op, on which cases, with which of the engine's shared files."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..devices.selftest import Case
from ..errors import UserError, show
from ..gpu import Device, Kernel, Tile, default_kernel
from ..gpu.kernels import (
    SHADERS,
    enable_f16,
    is_tiled,
    kernel_files,
    operand_types,
    read_shader,
    set_constants,
    set_types,
    specialise_source,
    uniform_bits,
)
from ..gpu.tiles import default_tiles
from ..graph.tensor import Array, Grid, Op, Tensor, is_type_letter

FIRST_LINE = re.compile(r"//\s*op:\s*(\w+)\s*")
LARGEST_SHADER = 1 << 16  # bytes; the engine's largest one has 8,000
FORMS = {"GPU": "DiscreteGPU", "llvmpipe": "CPU", "SwiftShader": "CPU"}  # devices with other kernels: a name and its kind


@dataclass(frozen=True)
class ReaderShader:
    """A file. op: what its first line, `// op: NAME`, says that it computes; it is a whole kernel then. "": it stands in for
    the file of the same name in shaders/, and the engine adds the files that belong to that."""

    path: Path
    text: str
    op: str

    @property
    def name(self) -> str:
        return self.path.stem


@dataclass(frozen=True)
class Candidate:
    """The reader's kernel for one case. first_line: of the reader's file in the source, from 0. engine: the engine's own kernel,
    None for the op of a puzzle. device: with another kind than the real one where only that has this kernel."""

    case: Case
    output: Tensor
    source: str
    first_line: int
    device: Device
    engine: Kernel | None


def read_reader_shader(path: Path) -> ReaderShader:
    """Raises UserError if this is no text file of a sensible size."""
    try:
        data = path.read_bytes()
        text = data[:LARGEST_SHADER].decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except OSError as error:
        raise UserError(f"{show(path)}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{show(path)} is not UTF-8, as WGSL must be") from None
    if len(data) >= LARGEST_SHADER or not text.strip():
        raise UserError(f"{show(path)}: expected a kernel in WGSL, found {f'{len(data):,} bytes' if data else 'an empty file'}")
    named = FIRST_LINE.fullmatch(text.split("\n", 1)[0])
    return ReaderShader(path, text, named[1] if named else "")


def make_candidates(shader: ReaderShader, device: Device, cases: Sequence[Case]) -> list[Candidate]:
    """The reader's kernel for each case of its op, or of each op that uses the file that it stands in for.

    Raises UserError if there is none.
    """
    if not shader.op:
        return stand_in_candidates(shader, device, cases)
    known = sorted({case.op.name for case in cases})
    if shader.op not in known:
        raise UserError(f"{show(shader.path)}: op {shader.op!r} of its first line is none of {', '.join(known)}")
    found = []
    for case in cases:
        if case.op.name == shader.op and (not uses_f16(case) or has_aliases(shader.text, case.op)):
            t = case.output()
            source = enable_f16(set_constants(set_types(shader.text, t), t.attrs), t)
            engine = engine_kernel(device, case, t)
            found.append(Candidate(case, t, source, int(source.startswith("enable f16;")), device, engine))
    return found


def uses_f16(case: Case) -> bool:
    return case.half or "f16" in case.types.values()


def has_aliases(source: str, op: Op) -> bool:
    """Whether a source has a line `alias X = f32;` for each type letter of an op."""
    letters = {arg.dtype for arg in op.args if is_type_letter(arg.dtype)}
    return letters <= set(re.findall(r"^alias (\w) = f32;", source, re.M))


def engine_kernel(device: Device, case: Case, t: Tensor) -> Kernel | None:
    """The engine's own kernel for a case, if its op has one."""
    return default_kernel(device, t, sum(case.lengths)) if is_shader(case.op.name) else None


def is_shader(name: str) -> bool:
    """Whether shaders/ has a file of this name. Every op of the engine has one; those of puzzles have none."""
    return (SHADERS / f"{name}.wgsl").exists()


def stand_in_candidates(shader: ReaderShader, device: Device, cases: Sequence[Case]) -> list[Candidate]:
    """In each form of the engine's kernels that the device runs: a software driver those of a GPU too, as workgroups of its own
    have so few lanes that they run side by side, and a missing barrier does not show. Else in the first form that has the file.
    """
    path = show(shader.path)
    if not is_shader(shader.name):
        raise UserError(
            f"{path}: its first line must be `// op: NAME`, with the name of a puzzle or an op; "
            "or its name must be that of a file in shaders/, which it stands in for"
        )
    found: dict[str, Candidate] = {}  # by what is computed with which source
    for number, form in enumerate(device_forms(device)):
        if found and not (device.adapter.software and number == 1):
            break
        for case in cases:
            for c in stand_in_kernels(shader, form, case) if is_shader(case.op.name) else ():
                found.setdefault(f"{case.op.name} {case}\n{c.source}", c)
    if not found:
        raise UserError(f"{path}: shaders/{shader.name}.wgsl is part of no op's kernel that can be checked here")
    return [*found.values()]


def device_forms(device: Device) -> Iterator[Device]:
    """The device as it is, then as kinds that get other kernels: a GPU first."""
    yield device
    for name, kind in FORMS.items():
        yield replace(device, adapter=replace(device.adapter, kind=kind, name=name), tuned={}, kernels={})


def stand_in_kernels(shader: ReaderShader, form: Device, case: Case) -> Iterator[Candidate]:
    """One for each default tile of a matmul whose kernel uses the file; for another op one at most."""
    t = case.output()
    tiles: list[Tile | None] = [None]
    if is_tiled(t):
        tiles = [*dict.fromkeys(default_tiles(form, operand_types(t)))]
    for tile in tiles:
        parts = kernel_files(form, t, tile)
        if shader.name in parts:
            source = specialise_source(form, t, tile, {shader.name: shader.text})
            before = [read_shader(name) for name in parts[: parts.index(shader.name)]]
            first = sum(text.count("\n") + 1 for text in before) + source.startswith("enable f16;")
            engine = Kernel(t, specialise_source(form, t, tile))
            yield Candidate(case, t, source, first, form, engine)


def reader_kernel(shader: ReaderShader, candidate: Candidate) -> Kernel:
    """Raises UserError if the source lacks the line of its uniform block."""
    if not re.search(r"struct Params \{.*?\}", candidate.source):
        letters = ", ".join(f"{letter}: u32" for letter in candidate.output.dims)
        raise UserError(f"{show(shader.path)}: a kernel needs its sizes on one line, `struct Params {{ {letters} }}`")
    return Kernel(candidate.output, candidate.source)


def batch_params(candidate: Candidate, values: dict[str, Array]) -> dict[str, Any]:
    """The sizes and attributes of a case; those of a batch as numbers."""
    counts = {**candidate.case.counts(), "G": len(values["tiles"]) if "tiles" in values else 0}
    t = candidate.output
    return {name: counts.get(v, v) if isinstance(v, str) else v for name, v in {**t.dims, **t.attrs}.items()}


def uniform_block(shader: ReaderShader, kernel: Kernel, params: dict[str, Any]) -> Array:
    """The 32 bits of each field of a kernel's uniform block, by name. Raises UserError for a field that the op does not have."""
    numbers = {name: value for name, value in params.items() if not isinstance(value, str)}
    for name, kind in kernel.fields:
        if name not in numbers or kind not in ("u32", "f32"):
            known = ", ".join(f"{n}: {'f32' if isinstance(v, float) else 'u32'}" for n, v in numbers.items())
            raise UserError(f"{show(shader.path)}: `{name}: {kind}` of struct Params is none of {known}")
    return np.array([uniform_bits(numbers[name], kind) for name, kind in kernel.fields], np.uint32)


def find_grid(shader: ReaderShader, kernel: Kernel, t: Tensor, params: dict[str, Any]) -> Grid:
    """Raises UserError if the grid of the op depends on a constant that the kernel does not have."""
    assert t.op is not None
    try:
        return t.op.grid(SimpleNamespace(**params, **kernel.constants))
    except AttributeError as error:
        line = f"`const {error.name}: u32 = ...u;`"
        raise UserError(f"{show(shader.path)}: the grid of {t.op.name} depends on a line {line}") from None
