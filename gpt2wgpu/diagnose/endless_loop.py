"""A kernel whose loops end after a number of rounds, and that says so: an endless loop is found before a device is lost in it.

llvmpipe ends a thread's loops after 65,535 rounds without a word (devices/loop_limit.py), and computes on.
"""

import re

from .lane_orders import PLAIN, reorder_lanes, without_comments

MOST_ROUNDS = 60_000  # of a thread, in all of its loops together; no case of an op needs as many
TOO_MANY_ROUNDS = f"a thread goes through its loops more than {MOST_ROUNDS:,} times"
LOOP = re.compile(r"\b(?:for\s*\(|while\b|loop\b)[^{]*\{")
OUTPUT = re.compile(r"\bvar\s*<\s*storage\s*,\s*read_write\s*>\s*(\w+)\s*:\s*array\s*<(.*)>\s*;")


def count_rounds(source: str) -> str | None:
    """The source with loops that end after MOST_ROUNDS, after which the last element of the output's buffer, far behind its data,
    is written. None if it has no loop, or is written in a way that is not understood here."""
    source = without_comments(source)
    counted = LOOP.sub(rf"\g<0> if (rounds_ >= {MOST_ROUNDS}u) {{ break; }} rounds_ += 1u; ", source)
    output = OUTPUT.search(source)
    made = reorder_lanes(counted, PLAIN)
    if counted == source or output is None or made is None:
        return None
    name, kind = output.groups()
    mark = f"if (rounds_ >= {MOST_ROUNDS}u) {{ {name}[arrayLength(&{name}) - 1u] = {kind}(); }}"
    return f"{made.rstrip().removesuffix('}')}  {mark}\n}}\nvar<private> rounds_: u32;\n"
