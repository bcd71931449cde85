"""What the sources say about a kernel: its declaration, its WGSL for one case, its grid, its cost, its registers."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np
from gpu_compilers.gpus import BY_HAND, IN_CI, Gpu
from gpu_compilers.kernels import name_kernel
from gpu_compilers.tables import Row, read_table

from gpt2wgpu.devices.selftest import Case, attraction_case, case_arrays, forward_cases
from gpt2wgpu.diagnose.profile import count_flops
from gpt2wgpu.gpu.kernels import Kernel, Tile, find_kernel, is_tiled, kernel_files, operand_types, read_shader
from gpt2wgpu.gpu.paper import paper_device
from gpt2wgpu.gpu.tiles import BUCKETS, default_tiles
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import DTYPES, Array, Grid, Op, Tensor, parse_dim

from . import REPOSITORY
from .counting import count_needed, count_operations
from .prose import Prose
from .wgsl import count_threads, shared_bytes

OPS = {name: value for name, value in vars(ops).items() if isinstance(value, Op)}
PAPER = paper_device()  # a GPU with WebGPU's default limits, which compiles nothing
MODEL_LENGTHS = (64,) * 8
LARGEST_EXTENT = 2048  # elements of a workgroup along an axis, more than any has


@dataclass(frozen=True)
class Work:
    """What a case costs. bytes_moved: of what is needed of its inputs, and of its output. counted: whether the engine counts its
    operations, as `gpt2wgpu profile` does; else they were counted while its numpy function ran."""

    bytes_moved: float
    operations: float
    counted: bool


@dataclass(frozen=True)
class Axis:
    """One axis of a dispatch grid: its number of workgroups, the letter that it runs over, and how many of these a group has."""

    name: str  # "x" or "y"
    groups: int
    letter: str
    extent: int


@dataclass(frozen=True)
class KernelFacts:
    """An op and its kernel for one case, on a GPU on which nothing has been measured yet."""

    op: Op
    case: Case
    output: Tensor
    values: dict[str, Array]
    kernel: Kernel
    tile: Tile | None
    sizes: dict[str, int]  # of the letters

    @property
    def files(self) -> list[tuple[str, str]]:
        """Each shader file with its text as it is specialised."""
        lines, found = self.kernel.source.split("\n"), []
        for name in self.file_names:
            count = len(read_shader(name).split("\n"))
            found.append((name, "\n".join(lines[:count]).strip("\n")))
            lines = lines[count:]
        assert not lines, "the source is its files, one after the other"
        return found

    @property
    def file_names(self) -> tuple[str, ...]:
        return kernel_files(PAPER, self.output, self.tile)

    @property
    def grid(self) -> Grid:
        return self.kernel.grid(self.output, {**self.output.attrs, **self.sizes})

    @property
    def threads(self) -> int:
        """Of a workgroup."""
        return count_threads(self.kernel.source)

    @property
    def memory(self) -> int:
        """Bytes that a workgroup shares."""
        return shared_bytes(self.kernel.source)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        rows, columns = (self.sizes.get(str(d), d) for d in self.output.shape)
        return int(rows), int(columns)


def gather_facts(op: Op) -> KernelFacts:
    """The facts of an op for its first case in the self-test."""
    return case_facts(next(c for c in forward_cases(half=False) if c.op is op and not c.nan))


def case_facts(case: Case) -> KernelFacts:
    output, values = case_arrays(case)
    counts = case.counts() | {"G": len(values.get("tiles", ()))}
    sizes = {name: int(counts.get(str(size), size)) for name, size in output.dims.items()}
    tile = None
    if is_tiled(output):
        choice = zip(BUCKETS, default_tiles(PAPER, operand_types(output)), strict=True)
        tile = next(tile for most, tile in choice if sum(case.lengths) <= most)
    return KernelFacts(case.op, case, output, values, find_kernel(PAPER, output, tile), tile, sizes)


def find_axes(facts: KernelFacts) -> list[Axis]:
    """What the axes of the grid run over, found by trying: a letter is made larger until the grid grows."""
    found = []
    for i, name in enumerate("xy"):
        for letter in facts.sizes:
            extent = find_extent(facts, letter, i)
            if extent:
                found.append(Axis(name, facts.grid[i], letter, extent))
                break
    return found


def find_extent(facts: KernelFacts, letter: str, axis: int) -> int:
    """How much larger a letter's size must become for one more workgroup along an axis; 0 if it has no part in it."""
    joined = {x for dim in facts.op.args[-1].dims if "+" in dim and letter in dim for x in dim.split("+")} - {letter}
    params = {**facts.output.attrs, **facts.sizes} | dict.fromkeys(joined, 0)
    first = 0
    for size in range(1, LARGEST_EXTENT + 1):
        groups = facts.kernel.grid(facts.output, params | {letter: size})[axis]
        if groups > 1:
            return size - first if first else 0
        if groups == 1 and not first:
            first = size
    return 0


