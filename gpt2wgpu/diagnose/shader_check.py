"""Is a reader's kernel right, and how fast: `gpt2wgpu doctor --shader FILE`.

A kernel is right if, on every case of its op, it compiles, writes every element of its output and nothing behind it, agrees with
the numpy definition, gives the same bits again, and agrees too when the lanes of a workgroup take each other's places
(lane_orders.py). Shaders keep the library's bounds checks here, so a wrong index cannot crash the driver.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..devices.selftest import Case, Check, stated_tolerance
from ..gpu import Device, DeviceLost, GPUError
from ..gpu.kernels import compile_pipeline
from ..graph.tensor import Array
from ..progress import show_progress
from .endless_loop import TOO_MANY_ROUNDS, count_rounds
from .guarded_barrier import find_guarded_barriers
from .lane_orders import LANE_ORDERS, PLAIN, has_barrier, reorder_lanes, shares_memory
from .reader_shader import Candidate, ReaderShader, make_candidates, read_reader_shader
from .shader_attempt import Attempt, Finding, element_name, find_outside, find_unwritten, find_wrong_number, located
from .shader_hints import ENDLESS, FAR, GUARDED, UNEVEN, compiler_hint, compiler_message, race_hint, value_text
from .shader_times import ShaderTimes, time_shader
from .uneven_barrier import find_uneven_barrier

REORDERED_SOURCES = 3  # of each form: sources whose lanes are reordered, as each takes six more compilations


@dataclass(frozen=True)
class ShaderReport:
    """signatures: of the ops, by name. forms: the devices whose kernels it was tried in, by name. workgroups: of the largest
    grid. orders: of the lanes that were tried."""

    signatures: dict[str, str]
    forms: list[str]
    checks: list[Check]
    finding: Finding | None
    workgroups: int
    orders: int
    times: ShaderTimes | None

    @property
    def ok(self) -> bool:
        return self.finding is None


class ShaderChecker:
    """Checks one file. software: whether a software driver runs it, in whatever form. pipelines: what was compiled, by source."""

    def __init__(self, shader: ReaderShader, software: bool) -> None:
        self.shader, self.software = shader, software
        self.pipelines: dict[str, Any] = {}
        self.reordered: dict[str, dict[str, list[str]]] = {}  # by form and source: the source with its lanes in other orders
        self.read: dict[str, Finding | None] = {}  # what is wrong with a source, whatever it computes
        self.workgroups = 0

    def pipeline(self, attempt: Attempt, source: str) -> Any:
        """Raises GPUError if it does not compile."""
        if source not in self.pipelines:
            kernel, device = attempt.kernel, attempt.candidate.device
            self.pipelines[source] = compile_pipeline(device, self.shader.name, source, kernel.bindings)
        return self.pipelines[source]

    def check(self, attempt: Attempt) -> tuple[Check, Finding | None]:
        """One case."""
        source = attempt.candidate.source
        try:
            pipeline = self.pipeline(attempt, source)
        except GPUError as error:
            details = compiler_message(str(error), source, self.shader, attempt.candidate.first_line)
            hint = compiler_hint(str(error), attempt.candidate.case.op, attempt.candidate.device)
            return self.failed(attempt, Finding("it does not compile", attempt.label, hint=hint, details=details))
        if source not in self.read:
            self.read[source] = find_in_source(self.shader, attempt.candidate, self.software)
        if (wrong := self.read[source]) is not None:
            return self.failed(attempt, replace(wrong, case=attempt.label))
        try:
            if self.is_endless(attempt):
                return self.failed(attempt, Finding(TOO_MANY_ROUNDS, attempt.label, hint=ENDLESS))
            bits, behind = attempt.run(pipeline)
        except DeviceLost:
            return self.failed(attempt, Finding("the device was lost while it ran", attempt.label, hint=ENDLESS))
        self.workgroups = max(self.workgroups, math.prod(attempt.grid))
        check = attempt.compare(bits)
        finding = find_outside(attempt, behind) or find_unwritten(attempt, bits)
        if finding is None and not check.ok:
            finding = find_wrong_number(attempt, bits, check.tolerance)
            again = [found for found in self.other_orders(attempt, always=True) if not np.array_equal(found, bits)]
            finding = replace(finding, hint=race_hint(source)) if again else finding
        if finding is None:
            finding = self.find_race(attempt, pipeline, bits)
        if finding is None:
            return check, None
        return replace(check, failure=finding.problem), finding

    def is_endless(self, attempt: Attempt) -> bool:
        """Whether a thread goes through its loops more than MOST_ROUNDS times. False too if its compiler refuses to count:
        Chrome's does so in a loop with barriers."""
        counted = count_rounds(attempt.candidate.source)
        if counted is None:
            return False
        try:
            pipeline = self.pipeline(attempt, counted)
        except GPUError:
            return False
        return not attempt.trial.is_unwritten(attempt.run(pipeline)[1][-1:]).all()

    def failed(self, attempt: Attempt, finding: Finding) -> tuple[Check, Finding]:
        """A case that was not computed."""
        case = attempt.candidate.case
        tolerance = stated_tolerance(attempt.candidate.device, attempt.output)
        return Check(case.op.name, str(case), float("nan"), tolerance, finding.problem), finding

    def find_race(self, attempt: Attempt, pipeline: Any, bits: Array) -> Finding | None:
        """A second run with other bits, or an order of the lanes in which the result is wrong."""
        again, _ = attempt.run(pipeline)
        if not np.array_equal(bits, again):
            at = np.flatnonzero(bits != again)[0]
            first, second = (attempt.values(b).reshape(-1)[at] for b in (bits, again))
            where = element_name(attempt, int(at))
            problem = f"{where} is {value_text(first)} in one run and {value_text(second)} in the next"
            return replace(located(attempt, int(at), problem, second), hint=race_hint(attempt.candidate.source))
        for found in self.other_orders(attempt):
            check = attempt.compare(found)
            if not check.ok:
                finding = find_wrong_number(attempt, found, check.tolerance)
                problem = f"{finding.problem}, if the lanes run in another order"
                return replace(finding, problem=problem, hint=race_hint(attempt.candidate.source))
        return None

    def other_orders(self, attempt: Attempt, always: bool = False) -> list[Array]:
        """The outputs, as bits, with the lanes of each workgroup in other orders, if this is one of the first sources."""
        source, form = attempt.candidate.source, attempt.candidate.device.adapter.name
        tried = self.reordered.setdefault(form, {})
        if source not in tried and shares_memory(source) and (always or len(tried) < REORDERED_SOURCES):
            made = (reorder_lanes(source, order) for order in (PLAIN, *LANE_ORDERS))
            tried[source] = [s for s in made if s is not None]
        return [attempt.run(self.pipeline(attempt, s))[0] for s in tried.get(source, ())]


