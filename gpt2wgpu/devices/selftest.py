"""Compares every kernel on a device with numpy, for `gpt2wgpu doctor`, the start-up self-test and the op tests."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import UserError
from ..gpu import Device, GPUError, GPUProgram, MatrixUnits, first_reason
from ..graph import ops, packing, reference
from ..graph.ops.quantized import GROUP
from ..graph.tensor import Array, Op, Tensor, output_dim

# Relative to the largest value expected. f32: the order of sums differs from numpy's, and exp and sqrt of a GPU may be off
# by a few units in the last place. f16: one rounding of the output, 2^-11; attention on matrix units rounds its weights
# too, and int8 the matrix.
TOLERANCE = {"f32": 2e-5, "f16": 1e-3}
# A row is also compared relative to its own largest value, so that a wrong row of small values is found. As the sums of a
# row may cancel, it may be off by this many times the tolerance.
ROW = 8
SYMBOLS = ("T", "B", "G", "M")  # sizes that a batch decides


@dataclass(frozen=True)
class Check:
    """How far a device is from numpy. error: max |difference| / max |expected|, see `compare_results`.

    failure: why there is no result to compare, such as the compiler's message; "" if there is one.
    """

    name: str
    shape: str
    error: float
    tolerance: float
    failure: str = ""

    @property
    def ok(self) -> bool:
        return not self.failure and self.error <= self.tolerance

    @property
    def what(self) -> str:
        """What is wrong, for a message."""
        if self.failure:
            return f"does not run: {self.failure}"
        return f"is wrong: error {self.error:.1e}, tolerance {self.tolerance:.0e}"


@dataclass(frozen=True)
class Case:
    """One op with random inputs. `lengths` gives the numbers of tokens T, sequences B and tiles G, `sizes` all other letters."""

    op: Op
    sizes: dict[str, int]
    lengths: Sequence[int] = (1, 5, 33)
    attrs: dict[str, Any] = field(default_factory=dict)
    half: bool = False  # whether its type letters stand for f16
    given: dict[str, Array] = field(default_factory=dict)  # inputs that are given, not random
    nan: bool = False  # whether the first number of the second token is NaN

    def __str__(self) -> str:
        details = [f"{k}={v}" for k, v in {"T": sum(self.lengths), **self.sizes, **self.attrs}.items()]
        return " ".join([*details, *["f16"] * self.half, *["NaN"] * self.nan])


def case_arrays(case: Case, seed: int = 0) -> tuple[Tensor, dict[str, Array]]:
    """The case's output tensor and its inputs by name."""
    rng = np.random.default_rng(seed)
    batch = packing.pack_batch(
        [rng.integers(case.sizes.get("V", 1), size=n) for n in case.lengths],
        [rng.permutation(max(n, case.sizes.get("S", 1)))[:n] % case.sizes.get("S", 1) for n in case.lengths],
        [int(rng.integers(n)) for n in case.lengths],
    )
    counts = {"T": sum(case.lengths), "B": len(case.lengths), "G": len(batch["tiles"]), **case.sizes}
    counts.setdefault("J", ops.cdiv(counts.get("K", counts.get("C", 0)), GROUP))  # groups of int8 weights
    leaves: list[Tensor] = []
    values: dict[str, Array] = {}
    for name, dtype, dims in case.op.args[:-1]:
        shape = [int(output_dim(d, counts)) for d in dims]
        if dtype.isupper():
            dtype = "f16" if case.half else "f32"
        if name in case.given:
            values[name] = case.given[name].astype(np.float16) if dtype == "f16" else case.given[name]
        elif dtype == "u32":
            values[name] = batch[name]
        elif dtype == "i8":
            values[name] = rng.integers(-127, 128, size=shape, dtype=np.int8)
        elif name == "scale":
            values[name] = rng.uniform(0.5, 1.5, size=shape).astype(np.float32) / np.float32(73 * np.sqrt(counts.get("K", 1)))
        else:
            values[name] = rng.standard_normal(shape, dtype=np.float32)
            if name == "weight" and len(dims) == 2:
                values[name] /= np.sqrt(counts["K"])  # keeps results near 1, where activations bend
            values[name] = values[name].astype(np.float16 if dtype == "f16" else np.float32)
            if case.nan and not any(x.dtype.startswith("f") for x in leaves):
                values[name][1, 0] = np.nan
        symbolic = tuple(d if d in SYMBOLS else size for d, size in zip(dims, shape, strict=True))
        leaves.append(Tensor(symbolic, dtype, name))
    return case.op(*leaves, out="f16" if case.half else "f32", **case.attrs), values


