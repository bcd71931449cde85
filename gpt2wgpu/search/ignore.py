"""The rules of a .gitignore, read byte by byte as git does (its dir.c and wildmatch.c).

Not by a library: pathspec 1.1 leaves out the folders that "*", "!*/", "!*.md" keep, as whitelists have it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

UTF8_MARK = b"\xef\xbb\xbf"
ANY_BYTES = b"[^/]*?"
SPECIAL = re.compile(rb"[*?\[\\]")
BYTE_CLASSES = {  # in regular expressions
    b"alnum": b"0-9A-Za-z",
    b"alpha": b"A-Za-z",
    b"blank": b" \\t",
    b"cntrl": b"\\x00-\\x1f\\x7f",
    b"digit": b"0-9",
    b"graph": b"!-~",
    b"lower": b"a-z",
    b"print": b" -~",
    b"punct": b"!-/:-@\\[-`{-~",
    b"space": b"\\t-\\r ",
    b"upper": b"A-Z",
    b"xdigit": b"0-9A-Fa-f",
}


@dataclass(frozen=True)
class IgnoreRule:
    """pattern: of an entry's name, or of its path below the folder of the .gitignore. ignores: False for a line with "!"."""

    pattern: re.Pattern[bytes]
    of_path: bool
    only_folders: bool
    ignores: bool


def find_verdict(rules: Sequence[IgnoreRule], path: bytes, *, is_folder: bool) -> bool | None:
    """Whether the last rule that names a path leaves it out; None if no rule does. path: below the .gitignore, with "/"."""
    name = path.rpartition(b"/")[2]
    for rule in reversed(rules):
        if (is_folder or not rule.only_folders) and rule.pattern.fullmatch(path if rule.of_path else name):
            return rule.ignores
    return None


def parse_rules(data: bytes) -> list[IgnoreRule]:
    """The rules of a file. Lines that can name nothing are left out."""
    lines = (line.removesuffix(b"\r") for line in data.removeprefix(UTF8_MARK).split(b"\n"))
    rules = (parse_rule(trim_spaces(line)) for line in lines if not line.startswith(b"#"))
    return [rule for rule in rules if rule is not None]


def trim_spaces(line: bytes) -> bytes:
    """Without the spaces at the end, except one that a backslash quotes."""
    kept = line.rstrip(b" ")
    backslashes = len(kept) - len(kept.rstrip(b"\\"))
    return line[: len(kept) + backslashes % 2]


def parse_rule(line: bytes) -> IgnoreRule | None:
    ignores, line = not line.startswith(b"!"), line.removeprefix(b"!")
    only_folders, line = line.endswith(b"/"), line.removesuffix(b"/")
    regex = translate_glob(line.removeprefix(b"/"))
    return IgnoreRule(re.compile(regex, re.DOTALL), b"/" in line, only_folders, ignores) if regex else None


def translate_glob(glob: bytes) -> bytes | None:
    """A regular expression; None, or an empty one, for a pattern that names nothing.

    What lies between two stars is an atomic group: its first match will do, so that no pattern takes long.
    """
    special = SPECIAL.search(glob)
    settled = deep = near = b""  # deep: since the last ** that crosses folders; near: since the last * or /
    i = 0
    while i < len(glob):
        byte, after = glob[i : i + 1], i + 1
        if byte == b"*":
            after = len(glob) - len(glob[i:].lstrip(b"*"))
            begins = glob[i - 1 : i] in (b"", b"/") or (special is not None and special.start() == i)
            if after - i > 1 and begins and re.match(rb"\\?/|\Z", glob[after:]):
                settled, deep, near = settled + b"(?>%s)" % (deep + near), b".*?", b""
                if glob.startswith(b"/", after):
                    deep, after = b"(?:.*?/)??", after + 1
            else:
                deep, near = deep + (b"(?>%s)" % near if near.startswith(ANY_BYTES) else near), ANY_BYTES
        elif byte == b"/":
            deep, near = deep + near + b"/", b""
        elif byte == b"?":
            near += b"[^/]"
        elif byte == b"[":
            members, after = read_set(glob, after)
            if not after:
                return None
            near += members
        else:
            if byte == b"\\":
                byte, after = glob[after : after + 1], after + 1
                if not byte:
                    return None
            near += re.escape(byte)
        i = after
    return settled + deep + near


def read_set(glob: bytes, start: int) -> tuple[bytes, int]:
    """A set of bytes, such as [a-z], as a regular expression, and where it ends. start: after the bracket. 0 if it has no end."""
    negated = glob[start : start + 1] in (b"!", b"^")
    first = i = start + negated
    members, previous = b"", b""
    while i < len(glob) and (i == first or glob[i : i + 1] != b"]"):
        byte = glob[i : i + 1]
        named = glob.startswith(b"[:", i) and b"]" in glob[i + 2 :]
        name, _, _ = glob[i + 2 :].partition(b"]")
        if named and name.endswith(b":"):
            if name[:-1] not in BYTE_CLASSES:
                return b"", 0
            members, previous, i = members + BYTE_CLASSES[name[:-1]], b"", i + 2 + len(name)
        elif byte == b"-" and previous and glob[i + 1 : i + 2] not in (b"", b"]"):
            i += 1 + glob.startswith(b"\\", i + 1)
            if previous <= glob[i : i + 1]:
                members += b"\\x%02x-\\x%02x" % (previous[0], glob[i])
            previous = b""
        else:
            i += byte == b"\\"
            previous = glob[i : i + 1]
            members += b"\\x%02x" % previous[0] if previous else b""
        i += 1
    if i >= len(glob):
        return b"", 0
    if negated:
        return b"[^/%s]" % members, i + 1
    return (b"(?!/)[%s]" % members if members else b"(?!)"), i + 1