def find_in_source(shader: ReaderShader, candidate: Candidate, software: bool) -> Finding | None:
    """What is wrong with the barriers of a source. software: whether a software driver runs it."""
    source = candidate.source
    if not shares_memory(source):
        return None
    if not has_barrier(source):
        return Finding("lanes share workgroup memory, and no workgroupBarrier() orders what they do", hint=race_hint(source))
    if uneven := find_uneven_barrier(source):
        return Finding(uneven, hint=UNEVEN)
    judged = candidate.engine is not None and not software  # a GPU does not wait at a barrier that it skips
    return None if judged else find_guarded(shader, candidate)


def find_guarded(shader: ReaderShader, candidate: Candidate) -> Finding | None:
    """A barrier that a condition may skip, and that the engine's kernel for this case does not have. A puzzle needs none."""
    known = [] if candidate.engine is None else find_guarded_barriers(candidate.engine.source)
    known_guards = {(barrier.call, barrier.guards) for barrier in known}
    for barrier in find_guarded_barriers(candidate.source):
        if (barrier.call, barrier.guards) not in known_guards:
            line = barrier.line + 1 - candidate.first_line
            inside = 0 < line <= shader.text.count("\n") + 1
            return Finding(f"{shader.path.name}:{line}: {barrier.problem}" if inside else barrier.problem, hint=GUARDED)
    return None


def check_shader(path: Path, device: Device, cases: Sequence[Case]) -> ShaderReport:
    """Check a reader's kernel on those of the cases that are of its op. device: opened with its checks on.

    Raises UserError if the file cannot be read, or is not the kernel of an op.
    """
    shader = read_reader_shader(path)
    candidates = make_candidates(shader, device, cases)
    checker = ShaderChecker(shader, device.adapter.software)
    checks: list[Check] = []
    finding = None
    with show_progress() as shown:
        shown.begin(0, len(candidates))
        for candidate in candidates:
            attempt = Attempt(shader, candidate)
            check, finding = checker.check(attempt)
            attempt.trial.close()
            checks.append(check)
            if finding is not None:
                break
            shown.update(len(checks), f"checked {len(checks)} of {len(candidates)} cases{shown.left(len(checks))}")
    times = None
    if finding is None:
        try:
            last, finding, times = time_shader(shader, device, candidates, checker.check)
            checks += [last] if last else []
        except DeviceLost:
            finding = Finding("the device was lost when it ran without bounds checks", hint=FAR)
    forms = [*dict.fromkeys(c.device.adapter.name for c in candidates)]
    orders = 1 + len(LANE_ORDERS) if any(made for tried in checker.reordered.values() for made in tried.values()) else 1
    return ShaderReport(signatures_of(candidates), forms, checks, finding, checker.workgroups, orders, times)


def signatures_of(candidates: Sequence[Candidate]) -> dict[str, str]:
    """The signatures of the ops, such as "x[T,C] -> out[T,C]"."""
    found = {}
    for op in dict.fromkeys(c.case.op for c in candidates):
        *inputs, out = (f"{a.name}{'' if a.dtype == 'f32' else ':' + a.dtype}[{','.join(a.dims)}]" for a in op.args)
        found[op.name] = f"{' '.join(inputs)} -> {out}"
    return found
