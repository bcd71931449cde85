"""Every kernel of training against numpy, on sizes that no tile divides."""

from collections.abc import Callable

import numpy as np
import pytest

from gpt2wgpu.devices.selftest import Case, case_arrays, check_op
from gpt2wgpu.gpu import Device, GPUProgram
from gpt2wgpu.graph import ops as inference_ops
from gpt2wgpu.graph.tensor import Tensor
from gpt2wgpu.train import ops, selftest


def maximum_cases() -> list[Case]:
    """The gradient of a maximum that several tokens share goes to the first, whichever lanes they fall on."""
    tied = np.zeros((260, 20), np.float32)
    tied[::3] = 1
    tied[1:4] = 1
    skip = np.array([0, 2, 0], np.uint32)
    each_token_once = np.zeros((130, 132), np.float32)
    each_token_once[np.arange(132) % 130, np.arange(132)] = 1
    given = {"x": tied, "skip": skip}
    return [
        Case(ops.pool_dx, {"C": 20}, (1, 129, 130), {"mode": "max"}, given=given),
        Case(ops.pool_dx, {"C": 132}, (130,), {"mode": "max"}, given={"x": each_token_once, "skip": skip[:1]}),
        Case(ops.pool_dx, {"C": 4}, (200,), {"mode": "max"}, given={"x": np.ones((200, 4), np.float32), "skip": skip[:1]}),
    ]


# of matrix products: K, N and the lengths of the sequences
SHAPES = (
    (1, 1, (1,)),
    (65, 129, (17,)),
    (4, 4, (1,)),
    (64, 64, (64,)),
    (36, 260, (65, 66)),
    (260, 36, (99,)),
)


def parts_cases(parts: int, tokens: int) -> list[Case]:
    return [case for k, n in ((36, 68), (5, 7)) for case in selftest.dweight_cases(k, n, parts, (tokens,))]


# T = 1, sequences of length 1, one past a tile (16, 32, 64) and past a block of 16 rows; K, N and C that no tile divides
AWKWARD = [
    Case(ops.add, {"C": 1}, (1,)),
    selftest.activate_dx_case("gelu_tanh", 65, (1,)),
    *(Case(ops.add, {"C": width}, (3,)) for width in (255, 256, 257, 700)),  # around the columns of a workgroup
    *(Case(ops.activate, {"C": width}, (3,), {"activation": "gelu_tanh"}) for width in (1, 255, 256, 257, 700)),
    *(selftest.activate_dx_case("silu", width, (3,)) for width in (1, 255, 256, 257, 700)),
    selftest.dropout_case(1, (1,)),
    *(
        Case(ops.transpose, {"K": k, "N": n})
        for k, n in ((1, 1), (1, 65), (65, 1), (64, 64), (129, 3), (4, 4), (36, 68), (68, 36))
    ),
    *(Case(ops.matmul, {"K": k, "N": n}, lengths) for k, n, lengths in SHAPES),
    *(case for k, n, lengths in SHAPES for parts in (1, 3) for case in selftest.dweight_cases(k, n, parts, lengths)),
    # one token past a part; parts longer than the shortest; all tokens in one part; more parts than are needed
    *(case for parts, count in ((2, 257), (3, 1000), (1, 700), (64, 300)) for case in parts_cases(parts, count)),
    *selftest.vector_cases(1, 1, (1,)),
    *selftest.vector_cases(20, 4, (64, 65, 130)),
    *(case for width in (17, 63, 64, 65, 128, 132) for case in selftest.vector_cases(width, 3, (150,))),  # a workgroup has 64
    # around four tokens a lane; longer parts; all tokens in one part; more parts than are needed; parts around four a lane
    *(case for count in (63, 64, 65, 79, 80, 81, 127, 128, 129) for case in selftest.vector_cases(36, 2, (count,))),
    *(case for parts, count in ((3, 1000), (1, 700), (64, 300)) for case in selftest.vector_cases(36, parts, (count,))),
    *(case for parts in (63, 64, 65) for case in selftest.vector_cases(5, parts, (64 * parts,))),
    *selftest.layer_norm_case(1, (2,)),
    *selftest.layer_norm_case(65, (17, 1)),
    *selftest.layer_norm_case(132, (65, 66)),
    *selftest.layer_norm_case(65, (1000,), 3),
    *selftest.layer_norm_case(20, (1000,), 3),
    *selftest.layer_norm_case(1600, (3,)),
    *(c for causal in (True, False) for c in selftest.attention_cases(8, 4, causal, (1, 16, 17, 32, 33, 65))),
    *selftest.attention_cases(64, 64, True, (1,)),
    *selftest.attention_cases(6, 1, True, (5, 1)),
    *selftest.attention_cases(128, 128, False, (50,)),
    *selftest.attention_cases(8, 8, True, (300,)),
    *(c for causal in (True, False) for w in (1, 31, 33, 99) for c in selftest.attention_cases(3, 3, causal, (1, 16, 70), w)),
    *(c for kv in (1, 2, 4) for c in selftest.attention_cases(12, 3, False, (1, 40), 0, kv)),
    *selftest.attention_cases(12, 3, True, (70, 5), 40, 2),
    selftest.scatter_rows_case(1, 1, (1,)),
    selftest.scatter_rows_case(1, 33, (40,)),
    selftest.scatter_rows_case(300, 33, (1, 70)),
    selftest.scatter_rows_case(601, 33, (1, 70)),
    *(Case(ops.pool_dx, {"C": 1}, (1,), {"mode": mode}) for mode in inference_ops.POOLINGS),
    *(Case(ops.pool_dx, {"C": 20}, (1, 64, 65, 130), {"mode": mode}) for mode in inference_ops.POOLINGS),
    *maximum_cases(),
    Case(ops.columns, {"N": 1}, (1,), {"M": 1, "first": 0}),
    Case(ops.l2_normalize_dx, {"C": 1}, (1, 1)),
    Case(ops.l2_normalize_dx, {"C": 132}, (1, 1)),
    Case(ops.l2_normalize_dx, {"C": 1032}, (1, 1)),
]


