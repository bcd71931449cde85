"""A chapter as cells: where they begin, what each prints and shows, and which numbers its prose states and its code asserts."""

import ast
import io
import re
import traceback
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MARK = re.compile(r"^# %%(?P<prose> \[markdown\])?$")
# what is no figure: headings, the numbers of a list, code, links, and the years of papers
NO_FIGURES = re.compile(
    r"^#+ [^\n]*$|^\d+\. |```.*?```|`[^`]*`|\[[^\]]*\]\([^)]*\)|\b(?:19|20)\d\d\b(?![,.]\d)",
    re.M | re.S,
)
FIGURE = re.compile(r"(?<![\w.,])(?<![A-Za-z]-)(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")


@dataclass(frozen=True)
class Cell:
    """prose: Markdown, else Python. line: of its text's first line, from 1."""

    prose: bool
    line: int
    text: str


@dataclass(frozen=True)
class Output:
    """What a cell of code printed, and the picture (SVG) that its last expression is; "" for none."""

    printed: str
    picture: str


def find_chapters() -> list[Path]:
    """The chapters in order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def read_cells(chapter: Path) -> list[Cell]:
    """The cells of a file in percent format: `# %% [markdown]` begins prose in comments, `# %%` code. Raises ValueError."""
    cells: list[Cell] = []
    prose, first = False, 0
    lines: list[str] = []
    for number, line in enumerate([*chapter.read_text(encoding="utf-8").splitlines(), "# %%"], 1):
        if found := MARK.match(line):
            if first and any(map(str.strip, lines)):
                cells.append(make_cell(chapter, prose, first, lines))
            prose, first, lines = found["prose"] is not None, number + 1, []
        elif not first and line:
            raise ValueError(
                f"{chapter.name}, line {number}: expected # %% or # %% [markdown] first, found {line!r}"
            )
        else:
            lines.append(line)
    if not cells or not cells[0].prose:
        raise ValueError(f"{chapter.name}: expected a cell of prose with the title first")
    return cells


def make_cell(chapter: Path, prose: bool, first: int, lines: list[str]) -> Cell:
    if prose:
        for number, line in enumerate(lines, first):
            if line and line != "#" and not line.startswith("# "):
                raise ValueError(f"{chapter.name}, line {number}: expected prose after '# ', found {line!r}")
        lines = [line[2:] for line in lines]
    return Cell(prose, first, "\n".join(lines).rstrip())


def run_cells(chapter: Path, cells: list[Cell]) -> Iterator[Output | None]:
    """What each cell gives, run in order as a notebook runs them; None for prose. Raises ValueError naming a line that fails."""
    names: dict[str, Any] = {"__name__": "__main__"}  # no __file__, as in a notebook
    for cell in cells:
        if cell.prose:
            yield None
            continue
        printed, picture = io.StringIO(), None
        try:
            tree = ast.increment_lineno(ast.parse(cell.text), cell.line - 1)
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            with redirect_stdout(printed):
                exec(compile(tree, str(chapter), "exec"), names)
                if isinstance(last, ast.Expr):
                    value = eval(compile(ast.Expression(last.value), str(chapter), "eval"), names)
                    picture = getattr(value, "_repr_svg_", None)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == str(chapter)] or [cell.line]
            message = f"{chapter.name}, line {lines[-1]}: {type(error).__name__} {error}".rstrip()
            if isinstance(error, AssertionError):
                message += "; after a change of yours, python -O leaves the asserts out"
            raise ValueError(message) from error
        yield Output(printed.getvalue(), picture() if picture else "")


def prose_figures(cell: Cell) -> list[str]:
    """The numbers in digits that a cell of prose states."""
    return FIGURE.findall(NO_FIGURES.sub(" ", cell.text))


def asserted_figures(cell: Cell) -> set[float]:
    """The numbers, without their signs, that a cell's asserts compare something with."""
    found: set[float] = set()
    for statement in ast.walk(ast.parse(cell.text)):
        if isinstance(statement, ast.Assert):
            for compare in (n for n in ast.walk(statement.test) if isinstance(n, ast.Compare)):
                sides = [literal_figures(side) for side in (compare.left, *compare.comparators)]
                if None in sides:  # else two constants are compared, which says nothing
                    found = found.union(*(side for side in sides if side))
    return found


def literal_figures(node: ast.expr) -> set[float] | None:
    """The numbers in a constant, or in a list, tuple, set or dict of constants; None for anything else."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return set(flat_figures(value))


def flat_figures(value: Any) -> Iterator[float]:
    if isinstance(value, int | float):
        yield abs(float(value))
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from flat_figures(item)
    elif isinstance(value, dict):
        yield from flat_figures([*value.keys(), *value.values()])


def unasserted_figures(cells: list[Cell]) -> list[tuple[int, str]]:
    """The figures of the prose, with the line of their cell, that no assert of the nearest code above or below holds."""
    asserted = [None if cell.prose else asserted_figures(cell) for cell in cells]
    found = []
    for i, cell in enumerate(cells):
        if cell.prose:
            above = next((a for a in reversed(asserted[:i]) if a is not None), set())
            below = next((a for a in asserted[i:] if a is not None), set())
            known = above | below
            found += [
                (cell.line, figure)
                for figure in prose_figures(cell)
                if float(figure.replace(",", "")) not in known
            ]
    return found
