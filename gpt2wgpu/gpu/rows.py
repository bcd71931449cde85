"""How kernels divide rows of columns and of tokens among lanes: the numbers that their sources are specialised for.

A kernel over rows is written for groups of four columns, vec4<f32>. WIDE is the size of a group (fours.wgsl).
"""

import re

from ..graph.ops.blocks import cdiv
from ..graph.tensor import Tensor

LANES = 64  # of a workgroup that holds a row
MOST_LANES = 256  # WebGPU's least limit of a workgroup
MOST_HELD = 16  # numbers of a row that a lane holds, before a row gets more lanes
SOFTWARE_LANES = 8  # as many as a CPU runs simultaneously; more would wait at every barrier
FEW_ROWS = 512  # of a table, in which a row may have many of a batch's tokens


def group_file(t: Tensor) -> str:
    """The shader file that says how a kernel reads the columns of an op's rows: by fours, where four divides them."""
    D = int(t.dims.get("D", 0))
    widths = [int(t.dims[letter]) for letter in "CN" if letter in t.dims]
    return "ones" if D % 8 or any(width % 4 for width in widths) else "fours"


def ungroup(source: str) -> str:
    """The source with single numbers in place of groups of four."""
    return re.sub(r"vec4<(\w+)>", r"\1", source)


def row_constants(t: Tensor, parts: tuple[str, ...], software: bool) -> dict[str, int]:
    """The constants of an op's kernel that say which lanes take what. parts: its shader files; software: for a CPU."""
    wide = 4 if "fours" in parts else 1
    if "row_sum" in parts:
        return held_row(int(t.dims["C"]), wide, software)
    if parts[0] == "norm_rotary":
        half = int(t.dims["D"]) // (2 * wide)
        lanes, heads = (SOFTWARE_LANES, 1) if software else (16, 4)
        return {"head_lanes": lanes, "heads": heads, "held": cdiv(half, lanes)}
    if "token_lanes" in parts:
        if software:
            return {"column_lanes": SOFTWARE_LANES, "token_lanes": 1}
        columns = 64 if "column_sum" in parts else 16  # 256 bytes of a row, where parts of tokens make workgroups enough
        return {"column_lanes": columns // wide, "token_lanes": MOST_LANES * wide // columns}
    if parts[0] == "scatter_rows":
        return {"token_lanes": 8 if int(t.dims["V"]) <= FEW_ROWS and not software else 1}
    return {}


def held_row(columns: int, wide: int, software: bool) -> dict[str, int]:
    """The lanes of a workgroup that holds a row of so many columns in registers, and how many groups each one holds."""
    lanes = SOFTWARE_LANES if software else LANES
    while not software and lanes < MOST_LANES and columns > lanes * MOST_HELD:
        lanes *= 2
    return {"lanes": lanes, "held": cdiv(columns // wide, lanes)}
