"""The two ladders of the book of kernels on this machine's device: every rung compared with numpy, then timed.

    python benchmarks/ladder.py [--device gpu] [--only matmul]
    python benchmarks/ladder.py --start FOLDER

Prints one table a ladder, in the form of benchmarks/LOG.md, which the book shows. A rung that is wrong is not timed; one that the
device cannot run says why. GFLOP/s count what the op needs (2 T K N; four operations for each pair of attention and column),
whatever a rung computes beside that.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs"))

import numpy as np
from book.rungs import LADDERS, Ladder, Rung, check_rung, compile_rung, read_rung
from work import device_seconds, median

from gpt2wgpu.devices.choose import find_device
from gpt2wgpu.devices.matrix_units import with_matrix_units
from gpt2wgpu.devices.selftest import Case
from gpt2wgpu.diagnose.profile import count_flops
from gpt2wgpu.errors import UserError, show
from gpt2wgpu.gpu import Device, GPUError, GPUProgram, first_reason
from gpt2wgpu.graph.tensor import Array

ROUNDS = 7
CALL_SECONDS = 0.2  # of a round, where the device has no clock


def useful_operations(case: Case) -> float:
    """As `gpt2wgpu profile` counts them."""
    output, counts = case.output(), case.counts()
    return count_flops(output, counts, np.array(case.lengths))


def device_of(rung: Rung, device: Device) -> tuple[Device | None, str]:
    """The device that runs a rung, and why there is none."""
    if not rung.half:
        return device, ""
    found, why = with_matrix_units(device)
    return (found, "") if found.matrix_units else (None, why)


@dataclass
class Climber:
    """A rung under way: its row of the table as far as it is known, its program, the least seconds so far; why it has none."""

    rung: Rung
    row: list[str]
    program: GPUProgram | None = None
    values: dict[str, Array] = field(default_factory=dict)
    seconds: float = math.inf
    why: str = ""


def start_rung(rung: Rung, device: Device, case: Case) -> Climber:
    """A rung that agrees with numpy, ready to be timed; or its row, which says why it is not."""
    own, why = device_of(rung, device)
    if own is None:
        return Climber(rung, [rung.name, "not run", "", "", ""], why=why)
    try:
        check = check_rung(rung, own, case)
        if not check.ok:
            return Climber(rung, [rung.name, "wrong", "", "", ""], why=check.what)
        return Climber(rung, [rung.name, "", "", "", f"{check.error:.1e}"], *compile_rung(rung, own, case))
    except (GPUError, UserError) as error:
        return Climber(rung, [rung.name, "not run", "", "", ""], why=first_reason(error))


def climb(ladder: Ladder, device: Device) -> list[Climber]:
    """Each rung with its row: its name, milliseconds, GFLOP/s, how many times as fast as the first one, its error.

    The rungs take turns, and the least time of each counts: other work on the machine only makes them slower.
    """
    case = timed_case(ladder, device)
    climbers = [start_rung(rung, device, case) for rung in ladder.rungs]
    running = [c for c in climbers if c.program is not None]
    for _ in range(ROUNDS):
        for c in running:
            c.seconds = min(c.seconds, time_run(c, device))
    for c in running:
        rate = useful_operations(case) / c.seconds / 1e9
        c.row[1:4] = [f"{c.seconds * 1e3:.3g}", f"{rate:.3g}", f"{running[0].seconds / c.seconds:.2f}"]
        c.program.close()
    return climbers


def time_run(c: Climber, device: Device) -> float:
    """Seconds of one dispatch: by the device's clock where it has one, else of a whole call; the median of some. On a software
    driver: processor time, as other work beside it would count otherwise."""
    assert c.program is not None
    run = partial(c.program.run, c.values)
    if device.adapter.software:
        return processor_seconds(run)
    return device_seconds(c.program, c.values) or median(run, CALL_SECONDS)


def processor_seconds(run: Callable[[], object]) -> float:
    """Processor time of a call, over all threads of this process."""
    start = time.process_time()
    run()
    return time.process_time() - start


def timed_case(ladder: Ladder, device: Device) -> Case:
    return ladder.small if device.adapter.software else ladder.large


def show_rows(ladder: Ladder, device: Device, climbers: list[Climber]) -> str:
    """A table in Markdown, and what is to be said of rungs without a time."""
    case, by = timed_case(ladder, device), "processor time, so of one core" if device.adapter.software else "time on the device"
    head = ["rung", "ms", "GFLOP/s", "to the first", "error"]
    lines = [head, ["---"] * len(head), *(c.row for c in climbers)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    notes = "".join(f"\n- {c.rung.name}: {c.row[1]}: {c.why}\n" for c in climbers if c.why)
    return f"{ladder.name}, {case.op.name} {case}, texts of {case.lengths[0]}, {by}:\n\n{table}\n{notes}"


def write_starts(folder: Path) -> list[Path]:
    """Write the first rung of each ladder as a whole kernel, which computes its op for all sizes: `doctor --shader` checks it.

    Raises UserError if the folder cannot be written, or has a file of such a name: that may be the reader's work.
    """
    texts = {}
    for name, ladder in LADDERS.items():
        text = "\n".join(map(read_rung, ladder.rungs[0].files))
        texts[folder / f"my_{name}.wgsl"] = f"// op: {ladder.op.name}\n{text}"
    try:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--start needs a folder, but {show(folder)} is a file")
        for path in texts:
            if os.path.lexists(path):
                raise UserError(f"{show(path)} exists and may be your work, so nothing was written: name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise UserError(f"cannot write into {show(folder)}: {error.strerror}") from None
    return [*texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="gpu", help="as of the command line: gpu takes a software driver, too")
    parser.add_argument("--only", choices=sorted(LADDERS))
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="write the first rungs, to climb from there, and end")
    options = parser.parse_args()
    try:
        if options.start:
            for path in write_starts(options.start):
                print(f"gpt2wgpu doctor --shader {path} --device {options.device}")
            return
        device, why = find_device(options.device)
    except UserError as error:
        sys.exit(f"error: {error}")
    if device is None:
        sys.exit(f"no GPU for --device {options.device}: {why}")
    print(f"{device.adapter}, driver {device.adapter.driver}\n")
    for name, ladder in LADDERS.items():
        if options.only in (None, name):
            print(show_rows(ladder, device, climb(ladder, device)), flush=True)


if __name__ == "__main__":
    main()
