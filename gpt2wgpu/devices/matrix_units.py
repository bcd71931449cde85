"""Whether the matrix units of a device can be trusted: fragments and subgroups that agree with numpy.

A driver may crash over its first kernel for them, so the first trial on an adapter runs in a process of its own.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..errors import UserError
from ..gpu import Device, MatrixUnits, adapter_key, choose_adapter, open_device, read_entries, read_shader
from ..gpu.child_process import run_in_child
from ..gpu.device_cache import save_tested, short_digest
from ..graph import ops
from ..progress import notice
from .selftest import Case, check_op

TRIAL_SECONDS = 120.0  # of the process that tries them first


def find_matrix_units(device: Device) -> tuple[Device, str]:
    """The device with its matrix units switched on if they agree with numpy, for matmuls alone if attention does not; and one
    line why not for all, "" if for all.

    The first trial on an adapter runs in a process of its own. The verdict is kept beside the tiles, and a crash too: a
    driver that crashed once is not tried again before it is updated.
    """
    if not device.grants_matrices:
        return device, not_granted(device)
    key, entry = adapter_key(device.adapter), f"matrix units {shader_digest()}"
    known = read_entries("selftest", key).get(entry)
    if not isinstance(known, dict):
        known = try_in_child(device)
        if known.pop("keep"):
            save_tested(device.adapter, {entry: known})
    units = known.get("units")
    if isinstance(units, list) and len(units) == 2:
        return switched_on(device, MatrixUnits(*map(int, units)), str(known.get("why")))
    return device, str(known.get("why"))


def try_in_child(device: Device) -> dict[str, object]:
    """The verdict of a new process: "units" [size, lanes]; "why" there are none, or none for attention; whether to "keep" it."""
    asked = f"{device.library.prefix}{device.adapter.index}", adapter_key(device.adapter)
    found = run_in_child(__name__, "try_adapter", *asked, seconds=TRIAL_SECONDS)
    if not found.failure:
        return {"units": found.value[0], "why": found.value[1], "keep": True}
    if found.crashed:
        notice(f"matrix units of {device.adapter} are not used: their first kernel {found.failure}; update its driver")
    return {"units": None, "why": f"their first kernel {found.failure}", "keep": found.crashed}


def try_adapter(name: str, key: str) -> tuple[MatrixUnits | None, str]:
    """In the child: the matrix units of an adapter, such as "dawn:0", that agree with numpy, and one line why not for all."""
    adapter = choose_adapter(name)
    if adapter is None or adapter_key(adapter) != key:
        return None, "the process that tries them found other adapters"
    device, why = with_matrix_units(open_device(adapter))
    return device.matrix_units, why


def shader_digest() -> str:
    """Of the kernels for matrix units: edited ones are tried again."""
    sources = map(read_shader, ("matmul_cooperative", "attention_cooperative"))
    return short_digest("\n".join(sources))


def not_granted(device: Device) -> str:
    return f"{device.library.matrix_features[0]} is not granted: {device.refused}"


def switched_on(device: Device, units: MatrixUnits, why: str) -> tuple[Device, str]:
    """The device with these matrix units, and `why`. why: what is wrong with them in attention, "" if nothing is."""
    return replace(device, matrix_units=units, matrix_attention=not why, tuned={}), why  # tiles of another kernel do not apply


def with_matrix_units(device: Device, choices: Sequence[MatrixUnits] | None = None) -> tuple[Device, str]:
    """The device with the first matrix units of `choices` that agree with numpy, for matmuls alone if no attention does; else
    the same device; and one line why not for all. choices: None for those that the library reads from the adapter, or guesses.

    A driver may list matrix units and yet compute nonsense with other fragment sizes, use wrong strides, or add in f16.
    """
    if not device.grants_matrices:
        return device, not_granted(device)
    if choices is None:
        choices = device.library.matrix_shapes(device.adapter.raw)
    if not choices:
        return device, "the adapter lists no square matrices of f16 with sums in f32"
    reasons, for_matmuls = [], None
    for units in choices:
        tried, _ = switched_on(device, units, "")
        reason = first_error(tried, MATMUL_CASES)
        if not reason:
            if not (reason := first_error(tried, ATTENTION_CASES)):
                return tried, ""
            for_matmuls = for_matmuls or switched_on(device, units, f"attention does without: {reason}")
        reasons.append(f"{units.size} x {units.size}, {units.lanes} lanes: {reason}")
    return for_matmuls or (device, f"no matrix units agree with numpy: {'; '.join(reasons)}")


TRIAL_LENGTHS = (1, 70, 132)  # no size is a multiple of a tile
MATMUL_CASES = (  # linear_add has f32 results: rounding them to f16 would hide an f16 accumulator
    Case(ops.linear_add, {"K": 36, "N": 68}, TRIAL_LENGTHS, half=True),
    Case(ops.linear_add, {"K": 84, "N": 148}, TRIAL_LENGTHS, half=True),
    Case(ops.linear_add, {"K": 768, "N": 260}, TRIAL_LENGTHS, half=True),
    Case(ops.linear, {"K": 84, "N": 148}, TRIAL_LENGTHS, {"activation": "gelu_tanh"}, half=True),
    Case(ops.linear_add_int8, {"K": 84, "N": 148}, TRIAL_LENGTHS, half=True),
)
ATTENTION_CASES = (
    Case(ops.attention, {"N": 576}, (1, 70, 17, 132), {"head_size": 64, "scale": 1.0, "causal": True}, half=True),
    Case(ops.attention, {"N": 288}, (1, 70, 17, 132), {"head_size": 32, "scale": 0.3, "causal": False}, half=True),
)


def first_error(device: Device, cases: Sequence[Case]) -> str:
    """What is wrong with the first of these cases that is; "" if none is."""
    for case in cases:
        try:
            check = check_op(device, case)
        except UserError as error:  # no tile fits the device
            return str(error)
        if not check.ok:
            return f"{case.op.name} ({check.shape}) {check.what}"
    return ""
