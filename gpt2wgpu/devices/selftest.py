"""Compares one op on a device with numpy, for `gpt2wgpu doctor`, the self-test at start-up and the op tests."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..gpu import Device, GPUError, GPUProgram, first_reason
from ..graph import ops, packing, reference
from ..graph.ops.quantized import GROUP
from ..graph.tensor import Array, Op, Tensor, is_type_letter, output_dim

# Relative to the largest value expected. f32: the order of sums differs from numpy's, and exp and sqrt of a GPU may be off
# by a few units in the last place. f16: one rounding of the output, 2^-11; attention on matrix units rounds its weights
# too, and int8 the matrix.
TOLERANCE = {"f32": 2e-5, "f16": 1e-3}
# f32 accumulation on matrix units stays below 2e-5 of the largest value, even if products are truncated; f16 is above 3e-4.
MATRIX_TOLERANCE = 1e-4
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
    nan: bool = False  # whether the first number of the last token is NaN
    types: dict[str, str] = field(default_factory=dict)  # of type letters that differ from `half`

    def __str__(self) -> str:
        details = [f"{k}={v}" for k, v in {"T": sum(self.lengths), **self.sizes, **self.attrs}.items()]
        half = self.half or "f16" in self.types.values()
        return " ".join([*details, *["f16"] * half, *["NaN"] * self.nan])

    def dtype(self, declared: str) -> str:
        """What a dtype of the signature stands for."""
        return self.types.get(declared, "f16" if self.half else "f32") if is_type_letter(declared) else declared

    def counts(self) -> dict[str, int]:
        """The number of each letter, except the tiles G, of the inputs."""
        found = {"T": sum(self.lengths), "B": len(self.lengths), "G": 0, **self.sizes}
        found.setdefault("J", ops.cdiv(found.get("K", found.get("C", 0)), GROUP))  # groups of int8 weights
        return found

    def output(self) -> Tensor:
        """The op's output for these inputs."""
        counts = self.counts()
        leaves = [
            Tensor(tuple(d if d in SYMBOLS else int(output_dim(d, counts)) for d in dims), self.dtype(dtype), name)
            for name, dtype, dims in self.op.args[:-1]
        ]
        return self.op(*leaves, out=self.dtype("O"), **self.attrs)


def case_arrays(case: Case, seed: int = 0) -> tuple[Tensor, dict[str, Array]]:
    """The case's output tensor and its inputs by name."""
    rng = np.random.default_rng(seed)
    batch = packing.pack_batch(
        [rng.integers(case.sizes.get("V", 1), size=n) for n in case.lengths],
        [rng.permutation(max(n, case.sizes.get("S", 1)))[:n] % case.sizes.get("S", 1) for n in case.lengths],
        [int(rng.integers(n)) for n in case.lengths],
    )
    counts = {**case.counts(), "G": len(batch["tiles"])}
    values: dict[str, Array] = {}
    for name, declared, dims in case.op.args[:-1]:
        shape = [int(output_dim(d, counts)) for d in dims]
        dtype = case.dtype(declared)
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
            if case.nan and dims[0] in SYMBOLS and not any(np.isnan(v).any() for v in values.values() if v.dtype.kind == "f"):
                values[name][-1, 0] = np.nan
    return case.output(), values


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


def run_numpy(output: Tensor, values: dict[str, Array]) -> Array:
    """The output of a case in numpy."""
    return reference.NumpyProgram(output, lambda t: values[t.name]).run(values)


def stated_tolerance(device: Device, output: Tensor) -> float:
    """How far an op's output may be from numpy on this device."""
    half = "f16" in output.types.values()
    if half and (output.dtype == "f16" or output.op is ops.linear_add_int8):
        return TOLERANCE["f16"]
    return MATRIX_TOLERANCE if half and device.matrix_units else TOLERANCE["f32"]


