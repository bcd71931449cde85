"""Whether a device converts to and from f16 as it should, before a model is computed in it.

Numbers that random inputs hardly contain: subnormal ones, the largest, those between two numbers of f16, those beyond the
largest; and exp over its whole range. They go through the kernels that models use.
"""

import numpy as np

from ..gpu import Device, GPUError, default_kernel, first_reason
from ..graph import ops
from ..graph.tensor import Array
from .graph_check import agreed_kernels, kernel_digest, remember_agreed
from .selftest import Case, case_arrays, run_numpy, run_op

SUBNORMAL = 2.0**-14  # below it f16 has fewer digits, and WGSL allows zero
F16_STEP = 2.0**-10  # between two numbers of f16, relative to the smaller one; WGSL allows either neighbour
NOISE = 2e-5  # of silu in f32, where it cancels
WIDTH = 64


def f16_cases() -> list[Case]:
    """Conversions of loads, of stores, of what is too large to store; exp."""
    eye, zeros = np.eye(WIDTH, dtype=np.float32), np.zeros(WIDTH, np.float32)
    powers = np.ldexp(np.float32(1), np.arange(-24, 16))[:, None]
    numbers = np.linspace(1, 2 - F16_STEP, WIDTH, dtype=np.float32) * powers * np.where(np.arange(WIDTH) % 2, -1, 1)
    exact: Array = numbers.astype(np.float16).astype(np.float32)
    between = np.clip(np.linspace(1.0003, 1.9997, WIDTH) * 2.0 ** np.linspace(-26, 15, WIDTH), 0, 65500).astype(np.float32)
    wide = np.concatenate([np.linspace(-90, 90, WIDTH * 7, dtype=np.float32), [-60000, -700, 700, 60000] * 16])
    rows = np.zeros((1, WIDTH), np.float32)
    return [
        Case(
            ops.linear_add,
            {"K": WIDTH, "N": WIDTH},
            (len(exact),),
            half=True,
            given={"x": exact, "weight": eye, "bias": zeros, "residual": np.zeros_like(exact)},
        ),
        *(
            Case(ops.layer_norm, {"C": WIDTH}, (1,), half=True, given={"x": rows, "weight": zeros, "bias": bias})
            for bias in (between, -between, np.full(WIDTH, 1e5, np.float32))
        ),
        Case(
            ops.linear,
            {"K": WIDTH, "N": WIDTH},
            (8,),
            {"activation": "silu"},
            half=True,
            given={"x": wide.reshape(8, WIDTH), "weight": eye, "bias": zeros},
        ),
    ]


def find_f16_error(device: Device) -> str:
    """What is wrong with the device's f16, on one line; "" if nothing is. Kept beside the tiles if nothing is."""
    new = {}
    for number, case in enumerate(f16_cases()):
        output, values = case_arrays(case)
        try:
            digest = kernel_digest(device, default_kernel(device, output, sum(case.lengths)), {**case.attrs, "f16 case": number})
            if digest in agreed_kernels(device):
                continue
            found = run_op(device, case, output, values)
        except GPUError as error:
            return f"{case.op.name} does not run in float16: {first_reason(error)}"
        expected = run_numpy(output, values)
        if wrong := worst_number(expected, found, NOISE if case.op is ops.linear else 0):
            return f"{case.op.name} in float16 gives {wrong}"
        new[digest] = f"{case.op.name} in float16"
    remember_agreed(device, new)
    return ""


def worst_number(expected: Array, found: Array, noise: float) -> str:
    """The number that is furthest off, if one is further off than WGSL allows: such as "0.5 in place of 1"; else ""."""
    expected, found = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    finite = np.isfinite(expected) & (np.abs(expected) < 65520)
    allowed = 2 * F16_STEP * np.maximum(np.abs(expected), SUBNORMAL) + noise
    with np.errstate(invalid="ignore"):
        off = np.where(finite, np.abs(found - expected) / allowed, np.where(np.isfinite(found), np.inf, 0.0))
    off[np.isnan(off)] = np.inf
    off[(found == 0) & (np.abs(expected) < SUBNORMAL)] = 0
    worst = int(np.argmax(off))
    return f"{found[worst]:g} in place of {expected[worst]:g}" if off[worst] > 1 else ""
