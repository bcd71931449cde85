"""What a reader is told about a kernel that is wrong: the compiler's message at the lines of the file, and a hint."""

import re

import numpy as np

from ..gpu import Device
from ..graph.tensor import Array, Op
from .lane_orders import has_other_barrier
from .reader_shader import ReaderShader

RACE = (
    "a race: a lane reads what another lane has not written yet, or overwrites what another one still needs; "
    "is a workgroupBarrier() missing?"
)
STORAGE_ONLY = "; storageBarrier() and textureBarrier() order nothing in workgroup memory"
GUARDED = (
    "software drivers wait at such a barrier even where the condition is false, so nothing here shows whether it is missed: "
    "put it where all lanes always reach it"
)
UNEVEN = "every lane of the workgroup must come to a barrier; Chrome refuses this kernel, and a device may hang"
NEARLY = 0.01  # of the largest number, for errors that look like lost digits
FAR = "is an index far out of range?"
ENDLESS = "does a loop never end?"
NOT_FINITE = "NaN or Inf: exp() of a large number, 0 / 0, or a read past the end of an input, where NaN is"


def race_hint(source: str) -> str:
    """The hint for a race, which names the barriers that do not help."""
    return RACE + (STORAGE_ONLY if has_other_barrier(source) else "")


def value_text(value: float) -> str:
    return f"{value:.6g}"


def compiler_message(text: str, source: str, shader: ReaderShader, first_line: int) -> str:
    """What the compiler of wgpu or of Dawn says, with the lines of the reader's file. first_line: of the file in the source."""
    lines = [line.rstrip() for line in text.splitlines()]
    noise = re.compile(r"\s*(Validation Error|Caused by:|In wgpu\w+.*|- While calling.*|)$")
    kept = [line for line in lines if not noise.match(line)]
    last = first_line + shader.text.count("\n") + 1

    def place(line: int) -> str:
        inside = first_line < line <= last
        return f"{shader.path.name}:{line - first_line}" if inside else f"another file of shaders/ ({source_line(source, line)})"

    shown = []
    for line in kept:
        line = re.sub(r"^(\s*┌─ )[^:]*:(\d+):(\d+)", lambda m: f"{m[1]}{place(int(m[2]))}:{m[3]}", line)
        line = re.sub(r"^(\s*)(\d+)( │)", lambda m: f"{m[1]}{int(m[2]) - first_line:>{len(m[2])}}{m[3]}", line)
        line = re.sub(r"^(.*?)(?<!\S):(\d+):(\d+)( error)", lambda m: f"{m[1]}{place(int(m[2]))}:{m[3]}{m[4]}", line)
        shown.append(line)
    return "\n".join(dict.fromkeys(shown))


def compiler_hint(text: str, op: Op, device: Device) -> str:
    """What a compiler's message does not say: which binding each argument has, or how large a workgroup may be."""
    if re.search(r"[Ww]orkgroup size|exceeds the maximum allowed|@workgroup_size' argument", text):
        limits = [device.adapter.limits[f"max-compute-workgroup-size-{axis}"] for axis in "xyz"]
        most = device.adapter.limits["max-compute-invocations-per-workgroup"]
        sizes = " x ".join(map(str, limits))
        return f"this device allows sizes from 1 to {sizes}, and {most} lanes in all; every device allows 256 x 256 x 64, and 256"
    if re.search(
        r"ResourceBinding|[Bb]indings? .*(?:layout|group|conflict|exist)|buffer type in the shader|BindGroupLayout", text
    ):
        *inputs, output = (arg.name for arg in op.args)
        given = [f"{i} is {name} (storage, read)" for i, name in enumerate(inputs, 1)]
        given = ["0 is p (uniform)", *given, f"{len(op.args)} is {output} (storage, read_write)"]
        return f"the bindings of {op.name}, all in @group(0): {', '.join(given)}"
    return ""


def source_line(source: str, line: int) -> str:
    lines = source.splitlines()
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""


def hint_of_values(expected: Array, found: Array, wrong: Array, first: int) -> str:
    """What the wrong elements have in common; "" if nothing simple. first: the first one, in the flat array."""
    if not np.isfinite(found.reshape(-1)[first]):
        return NOT_FINITE
    if not np.isfinite(expected.reshape(-1)[first]):
        return "a row with NaN must give NaN: a number that looks right would hide it"
    wrong = wrong & np.isfinite(found) & np.isfinite(expected)
    if expected.ndim == 2 and (where := hint_of_places(wrong)):
        return where
    difference = found[wrong] - expected[wrong]
    if wrong.all() and np.ptp(difference) <= 1e-4 * np.abs(difference).max():
        middle = float(np.median(difference))
        return f"every element is {value_text(abs(middle))} too {'large' if middle > 0 else 'small'}"
    if expected[wrong].all():
        ratio = found[wrong] / expected[wrong]
        if np.ptp(ratio) <= 1e-4 * np.abs(ratio).max():
            return f"every wrong element is {value_text(float(np.median(ratio)))} times what is expected"
    if np.abs(difference).max() < NEARLY * np.abs(expected[wrong]).max():
        return "nearly right, but further off than rounding explains: are digits lost in a difference of large numbers?"
    return ""


def hint_of_places(wrong: Array) -> str:
    """Rows or columns that are right, if a line divides them from the wrong ones."""
    rows, columns = np.any(wrong, axis=1), np.any(wrong, axis=0)
    for name, bad in (("rows", rows), ("columns", columns)):
        first = int(np.argmax(bad))
        if first and bad[first:].all():
            return f"{name} 0 to {first - 1} are right, and none of the others is"
    if len(rows) > 1 and rows.sum() == 1:
        return "only this row is wrong"
    return "only the last column is wrong" if len(columns) > 1 and columns.sum() == 1 and columns[-1] else ""
