"""Kernels in a GPU's form whose lanes and workgroups run from the last to the first.

A software driver runs both in their order, which hides what a GPU would show: a lane that reads what a later one writes before
the next barrier, and a workgroup that writes what belongs to a later one.
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
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op.name} {case}")
def test_the_order_of_lanes_and_workgroups_changes_nothing(case: Case, as_on_a_gpu: Device, monkeypatch: pytest.MonkeyPatch):
    specialise: Callable[..., str] = kernels.specialise_source

    def backwards(*args: object) -> str:
        source = reorder_lanes(specialise(*args), BACKWARDS)
        assert source is not None and source.count("main_as_lane(group_,") == 1
        return source.replace("main_as_lane(group_,", "main_as_lane(groups_ - 1u - group_,")

    monkeypatch.setattr(kernels, "specialise_source", backwards)
    check = check_op(as_on_a_gpu, case)
    assert check.ok, check