def compare_results(name: str, shape: str, expected: Array, found: Array, tolerance: float) -> Check:
    """The error is the larger of the whole array's and an eighth (1 / ROW) of the worst row's, each relative to its own values.

    A row with NaN or Inf is right if the expected row has one too; else the error is infinite.
    """
    expected, found = (a.reshape(len(a) if a.ndim > 1 else 1, -1).astype(np.float64) for a in (expected, found))
    finite = np.isfinite(expected).all(axis=1)
    if not np.array_equal(np.isfinite(found).all(axis=1), finite):
        return Check(name, shape, float("inf"), tolerance)
    expected, found = expected[finite], found[finite]
    rows, off = np.abs(expected).max(axis=1, initial=0), np.abs(found - expected).max(axis=1, initial=0)
    error = off.max(initial=0) / max(rows.max(initial=0), 1e-30)
    if expected.shape[1] >= ROW:  # fewer values may cancel altogether
        error = np.max(off[rows > 0] / rows[rows > 0] / ROW, initial=error)
    return Check(name, shape, float(error), tolerance)


def run_op(device: Device, case: Case, output: Tensor, values: dict[str, Array]) -> Array:
    """The output of a case on the device. values: its inputs, from `case_arrays`."""
    capacity = {"T": sum(case.lengths), "B": len(case.lengths), "M": case.sizes.get("M", 1)}
    program = GPUProgram(
        device, output, lambda t: values[t.name], capacity | {"G": packing.max_tiles(capacity["T"], capacity["B"])}
    )
    return program.run(values)


def check_op(device: Device, case: Case, seed: int = 0) -> Check:
    """Run one op on the device and in numpy. If the device cannot compile or run the kernel, the check has failed."""
    output, values = case_arrays(case, seed)
    expected = reference.NumpyProgram(output, lambda t: values[t.name]).run(values)
    rounded = output.dtype == "f16" or case.op is ops.linear_add_int8
    tolerance = TOLERANCE["f16" if case.half and rounded else "f32"]
    try:
        found = run_op(device, case, output, values)
    except GPUError as error:
        return Check(case.op.name, str(case), float("nan"), tolerance, first_reason(error))
    return compare_results(case.op.name, str(case), expected, found, tolerance)


def forward_cases(half: bool) -> list[Case]:
    """Every op on sizes that no tile divides, in f32 and, with `half`, in f16."""
    found = []
    for h in (False, True) if half else (False,):
        found += [
            Case(ops.embed, {"V": 77, "C": 52, "S": 40}, half=h),
            Case(ops.layer_norm, {"C": 132}, half=h),
            Case(ops.rms_norm, {"N": 132, "K": 132}, attrs={"size": 132}, half=h),
            Case(ops.rms_norm, {"N": 100, "K": 75}, attrs={"size": 25}, half=h),
            Case(ops.rotary, {"N": 128, "S": 40, "D": 16}, attrs={"heads": 6}, half=h),
            *(Case(ops.glu, {"N": 67}, attrs={"activation": a}, half=h) for a in ("silu", "gelu_erf", "gelu_tanh", "sigmoid")),
            *(Case(ops.linear, {"K": 36, "N": 68}, attrs={"activation": a}, half=h) for a in ops.ACTIVATIONS),
            Case(ops.linear, {"K": 30, "N": 33}, half=h),
            Case(ops.linear_add, {"K": 68, "N": 132}, half=h),
            Case(ops.linear_add, {"K": 10, "N": 7}, half=h),
            Case(ops.embed_int8, {"V": 77, "C": 70, "S": 40}, half=h),
            *(Case(ops.linear_int8, {"K": 132, "N": 68}, attrs={"activation": a}, half=h) for a in ("none", "gelu_erf")),
            Case(ops.linear_int8, {"K": 70, "N": 33}, half=h),
            Case(ops.linear_add_int8, {"K": 68, "N": 132}, half=h),
            Case(ops.linear_add_int8, {"K": 67, "N": 7}, half=h),
            *(
                Case(ops.attention, {"N": 9 * d}, (1, 70, 17), {"head_size": d, "scale": 0.3, "causal": causal}, half=h)
                for d in (64, 10)
                for causal in (True, False)
            ),
            *attention_variants(h),
            *nan_cases(h),
        ]
    found += [Case(ops.pool, {"C": 70}, attrs={"mode": mode}) for mode in ops.POOLINGS]
    found += [Case(ops.concat, {"J": 70, "K": 3}), Case(ops.l2_normalize, {"C": 70})]
    found += [Case(ops.similarity, {"M": 34, "N": 65, "C": 37}, attrs={"metric": m}) for m in ("dot", "euclidean", "manhattan")]
    return found


