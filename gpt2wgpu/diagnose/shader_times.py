"""How fast a reader's kernel is, beside the engine's own."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..devices.selftest import Case, Check
from ..gpu import Device
from ..gpu.kernels import compile_pipeline
from .endless_loop import TOO_MANY_ROUNDS
from .reader_shader import Candidate, ReaderShader, find_grid, make_candidates, uniform_block, uses_f16
from .shader_attempt import Attempt, Finding

FEWEST_PASSES, MOST_PASSES = 3, 101
TIMED_SECONDS = 1.0  # of passes, if there are more than the fewest
LONGEST_PASS = 0.1  # seconds that a dispatch may take, by an estimate
TIMED_SIZES = (256, 128, 64)  # of what a case leaves free, largest first; a batch has twice as many tokens
FREE = "CKNVSM"  # letters that may be any size
FIXED_BY = ("head_size", "heads", "size", "keep")  # attributes that fix them


@dataclass(frozen=True)
class ShaderTimes:
    """Seconds of one dispatch, the median of several passes, and of the engine's own kernel; ratio: how many times as long the
    reader's takes, the median over pairs of passes, so that other work on the machine disturbs both alike. None for the op
    of a puzzle, for which there is no other kernel."""

    shape: str
    seconds: float
    engine: float | None
    ratio: float | None


def timed_cases(case: Case) -> Iterator[Case]:
    """Larger cases of the same op, largest first, where its sizes are free; then the case itself."""
    if not case.given:
        tied = any(name in case.attrs for name in FIXED_BY)
        for size in TIMED_SIZES:
            sizes = {letter: size if letter in FREE and not tied else n for letter, n in case.sizes.items()}
            yield replace(case, sizes=sizes, lengths=(size // 4,) * 8)
    yield case


def estimated_work(attempt: Attempt) -> float:
    """A number that grows as the work of an op does, or faster."""
    return attempt.expected.size * max([1, *attempt.candidate.case.sizes.values()]) * max(attempt.candidate.case.lengths)


Checker = Callable[[Attempt], tuple[Check, Finding | None]]  # finds out whether an attempt is right


def time_shader(
    shader: ReaderShader, device: Device, candidates: Sequence[Candidate], check: Checker
) -> tuple[Check | None, Finding | None, ShaderTimes | None]:
    """Check the kernel once more, on a larger case, and time it there, taking turns with the engine's own.

    A right kernel may need more rounds than are counted in the largest cases: the next smaller one is taken then. One that needs
    as many in all of them never ends. candidates: those that are right.
    """
    simple = [c for c in candidates if not uses_f16(c.case) and not c.case.nan and not c.case.given]
    largest = max(simple or candidates, key=lambda c: sum(c.case.lengths) * math.prod(c.case.sizes.values()))
    small = Attempt(shader, largest)
    rate = time_turns(small, most=FEWEST_PASSES)[-1][0] / estimated_work(small)
    small.trial.close()
    found: Check | None = None
    finding: Finding | None = None
    for case in timed_cases(largest.case):
        if finding is not None and case is largest.case:
            return found, finding, None
        try:
            attempt = Attempt(shader, make_candidates(shader, device, [case])[0])
        except ValueError:  # its sizes may go together in a way that these do not
            continue
        if case is largest.case or rate * estimated_work(attempt) < LONGEST_PASS:
            found, finding = check(attempt)
            if finding is None or finding.problem != TOO_MANY_ROUNDS:
                break
        attempt.trial.close()
    times = None if finding else sum_up(attempt.label, time_turns(attempt))
    attempt.trial.close()
    return found, finding, times


def sum_up(shape: str, passes: list[list[float]]) -> ShaderTimes:
    """passes: seconds of the reader's kernel and, if there is one, of the engine's."""
    own, *engine = (statistics.median(column) for column in zip(*passes, strict=True))
    if not engine:
        return ShaderTimes(shape, own, None, None)
    return ShaderTimes(shape, own, engine[0], statistics.median(a / b for a, b in passes))


def time_turns(attempt: Attempt, most: int = MOST_PASSES) -> list[list[float]]:
    """Seconds of the reader's kernel and of the engine's, if there is one, pass by pass: without bounds checks, as users run
    kernels."""
    candidate, turns = attempt.candidate, []
    fast = replace(candidate.device, checked=False)
    for kernel in filter(None, (attempt.kernel, candidate.engine)):
        pipeline = compile_pipeline(fast, kernel.name, kernel.source, kernel.bindings)
        uniforms = uniform_block(attempt.shader, kernel, attempt.params)
        turns.append((pipeline, uniforms, find_grid(attempt.shader, kernel, attempt.output, attempt.params)))
    repeats = max(attempt.trial.repeats(*turn) for turn in turns)  # the same for both: what a pass costs besides counts alike
    passes: list[list[float]] = []
    started = time.perf_counter()
    while len(passes) < FEWEST_PASSES or (len(passes) < most and time.perf_counter() - started < TIMED_SECONDS):
        passes.append([attempt.trial.time(*turn, repeats) for turn in turns])
    return passes
