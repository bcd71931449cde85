"""Kernels in a GPU's form whose lanes and workgroups run from the last to the first.

A software driver runs both in their order, which hides what a GPU would show: a lane that reads what a later one writes before
the next barrier, and a workgroup that writes what belongs to a later one. With wgpu's checks and, as users run them, without:
they hide an index past the end of an array in workgroup memory.
"""

from collections.abc import Callable

import pytest

from gpt2wgpu.devices.selftest import Case, check_op
from gpt2wgpu.diagnose.lane_orders import LaneOrder, reorder_lanes
from gpt2wgpu.gpu import Device, kernels
from gpt2wgpu.graph import ops
from gpt2wgpu.train import ops as train_ops
from gpt2wgpu.train import selftest

BACKWARDS = LaneOrder(1, True)
CASES = [
    Case(ops.rms_norm, {"C": 132}),
    Case(ops.norm_rotary, {"N": 120, "K": 72, "S": 40, "D": 24}),
    *(Case(ops.pool, {"C": 20}, (1, 64, 65, 130), {"mode": mode}) for mode in ("mean", "max")),
    Case(train_ops.pool_dx, {"C": 20}, (1, 64, 65, 130), {"mode": "max"}),
    Case(ops.similarity, {"M": 34, "N": 65, "C": 37}, attrs={"metric": "dot"}),
    Case(ops.nearest_rows, {"M": 5, "N": 1025, "C": 36}, attrs={"keep": 33}),
    Case(ops.repulsion, {"N": 300}),
    selftest.scatter_rows_case(300, 33, (1, 70)),
    *selftest.vector_cases(20, 3, (150,)),
    Case(train_ops.add, {"C": 300}),
    Case(train_ops.activate, {"C": 300}, attrs={"activation": "relu"}),
    selftest.activate_dx_case("silu", 300),
    *(Case(train_ops.transpose, {"K": k, "N": n}) for k, n in ((68, 132), (70, 37))),
    Case(ops.linear_add, {"K": 1100, "N": 68}, (150,)),  # more rows than a tile has, and k in parts
    Case(ops.attention, {"N": 96}, (1, 34, 35, 64), {"head_size": 32, "scale": 0.3, "causal": False}),
    *selftest.attention_cases(32, 32, True, (1, 34, 35)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op.name} {case}")
def test_the_order_of_lanes_and_workgroups_changes_nothing(
    case: Case, as_on_a_gpu: Device, users_gpu: Device, monkeypatch: pytest.MonkeyPatch
):
    specialise: Callable[..., str] = kernels.specialise_source

    def backwards(*args: object) -> str:
        source = reorder_lanes(specialise(*args), BACKWARDS)
        assert source is not None and source.count("main_as_lane(group_,") == 1
        return source.replace("main_as_lane(group_,", "main_as_lane(groups_ - 1u - group_,")

    monkeypatch.setattr(kernels, "specialise_source", backwards)
    for device in (as_on_a_gpu, users_gpu):
        check = check_op(device, case)
        assert check.ok, check
