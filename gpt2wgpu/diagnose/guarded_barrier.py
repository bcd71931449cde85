"""Finds a barrier that a condition may skip for all lanes of a workgroup together, which WGSL allows.

A software driver shows nothing about it: llvmpipe has no jumps past the body of an `if`, so it waits at the barriers in there
even where the condition is false. A lane that needs the barrier gets it there, and on a GPU it does not.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from .lane_orders import BARRIER, without_comments
from .uneven_barrier import JUMP, Function, enclosing, functions_with_barrier, plain_names, read_functions

NO_VARIABLES = {"true", "false", "case", "default", "u32", "i32", "f32", "bool"}  # words of a condition beside constants


class GuardedBarrier(NamedTuple):
    """line: in the source, from 0. call: of the barrier, or of a function with one. guards: what may skip it, innermost last."""

    line: int
    call: str
    guards: tuple[str, ...]

    @property
    def problem(self) -> str:
        return f"{self.call}() stands {self.guards[-1]}"


def find_guarded_barriers(source: str) -> list[GuardedBarrier]:
    """Those under `if` or `switch`, or behind a jump, whose condition is no constant of the source: a compiler settles that."""
    source = without_comments(source)
    functions = read_functions(source)
    settled = {*NO_VARIABLES, *re.findall(r"\bconst\s+(\w+)", source)}
    shared = re.findall(r"\bvar\s*<\s*workgroup\s*>\s*(\w+)", source)
    calls = "|".join([BARRIER, *(rf"\b{name}\s*\(" for name in sorted(functions_with_barrier(functions)))])
    found = []
    for name, f in functions.items():
        for barrier in re.finditer(calls, f.body):
            guards = []
            for words, condition in guards_of(f, barrier.start(), name == "main", shared):
                if set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", condition)) - settled:
                    guards.append(f"{words} the condition ({plain_names(condition)})")
            if guards:
                line = f.line + f.body[: barrier.start()].count("\n")
                found.append(GuardedBarrier(line, barrier[0].rstrip("( "), tuple(guards)))
    return found


def guards_of(f: Function, at: int, is_main: bool, shared: list[str]) -> Iterator[tuple[str, str]]:
    """What may skip a place of a function: words and the condition. shared: names of workgroup memory."""
    around = enclosing(f.blocks, at)
    for jump in JUMP.finditer(f.body, 0, at):
        inside = enclosing(f.blocks, jump.start())
        conditions = [block.condition for block in inside if block not in around and block.condition and not block.loop]
        loop = next((block for block in reversed(inside) if block.loop), None)
        if jump[1] == "return":
            skips = not is_main  # nothing follows the end of main
        else:
            skips = loop is not None and loop in around
            if loop is not None and jump[1] == "break":  # one that tests the condition of the loop first skips no more than that
                before = f.body[loop.start : jump.start()]
                skips &= any(re.search(rf"\b{name}\b", before) for name in shared)
                skips &= not any(condition.startswith(("case", "default")) for condition in conditions)
        if skips and conditions:
            yield f"behind `{jump[1]}` under", conditions[-1]
    for block in around:
        if block.condition and not block.loop:
            yield "under", block.condition
