"""Broken files by seeds: what mutates them, and a child process in which a crash of one is seen."""

import os
import random
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from process import environment

CASES = int(os.environ.get("GPT2WGPU_FUZZ", "300"))  # files for each test; thousands before a release
EXTREMES = (0, 1, 2, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)

CHILD = """
import resource, signal, sys, traceback
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (4 << 30,) * 2)
from gpt2wgpu.errors import UserError
{setup}
for line in sys.stdin:
    path = Path(line.strip())
    print("case", path, flush=True)
    signal.alarm(60)  # ends the process: a hang is a failure like a crash
    try:
        {call}
    except (UserError, OSError) as error:
        if "\\n" in str(error) or len(str(error)) > 600 + 3 * len(str(path)):
            print("not one short line:", error)
    except BaseException:
        print(traceback.format_exc())
"""


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: a bit, a number, a piece of it or of random bytes, an end that is missing."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(found) + 1)
        size = rng.choice((1, 2, 4, 8, 16, 64))
        kind = rng.randrange(7)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[at : at + size] = rng.randbytes(size)
        elif kind == 2:
            del found[at : at + size]
        elif kind == 3:
            found[at:at] = found[rng.randrange(len(found) + 1) :][:size]
        elif kind == 4:
            del found[at:]
        elif kind == 5:  # a number of four or eight bytes, where numbers are aligned
            at -= at % 4
            found[at : at + 4] = struct.pack("<Q", rng.choice(EXTREMES))[:4]
        else:
            at -= at % 8
            found[at : at + 8] = struct.pack("<Q", rng.choice(EXTREMES))
    return bytes(found)


def write_cases(folder: Path, seeds: Mapping[str, bytes], number: int = CASES) -> list[Path]:
    """Files of which each is a mutation of one of the seeds, and keeps its suffixes."""
    paths = []
    for i in range(number):
        rng = random.Random(i)
        name = rng.choice(sorted(seeds))
        paths.append(folder / f"{i}{''.join(Path(name).suffixes)}")
        paths[-1].write_bytes(mutate(seeds[name], rng))
    return paths


def run_cases(paths: list[Path], setup: str, call: str) -> dict[str, str]:
    """What is wrong with each: a traceback, more than a line, a crash or a hang. `call` runs for each `path`, after `setup`."""
    wrong: dict[str, str] = {}
    while paths:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CHILD.format(setup=setup, call=call)],
            input="".join(f"{path}\n" for path in paths),
            env=environment() | {"ARROW_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=3600,
        )
        cases = done.stdout.split("case ")[1:]
        for case in cases:
            name, _, output = case.partition("\n")
            if output.strip():
                wrong[name] = output
        if done.returncode == 0:
            assert len(cases) == len(paths)
            break
        name = cases[-1].partition("\n")[0] if cases else "none"
        wrong[name] = f"exit code {done.returncode}: {done.stderr[-500:]}"
        paths = paths[len(cases) :] if cases else []
    return wrong
