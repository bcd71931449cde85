"""Attention in windows, with shared keys and with a bias: numpy against its definition, kernels against numpy."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpt2wgpu.devices.selftest import Case, case_arrays, check_op
from gpt2wgpu.gpu import Device, GPUProgram, open_device
from gpt2wgpu.gpu.kernels import find_kernel, read_shader, shader_files
from gpt2wgpu.graph import ops, packing
from gpt2wgpu.graph.tensor import Array, Op, Tensor
from gpt2wgpu.train import ops as train_ops

# one, two, one past a block of keys (16), a tile (32) and a block of numpy's (64), many blocks
LENGTHS = (1, 33, 33, 2, 64, 17, 65, 150)
SIZE = 3  # of a head: four floats at a time do not divide it
WINDOWS = (0, 1, 5, 15, 16, 17, 33, 64, 70, 149, 1000, (1 << 31) - 1)


def attend(q: Array, k: Array, v: Array, scale: float, causal: bool, window: int, bias: Array | None) -> Array:
    """The definition, for one head of one sequence, in float64."""
    i, j = np.indices((len(q), len(q)))
    scores = q @ k.T * scale
    if bias is not None:
        reach = len(bias) // 2
        scores += bias[np.clip(j - i, -reach, reach) + reach]
    if causal:
        scores[j > i] = -np.inf
    if window:
        scores[abs(i - j) > window] = -np.inf
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True) @ v


def definition(
    qkv: Array, spans: Array, heads: int, kv_heads: int, scale: float, causal: bool, window: int = 0, bias: Array | None = None
) -> Array:
    parts = qkv.astype(np.float64).reshape(len(qkv), -1, SIZE)  # (T, H + 2 KV, D)
    out = np.empty((len(qkv), heads, SIZE))
    for lo, hi in spans:
        for h in range(heads):
            shared = heads + h // (heads // kv_heads)
            q, k, v = parts[lo:hi, h], parts[lo:hi, shared], parts[lo:hi, shared + kv_heads]
            out[lo:hi, h] = attend(q, k, v, scale, causal, window, None if bias is None else bias[h].astype(np.float64))
    return out.reshape(len(qkv), -1)


def packed(lengths: tuple[int, ...]) -> dict[str, Array]:
    return packing.pack_batch([np.zeros(n) for n in lengths], [np.zeros(n) for n in lengths], [0] * len(lengths))


def noise(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", WINDOWS)
def test_windows_against_the_definition(window: int, causal: bool):
    batch, qkv = packed(LENGTHS), noise(sum(LENGTHS), 3 * 2 * SIZE)
    on = qkv, batch["spans"], batch["tiles"]
    found = ops.attention.reference(*on, head_size=SIZE, scale=0.5, causal=causal, window=window)
    expected = definition(qkv, batch["spans"], 2, 2, 0.5, causal, window)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads", "window"), [(6, 1, 0), (6, 2, 0), (6, 3, 7), (6, 6, 0), (1, 1, 1)])
def test_shared_keys_against_the_definition(heads: int, kv_heads: int, window: int, causal: bool):
    batch, qkv = packed(LENGTHS), noise(sum(LENGTHS), (heads + 2 * kv_heads) * SIZE)
    attrs = {"head_size": SIZE, "scale": 0.5, "causal": causal, "window": window}
    found = ops.attention.reference(qkv, batch["spans"], batch["tiles"], **attrs, kv_heads=kv_heads)
    expected = definition(qkv, batch["spans"], heads, kv_heads, 0.5, causal, window)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    if heads == kv_heads:
        np.testing.assert_array_equal(found, ops.attention.reference(qkv, batch["spans"], batch["tiles"], **attrs))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("distances", [1, 3, 63, 257, 511])
def test_bias_against_the_definition(distances: int, causal: bool):
    batch, qkv, bias = packed(LENGTHS), noise(sum(LENGTHS), 3 * 2 * SIZE), 2 * noise(2, distances)
    attrs = {"head_size": SIZE, "scale": 0.5, "causal": causal}
    kept = bias.copy()
    found = ops.attention_bias.reference(qkv, batch["spans"], batch["tiles"], bias, **attrs)
    expected = definition(qkv, batch["spans"], 2, 2, 0.5, causal, 0, bias)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(bias, kept)  # which a mask would spoil


def test_a_bias_of_nothing_is_plain_attention():
    batch, qkv = packed(LENGTHS), noise(sum(LENGTHS), 3 * 2 * SIZE)
    attrs = {"head_size": SIZE, "scale": 0.5, "causal": True}
    found = ops.attention_bias.reference(qkv, batch["spans"], batch["tiles"], np.zeros((2, 3), np.float32), **attrs)
    np.testing.assert_array_equal(found, ops.attention.reference(qkv, batch["spans"], batch["tiles"], **attrs))


# --- what is refused

SPANS, TILES = Tensor(("B", 2), "u32"), Tensor(("G", 2), "u32")


@pytest.mark.parametrize(
    ("width", "attrs", "message"),
    [
        (24, {"head_size": 5}, r"attention: qkv must be X\[T,3HD\], got 24 columns where head_size D=5"),
        (32, {"head_size": 4}, r"qkv must be X\[T,3HD\], got 32 columns"),
        (4, {"head_size": 4}, r"qkv must be X\[T,3HD\], got 4 columns"),
        (28, {"head_size": 4, "kv_heads": 2}, r"\[T,\(H\+2KV\)D\], H a multiple of KV, got 28 columns where .* kv_heads KV=2"),
        (33, {"head_size": 4, "kv_heads": 2}, "got 33 columns"),
        (16, {"head_size": 4, "kv_heads": 2}, "got 16 columns"),
        (24, {"head_size": 4, "kv_heads": -1}, "kv_heads KV=-1"),
        (24, {"head_size": 4, "window": -1}, r"window must be 0 \(no limit\) or a number of tokens, got -1"),
        (24, {"head_size": 4, "window": 1 << 31}, "got 2147483648"),
    ],
)
def test_what_does_not_fit_is_refused(width: int, attrs: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ops.attention(Tensor(("T", width)), SPANS, TILES, scale=1.0, causal=True, **attrs)


@pytest.mark.parametrize("shape", [(2, 4), (3, 5), (1, 1)])
def test_a_bias_that_does_not_fit_is_refused(shape: tuple[int, int]):
    with pytest.raises(ValueError, match=rf"bias must be f32\[H,R\] with H=2 and an odd R, got f32\[{shape[0]}, {shape[1]}\]"):
        ops.attention_bias(Tensor(("T", 24)), SPANS, TILES, Tensor(shape), head_size=4, scale=1.0, causal=False)


def test_the_output_may_be_wider_than_the_input():
    found = ops.attention(Tensor(("T", 40)), SPANS, TILES, head_size=4, scale=1.0, causal=True, kv_heads=1, out="f16")
    assert found.shape == ("T", 32) and found.dtype == "f16"


# --- kernels

ATTRS = {"head_size": SIZE, "scale": 0.5}
KERNELS = [
    *(
        Case(ops.attention, {"N": 3 * SIZE}, LENGTHS, ATTRS | {"window": window, "causal": causal})
        for window in (1, 15, 16, 17, 33, 70, 1000, (1 << 31) - 1)
        for causal in (True, False)
    ),
    *(Case(ops.attention, {"N": (6 + 2 * kv) * SIZE}, (1, 40), ATTRS | {"kv_heads": kv, "causal": True}) for kv in (1, 2, 6)),
    Case(
        ops.attention, {"N": (4 + 2 * 1) * 2}, (1,), {"head_size": 2, "scale": 1.0, "causal": False, "window": 1, "kv_heads": 1}
    ),
    Case(ops.attention, {"N": 3 * SIZE}, (300,), ATTRS | {"causal": True, "window": 255}),
    *(
        Case(ops.attention_bias, {"N": 6 * SIZE, "H": 2, "R": distances}, LENGTHS, ATTRS | {"causal": causal})
        for distances in (1, 3, 257)
        for causal in (True, False)
    ),
]


@pytest.mark.parametrize("case", KERNELS, ids=lambda case: f"{case.op.name} {case}")
def test_kernel_equals_numpy(case: Case, device_form: Device):
    check = check_op(device_form, case)
    assert check.ok, check


def heads_of(size: int) -> list[Case]:
    """Plain attention, a window over heads that share keys, a bias. Lengths around a tile and a block, which have 32."""
    attrs, lengths = {"head_size": size, "scale": 0.3}, (1, 31, 33, 64, 70, 32)
    return [
        Case(ops.attention, {"N": 6 * size}, lengths, attrs | {"causal": True}),
        Case(ops.attention, {"N": 8 * size}, lengths, attrs | {"causal": False, "window": 33, "kv_heads": 2}),
        Case(ops.attention_bias, {"N": 6 * size, "H": 2, "R": 65}, lengths, attrs | {"causal": size == 64}),
    ]


# With 20 groups of four columns a grid of 16 parts has surplus lanes; heads of 256 take 256 lanes. Windows that begin and end
# at the edge of a block, and one token beside it.
ON_A_GPU = [
    *(case for size in (64, 80, 4, 32, 96, 128, 256) for case in heads_of(size)),
    *(
        Case(ops.attention, {"N": 12}, (33, 1, 160), ATTRS | {"head_size": 4, "window": window, "causal": causal})
        for window in (1, 30, 31, 32, 62, 1000, (1 << 31) - 1)
        for causal in (True, False)
    ),
]


@pytest.mark.parametrize("case", ON_A_GPU, ids=lambda case: f"{case.op.name} {case}")
def test_heads_on_a_gpu(case: Case, as_on_a_gpu: Device):
    check = check_op(as_on_a_gpu, case)
    assert check.ok, check


@pytest.mark.parametrize("case", [c for size in (64, 80, 128) for c in heads_of(size)], ids=lambda case: f"{case.op.name} {case}")
def test_heads_on_a_gpu_in_f16(case: Case, as_on_a_gpu: Device):
    if not as_on_a_gpu.has_f16:
        pytest.skip("the device has no shader-f16")
    check = check_op(as_on_a_gpu, replace(case, half=True))
    assert check.ok, check


@pytest.mark.parametrize("shader", ["softmax_attention", "flash_forward", "attention_lse", "attention_lse_flash"])
def test_masked_scores_stay_finite_in_exp2(shader: str):
    """Drivers compute exp(x) as exp2(x log2(e)); under fast-math an Inf there may become anything."""
    values = [float(v) for v in re.findall(r"^const (?:HIDDEN|LOWEST): f32 = (\S+);", read_shader(shader), re.M)]
    assert values and all(abs(v) * math.log2(math.e) < np.finfo(np.float32).max for v in values)
    assert sorted(values) == values  # a hidden key is below the initial maximum


@pytest.mark.parametrize("o", [ops.attention, ops.attention_bias, train_ops.attention_lse, train_ops.attention_dqkv])
def test_any_head_fits_webgpu_default_limits(o: Op, as_on_a_gpu: Device):
    """16 KiB of workgroup memory, 256 lanes; in wgpu's validation as on a small GPU."""
    limits = {"max-compute-workgroup-storage-size": 16384, "max-compute-invocations-per-workgroup": 256}
    adapter = replace(as_on_a_gpu.adapter, limits=as_on_a_gpu.adapter.limits | limits)
    small = open_device(adapter, checked=True)
    for size in (32, 64, 80, 128, 256):
        attrs = {"head_size": size, "scale": 1.0, "causal": True, "window": 0, "kv_heads": 0}
        t = Tensor(("T", size), op=o, dims={"H": 1}, attrs={k: v for k, v in attrs.items() if k in keywords(o)})
        assert shader_files(t, small.matmul("f32"))[0] == f"{o.name}_flash"
        find_kernel(small, t).compile(small)


