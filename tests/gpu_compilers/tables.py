"""The checked-in tables, one file per GPU and one line per kernel, and the comparison of new ones with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "tables"
ANEW = "bash tests/registers --write"


class Row(NamedTuple):
    """What a compiler says of a kernel; None where it does not say.

    registers: of a thread. spills: values moved from registers to memory. scratch: bytes of memory instead of registers.
    memory: bytes of workgroup memory. waves: groups of threads that fit on a unit of the GPU at the same time.
    """

    registers: int | None = None
    spills: int | None = None
    scratch: int | None = None
    memory: int | None = None
    waves: int | None = None

    @property
    def spilled(self) -> str:
        """What went to memory, for a message; "" if everything is in registers."""
        parts = [f"{self.spills} spills"] * bool(self.spills) + [f"{self.scratch} bytes of scratch"] * bool(self.scratch)
        return " and ".join(parts)


@dataclass(frozen=True)
class Table:
    """The kernels of one GPU by name. driver: Mesa's version. date: when it was made."""

    driver: str
    date: str
    rows: dict[str, Row] = field(default_factory=dict)


def read_table(name: str, folder: Path = FOLDER) -> Table:
    """The table of a GPU; an empty one if there is none yet."""
    path = folder / f"{name}.tsv"
    if not path.exists():
        return Table("none", "")
    first, _, *lines = path.read_text(encoding="utf-8").splitlines()
    driver, _, date = first.removeprefix("# ").rpartition(", ")
    rows = {}
    for line in lines:
        kernel, *values = line.split("\t")
        rows[kernel] = Row(*(None if v == "-" else int(v) for v in values))
    return Table(driver, date, rows)


def write_table(name: str, table: Table, folder: Path = FOLDER) -> None:
    lines = [f"# {table.driver}, {table.date}", "\t".join(("kernel", *Row._fields))]
    lines += ["\t".join([kernel, *("-" if v is None else str(v) for v in row)]) for kernel, row in sorted(table.rows.items())]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def find_faults(old: Mapping[str, Table], new: Mapping[str, Table]) -> list[str]:
    """One line for each thing that is wrong with new tables, by GPU, beside the checked-in ones."""
    found: list[str] = []
    for gpu, table in new.items():
        before = old[gpu]
        if before.rows and before.driver != table.driver:
            found.append(f"{gpu}: its table is of {before.driver}, and this is {table.driver}: {ANEW}, and see what changed")
        for kernel, row in table.rows.items():
            if row.spilled:
                found.append(f"{gpu}: {kernel}: {row.spilled}; expected none: it needs fewer registers")
            was = before.rows.get(kernel)
            if was is None:
                found.append(f"{gpu}: {kernel} is not in the table: {ANEW}")
            elif (row.waves or 0) < (was.waves or 0):
                found.append(f"{gpu}: {kernel}: {row.waves} waves; the table has {was.waves}: if that is meant, {ANEW}")
        gone = [kernel for kernel in before.rows if kernel not in table.rows]
        found += [f"{gpu}: {kernel} is in the table, but is compiled no more: {ANEW}" for kernel in gone]
    return found


def find_changes(old: Mapping[str, Table], new: Mapping[str, Table]) -> list[str]:
    """One line for each kernel whose figures differ, such as "navi31: embed f32: registers 12 -> 8, waves 28 -> 32"."""
    found = []
    for gpu, table in new.items():
        for kernel, row in table.rows.items():
            was = old[gpu].rows.get(kernel, row)
            changed = [f"{n} {a} -> {b}" for n, a, b in zip(Row._fields, was, row, strict=True) if a != b]
            if changed:
                found.append(f"{gpu}: {kernel}: {', '.join(changed)}")
    return found
