"""Every kernel against numpy, on sizes that no tile divides; and numpy against plain formulas."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from forms import has_rare_activation

from gpt2wgpu.devices.selftest import Case, attraction_case, case_arrays, check_op, forward_cases
from gpt2wgpu.gpu import Device, GPUProgram
from gpt2wgpu.graph import ops, packing
from gpt2wgpu.graph.tensor import Array, Op, Tensor
from gpt2wgpu.models.rotary import rotary_table

ATTENTION = {"scale": 0.25, "causal": True}
# T = 1, sequences of length 1, one past a tile (16, 32, 64 rows; 16 keys), several tiles; K and N that no tile divides
AWKWARD = [
    Case(ops.embed, {"V": 3, "C": 1, "S": 1}, (1,)),
    Case(ops.embed, {"V": 129, "C": 65, "S": 70}, (1, 1, 70)),
    Case(ops.layer_norm, {"C": 1}, (1,)),
    Case(ops.layer_norm, {"C": 65}, (17, 1)),
    *(Case(ops.layer_norm, {"C": c}, (3,), {"eps": 1e-12}) for c in (256, 260, 1025, 1600, 4100)),
    Case(ops.rms_norm, {"C": 1}, (1,)),
    Case(ops.rms_norm, {"C": 65}, (17, 1)),
    *(Case(ops.rms_norm, {"C": c}, (3,), {"eps": 1e-12}) for c in (260, 1600, 8192)),
    Case(ops.norm_rotary, {"N": 8, "K": 6, "S": 1, "D": 2}, (1,)),
    Case(ops.norm_rotary, {"N": 130, "K": 104, "S": 70, "D": 26}, (1, 1, 70)),
    Case(ops.norm_rotary, {"N": 640, "K": 384, "S": 3, "D": 128}, (2,)),
    Case(ops.norm_rotary, {"N": 544, "K": 272, "S": 3, "D": 272}, (2,)),
    Case(ops.rotary, {"N": 6, "S": 1, "D": 2}, (1,), {"heads": 2}),
    Case(ops.rotary, {"N": 130, "S": 70, "D": 26}, (1, 1, 70), {"heads": 4}),
    Case(ops.rotary, {"N": 384, "S": 3, "D": 128}, (2,), {"heads": 3}),
    Case(ops.glu, {"N": 1}, (1,), {"activation": "silu"}),
    Case(ops.glu, {"N": 65}, (33,), {"activation": "gelu_erf"}),
    Case(ops.linear, {"K": 4, "N": 4}, (1,)),
    Case(ops.linear, {"K": 20, "N": 132}, (17,), {"activation": "gelu_erf"}),
    Case(ops.linear, {"K": 68, "N": 68}, (65,), {"activation": "gelu_erf"}),
    Case(ops.linear, {"K": 1600, "N": 64}, (3,)),
    Case(ops.linear, {"K": 1, "N": 1}, (1,)),
    Case(ops.linear, {"K": 5, "N": 9}, (9,), {"activation": "gelu_erf"}),
    Case(ops.linear_add, {"K": 4, "N": 4}, (1,)),
    Case(ops.linear_add, {"K": 100, "N": 36}, (129,)),
    Case(ops.embed_int8, {"V": 3, "C": 1, "S": 1}, (1,)),
    Case(ops.embed_int8, {"V": 129, "C": 65, "S": 70}, (1, 1, 70)),
    Case(ops.linear_int8, {"K": 4, "N": 4}, (1,)),
    Case(ops.linear_int8, {"K": 64, "N": 132}, (17,)),
    Case(ops.linear_int8, {"K": 196, "N": 68}, (65,), {"activation": "gelu_erf"}),
    Case(ops.linear_int8, {"K": 1, "N": 1}, (1,)),
    Case(ops.linear_int8, {"K": 65, "N": 9}, (9,), {"activation": "gelu_erf"}),
    Case(ops.linear_add_int8, {"K": 4, "N": 4}, (1,)),
    Case(ops.linear_add_int8, {"K": 1600, "N": 36}, (3,)),
    Case(ops.linear_add_int8, {"K": 68, "N": 36}, (129,)),
    Case(ops.attention, {"N": 192}, (1,), ATTENTION | {"head_size": 64}),
    Case(ops.attention, {"N": 300}, (1, 16, 17, 32, 33, 65), ATTENTION | {"head_size": 4}),
    Case(ops.attention, {"N": 300}, (1, 16, 17, 32, 33, 65), ATTENTION | {"head_size": 4, "causal": False}),
    Case(ops.attention, {"N": 18}, (5, 1), ATTENTION | {"head_size": 1}),
    Case(ops.attention, {"N": 512}, (70,), ATTENTION | {"head_size": 128, "kv_heads": 1}),
    Case(ops.attention, {"N": 24}, (1100,), ATTENTION | {"head_size": 8}),
    Case(ops.attention, {"N": 24}, (1100,), ATTENTION | {"head_size": 8, "causal": False}),
    *(Case(ops.pool, {"C": 1}, (1,), {"mode": mode}) for mode in ops.POOLINGS),
    *(Case(ops.pool, {"C": c}, (1, 64, 65, 130), {"mode": mode}) for mode in ops.POOLINGS for c in (20, 17)),
    Case(ops.rotary, {"N": 192, "S": 70, "D": 16}, (1, 70), {"heads": 7}),
    Case(ops.concat, {"J": 1, "K": 64}, (1, 1)),
    *(Case(ops.l2_normalize, {"C": c}, (1, 1)) for c in (1, 260, 1032)),
    *(Case(ops.repulsion, {"N": n}) for n in (1, 2, 127, 128, 1025)),
    *(attraction_case(n) for n in (1, 2, 127, 1025)),
    Case(ops.nearest_rows, {"M": 1, "N": 1, "C": 4}, attrs={"keep": 1}),
    Case(ops.nearest_rows, {"M": 4, "N": 512, "C": 100}, attrs={"keep": 512}),
    Case(ops.nearest_rows, {"M": 5, "N": 1025, "C": 388}, attrs={"keep": 33}),
    Case(ops.nearest_rows, {"M": 3, "N": 520, "C": 36}, attrs={"keep": 10}, nan=True),
    Case(ops.similarity, {"M": 1, "N": 1, "C": 1}, attrs={"metric": "dot"}),
    Case(ops.similarity, {"M": 33, "N": 1, "C": 17}, attrs={"metric": "manhattan"}),
    Case(ops.similarity, {"M": 32, "N": 64, "C": 384}, attrs={"metric": "euclidean"}),
]


def name(case: Case) -> str:
    return f"{case.op.name} {case}"


@pytest.mark.parametrize("case", [*forward_cases(half=False), *AWKWARD], ids=name)
def test_kernel_equals_numpy(case: Case, each_form: Callable[[Tensor], list[Device]]):
    for device in each_form(case.output()):
        check = check_op(device, case, seed=sum(map(ord, name(case))))
        assert check.ok, check


@pytest.mark.parametrize("case", [c for c in forward_cases(half=True) if c.half], ids=name)
def test_f16_kernel_equals_numpy(case: Case, device: Device, each_form: Callable[[Tensor], list[Device]]):
    if not device.has_f16:
        pytest.skip("the device has no shader-f16")
    for each in each_form(case.output()):
        check = check_op(each, case)
        assert check.ok, check


@pytest.fixture(scope="module")
def as_on_swiftshader(device: Device) -> Device:
    """The same device, but using the matmul of a software driver that unrolls no loops."""
    return replace(device, adapter=replace(device.adapter, name="SwiftShader", kind="CPU"), tuned={})


MATMULS = [c for c in AWKWARD + forward_cases(half=False) if c.op.name.startswith("linear")]
MATMULS = [c for c in MATMULS if not has_rare_activation(c.op, c.attrs)]


@pytest.mark.parametrize("case", MATMULS, ids=name)
def test_unrolled_matmul_equals_numpy(case: Case, as_on_swiftshader: Device):
    check = check_op(as_on_swiftshader, case)
    assert check.ok, check


def test_nearest_rows_of_equal_scores_come_in_their_order(device: Device):
    """NaN is best of all. The scores are small integers, so exact in any order of a sum."""
    rng = np.random.default_rng(0)
    output = Case(ops.nearest_rows, {"M": 3, "N": 1030, "C": 8}, attrs={"keep": 300}).output()
    a, b = rng.integers(-1, 2, (3, 8)).astype(np.float32), rng.integers(-1, 2, (1030, 8)).astype(np.float32)
    b[[7, 200, 511, 512, 1029], 0] = np.nan
    found = GPUProgram(device, output, lambda t: b, {"M": 3}).run({"a": a})
    np.testing.assert_array_equal(found, ops.nearest_rows.reference(a, b, keep=300))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("o", [ops.linear_add, ops.linear_add_int8])
def test_matmul_variants_give_the_same_bits(o: Op, half: bool, device: Device, as_on_a_gpu: Device, as_on_swiftshader: Device):
    """So the variant may depend on the device's kind and on T without changing a vector."""
    if half and not device.has_f16:
        pytest.skip("the device has no shader-f16")
    output, values = case_arrays(Case(o, {"K": 84, "N": 148}, (37,), half=half))
    devices = device, as_on_a_gpu, as_on_swiftshader
    runs = [GPUProgram(d, output, lambda t: values[t.name], {"T": 37}).run(values) for d in devices]
    for run in runs[1:]:
        np.testing.assert_array_equal(runs[0], run)


