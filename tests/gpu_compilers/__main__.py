"""`tests/registers`: compile every kernel for GPUs that are not there, and compare with the checked-in tables.

bash tests/registers               AMD's GPUs, as in CI: fails on spills, scratch, fewer waves, kernels that no table has
bash tests/registers --write       the same, and write their tables anew
bash tests/registers --by-hand     NVIDIA's, Apple's, Qualcomm's and Intel's, and write their tables anew; minutes long
bash tests/registers --by-hand ada m1
bash tests/registers --by-hand ampere --spirv FOLDER    and keep the SPIR-V, for benchmarks/on_a_gpu.py --spirv
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .gpus import BACKPORTS, BY_HAND, GPUS, IN_CI, SID, Gpu, seen_by
from .intel import add_intel_shim
from .packages import refusal, unpack_packages
from .page import write_page
from .tables import ANEW, Row, Table, find_changes, find_faults, read_table, write_table

REPOSITORY = Path(__file__).parents[2]
UNPACKED = REPOSITORY / ".registers"
SHOWN = 30  # lines of one kind
LONGEST = 3600  # seconds for a GPU


def make_table(gpu: Gpu, root: Path, wgpu: Path, spirv: Path | None = None) -> Table:
    """Compile every kernel for a GPU, in a process of its own. spirv: a folder that keeps what the driver gets.

    Raises SystemExit with one line if that fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        command, environment = seen_by(gpu, root, scratch, wgpu)
        command += ["-m", "gpu_compilers.kernels", gpu.name, str(scratch / "kernels"), *([str(spirv)] if spirv else [])]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=LONGEST)
        written = (scratch / "kernels").read_text(encoding="utf-8") if (scratch / "kernels").exists() else ""
        found = [json.loads(line) for line in written.splitlines()]
        if done.returncode:
            said = ["no word", *done.stderr.decode(errors="replace").strip().splitlines()][-1]
            after = found[-1].get("kernel", "none") if found else "none"
            raise SystemExit(f"{gpu.name}: exit code {done.returncode}, the last kernel compiled is {after}: {said}")
        first, *lines = found
    wrong = [line for line in lines if "error" in line]
    if wrong:
        raise SystemExit(f"{gpu.name}: {wrong[0]['kernel']} does not compile: {wrong[0]['error']} ({len(wrong)} in all)")
    return Table(first["driver"], time.strftime("%Y-%m-%d"), {line.pop("kernel"): Row(**line) for line in lines})


def make_tables(gpus: Sequence[Gpu], suite: str, spirv: Path | None = None) -> dict[str, Table]:
    """The tables of GPUs whose drivers come from one suite, on all cores."""
    root = unpack_packages(UNPACKED, suite)
    if any(gpu.shim == "intel" for gpu in gpus):
        add_intel_shim(root)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        tool = [sys.executable, str(REPOSITORY / "benchmarks" / "experimental_wgpu.py"), folder]
        done = subprocess.run(tool, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the kernels on matrix units cannot be compiled: {done.stderr.strip()}")
        tables = pool.map(lambda gpu: make_table(gpu, root, Path(done.stdout.strip()), spirv), gpus)
        return {gpu.name: table for gpu, table in zip(gpus, tables, strict=True)}


def print_lines(title: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"{title}:", *lines[:SHOWN], sep="\n  ")
        if len(lines) > SHOWN:
            print(f"  and {len(lines) - SHOWN} more")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/registers", description="Registers, spills and waves of every kernel.")
    parser.add_argument("--write", action="store_true", help="write the tables of AMD's GPUs anew")
    parser.add_argument("--by-hand", nargs="*", metavar="GPU", choices=[gpu.name for gpu in BY_HAND], help="other GPUs instead")
    parser.add_argument("--spirv", type=Path, metavar="FOLDER", help="with --by-hand and one GPU: keep its SPIR-V there")
    options = parser.parse_args()
    if options.spirv:
        if len(options.by_hand or []) != 1:
            parser.error("--spirv keeps the SPIR-V of one GPU: name it after --by-hand")
        options.spirv.mkdir(parents=True, exist_ok=True)
    by_hand = options.by_hand is not None
    gpus = [GPUS[name] for name in options.by_hand or [gpu.name for gpu in (BY_HAND if by_hand else IN_CI)]]
    suite = SID if by_hand else BACKPORTS
    if why := refusal(suite):
        print(f"registers: not compared: {why}")
        sys.exit(1 if os.environ.get("CI") or by_hand else 0)
    new = make_tables(gpus, suite, options.spirv)
    old = {name: read_table(name) for name in new}
    print_lines("changed", find_changes(old, new))
    if options.write or by_hand:
        for name, table in new.items():
            write_table(name, table)
        write_page()
        old = new
    for name, table in new.items():
        spilling = sum(bool(row.spilled) for row in table.rows.values())
        print(f"{name}: {len(table.rows)} kernels, {spilling} of them spill ({table.driver})")
    faults = find_faults(old, new)
    print_lines("wrong", faults)
    if not faults and find_changes(old, new):
        print(f"nothing is worse; to keep the new figures: {ANEW}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
