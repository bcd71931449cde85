"""The dispatches of a batch, in order: op, sizes, grid, the numpy that defines the op, and the WGSL that computes it."""

import inspect
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..gpu import Clock, GPUProgram, default_kernel, paper_device
from ..graph.program import CompiledGraph
from ..graph.tensor import Array, Grid, Op, Tensor, schedule
from .trace import ADDS, EMBEDS, Anatomy

RUNS = 5  # of a batch on a device; the time of a dispatch is their median


@dataclass(frozen=True)
class OpFacts:
    """An op: its formula (the first line of its docstring), its signature, and the numpy function that defines it."""

    name: str
    formula: str
    signature: str
    numpy: str


@dataclass(frozen=True)
class DispatchFacts:
    """One kernel that runs. part: what it is for, such as "block 2: attention". weight: the name of its matrix or table, if it
    has one. shape: such as "9x256 -> 9x768". grid: workgroups in x, y and z. shader: the number of its WGSL among the
    explanation's shaders. seconds: on the device; None in numpy and where the device has no clock."""

    op: str
    part: str
    weight: str
    shape: str
    grid: Grid
    shader: int
    seconds: float | None = None


def list_dispatches(
    program: CompiledGraph, batch: Mapping[str, Array], anatomy: Anatomy, clocked: bool
) -> tuple[list[DispatchFacts], list[str], list[OpFacts]]:
    """The dispatches for a batch, the WGSL sources that they run, and the ops. In numpy nothing is dispatched: then the grids and
    sources are those that a GPU would get before anything is measured on it."""
    sizes = {"T": len(batch["ids"]), "B": len(batch["spans"]), "G": len(batch["tiles"])}
    parts = name_parts(program.output, anatomy)
    found: list[DispatchFacts] = []
    sources: dict[str, int] = {}
    ops: dict[str, OpFacts] = {}

    def add(t: Tensor, grid: Grid, source: str) -> None:
        assert t.op is not None
        ops.setdefault(t.op.name, describe_op(t.op))
        weight = next((x.name for x in t.inputs if x.is_weight), "")
        shader = sources.setdefault(source, len(sources))
        found.append(DispatchFacts(t.op.name, parts[t], weight, show_shapes(t, sizes), grid, shader))

    if isinstance(program, GPUProgram):
        for step in program.steps:
            kernel, grid = step.choose(sizes)
            add(step.tensor, grid, kernel.source)
        if clocked:
            found = [replace(d, seconds=s) for d, s in zip(found, time_steps(program, batch), strict=True)]
    else:
        device = paper_device()
        for t in schedule(program.output):
            if t.op is not None:
                kernel = default_kernel(device, t, sizes["T"])
                params = {name: sizes.get(str(v), v) for name, v in {**t.dims, **t.attrs}.items()}
                add(t, kernel.grid(t, params), kernel.source)
    return found, [*sources], [*ops.values()]


def time_steps(program: GPUProgram, batch: Mapping[str, Array]) -> list[float]:
    """The seconds that each step takes on the device, the median of some runs after a first one."""
    program.run(batch)
    runs = []
    for _ in range(RUNS):
        clock = Clock(program.device, len(program.steps))
        program.submit(batch, clock)()
        runs.append(clock.seconds().tolist())
    return [statistics.median(times) for times in zip(*runs, strict=True)]


def name_parts(output: Tensor, anatomy: Anatomy) -> dict[Tensor, str]:
    """What each op is for: it belongs to the stage of the residual stream that is computed next."""
    stages = set(anatomy.stages)
    written = {w.added: w for w in anatomy.writes}
    found: dict[Tensor, str] = {}
    waiting: list[Tensor] = []
    block = 0
    for t in schedule(output):
        if t.op is None:
            continue
        waiting.append(t)
        if t not in stages and t not in anatomy.pools and t not in anatomy.modules:
            continue
        if t.op in EMBEDS:
            name = "embedding"
        elif t.op in ADDS:
            block = written[t].block
            name = f"block {block}: {'MLP' if written[t].attention is None else 'attention'}"
        elif t in stages:
            name = "final norm" if t is anatomy.final_norm else f"block {block}: norm" if block else "embedding: norm"
        else:
            name = "pooling" if t in anatomy.pools else "after the pooling"
        found |= dict.fromkeys(waiting, name)
        waiting.clear()
    return found | dict.fromkeys(waiting, "pooling")


def show_shapes(t: Tensor, sizes: Mapping[str, int]) -> str:
    """The shapes that an op reads and writes: "9x256 -> 9x768"; of a linear layer "9x256 @ 256x768 -> 9x768"."""

    def show(x: Tensor) -> str:
        return "x".join(str(sizes.get(str(d), d)) for d in x.shape) + (" f16" if x.dtype == "f16" else "")

    first = next(x for x in t.inputs if not x.is_weight) if t.op not in EMBEDS else t.inputs[0]
    matrix = f" @ {show(t.inputs[1])}" if t.op is not None and t.op.name.startswith("linear") else ""
    return f"{show(first)}{matrix} -> {show(t)}"


def describe_op(op: Op) -> OpFacts:
    """The facts of an op, from its declaration in graph/ops."""
    source = inspect.getsource(op.reference)
    formula = (op.reference.__doc__ or "").strip().splitlines()[0]
    return OpFacts(op.name, formula, show_signature(op), source)


def show_signature(op: Op) -> str:
    """As it is declared: "x:X[T,K] weight:W[K,N] bias[N] -> out:O[T,N]"."""
    *inputs, output = (f"{a.name}{'' if a.dtype == 'f32' else ':' + a.dtype}[{','.join(a.dims)}]" for a in op.args)
    return f"{' '.join(inputs)} -> {output}"