@pytest.mark.parametrize(("shader", "lanes"), [("flash_forward", 64), ("attention_lse_flash", 64), ("attention_dqkv_flash", 128)])
def test_lanes_of_a_tile(shader: str, lanes: int):
    """More lanes than the grid has would give the same numbers, and be idle."""
    source = read_shader(shader)
    formula = re.findall(r"^const LANES: u32 = (.*?);", source, re.M)[0].replace("HEAD_SIZE", "size").replace("u32(", "int(")
    python = re.sub(r"(\d+)u\b", r"\1", formula)
    assert "@workgroup_size(LANES)" in source
    found = [eval(python, {"size": size}) for size in (4, 64, 80, 128, 256)]
    assert found == [lanes, lanes, 2 * lanes, 2 * lanes, 256]


def keywords(o: Op) -> tuple[str, ...]:
    return o.reference.__code__.co_varnames


def test_one_long_text_spreads_over_the_device():
    """512 tokens of 12 heads: more workgroups than a large GPU has cores."""
    tiles = packed((512,))["tiles"]
    columns, rows, _ = ops.attention.grid(SimpleNamespace(G=len(tiles), C=12 * 64, HEAD_SIZE=64))
    assert columns * rows > 144


UNEVEN = ATTRS | {"causal": False}
INVARIANT = [
    *(
        Case(ops.attention, {"N": 8 * size}, (33, 1, 70, 150), UNEVEN | {"head_size": size, "window": 20, "kv_heads": 2})
        for size in (SIZE, 64, 80)
    ),
    Case(ops.attention, {"N": 3 * 128}, (33, 1, 70, 150), ATTRS | {"head_size": 128, "causal": True}),
    *(
        Case(ops.attention_bias, {"N": 6 * size, "H": 2, "R": 65}, (33, 1, 70, 150), UNEVEN | {"head_size": size})
        for size in (SIZE, 64)
    ),
]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("case", INVARIANT, ids=lambda case: f"{case.op.name} {case}")
def test_a_sequence_does_not_depend_on_its_batch(case: Case, half: bool, device_form: Device):
    if half and not device_form.has_f16:
        pytest.skip("the device has no shader-f16")
    output, values = case_arrays(replace(case, half=half))
    program = GPUProgram(device_form, output, lambda t: values[t.name], {"T": 256, "B": 4, "G": 16})
    whole = program.run(values)
    assert np.isfinite(whole).all()
    poison = packed((256,)) | {"qkv": np.full((256, case.sizes["N"]), np.nan, values["qkv"].dtype)}
    for start, end in values["spans"].tolist():
        assert np.isnan(program.run(poison)).all()  # and so is what lies behind the next batch
        alone = packed((end - start,)) | {"qkv": values["qkv"][start:end]}
        np.testing.assert_array_equal(program.run(alone), whole[start:end])


def test_matrix_units_are_for_plain_attention():
    def kernel(**attrs: int) -> str:
        t = ops.attention(Tensor(("T", 384), "f16"), SPANS, TILES, head_size=32, scale=1.0, causal=True, out="f16", **attrs)
        return shader_files(t, "matmul_cooperative")[0]

    assert kernel() == kernel(kv_heads=4) == "attention_cooperative"
    assert kernel(window=9) == kernel(kv_heads=2) == kernel(kv_heads=1) == "attention_flash"