def check_op(device: Device, case: Case, seed: int = 0) -> Check:
    """Run one op on the device and in numpy. If the device cannot compile or run the kernel, the check has failed."""
    output, values = case_arrays(case, seed)
    expected = run_numpy(output, values)
    tolerance = stated_tolerance(device, output)
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
            Case(ops.rms_norm, {"C": 132}, half=h),
            Case(ops.norm_rotary, {"N": 120, "K": 72, "S": 40, "D": 24}, half=h),
            Case(ops.rotary, {"N": 128, "S": 40, "D": 16}, attrs={"heads": 6}, half=h),
            *(Case(ops.glu, {"N": 67}, attrs={"activation": a}, half=h) for a in ("silu", "gelu_erf", "gelu_tanh", "sigmoid")),
            *(Case(ops.linear, {"K": 36, "N": 68}, attrs={"activation": a}, half=h) for a in ops.ACTIVATIONS),
            Case(ops.linear, {"K": 30, "N": 33}, half=h),
            Case(ops.linear_add, {"K": 68, "N": 132}, half=h),
            Case(ops.linear_add, {"K": 10, "N": 7}, half=h),
            # a GPU has another tile for each of these batches, and adds up a long K in parts
            *(Case(ops.linear_add, {"K": 1100, "N": 36}, lengths, half=h) for lengths in ((1, 4, 2), (1, 70, 17), (1, 130, 17))),
            Case(ops.embed_int8, {"V": 77, "C": 70, "S": 40}, half=h),
            *(Case(ops.linear_int8, {"K": 132, "N": 68}, attrs={"activation": a}, half=h) for a in ("none", "gelu_erf")),
            Case(ops.linear_int8, {"K": 70, "N": 33}, half=h),
            Case(ops.linear_add_int8, {"K": 68, "N": 132}, half=h),
            Case(ops.linear_add_int8, {"K": 67, "N": 7}, half=h),
            Case(ops.linear_add_int8, {"K": 1100, "N": 36}, half=h),
            *(
                Case(ops.attention, {"N": 9 * d}, (1, 70, 17), {"head_size": d, "scale": 0.3, "causal": causal}, half=h)
                for d in (64, 10)
                for causal in (True, False)
            ),
            *attention_variants(h),
            *nan_cases(h),
        ]
    found += [Case(ops.pool, {"C": 68}, attrs={"mode": mode}) for mode in ops.POOLINGS]
    found += [Case(ops.concat, {"J": 70, "K": 3}), Case(ops.l2_normalize, {"C": 68})]
    found += [Case(ops.similarity, {"M": 34, "N": 65, "C": 37}, attrs={"metric": m}) for m in ("dot", "euclidean", "manhattan")]
    found += [Case(ops.repulsion, {"N": 300}), attraction_case(300)]
    found += [Case(ops.nearest_rows, {"M": 3, "N": n, "C": 36}, attrs={"keep": keep}) for n, keep in ((700, 10), (7, 9))]
    return found


def attraction_case(points: int) -> Case:
    """Each point has none to six edges, which overlap."""
    rng = np.random.default_rng(points)
    ends = np.cumsum(rng.integers(0, 6, points))
    edges = int(ends[-1]) + 1
    spans = np.stack([np.maximum(ends, 6) - 6, ends], axis=1).astype(np.uint32)
    targets = rng.integers(0, points, edges).astype(np.uint32)
    return Case(ops.attraction, {"N": points, "E": edges}, given={"spans": spans, "targets": targets})


def attention_variants(half: bool) -> list[Case]:
    """A window that hides whole blocks of keys, heads that share keys, a bias; as GPUs compute them, four columns at a time."""
    attrs = {"head_size": 20, "scale": 0.3}
    lengths = (1, 70, 17)
    return [
        Case(ops.attention, {"N": 120}, lengths, attrs | {"causal": True, "window": 20, "kv_heads": 1}, half),
        Case(ops.attention, {"N": 160}, lengths, attrs | {"causal": False, "window": 5, "kv_heads": 2}, half),
        Case(ops.attention_bias, {"N": 180, "H": 3, "R": 33}, lengths, attrs | {"causal": False}, half),
    ]


def nan_cases(half: bool) -> list[Case]:
    """NaN must reach the output: a driver that loses it would hide an overflow in a vector that looks right."""
    found = [
        Case(ops.layer_norm, {"C": 132}, half=half, nan=True),
        Case(ops.linear, {"K": 36, "N": 68}, attrs={"activation": "relu"}, half=half, nan=True),
        Case(ops.attention, {"N": 180}, (1, 70, 17), {"head_size": 20, "scale": 0.3, "causal": True}, half=half, nan=True),
    ]
    if not half:
        skip = {"skip": np.zeros(3, np.uint32)}
        found += [Case(ops.pool, {"C": 70}, attrs={"mode": mode}, given=skip, nan=True) for mode in ("mean", "max")]
        found += [Case(ops.l2_normalize, {"C": 70}, nan=True)]
    return found