def attention_variants(half: bool) -> list[Case]:
    """A window that hides whole blocks of keys, heads that share keys, a bias."""
    attrs = {"head_size": 10, "scale": 0.3}
    lengths = (1, 70, 17)
    return [
        Case(ops.attention, {"N": 60}, lengths, attrs | {"causal": True, "window": 20, "kv_heads": 1}, half),
        Case(ops.attention, {"N": 80}, lengths, attrs | {"causal": False, "window": 5, "kv_heads": 2}, half),
        Case(ops.attention_bias, {"N": 90, "H": 3, "R": 33}, lengths, attrs | {"causal": False}, half),
    ]


def nan_cases(half: bool) -> list[Case]:
    """NaN must reach the output: a driver that loses it would hide an overflow in a vector that looks right."""
    found = [
        Case(ops.layer_norm, {"C": 132}, half=half, nan=True),
        Case(ops.linear, {"K": 36, "N": 68}, attrs={"activation": "relu"}, half=half, nan=True),
        Case(ops.attention, {"N": 90}, (1, 70, 17), {"head_size": 10, "scale": 0.3, "causal": True}, half=half, nan=True),
    ]
    if not half:
        skip = {"skip": np.zeros(3, np.uint32)}
        found += [Case(ops.pool, {"C": 70}, attrs={"mode": mode}, given=skip, nan=True) for mode in ("mean", "max")]
        found += [Case(ops.l2_normalize, {"C": 70}, nan=True)]
    return found


# NVIDIA, AMD and Intel have fragments of 16 x 16, Apple of 8 x 8. Subgroups of 32 lanes come first, as they are common.
MATRIX_UNITS = (MatrixUnits(16, 32), MatrixUnits(16, 64), MatrixUnits(8, 32), MatrixUnits(8, 64))
# f32 accumulation stays below 2e-5 of the largest value, even if products are truncated; f16 is above 3e-4
MATRIX_TOLERANCE = 1e-4


def with_matrix_units(device: Device, choices: Sequence[MatrixUnits] = MATRIX_UNITS) -> tuple[Device, str]:
    """The device with the first matrix units of `choices` that agree with numpy; else the same device, and one line why.

    A driver may list matrix units and yet compute nonsense with other fragment sizes, use wrong strides, or add in f16.
    """
    if "cooperative-matrix" not in device.granted:
        return device, f"cooperative-matrix is not granted: {device.refused}"
    reasons = []
    for units in choices:
        tried = replace(device, matrix_units=units, tuned={})  # tiles of another kernel do not apply
        if not (reason := matrix_error(tried)):
            return tried, ""
        reasons.append(f"{units.size} x {units.size}, {units.lanes} lanes: {reason}")
    return device, f"no matrix units agree with numpy: {'; '.join(reasons)}"


def matrix_error(device: Device) -> str:
    """What is wrong with the device's matrix units; "" if nothing is. No size is a multiple of a tile.

    linear_add has f32 results: rounding them to f16 would hide an f16 accumulator.
    """
    lengths = (1, 70, 132)
    for case in (
        Case(ops.linear_add, {"K": 36, "N": 68}, lengths, half=True),
        Case(ops.linear_add, {"K": 84, "N": 148}, lengths, half=True),
        Case(ops.linear_add, {"K": 768, "N": 260}, lengths, half=True),
        Case(ops.linear, {"K": 84, "N": 148}, lengths, {"activation": "gelu_tanh"}, half=True),
        Case(ops.linear_add_int8, {"K": 84, "N": 148}, lengths, half=True),
        Case(ops.attention, {"N": 576}, (1, 70, 17, 132), {"head_size": 64, "scale": 1.0, "causal": True}, half=True),
        Case(ops.attention, {"N": 288}, (1, 70, 17, 132), {"head_size": 32, "scale": 0.3, "causal": False}, half=True),
    ):
        check = check_op(device, case)
        if case.op is ops.linear_add:
            check = replace(check, tolerance=MATRIX_TOLERANCE)
        if not check.ok:
            return f"{case.op.name} ({check.shape}) {check.what}"
    return ""


FIRST = (ops.embed, ops.layer_norm, ops.linear_add, ops.attention, ops.l2_normalize)
INT8 = (ops.embed_int8, ops.linear_int8, ops.linear_add_int8)


def self_test(device: Device, some: Sequence[Op] = FIRST) -> None:
    """Compare a few ops on the device with numpy before it is trusted with a model. Raises UserError if one is wrong.

    With the default ops, NaN inputs are tried too.
    """
    for case in forward_cases(device.has_f16):
        if "window" in case.attrs:
            continue  # left to `doctor`: few models have windows, and every start waits for this
        if case.op in some or (case.nan and some is FIRST):
            check = check_op(device, case)
            if not check.ok:
                raise UserError(
                    f"{device.adapter}: {check.name} ({check.shape}) {check.what}; "
                    "update its driver, or use device='numpy' (see `gpt2wgpu doctor`)"
                )
