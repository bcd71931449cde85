"""The prose of a page: a Markdown file with a head of `name: value` lines, an exercise, and its answer with Python that runs."""

import re
from dataclasses import dataclass
from pathlib import Path

from . import HERE, REPOSITORY


@dataclass(frozen=True)
class Prose:
    """The parts of a file. head: its `name: value` lines. text: formula and idea. blocks: the answer's Python, as it is run."""

    path: Path
    head: dict[str, str]
    text: str
    exercise: str
    answer: str

    @property
    def blocks(self) -> list[str]:
        return re.findall(r"^```python\n(.*?)^```$", self.text + self.exercise + self.answer, re.M | re.S)

    def numbers(self, name: str) -> dict[str, int]:
        """A line of the head such as `model: K=768 N=3072`."""
        return {letter: int(size) for letter, size in re.findall(r"(\w+)=(\d+)", self.head.get(name, ""))}


def read_prose(path: Path) -> Prose:
    """Raises ValueError for a file without an exercise or its answer, and for a quotation that its source does not have."""
    whole = path.read_text(encoding="utf-8")
    found = re.fullmatch(r"---\n(.*?)---\n(.*?)^## Exercise\n(.*?)^## Answer\n(.*)", whole, re.M | re.S)
    if found is None:
        raise ValueError(f"{path.name}: expected a head between two lines ---, then ## Exercise and ## Answer")
    check_quotations(path, whole)
    head = dict(line.split(": ", 1) for line in found[1].splitlines())
    return Prose(path, head, found[2], found[3], found[4])


def read_kernel_prose(name: str) -> Prose:
    """The prose of an op. Raises ValueError if there is none."""
    path = HERE / "kernels" / f"{name}.md"
    if not path.exists():
        raise ValueError(f"the op {name} has no page in the book: write docs/book/kernels/{name}.md (see those beside it)")
    return read_prose(path)


def check_quotations(path: Path, text: str) -> None:
    """Raises ValueError if the file that a text quotes does not say so any more."""
    for source, quoted in re.findall(r"^```quote (\S+)\n(.*?)^```$", text, re.M | re.S):
        there = (REPOSITORY / source).read_text(encoding="utf-8")
        if lost := [line for line in quoted.splitlines() if line not in there]:
            raise ValueError(f"{path.name}: {source} no longer says: {lost[0]}")