# --- numpy itself, the definition, against formulas written another way, in float64


def test_gelus_against_their_definitions():
    x = np.linspace(-12, 12, 20001, dtype=np.float32)
    phi = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(np.float64)])
    u = math.sqrt(2 / math.pi) * (x.astype(np.float64) + 0.044715 * x.astype(np.float64) ** 3)
    for activation, expected in (("gelu_erf", x * phi), ("gelu_tanh", 0.5 * x * (1 + np.tanh(u)))):
        found = x.copy()
        ops.ACTIVATIONS[activation](found)
        assert np.abs(found - expected).max() < 1.2e-6  # an ulp of 12 is 9.5e-7
        small = np.abs(x) < 1
        assert np.abs(found - expected)[small].max() < 1.5e-7


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("silu", lambda x: x / (1 + np.exp(-x))),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("tanh", np.tanh),
        ("relu6", lambda x: np.clip(x, 0, 6)),
        ("leaky_relu", lambda x: np.where(x > 0, x, 0.01 * x)),
        ("elu", lambda x: np.where(x > 0, x, np.expm1(x))),
    ],
)
def test_other_activations(activation: str, expected):
    x = np.array([-1000, -90, -3, -0.5, 0, 0.5, 3, 90, 1000], np.float32)
    found = x.copy()
    ops.ACTIVATIONS[activation](found)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found, expected(x.astype(np.float64)), rtol=1e-6, atol=1e-33)


