"""Is a reader's kernel right, and how fast: `gpt2wgpu doctor --shader FILE`.

A kernel is right if, on every case of its op, it compiles, writes every element of its output and nothing behind it, agrees with
the numpy definition, gives the same bits again, and agrees too when the lanes of a workgroup take each other's places
(lane_orders.py). Shaders keep the library's bounds checks here, so a wrong index cannot crash the driver.
"""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..devices.selftest import ROW, Case, Check, case_arrays, compare_results, run_numpy, stated_tolerance
from ..errors import UserError
from ..gpu import Device, GPUError
from ..gpu.kernels import compile_pipeline
from ..gpu.trial import Trial
from ..graph.tensor import DTYPES, Array
from .lane_orders import LANE_ORDERS, has_barrier, reorder_lanes, shares_memory
from .reader_shader import (
    FORMS,
    Candidate,
    ReaderShader,
    batch_params,
    find_grid,
    make_candidates,
    read_reader_shader,
    reader_kernel,
    uniform_block,
    uses_f16,
)
from .shader_hints import RACE, compiler_message, hint_of_values, value_text

REORDERED_SOURCES = 3  # of each form: sources whose lanes are reordered, as each takes five more compilations
FEWEST_PASSES, MOST_PASSES = 3, 101
TIMED_SECONDS = 1.0  # of passes, if there are more than the fewest
# The sizes of the case that is timed, where the op leaves them free
TIMED_SIZES = {"C": 256, "K": 256, "N": 256, "J": 64, "V": 1024, "S": 512, "M": 512}
TIMED_LENGTHS = (64,) * 8


@dataclass(frozen=True)
class Finding:
    """What is wrong, in one line; for a number, where, what was expected and what was found. details: the compiler's message."""

    problem: str
    case: str = ""
    index: tuple[int, ...] | None = None
    expected: float | None = None
    found: float | None = None
    hint: str = ""
    details: str = ""


@dataclass(frozen=True)
class ShaderTimes:
    """Seconds of one dispatch, the median of several, and of the engine's own kernel (None if its op has none)."""

    shape: str
    seconds: float
    engine: float | None

    @property
    def ratio(self) -> float | None:
        """How many times as long as the engine's kernel."""
        return self.seconds / self.engine if self.engine else None


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


class Attempt:
    """The reader's kernel on the data of one case."""

    def __init__(self, shader: ReaderShader, candidate: Candidate) -> None:
        self.shader, self.candidate = shader, candidate
        self.output, values = case_arrays(candidate.case)
        self.expected = run_numpy(self.output, values)
        self.params = batch_params(candidate, values)
        self.kernel = reader_kernel(shader, candidate)
        self.uniforms = uniform_block(shader, self.kernel, self.params)
        self.grid = find_grid(shader, self.kernel, self.output, self.params)
        inputs = [(candidate.case.dtype(dtype), values[name]) for name, dtype, _ in candidate.case.op.args[:-1]]
        self.trial = Trial(candidate.device, inputs, (self.output.dtype, self.expected.size))

    @property
    def label(self) -> str:
        name = self.candidate.device.adapter.name
        form = f", as on a {name}" if name in FORMS else ""
        return f"{self.candidate.case.op.name} {self.candidate.case}{form}"

    def run(self, pipeline: Any) -> tuple[Array, Array]:
        return self.trial.run(pipeline, self.uniforms, self.grid)

    def values(self, bits: Array) -> Array:
        return bits.view(DTYPES[self.output.dtype]).reshape(self.expected.shape)

    def compare(self, bits: Array) -> Check:
        tolerance = stated_tolerance(self.candidate.device, self.output)
        return compare_results(self.candidate.case.op.name, str(self.candidate.case), self.expected, self.values(bits), tolerance)


