"""A reader's kernel on the data of one case, and what can be wrong with what it writes."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..devices.selftest import ROW, Check, case_arrays, compare_results, run_numpy, stated_tolerance
from ..gpu.trial import Trial
from ..graph.tensor import DTYPES, Array
from .reader_shader import FORMS, Candidate, ReaderShader, batch_params, find_grid, reader_kernel, uniform_block
from .shader_hints import hint_of_values, value_text


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