def softmax_attention(qkv: Array, spans: Array, head_size: int, scale: float, causal: bool) -> Array:
    """One query at a time, float64."""
    q, k, v = np.split(qkv.astype(np.float64), 3, axis=1)
    out = np.zeros_like(q)
    for lo, hi in spans:
        for t in range(lo, hi):
            for h in range(0, q.shape[1], head_size):
                columns, keys = slice(h, h + head_size), slice(lo, t + 1 if causal else hi)
                weights = np.exp(k[keys, columns] @ q[t, columns] * scale)
                out[t, columns] = weights @ v[keys, columns] / weights.sum()
    return out


@pytest.mark.parametrize("causal", [True, False])
def test_attention_against_one_query_at_a_time(causal: bool):
    batch = packing.pack_batch([np.zeros(n) for n in (1, 33, 2, 64, 70)], [np.zeros(n) for n in (1, 33, 2, 64, 70)], [0] * 5)
    qkv = np.random.default_rng(0).standard_normal((170, 3 * 12), dtype=np.float32)
    found = ops.attention.reference(qkv, batch["spans"], batch["tiles"], head_size=4, scale=0.5, causal=causal)
    np.testing.assert_allclose(found, softmax_attention(qkv, batch["spans"], 4, 0.5, causal), rtol=2e-5, atol=1e-6)


def test_rms_norm_against_its_definition():
    x, weight = np.random.default_rng(0).standard_normal((2, 3, 12), np.float32)
    norm = np.sqrt((x.astype(np.float64) ** 2).mean(1, keepdims=True) + 0.5)
    np.testing.assert_allclose(ops.rms_norm.reference(x, weight[0], eps=0.5), x / norm * weight[0], rtol=1e-6)


