"""A kernel whose lanes take each other's places, so that a missing barrier shows.

Without a barrier, what a lane reads of another one's work depends on who runs first. A software driver runs a few lanes side
by side (8 on llvmpipe with AVX), up to the next barrier, then the next few. If the lanes change places, each of two lanes runs
before the other one in some order, and a result that depends on it is wrong in one of them. Each order is a bijection: a kernel
with its barriers computes the same in all of them.

llvmpipe leaves a loop at the end of its body only: where the condition becomes false at the beginning, it runs the body once
more without any lane, and waits at the barriers in it. So the loops with barriers test their conditions at the end here. It
waits at a storageBarrier() too, which orders nothing in workgroup memory: those are left out.

Workgroup memory begins with zeros, as WGSL has it, and not with what the last workgroup left there, as with wgpu-native: a NaN
that nobody wrote would hide what the orders change.
"""

import re
from typing import NamedTuple


class LaneOrder(NamedTuple):
    """The lanes are dealt like cards to `fold` piles, which are then put one upon the other; backwards: from below."""

    fold: int
    backwards: bool

    def place(self, lane: int, lanes: int) -> int:
        """The lane whose work a lane does."""
        moved = lane if lanes % self.fold else lane % self.fold * (lanes // self.fold) + lane // self.fold
        return lanes - 1 - moved if self.backwards else moved

    def expression(self) -> str:
        """`place` in WGSL, for the lane `real_` of `lanes_`."""
        f = f"{self.fold}u"
        moved = f"select(real_ % {f} * (lanes_ / {f}) + real_ / {f}, real_, lanes_ % {f} != 0u)"
        return f"lanes_ - 1u - {moved}" if self.backwards else moved


PLAIN = LaneOrder(1, False)
# Among these and the plain one, each of two lanes comes before the other one in some order, in groups of 4 or 8 lanes that run
# side by side (tests/test_shader_check.py).
LANE_ORDERS = (LaneOrder(1, True), *(LaneOrder(fold, backwards) for fold in (4, 16) for backwards in (False, True)))
BARRIER = r"\b(?:workgroupBarrier|storageBarrier|textureBarrier|workgroupUniformLoad)\s*\("
OTHER_BARRIER = r"\b(?:storage|texture)Barrier\s*\(\s*\)\s*;"
ARGUMENTS = {  # builtins of an entry point, from those of the new one
    "local_invocation_index": "lane_",
    "local_invocation_id": "local_",
    "workgroup_id": "group_",
    "num_workgroups": "groups_",
    "global_invocation_id": "group_ * size_ + local_",
}


def without_comments(source: str) -> str:
    """The source with blanks in place of comments: every other character keeps its line and column."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda found: re.sub(r"[^\n]", " ", found[0]), source, flags=re.S)


def shares_memory(source: str) -> bool:
    """Whether the lanes of a workgroup can see each other's work: it has a variable in workgroup memory, and uses it."""
    source = without_comments(source)
    declared = re.findall(r"\bvar\s*<\s*workgroup\s*>\s*(\w+)", source)
    return any(len(re.findall(rf"\b{name}\b", source)) > 1 for name in declared)


def has_barrier(source: str) -> bool:
    """Whether anything in the source orders what the lanes of a workgroup do in its memory."""
    return re.search(r"\b(workgroupBarrier|workgroupUniformLoad|atomic)", without_comments(source)) is not None


def has_other_barrier(source: str) -> bool:
    """Whether the source has a barrier that orders nothing in workgroup memory."""
    return re.search(OTHER_BARRIER, without_comments(source)) is not None


def leave_out_other_barriers(source: str) -> str:
    """The source without those, unless it may read what other lanes wrote to storage memory, which they order."""
    for name in re.findall(r"\bvar\s*<\s*storage\s*,\s*read_write\s*>\s*(\w+)", source):
        stored = rf"(?<![\w.]){name}(?:\s*\[[^;={{}}]*?\]|\.\w+)*\s*=(?!=)"
        if len(re.findall(rf"(?<![\w.]){name}\b", source)) > 1 + len(re.findall(stored, source)):
            return source
    return re.sub(OTHER_BARRIER, ";", source)


def end_loops_late(source: str) -> str:
    """The source with the condition of each `for` and `while` around a barrier at the end of the body. Those with a `continue`
    are left as they are."""
    for head in reversed([*re.finditer(r"\b(?:for|while)\b([^{]*)\{", source)]):  # an inner loop before the outer one
        end = matching_brace(source, head.end() - 1)
        body = source[head.end() : end]
        if not re.search(BARRIER, body) or re.search(r"\bcontinue\b", body):
            continue
        parts = ["", head[1].strip(), ""]
        if head[0].startswith("for"):
            parts = [part.strip() for part in head[1].strip().removeprefix("(").removesuffix(")").split(";")]
        first, condition, step = parts
        last = f"{step}; if (!({condition or 'true'})) {{ break; }}"
        loop = f"{{ {first}; if ({condition or 'true'}) {{ loop {{ {{{body}}} {last} }} }} }}"
        source = source[: head.start()] + loop + source[end + 1 :]
    return source


def matching_brace(source: str, at: int) -> int:
    """The place of the brace that closes the one at `at`; the end if none does."""
    depth = 0
    for i in range(at, len(source)):
        depth += (source[i] == "{") - (source[i] == "}")
        if depth == 0:
            return i
    return len(source)


def reorder_lanes(source: str, order: LaneOrder) -> str | None:
    """The source with another `main`, which calls the old one as another lane. None if it cannot be done: the kernel uses
    subgroups, whose lanes have fixed places, or its `main` is written in a way that is not understood here."""
    source = end_loops_late(leave_out_other_barriers(without_comments(source)))
    head = re.search(r"((?:@\w+\s*(?:\((?:[^()]|\([^()]*\))*\))?\s*)+)fn\s+main\s*\(((?:[^()]|\([^()]*\))*)\)", source)
    size = re.search(r"@workgroup_size\s*\(((?:[^()]|\([^()]*\))*)\)", head[1]) if head else None
    if head is None or size is None or re.search(r"\bsubgroup|\bquad[A-Z]|coop_mat", source):
        return None
    calls = []
    for parameter in split_at_commas(head[2]):
        found = call_argument(parameter, source)
        if found is None:
            return None
        calls.append(found)
    plain = re.sub(r"@\w+\s*(?:\([^()]*\))?\s*", "", head[2])
    sizes = [f"u32({n})" for n in (*split_at_commas(size[1]), "1", "1")][:3]
    main = f"""
@compute @workgroup_size({size[1]})
fn main(@builtin(workgroup_id) group_: vec3<u32>, @builtin(num_workgroups) groups_: vec3<u32>,
    @builtin(local_invocation_index) lane_: u32) {{
{zero_workgroup_memory(source, " * ".join(sizes))}
  workgroupBarrier();
  main_as_lane(group_, groups_, lane_);
}}
fn main_as_lane(group_: vec3<u32>, groups_: vec3<u32>, real_: u32) {{
  let size_ = vec3<u32>({", ".join(sizes)});
  let lanes_ = size_.x * size_.y * size_.z;
  let lane_ = {order.expression()};
  let local_ = vec3<u32>(lane_ % size_.x, lane_ / size_.x % size_.y, lane_ / (size_.x * size_.y));
  main_in_order({", ".join(calls)});
}}
"""
    return f"{source[: head.start()]}fn main_in_order({plain}){source[head.end() :]}{main}"


def zero_workgroup_memory(source: str, lanes: str) -> str:
    """What `lane_` does so that all lanes together fill the workgroup memory with zeros. Where any is atomic, all is left."""
    lines = []
    if "atomic" in source:
        return ""
    for name, kind in re.findall(r"\bvar\s*<\s*workgroup\s*>\s*(\w+)\s*:\s*([^;]+);", source):
        array = re.fullmatch(r"array\s*<(.*)>\s*", kind, flags=re.S)
        parts = split_at_commas(array[1]) if array else []
        if len(parts) == 2:
            lines.append(f"  for (var i_ = lane_; i_ < u32({parts[1]}); i_ += {lanes}) {{ {name}[i_] = {parts[0]}(); }}")
        else:
            lines.append(f"  if (lane_ == 0u) {{ {name} = {kind}(); }}")
    return "\n".join(lines)


def split_at_commas(text: str) -> list[str]:
    """The parts of a list between its commas, without those inside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "(<[") - (letter in ")>]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def call_argument(parameter: str, source: str) -> str | None:
    """What the new `main` gives to the old one for a parameter: a builtin, or a struct of builtins."""
    builtin = re.search(r"@builtin\s*\(\s*(\w+)\s*\)", parameter)
    if builtin is not None:
        return ARGUMENTS.get(builtin[1])
    kind = parameter.rpartition(":")[2].strip()
    struct = re.search(rf"\bstruct\s+{re.escape(kind)}\s*\{{(.*?)\}}", source, re.S)
    members = [call_argument(member, "") for member in split_at_commas(struct[1])] if struct else []
    known = [member for member in members if member is not None]
    return f"{kind}({', '.join(known)})" if members and len(known) == len(members) else None
