"""What a shader's text says about itself: its constants, the threads of a workgroup, the memory that they share."""

import re
from typing import Any

BYTES = {"f32": 4, "u32": 4, "i32": 4, "f16": 2, "atomic<u32>": 4, "vec2<u32>": 8, "vec4<f32>": 16, "vec4<f16>": 8}
KNOWN = {
    "int": int,
    "min": min,
    "max": max,
    "clamp": lambda value, low, high: max(low, min(value, high)),
    "select": lambda no, yes, which: yes if which else no,
}


def read_constants(source: str) -> dict[str, Any]:
    """The values of `const NAME: u32 = ...;` and of bool constants, in whatever order they stand."""
    waiting = dict(re.findall(r"^const (\w+): (?:u32|bool) = (.*?);", source, re.M))
    found: dict[str, Any] = {}
    while waiting:
        ready = [name for name, text in waiting.items() if not names_of(text) & waiting.keys()]
        if not ready:
            raise ValueError(f"constants that need each other: {', '.join(waiting)}")
        for name in ready:
            found[name] = evaluate(waiting.pop(name), found)
    return found


def names_of(expression: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*", expression))


def evaluate(expression: str, constants: dict[str, Any]) -> Any:
    """The value of an expression of whole numbers, of constants that are known."""
    text = re.sub(r"\b(\d+)u\b", r"\1", expression).replace("u32(", "int(").replace("/", "//")
    text = text.replace("&&", " and ").replace("||", " or ")
    return eval(text, {"__builtins__": {}}, KNOWN | constants)


def count_threads(source: str) -> int:
    """The threads of a workgroup."""
    sizes = re.search(r"@workgroup_size\((.*?)\)", source)
    assert sizes is not None, "a shader has a workgroup size"
    constants = read_constants(source)
    threads = 1
    for part in sizes[1].split(","):
        threads *= int(evaluate(part, constants))
    return threads


def shared_bytes(source: str) -> int:
    """The bytes of workgroup memory that a shader declares."""
    constants = read_constants(source)
    total = 0
    for element, count in re.findall(r"^var<workgroup> \w+: array<(.*), (.*?)>;", source, re.M):
        total += BYTES[element] * int(evaluate(count, constants))
    return total