def test_norm_rotary_is_a_norm_of_each_head_then_rotary():
    rng = np.random.default_rng(0)
    qkv, weight = rng.standard_normal((4, 24), np.float32), rng.standard_normal(16, np.float32)
    positions, table = np.array([0, 5, 1, 3]), rotary_table(6, 8, 10000.0)
    normed = qkv.copy()
    for first in (0, 8):
        part = slice(first, first + 8)
        normed[:, part] = ops.rms_norm.reference(np.ascontiguousarray(qkv[:, part]), weight[part], eps=0.5)
    found = ops.norm_rotary.reference(qkv, weight, positions, table, eps=0.5)
    np.testing.assert_allclose(found, ops.rotary.reference(normed, positions, table, heads=2), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(found[:, 16:], qkv[:, 16:])


def test_norm_rotary_takes_whole_heads():
    leaves = [Tensor(("T", 24), name="x"), Tensor((12,), name="w"), Tensor(("T",), "u32", "positions"), Tensor((6, 8), name="a")]
    with pytest.raises(ValueError, match=r"^norm_rotary: N and K <= N must be multiples of an even D=8, got N=24 and K=12$"):
        ops.norm_rotary(*leaves)


def test_rotary_turns_points_of_a_plane():
    """In complex numbers, float64: angles of up to 8191 radians, far beyond what a GPU's cos is exact for."""
    qkv = np.random.default_rng(0).standard_normal((4, 3 * 8), dtype=np.float32)
    positions = np.array([0, 1, 4096, 8191])
    found = ops.rotary.reference(qkv, positions, rotary_table(8192, 8, 10000.0), heads=2)
    for head in (0, 8):
        points = qkv[:, head : head + 4] + 1j * qkv[:, head + 4 : head + 8].astype(np.float64)
        frequencies = 10000.0 ** -(np.arange(4) / 4)  # 1, 0.1, 0.01, 0.001: as good as exact in f32
        points = points * np.exp(1j * positions[:, None] * frequencies)
        np.testing.assert_allclose(found[:, head : head + 4], points.real, atol=2e-4)
        np.testing.assert_allclose(found[:, head + 4 : head + 8], points.imag, atol=2e-4)
    np.testing.assert_array_equal(found[:, 16:], qkv[:, 16:])
    np.testing.assert_array_equal(found[0], qkv[0])


def test_glu_gates_one_half_by_the_other():
    x = np.random.default_rng(0).standard_normal((3, 10), dtype=np.float32)
    a, b = x[:, :5].astype(np.float64), x[:, 5:]
    np.testing.assert_allclose(ops.glu.reference(x, activation="silu"), a / (1 + np.exp(-a)) * b, rtol=1e-5, atol=1e-7)


def test_poolings():
    x = np.array([[1, 8], [2, 1], [6, 3], [5, 5]], np.float32)
    spans, skip = np.array([[0, 3], [3, 4]]), np.array([1, 0])
    expected = {
        "mean": [4, 2],
        "cls": [2, 1],
        "max": [6, 3],
        "last": [6, 3],
        "weighted_mean": [(2 * 2 + 3 * 6) / 5, (2 * 1 + 3 * 3) / 5],
        "sqrt_len_mean": [8 / math.sqrt(2), 4 / math.sqrt(2)],
    }
    for mode in ops.POOLINGS:
        found = ops.pool.reference(x, spans, skip, mode=mode)
        np.testing.assert_allclose(found, [expected[mode], [5, 5]], rtol=1e-6)


def test_a_zero_vector_stays_zero():
    np.testing.assert_array_equal(ops.l2_normalize.reference(np.zeros((2, 3), np.float32)), np.zeros((2, 3)))


def test_nearest_rows_against_sorting():
    a, b = np.random.default_rng(0).standard_normal((2, 600, 8), np.float32)
    b[77] = b[3]  # equal scores
    found = ops.nearest_rows.reference(a[:2], b, keep=100).reshape(2, 2, 2, 100)
    for m in range(2):
        for s, rows in enumerate((range(512), range(512, 600))):
            order = sorted(rows, key=lambda n: (-(a[m] @ b.T)[n], n))[:100]
            assert (found[m, 1, s, : len(order)] * 512 + 512 * s).tolist() == order
            np.testing.assert_allclose(found[m, 0, s, : len(order)], (a[m] @ b.T)[order], rtol=1e-5, atol=1e-6)
    assert (found[:, 1, 1, 88:] == 2).all() and not found[:, 0, 1, 88:].any()


def test_similarity_metrics():
    a, b = np.array([[1, 2]], np.float32), np.array([[4, 6], [1, 2]], np.float32)
    for metric, expected in {"dot": [16, 5], "euclidean": [5, 0], "manhattan": [7, 0]}.items():
        np.testing.assert_allclose(ops.similarity.reference(a, b, metric=metric), [expected])
