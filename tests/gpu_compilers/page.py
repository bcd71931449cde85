"""The tables of docs/registers.md, made from the checked-in ones."""

import re
from collections.abc import Sequence
from pathlib import Path

from .gpus import GPUS, IN_CI, INTEL, OTHERS, Gpu
from .tables import Row, Table, read_table

PAGE = Path(__file__).parents[2] / "docs" / "registers.md"
BEGIN, END = "<!-- tables: written by tests/registers -->", "<!-- end of tables -->"
# The kernels that the page shows, by their whole names; a model spends nearly all of its time in the first three
SHOWN = (
    r"linear f32 activation=none \d+x\d+(/\d+)?",
    r"linear(_int8)? f16 activation=none (64x64|128x128)/8",
    r"linear f16 activation=none matrix \d+x\d+/\d+",
    r"attention_flash f32 head_size=(32|64|80|96|128)",
    r"attention_flash f16 head_size=(64|128)",
    r"attention_bias_flash f32 head_size=(64|128)",
    r"attention_cooperative f16 head_size=(32|64) matrix",
    r"(layer|rms)_norm f32",
    r"glu f32 activation=silu",
    r"rotary f32.*",
    r"pool f32 mode=mean",
    r"attention_lse_flash f32 head_size=(64|128)",
    r"attention_dqkv_flash f32 head_size=(64|128)",
    r"linear_dweight f32.*",
    r"adamw",
)


def shown_kernels(names: set[str]) -> list[str]:
    """Names in the order of SHOWN, and those of a pattern by their words and numbers."""
    return [name for pattern in SHOWN for name in sorted((n for n in names if re.fullmatch(pattern, n)), key=by_numbers)]


def by_numbers(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def cell(row: Row | None) -> str:
    """Registers / waves, and in bold what spilled; empty where the GPU has no such kernel."""
    if row is None:
        return ""
    return f"{row.registers} / {row.waves}" + (f", **{row.spilled}**" if row.spilled else "")


def markdown_table(gpus: Sequence[Gpu], tables: dict[str, Table]) -> str:
    found = [tables[gpu.name] for gpu in gpus]
    lines = [
        ["", *(f"{gpu.title} ({gpu.name})" for gpu in gpus)],
        ["---", *["---:"] * len(gpus)],
        ["compiled by", *(f"{table.driver}, {table.date}" for table in found)],
        ["kernels", *(str(len(table.rows)) for table in found)],
        ["of them spill", *(str(sum(bool(row.spilled) for row in table.rows.values())) for table in found)],
    ]
    for name in shown_kernels({name for table in found for name in table.rows}):
        lines.append([f"`{name}`", *(cell(table.rows.get(name)) for table in found)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def render_tables() -> str:
    """The part of the page between BEGIN and END."""
    tables = {name: read_table(name) for name in GPUS}
    return (
        f"{BEGIN}\n\nAMD, in CI. Registers of a thread / waves:\n\n{markdown_table(IN_CI, tables)}\n"
        f"The others, by hand. Registers / warps (NVIDIA), threads (Apple) or waves (Adreno):\n\n"
        f"{markdown_table(OTHERS, tables)}\n"
        f"Intel, by hand. Registers / threads in a wave:\n\n{markdown_table(INTEL, tables)}\n{END}"
    )


def write_page(page: Path = PAGE) -> None:
    """Replace the tables of the page."""
    text = page.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(before + render_tables() + after, encoding="utf-8")