class ShaderChecker:
    """Checks one file. pipelines: what was compiled, by source."""

    def __init__(self, shader: ReaderShader) -> None:
        self.shader = shader
        self.pipelines: dict[str, Any] = {}
        self.reordered: dict[str, dict[str, list[str]]] = {}  # by form and source: the source with its lanes in other orders
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
            return self.failed(attempt, Finding("it does not compile", attempt.label, details=details))
        if shares_memory(source) and not has_barrier(source):
            unordered = "lanes share workgroup memory, and no workgroupBarrier() orders what they do"
            return self.failed(attempt, Finding(unordered, attempt.label, hint=RACE))
        bits, behind = attempt.run(pipeline)
        self.workgroups = max(self.workgroups, math.prod(attempt.grid))
        check = attempt.compare(bits)
        finding = find_outside(attempt, behind) or find_unwritten(attempt, bits)
        if finding is None and not check.ok:
            finding = find_wrong_number(attempt, bits, check.tolerance)
            again = [found for found in self.other_orders(attempt, always=True) if not np.array_equal(found, bits)]
            finding = replace(finding, hint=RACE) if again else finding
        if finding is None:
            finding = self.find_race(attempt, pipeline, bits)
        if finding is None:
            return check, None
        return replace(check, failure=finding.problem), finding

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
            return replace(located(attempt, int(at), problem, second), hint=RACE)
        for found in self.other_orders(attempt):
            check = attempt.compare(found)
            if not check.ok:
                finding = find_wrong_number(attempt, found, check.tolerance)
                return replace(finding, problem=f"{finding.problem}, if the lanes run in another order", hint=RACE)
        return None

    def other_orders(self, attempt: Attempt, always: bool = False) -> list[Array]:
        """The outputs, as bits, with the lanes of each workgroup in other orders, if this is one of the first sources."""
        source, form = attempt.candidate.source, attempt.candidate.device.adapter.name
        tried = self.reordered.setdefault(form, {})
        if source not in tried and shares_memory(source) and (always or len(tried) < REORDERED_SOURCES):
            made = (reorder_lanes(source, order) for order in LANE_ORDERS)
            tried[source] = [s for s in made if s is not None]
        return [attempt.run(self.pipeline(attempt, s))[0] for s in tried.get(source, ())]


def check_shader(path: Path, device: Device, cases: Sequence[Case]) -> ShaderReport:
    """Check a reader's kernel on those of the cases that are of its op. device: opened with its checks on.

    Raises UserError if the file cannot be read, or is not the kernel of an op.
    """
    shader = read_reader_shader(path)
    candidates = make_candidates(shader, device, cases)
    checker = ShaderChecker(shader)
    checks: list[Check] = []
    finding = None
    for candidate in candidates:
        attempt = Attempt(shader, candidate)
        check, finding = checker.check(attempt)
        attempt.trial.close()
        checks.append(check)
        if finding is not None:
            break
    times = None
    if finding is None:
        last, finding, times = time_shader(checker, shader, device, candidates)
        checks += [last] if last else []
    forms = [*dict.fromkeys(c.device.adapter.name for c in candidates)]
    orders = 1 + max((len(made) for tried in checker.reordered.values() for made in tried.values()), default=0)
    return ShaderReport(signatures_of(candidates), forms, checks, finding, checker.workgroups, orders, times)


def signatures_of(candidates: Sequence[Candidate]) -> dict[str, str]:
    """The signatures of the ops, such as "x[T,C] -> out[T,C]"."""
    found = {}
    for op in dict.fromkeys(c.case.op for c in candidates):
        *inputs, out = (f"{a.name}{'' if a.dtype == 'f32' else ':' + a.dtype}[{','.join(a.dims)}]" for a in op.args)
        found[op.name] = f"{' '.join(inputs)} -> {out}"
    return found


def element_name(attempt: Attempt, at: int) -> str:
    """The element of the output that is number `at`, such as "out[3, 7]"."""
    return f"out[{', '.join(map(str, np.unravel_index(at, attempt.expected.shape)))}]"


def located(attempt: Attempt, at: int, problem: str, found: float) -> Finding:
    """A finding about one element, without numbers that JSON does not have."""
    index = tuple(int(i) for i in np.unravel_index(at, attempt.expected.shape))
    expected, wrong = (float(v) if math.isfinite(v) else None for v in (attempt.expected.reshape(-1)[at], found))
    return Finding(problem, attempt.label, index, expected, wrong)


def find_outside(attempt: Attempt, behind: Array) -> Finding | None:
    """Writes past the end of the output."""
    written = np.flatnonzero(~attempt.trial.is_unwritten(behind))
    if not len(written):
        return None
    count = attempt.expected.size
    where = f"at element {count + written[0]:,}" if written[0] < len(behind) - 4 else "far from it"
    hint = "threads that have no element must not write: compare with the sizes in p before the store"
    if "arrayLength" in attempt.candidate.source:
        hint += "; arrayLength() is no bound, as buffers are longer than their data"
    return Finding(f"it writes past the end of out, which has {count:,} elements: {where}", attempt.label, hint=hint)