def model_facts(facts: KernelFacts, prose: Prose) -> KernelFacts:
    """The same kernel with the sizes of a model, which the head of its prose gives."""
    if "targets" in facts.case.given:
        return case_facts(attraction_case(prose.numbers("model")["N"]))
    lengths = MODEL_LENGTHS if facts.sizes.keys() & {"T", "B"} else (1,)
    attributes = facts.case.attrs | prose.numbers("attributes")
    given = {"skip": np.zeros(len(lengths), np.uint32)} if "skip" in facts.values else {}
    return case_facts(Case(facts.op, prose.numbers("model"), lengths, attributes, given=given))


def count_case(facts: KernelFacts) -> Work:
    """Bytes and operations of a case, both of the same data."""
    needed = count_needed(facts.case, facts.values)
    moved = sum(count * facts.values[name].itemsize for name, count in needed.items())
    moved += facts.shape[0] * facts.shape[1] * DTYPES[facts.output.dtype].itemsize
    operations = count_flops(facts.output, facts.sizes, np.array(facts.case.lengths))
    if operations:
        return Work(moved, operations, True)
    return Work(moved, count_operations(facts.op.reference, facts.values, facts.case.attrs), False)


def find_registers(facts: KernelFacts) -> Iterator[tuple[Gpu, str, Row]]:
    """What each compiler of tests/gpu_compilers made of the kernel: the GPU, who compiled it, its line."""
    name = name_kernel(facts.output, facts.file_names, facts.kernel.source, str(facts.tile or ""))
    sized = f"{name} " + " ".join(f"{letter}={n}" for letter, n in facts.case.sizes.items())
    for gpu in (*IN_CI, *BY_HAND):
        table = read_table(gpu.name)
        row = table.rows.get(sized) or table.rows.get(name)
        if row is not None:
            yield gpu, f"{table.driver}, {table.date}", row


def numpy_source(facts: KernelFacts) -> str:
    """The function that defines an op, and after it those of graph/ops that it calls, but for those that cut blocks."""
    found: dict[str, Callable[..., Any]] = {}
    waiting = [facts.op.reference]
    while waiting:
        function = waiting.pop(0)
        found[function.__qualname__] = function
        for name in function.__code__.co_names:
            called = function.__globals__.get(name)
            if name == "ACTIVATIONS":
                called = ops.ACTIVATIONS[facts.case.attrs["activation"]]
            if isinstance(called, FunctionType) and is_told(called) and called.__qualname__ not in found:
                waiting.append(called)
    return "\n\n".join(inspect.getsource(function).rstrip() for function in found.values())


def is_told(function: FunctionType) -> bool:
    """Whether a function belongs to an op's definition: activations that are lambdas do nothing, and blocks are for the cache."""
    module = function.__module__
    return module.startswith(ops.__name__) and not module.endswith(".blocks") and function.__name__ != "<lambda>"


@cache
def letter_meanings() -> dict[str, str]:
    """What the letters of signatures stand for, as the docstring of graph/ops says. Those that have several meanings are left
    out: the prose of an op says which one it is."""
    text = re.search(r"^Letters in signatures: (.*?)\.$", ops.__doc__ or "", re.M | re.S)
    assert text is not None
    parts = re.split(r",\s+(?=[A-Z](?:/[A-Z])?\s)", text[1].replace("\n", " "))
    split = [part.split(" ", 1) for part in parts]
    return {letter: meaning for letter, meaning in split if len(letter) == 1 and "(" not in meaning}


def explain_letters(op: Op, prose: Prose) -> dict[str, str]:
    """Each letter of a signature with its meaning. Raises ValueError for one that nothing explains."""
    own = {letter: text for letter, text in prose.head.items() if re.fullmatch("[A-Z]", letter)}
    letters = [parse_dim(d)[1] for arg in op.args for dim in arg.dims for d in dim.split("+")]
    known = letter_meanings() | own
    if lacking := [letter for letter in letters if letter and letter not in known]:
        raise ValueError(f"{op.name}: nothing says what {lacking[0]} is: add a line '{lacking[0]}: ...' to {prose.path.name}")
    return {letter: known[letter] for letter in dict.fromkeys(letters) if letter}


@dataclass(frozen=True)
class Roof:
    """What the H100 of docs/speed.md can do at most, in bytes and in operations of f32 a second."""

    bandwidth: float
    arithmetic: float

    def seconds(self, work: Work) -> tuple[float, str]:
        """The least time that a case can take, and what limits it."""
        by_memory, by_arithmetic = work.bytes_moved / self.bandwidth, work.operations / self.arithmetic
        return max(by_memory, by_arithmetic), "memory" if by_memory >= by_arithmetic else "arithmetic"


@cache
def measured_roof() -> Roof:
    text = (REPOSITORY / "docs" / "speed.md").read_text(encoding="utf-8")
    found = re.search(r"\| bare copy; bare multiply-adds in f32 \| ([\d,]+) GB/s; (\d+) TFLOP/s", text)
    assert found is not None, "docs/speed.md has the ceilings of the H100"
    return Roof(float(found[1].replace(",", "")) * 1e9, float(found[2]) * 1e12)
