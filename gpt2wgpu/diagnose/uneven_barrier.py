"""Finds a barrier that not all lanes of a workgroup reach, which some libraries compile without a word.

WGSL forbids it (the specification's uniformity analysis), Chrome's compiler refuses it, that of wgpu does not, and what a device
then does is undefined. This reads the source alone: a name depends on the lane if its value, or whether it is assigned, comes
from the lane's number or from memory that lanes write; a barrier is uneven if such a name decides whether it is reached.
"""

import re
from dataclasses import dataclass

from .lane_orders import BARRIER, matching_brace, split_at_commas, without_comments

SAME_FOR_ALL = ("workgroup_id", "num_workgroups")  # builtins
DECLARED = re.compile(r"\b(?:let|var)\s+(\w+)[^=;]*=(?!=)([^;{}]*)")
ASSIGNED = re.compile(r"(?<![\w.])(\w+)(?:\s*\[[^;={}]*?\]|\.\w+)*\s*(?:[-+*/%&|^]|<<|>>)?=(?!=)([^;{}]*)")
STEPPED = re.compile(r"(?<![\w.])(\w+)(?:\s*\[[^;={}]*?\]|\.\w+)*\s*(?:\+\+|--)()")
JUMP = re.compile(r"\b(return|break|continue)\b")


@dataclass
class CodeBlock:
    """A block of a function: its place in the source, its condition (in `if`, `for`, `while`, `switch`), and what encloses it."""

    start: int
    condition: str
    parent: "CodeBlock | None"
    end: int = 0
    loop: bool = False


@dataclass
class Function:
    """line: of the source where the body begins, from 0. parameters: names. lanes: names that depend on the lane. own: those that
    do so whatever the parameters are. returns_lanes: whether its result does so, whatever the parameters are."""

    line: int
    body: str
    parameters: list[str]
    lanes: set[str]
    own: set[str]
    blocks: list[CodeBlock]
    returns_lanes: bool = False

    def conditions_since(self, name: str, at: int) -> list[str]:
        """The conditions of the blocks around a place that are not around the declaration of a variable."""
        declared = re.search(rf"\b(?:let|var)\s+{name}\b", self.body)
        outer = enclosing(self.blocks, declared.start()) if declared else []
        return [block.condition for block in enclosing(self.blocks, at) if block not in outer]


def find_uneven_barrier(source: str) -> str:
    """Where a barrier stands that not all lanes reach, on one line; "" if none is found."""
    source = without_comments(source)
    functions = read_functions(source)
    written = set(re.findall(r"\bvar\s*<\s*(?:workgroup|private|storage\s*,\s*read_write)\s*>\s*(\w+)", source))
    with_barrier = functions_with_barrier(functions)
    spread_lanes(functions, written)
    calls = "|".join([BARRIER, *(rf"\b{name}\s*\(" for name in sorted(with_barrier))])
    for f in functions.values():
        for barrier in re.finditer(calls, f.body):
            if reason := uneven_reason(f, barrier.start(), functions):
                return f"{barrier[0].rstrip('( ')}() is not reached by all lanes: it stands {reason}"
    return ""


def read_functions(source: str) -> dict[str, Function]:
    """The functions of a source, with their blocks."""
    found = {}
    for head in re.finditer(r"\bfn\s+(\w+)\s*\(((?:[^()]|\([^()]*\))*)\)[^{;]*\{", source):
        end = matching_brace(source, head.end() - 1)
        parameters, lanes = [], set()
        for parameter in split_at_commas(head[2]):
            name = re.sub(r"@\w+\s*(\([^()]*\))?", "", parameter).partition(":")[0].strip()
            builtin = re.search(r"@builtin\s*\(\s*(\w+)", parameter)
            parameters.append(name)
            if head[1] == "main" and (builtin is None or builtin[1] not in SAME_FOR_ALL):
                lanes.add(name)
        body = rename_variables(source[head.end() : end])
        found[head[1]] = Function(source.count("\n", 0, head.end()), body, parameters, lanes, set(lanes), read_blocks(body))
    return found


def rename_variables(body: str) -> str:
    """The body with a name of its own for each variable: what one `i` is says nothing of another one."""
    blocks = read_blocks(body)
    scopes: dict[str, list[tuple[int, int, int]]] = {}  # by name: where it is declared, where its scope begins and ends
    for found in DECLARED.finditer(body):
        in_header = re.search(r"\bfor\s*\(\s*$", body[: found.start()])
        around = [b for b in blocks if b.start > found.start()][:1] if in_header else enclosing(blocks, found.start())[-1:]
        scopes.setdefault(found[1], []).append((found.start(1), found.end(), around[0].end if around else len(body)))

    def own_name(token: re.Match[str]) -> str:
        at = token.start()
        visible = [first for first, begin, end in scopes.get(token[0], ()) if at == first or begin <= at < end]
        return f"{token[0]}_{max(visible)}_" if visible else token[0]

    return re.sub(r"(?<![\w.])[A-Za-z_]\w*", own_name, body)


