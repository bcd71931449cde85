"""The forces of a layout on a GPU: exact repulsion from all points, and attraction along all edges, in one submission."""

from typing import TYPE_CHECKING

import numpy as np

from ..devices.choose import device_kind
from ..devices.selftest import Case, attraction_case
from ..graph import ops
from ..graph.tensor import Array, Tensor, schedule
from .forces import pad_points

if TYPE_CHECKING:
    from ..gpu import Device

# Points up to which all pairs on a GPU take less time than the grid on a CPU, estimated; few points are not worth a device.
MOST_POINTS = {"discrete": 200_000, "integrated": 50_000, "software": 0, "numpy": 0}
FEWEST_POINTS = 3000


def suits_device(device: "Device | None", points: int) -> bool:
    return FEWEST_POINTS <= points <= MOST_POINTS[device_kind(device)]


class DeviceForces:
    """Forces between n points on a device. edges: as from `undirected_edges`. Raises UserError or GPUError."""

    def __init__(self, device: "Device", n: int, edges: tuple[Array, Array, Array]) -> None:
        from ..devices.graph_check import check_graph
        from ..gpu import GPUProgram

        one, other, strengths = edges
        order = np.argsort(np.concatenate([one, other]), kind="stable")  # each edge at both of its ends
        targets = np.concatenate([other, one])[order].astype(np.uint32)
        doubled = np.concatenate([strengths, strengths])[order].astype(np.float32)
        ends = np.cumsum(np.bincount(one, minlength=n) + np.bincount(other, minlength=n))
        spans = np.stack([np.append(0, ends[:-1]), ends], axis=1).astype(np.uint32)
        self.edges = {"edge_spans": spans, "edge_targets": targets}
        points, spanned = Tensor(("M", 4), name="points"), Tensor(("M", 2), "u32", name="edge_spans")
        led = Tensor((len(targets),), "u32", name="edge_targets")
        pulled = ops.attraction(points, spanned, led, Tensor((len(targets),), name="edge_strengths"))
        output = ops.concat(ops.repulsion(points), pulled)
        check_graph(device, schedule(output), given_edges)
        self.program = GPUProgram(device, output, lambda t: doubled, {"M": n})

    def compute(self, points: Array) -> tuple[Array, Array, float]:
        """The push and the pull on each point (n, d), float64, and Z, as `exact_repulsion` and `edge_attraction`."""
        found = self.program.run({"points": pad_points(points), **self.edges}).astype(np.float64)
        d = points.shape[1]
        return found[:, :d], found[:, 4 : 4 + d], float(found[:, 3].sum()) - len(points)

    def close(self) -> None:
        self.program.close()


def given_edges(t: Tensor) -> list[Case]:
    """Cases whose edges lead somewhere, for the self-test."""
    return [attraction_case(36)] if t.op is ops.attraction else []