def find_unwritten(attempt: Attempt, bits: Array) -> Finding | None:
    """Elements that were not written."""
    missing = np.flatnonzero(attempt.trial.is_unwritten(bits))
    if not len(missing):
        return None
    x, y, z = attempt.grid
    problem = f"{element_name(attempt, int(missing[0]))} is never written, nor are {len(missing) - 1:,} more of {bits.size:,}"
    hint = f"the grid has {x} x {y} x {z} workgroups; together they must write every element"
    return replace(located(attempt, int(missing[0]), problem, math.nan), hint=hint)


def find_wrong_number(attempt: Attempt, bits: Array, tolerance: float) -> Finding:
    """The first number that is further off than allowed."""
    expected, found = attempt.expected.astype(np.float64), attempt.values(bits).astype(np.float64)
    wrong = wrong_numbers(expected, found, tolerance)
    at = int(np.argmax(wrong.reshape(-1)))
    name, value = element_name(attempt, at), found.reshape(-1)[at]
    problem = f"{name} is {value_text(value)}, expected {value_text(expected.reshape(-1)[at])}"
    return replace(located(attempt, at, problem, value), hint=hint_of_values(expected, found, wrong, at))


def wrong_numbers(expected: Array, found: Array, tolerance: float) -> Array:
    """Which elements are further off than `compare_results` allows. float64."""
    rows = expected.reshape(len(expected) if expected.ndim > 1 else 1, -1)
    with np.errstate(invalid="ignore"):
        off = np.abs(found - expected).reshape(rows.shape)
        finite = np.isfinite(rows)
        allowed = np.full(rows.shape, tolerance * np.max(np.abs(rows), where=finite, initial=1e-30))
        if rows.shape[1] >= ROW:
            of_row = np.max(np.abs(rows), axis=1, where=finite, initial=0)[:, None] * tolerance * ROW
            allowed = np.minimum(allowed, np.where(of_row > 0, of_row, np.inf))
        has_nan = ~np.all(finite, axis=1)
        wrong = ~(off <= allowed) & ~has_nan[:, None]
        lost = has_nan & np.isfinite(found.reshape(rows.shape)).all(axis=1)  # NaN that did not reach the output
        wrong |= lost[:, None] & ~finite
    return wrong.reshape(expected.shape)


def timed_case(case: Case) -> Case:
    """A case of the same op that takes longer, where its sizes are free."""
    if case.given:
        return case
    tied = any(name in case.attrs for name in ("head_size", "heads", "size", "keep"))
    sizes = {letter: size if tied else TIMED_SIZES.get(letter, size) for letter, size in case.sizes.items()}
    return replace(case, sizes=sizes, lengths=TIMED_LENGTHS, nan=False)


def time_shader(
    checker: ShaderChecker, shader: ReaderShader, device: Device, candidates: Sequence[Candidate]
) -> tuple[Check | None, Finding | None, ShaderTimes | None]:
    """Check the kernel once more, on a larger case, and time it there, taking turns with the engine's own."""
    plain = next((c.case for c in candidates if not uses_f16(c.case) and not c.case.nan), candidates[0].case)
    try:
        candidate = make_candidates(shader, device, [timed_case(plain)])[0]
    except (ValueError, UserError):  # its sizes go together in a way that these do not
        return None, None, None
    attempt = Attempt(shader, candidate)
    check, finding = checker.check(attempt)
    if finding is not None:
        return check, finding, None
    seconds = [statistics.median(column) for column in zip(*time_turns(attempt), strict=True)]
    attempt.trial.close()
    return check, None, ShaderTimes(attempt.label, seconds[0], seconds[1] if len(seconds) > 1 else None)


def time_turns(attempt: Attempt) -> list[list[float]]:
    """Seconds of the reader's kernel and of the engine's, if there is one, pass by pass: without bounds checks, as users run
    kernels."""
    candidate, turns = attempt.candidate, []
    fast = replace(candidate.device, checked=False)
    for kernel in filter(None, (attempt.kernel, candidate.engine)):
        pipeline = compile_pipeline(fast, kernel.name, kernel.source, kernel.bindings)
        uniforms = uniform_block(attempt.shader, kernel, attempt.params)
        turns.append((pipeline, uniforms, find_grid(attempt.shader, kernel, attempt.output, attempt.params)))
    repeats = [attempt.trial.repeats(*turn) for turn in turns]
    passes: list[list[float]] = []
    started = time.perf_counter()
    while len(passes) < FEWEST_PASSES or (len(passes) < MOST_PASSES and time.perf_counter() - started < TIMED_SECONDS):
        passes.append([attempt.trial.time(*turn, n) for turn, n in zip(turns, repeats, strict=True)])
    return passes