def enclosing(blocks: list[CodeBlock], at: int) -> list[CodeBlock]:
    """The blocks around a place, the innermost last."""
    return [b for b in blocks if b.start <= at < b.end]


def read_blocks(body: str) -> list[CodeBlock]:
    """The blocks inside a function's body. An `else` has the condition of its `if`."""
    blocks: list[CodeBlock] = []
    stack: list[CodeBlock] = []
    begin, parentheses, before = 0, 0, ""
    for i, letter in enumerate(body):
        parentheses += (letter == "(") - (letter == ")")
        if letter == "{":
            header = body[begin:i].strip()
            condition = header_condition(header)
            if header.startswith("else"):
                condition = f"{before} {condition}".strip()
            block = CodeBlock(i, condition, stack[-1] if stack else None, len(body), header.startswith(("for", "while", "loop")))
            blocks.append(block)
            stack.append(block)
        elif letter == "}" and stack:
            stack[-1].end, before = i, stack[-1].condition
            stack.pop()
        if letter in "{}" or (letter == ";" and not parentheses):
            begin = i + 1
    return blocks


def header_condition(header: str) -> str:
    """The condition of `if (...)`, of `while (...)`, of `switch (...)`; the middle part of `for (...; ...; ...)`."""
    inner = re.sub(r"^(else\s+)?(if|while|switch|for|loop)\b", "", header).strip()
    if header.startswith("for"):
        parts = inner[inner.find("(") + 1 : inner.rfind(")")].split(";")
        return parts[1].strip() if len(parts) == 3 else ""
    return "" if header in ("", "else", "loop", "continuing") else inner.removeprefix("(").removesuffix(")")


def functions_with_barrier(functions: dict[str, Function]) -> set[str]:
    """The names of those that contain a barrier, themselves or in what they call."""
    found = {name for name, f in functions.items() if re.search(BARRIER, f.body)}
    while True:
        more = {n for n, f in functions.items() if any(re.search(rf"\b{name}\s*\(", f.body) for name in found)} - found
        if not more:
            return found
        found |= more


def depends_on_lane(expression: str, lanes: set[str], functions: dict[str, Function]) -> bool:
    """lanes: the names that do so. What workgroupUniformLoad gives is the same for all."""
    names = set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", re.sub(rf"{BARRIER}[^()]*\)", "", expression)))
    return bool(names & lanes) or any(functions[n].returns_lanes for n in names & functions.keys())


def spread_lanes(functions: dict[str, Function], written: set[str]) -> None:
    """Follow the lane's number, and what lanes have written, through variables, parameters and results."""
    for f in functions.values():
        f.lanes |= written
        f.own |= written
    before: list[int] = []
    while before != (before := [len(f.lanes) + len(f.own) + f.returns_lanes for f in functions.values()]):
        for f in functions.values():
            for lanes in (f.lanes, f.own):
                for found in (found for pattern in (DECLARED, ASSIGNED, STEPPED) for found in pattern.finditer(f.body)):
                    conditions = f.conditions_since(found[1], found.start())
                    if any(depends_on_lane(text, lanes, functions) for text in (found[2], *conditions)):
                        lanes.add(found[1])
            for returned in re.finditer(r"\breturn\b([^;]*);", f.body):
                conditions = [block.condition for block in enclosing(f.blocks, returned.start())]
                f.returns_lanes |= any(depends_on_lane(text, f.own, functions) for text in (returned[1], *conditions))
            give_parameters(f, functions)


def give_parameters(f: Function, functions: dict[str, Function]) -> None:
    """Parameters of what a function calls depend on the lane if what it gives them does."""
    for name, called in functions.items():
        for call in re.finditer(rf"\b{name}\s*\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)", f.body):
            for parameter, given in zip(called.parameters, split_at_commas(call[1]), strict=False):
                if depends_on_lane(given, f.lanes, functions):
                    called.lanes.add(parameter)


def uneven_reason(f: Function, at: int, functions: dict[str, Function]) -> str:
    """Why only some lanes reach a place of a function; "" if all do."""

    def splits(block: CodeBlock) -> bool:
        return bool(block.condition) and depends_on_lane(block.condition, f.lanes, functions)

    around = enclosing(f.blocks, at)
    for block in around:
        if splits(block):
            return f"under the condition ({plain_names(block.condition)})"
    for jump in JUMP.finditer(f.body):
        inside = enclosing(f.blocks, jump.start())
        left = [block for block in inside if block.loop][-1:] if jump[1] != "return" else []  # the loop that it leaves
        condition = next((block.condition for block in inside if splits(block)), "")
        again = any(block in around for block in (left or inside) if block.loop)  # a barrier of this round, or of the next
        if condition and (again or (jump[1] == "return" and jump.start() < at)):
            return f"behind `{jump[1]}` under the condition ({plain_names(condition)})"
    return ""


def plain_names(text: str) -> str:
    """A condition with the names that it has in the source."""
    return re.sub(r"\b([A-Za-z_]\w*?)_\d+_(?!\w)", r"\1", text)