@pytest.mark.parametrize("case", [*selftest.backward_cases(), *AWKWARD], ids=lambda case: f"{case.op.name} {case}")
def test_kernel_equals_numpy(case: Case, each_form: Callable[[Tensor], list[Device]]):
    for device in each_form(case_arrays(case)[0]):
        check = check_op(device, case)
        assert check.ok, check


ATTENTION_ON_A_GPU = [
    *(c for size in (4, 32, 64, 80, 96, 128, 256) for c in selftest.attention_cases(2 * size, size, True, (1, 31, 33, 70))),
    *(c for size in (64, 80) for c in selftest.attention_cases(4 * size, size, False, (32, 1, 70), 33, 2)),
    *(c for w in (1, 30, 31, 32) for c in selftest.attention_cases(4, 4, False, (100, 1), w)),
    *selftest.attention_cases(4 * 12, 12, True, (64, 70, 1), 33, 1),
    *selftest.attention_cases(12, 12, False, (130, 5)),
]


@pytest.mark.parametrize("case", ATTENTION_ON_A_GPU, ids=lambda case: f"{case.op.name} {case}")
def test_gradients_of_attention_on_a_gpu(case: Case, as_on_a_gpu: Device):
    check = check_op(as_on_a_gpu, case)
    assert check.ok, check


def test_log_sum_exp_of_large_scores(device_form: Device):
    """Each lane's sum is relative to its own maximum, and some are far below the largest: exp of the difference overflows."""
    attrs = {"head_size": 8, "scale": 1.0, "causal": False, "window": 0, "kv_heads": 0}
    check = check_op(
        device_form, Case(ops.attention_lse, {"N": 24}, (40, 70), attrs, given={"qkv": 30 * selftest.random_array(110, 24)})
    )
    assert check.ok, check


MATMULS = [case for case in (*selftest.backward_cases(), *AWKWARD) if case.op in (ops.matmul, ops.linear_dweight)]


@pytest.mark.parametrize("case", MATMULS, ids=lambda case: f"{case.op.name} {case}")
def test_gpu_matmuls_give_the_same_bits(case: Case, device: Device, as_on_a_gpu: Device):
    """k ascending in one accumulator, in every tile."""
    output, values = case_arrays(case)
    capacity = {"T": sum(case.lengths)}
    runs = [GPUProgram(d, output, lambda t: values[t.name], capacity).run(values) for d in (device, as_on_a_gpu)]
    np.testing.assert_array_equal(*runs)


def test_dropout_masks_are_the_same_bits_on_a_device(device: Device):
    """Scaled by a power of two, so there is no rounding that a difference could hide in."""
    for case in (selftest.dropout_case(70), selftest.dropout_case(300, (1, 150))):
        assert check_op(device, case).error == 0
