"""Shaders on matrix units in Tint's words: shaders/ has naga's, and the two differ in names and in the order of arguments."""

import re

HEAD = (
    "enable f16;\nenable subgroups;\nenable chromium_experimental_subgroup_matrix;\n"
    "diagnostic(off, chromium.subgroup_matrix_uniformity);\n"  # our branches around matrices are uniform, but Tint cannot see it
)
ELEMENT = r"&(\w+)\[([^\[\]]*)\]"  # &array[index]
RULES = (
    (r"\bcoop_mat(\d+)x(\d+)<(\w+), A>", r"subgroup_matrix_left<\3, \1, \2>"),
    (r"\bcoop_mat(\d+)x(\d+)<(\w+), B>", r"subgroup_matrix_right<\3, \1, \2>"),
    (r"\bcoop_mat(\d+)x(\d+)<(\w+), C>", r"subgroup_matrix_result<\3, \1, \2>"),
    (rf"\bcoopLoadT<(\w+)>\({ELEMENT}, ", r"subgroupMatrixLoad<\1, row_major>(&\2, \3, "),
    (rf"\bcoopLoad<(\w+)>\({ELEMENT}, ", r"subgroupMatrixLoad<\1, col_major>(&\2, \3, "),
    (rf"\bcoopStoreT\((\w+), {ELEMENT}, ", r"subgroupMatrixStore<row_major>(&\2, \3, \1, "),
    (r"\bcoopMultiplyAdd\(", "subgroupMatrixMultiplyAccumulate("),
)


def tint_source(source: str, lanes: int | None) -> str:
    """The source with Tint's subgroup matrices. lanes: the width of subgroups to ask for, None to take the driver's.

    Raises ValueError for a cooperative operation that no rule covers.
    """
    for found, put in RULES:
        source = re.sub(found, put, source)
    if left := re.search(r"\bcoop(_mat\d|[A-Z])[^;]*", re.sub(r"//.*", "", source)):
        raise ValueError(f"no rule of gpu/matrix_words.py covers {left[0]}")
    if lanes is None:
        return HEAD + source
    return "enable subgroup_size_control;\n" + HEAD + source.replace("@compute ", f"@compute @subgroup_size({lanes}) ")
