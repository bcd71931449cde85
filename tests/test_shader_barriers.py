"""`doctor --shader` on kernels whose lanes share memory: a missing barrier, and one that not all lanes reach, are found."""

from pathlib import Path

import numpy as np
import pytest
from dawns import null_adapter
from reader_shaders import Check, text_checker

from gpt2wgpu.devices.selftest import forward_cases
from gpt2wgpu.diagnose.guarded_barrier import find_guarded_barriers
from gpt2wgpu.diagnose.lane_orders import (
    LANE_ORDERS,
    PLAIN,
    has_barrier,
    leave_out_other_barriers,
    reorder_lanes,
    shares_memory,
)
from gpt2wgpu.diagnose.reader_shader import make_candidates, read_reader_shader
from gpt2wgpu.diagnose.shader_check import find_in_source
from gpt2wgpu.diagnose.shader_hints import GUARDED, RACE, STORAGE_ONLY, UNEVEN
from gpt2wgpu.diagnose.uneven_barrier import find_uneven_barrier
from gpt2wgpu.gpu import Device, GPUError, open_device, read_shader
from gpt2wgpu.gpu.kernels import SHADERS, compile_pipeline


@pytest.fixture
def check(device: Device, tmp_path: Path) -> Check:
    if not device.adapter.software:
        pytest.skip("a GPU may hide a race")
    return text_checker(device, tmp_path)


SHARED = [
    ("row_sum", "  partial[lane] = value;\n  workgroupBarrier();", "  partial[lane] = value;"),
    ("row_sum", "  }\n  workgroupBarrier();\n  var total", "  }\n  var total"),
    ("similarity", "    workgroupBarrier();\n    for (var c = 0u; c < SLICE", "    for (var c = 0u; c < SLICE"),
    ("similarity", "    }\n    workgroupBarrier();\n  }\n  for (var r", "    }\n  }\n  for (var r"),
]


@pytest.mark.parametrize(("name", "old", "new"), SHARED)
def test_each_barrier_is_missed(name: str, old: str, new: str, check: Check):
    finding = check(name, read_shader(name), old, new).finding
    assert finding is not None and finding.hint == RACE


# The last of 64 lanes adds up what all of them wrote: on a driver that runs them in order it is right without a barrier.
LAST_LANE = """// op: l2_normalize
struct Params { B: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

var<workgroup> squares: array<f32, 64>;
var<workgroup> norm: f32;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, PARAMETER) {
  let lane = LANE;
  var square = 0.0;
  for (var c = lane; c < p.C; c += 64u) { square += x[group.y * p.C + c] * x[group.y * p.C + c]; }
  squares[lane] = square;
  workgroupBarrier();
  if (lane == 63u) {
    var sum = 0.0;
    for (var i = 0u; i < 64u; i++) { sum += squares[i]; }
    norm = max(sqrt(sum), 1e-12);
  }
  workgroupBarrier();
  for (var c = lane; c < p.C; c += 64u) { out[group.y * p.C + c] = x[group.y * p.C + c] / norm; }
}

struct Lanes { @builtin(local_invocation_id) at: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32> }
"""
WAYS = {  # to say which lane one is
    "index": ("64", "@builtin(local_invocation_index) index: u32", "index"),
    "id": ("16, 4", "@builtin(local_invocation_id) id: vec3<u32>", "id.y * 16u + id.x"),
    "global": ("64, 1, 1", "@builtin(global_invocation_id) id: vec3<u32>", "id.x"),
    "struct": ("8, 4, 2", "lanes: Lanes", "(lanes.at.z * 4u + lanes.at.y) * 8u + lanes.at.x"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_barrier_that_the_drivers_order_makes_unnecessary_is_missed(way: str, check: Check):
    size, parameter, lane = WAYS[way]
    said = ("WORKGROUP", size, "PARAMETER", parameter, "LANE", lane)
    report = check("mine", LAST_LANE, *said)
    assert report.ok and report.orders == 6, report.finding
    finding = check(
        "mine", LAST_LANE, *said, "  squares[lane] = square;\n  workgroupBarrier();", "  squares[lane] = square;"
    ).finding
    assert finding is not None and finding.hint == RACE


def test_shared_memory_without_any_barrier_is_refused(check: Check):
    finding = check(
        "mine", LAST_LANE, *("WORKGROUP", "64", "PARAMETER", WAYS["index"][1], "LANE", "index"), "workgroupBarrier();", ""
    )
    finding = finding.finding
    assert finding is not None and finding.problem.startswith("lanes share workgroup memory, and no workgroupBarrier()")
    assert has_barrier("atomicAdd(&sum, 1u);") and not has_barrier("// workgroupBarrier()\n/* workgroupBarrier() */")
    assert shares_memory("var < workgroup > x: u32; fn f() { x = 1u; }") and not shares_memory("var<workgroup> x: u32; fn f() {}")
    assert not shares_memory("// var<workgroup> x: u32;\nfn f() { x = 1u; }")


BEFORE = "  workgroupBarrier();\n  if (lane == 63u)"
LOOP = "  for (var i = 0u; i < 64u; i++) { "
UNEVEN_BARRIERS = {  # in place of the barrier before lane 63 adds up
    "if": "  if (lane > 3u) { workgroupBarrier(); }",
    "else": "  if (lane > 3u) { square += 1.0; } else { workgroupBarrier(); }",
    "return": "  if (lane >= p.C) { return; }\n  workgroupBarrier();",
    "return in a loop": LOOP + "workgroupBarrier(); if (lane >= i) { return; } }",
    "break": LOOP + "workgroupBarrier(); if (lane >= i) { break; } }",
    "continue": LOOP + "if (lane >= i) { continue; } workgroupBarrier(); }",
    "for": "  for (var i = 0u; i < lane; i++) { workgroupBarrier(); }",
    "while": "  var n = lane; while (n > 0u) { n -= 1u; workgroupBarrier(); }",
    "loop": "  var n = 0u; loop { if (n >= lane) { break; } workgroupBarrier(); n++; }",
    "switch": "  switch (lane) { case 0u: { workgroupBarrier(); } default: {} }",
    "a variable": "  var n = 1u; n += lane; if (n > 5u) { workgroupBarrier(); }",
    "what an if assigns": "  var n = 1u; if (lane > 3u) { n = 2u; } if (n > 1u) { workgroupBarrier(); }",
    "workgroup memory": "  workgroupBarrier(); let n = squares[0]; if (n > 1.0) { workgroupBarrier(); }",
    "what an if steps": "  var n = 1u; if (lane > 3u) { n++; } if (n > 1u) { workgroupBarrier(); }",
    "a function": "  if (lane > 3u) { all_wait(); }",
    "a parameter": "  some_wait(lane);",
    "a result": "  if (is_more(lane)) { workgroupBarrier(); }",
}
EVEN_BARRIERS = {
    "the workgroup": "  workgroupBarrier(); if (group.y > 2u) { workgroupBarrier(); }",
    "a size": "  workgroupBarrier(); var n = p.C; n /= 2u; if (n > 2u) { workgroupBarrier(); }",
    "an input": "  workgroupBarrier(); if (x[group.y] > 2.0) { workgroupBarrier(); }",
    "a uniform load": "  let n = workgroupUniformLoad(&squares[0]); if (n > 2.0) { workgroupBarrier(); }",
    "a return of all": "  if (p.C == 0u) { return; }\n  workgroupBarrier();",
    "an inner loop": LOOP + "for (var j = 0u; j < 4u; j++) { if (lane > j) { continue; } square += 1.0; } workgroupBarrier(); }",
    "another variable": "  if (lane > 3u) { var n = lane; n += 1u; } "
    + LOOP
    + "let n = i; if (n > 3u) { workgroupBarrier(); } }",
    "a parameter": "  workgroupBarrier(); some_wait(p.C);",
    "a result": "  workgroupBarrier(); if (is_more(p.C)) { workgroupBarrier(); } square += f32(is_more(lane));",
}
HELPERS = """
fn all_wait() { workgroupBarrier(); }
fn some_wait(n: u32) { if (n > 2u) { workgroupBarrier(); } }
fn is_more(n: u32) -> bool { return n > 2u; }
"""


@pytest.fixture(scope="module")
def null() -> Device:
    """Dawn's null backend, for its compiler."""
    return open_device(null_adapter(), checked=True)


@pytest.mark.parametrize("barrier", [*UNEVEN_BARRIERS.values(), *EVEN_BARRIERS.values()])
def test_a_barrier_is_uneven_where_chromes_compiler_says_so(barrier: str, null: Device):
    text = LAST_LANE.replace("WORKGROUP", "64").replace("PARAMETER", WAYS["index"][1]).replace("LANE", "index") + HELPERS
    text = text.replace(BEFORE, f"{barrier}\n  if (lane == 63u)")
    uneven = find_uneven_barrier(text)
    if barrier in EVEN_BARRIERS.values():
        compile_pipeline(null, "even", text, 3)
        assert uneven == ""
    else:
        with pytest.raises(GPUError, match="must only be called from uniform control flow"):
            compile_pipeline(null, "uneven", text, 3)
        assert "is not reached by all lanes: it stands " in uneven


def test_no_barrier_of_the_engine_is_uneven():
    texts = {shader.stem: shader.read_text(encoding="utf-8") for shader in SHADERS.glob("*.wgsl")}
    shared = "\n".join(texts[name] for name in ("row_sum", "fours", "attention_keys", "matmul_order"))
    assert {name: found for name, text in texts.items() if (found := find_uneven_barrier(f"{text}\n{shared}"))} == {}


def test_an_uneven_barrier_is_refused(check: Check):
    said = ("WORKGROUP", "64", "PARAMETER", WAYS["index"][1], "LANE", "index")
    finding = check("mine", LAST_LANE, *said, BEFORE, "  if (lane > 3u) { workgroupBarrier(); }\n  if (lane == 63u)").finding
    assert finding is not None and finding.hint == UNEVEN
    assert finding.problem == "workgroupBarrier() is not reached by all lanes: it stands under the condition (lane > 3u)"


GUARDED_BARRIERS = {  # in place of the barrier before lane 63 adds up: what is said of them
    "  if (p.C > 4000000u) { workgroupBarrier(); }": "workgroupBarrier() stands under the condition (p.C > 4000000u)",
    "  if (p.C < 9u) { square += 1.0; } else { workgroupBarrier(); }": "workgroupBarrier() stands under the condition (p.C < 9u)",
    "  switch (p.C) { case 0u: { workgroupBarrier(); } default: {} }": "workgroupBarrier() stands under the condition (p.C)",
    LOOP + "if (p.C > i) { continue; } workgroupBarrier(); }": "workgroupBarrier() stands behind `continue` under the",
    LOOP + "norm = 1.0; if (p.C > i) { break; } workgroupBarrier(); }": "workgroupBarrier() stands behind `break` under",
    "  if (p.C > 2u) { all_wait(); }": "all_wait() stands under the condition (p.C > 2u)",
    "  some_wait(p.C);": "workgroupBarrier() stands under the condition (n > 2u)",
    "  late_wait(p.C);": "workgroupBarrier() stands behind `return` under the condition (n > 2u)",
}
UNGUARDED_BARRIERS = [
    "  if (WAIT) { workgroupBarrier(); } else { square += 1.0; }",
    "  if (p.C == 0u) { return; }\n  workgroupBarrier();",
    LOOP + "workgroupBarrier(); }",
    "  var n = 2u; loop { if (n == 0u) { break; } n--; workgroupBarrier(); }",
    LOOP + "for (var j = 0u; j < 4u; j++) { if (p.C > j) { continue; } square += 1.0; } workgroupBarrier(); }",
    LOOP + "switch (p.C) { case 0u: { norm = 1.0; break; } default: {} } workgroupBarrier(); }",
]


@pytest.mark.parametrize("barrier", [*GUARDED_BARRIERS, *UNGUARDED_BARRIERS])
def test_a_barrier_that_all_lanes_may_skip_is_found(barrier: str):
    late = "fn late_wait(n: u32) { if (n > 2u) { return; } workgroupBarrier(); }"
    used = [line for line in [*HELPERS.splitlines(), late] if line and line[3:].split("(")[0] in barrier]
    text = "\n".join(["const WAIT = true;", LAST_LANE.replace(BEFORE, f"{barrier}\n  if (lane == 63u)"), *used])
    found = [b.problem for b in find_guarded_barriers(text)]
    expected = [GUARDED_BARRIERS[barrier]] if barrier in GUARDED_BARRIERS else []
    assert [said[: len(expected[0])] for said in found] == expected if expected else found == []


def test_a_barrier_that_all_lanes_may_skip_is_refused(check: Check):
    said = ("WORKGROUP", "64", "PARAMETER", WAYS["index"][1], "LANE", "index")
    finding = check("mine", LAST_LANE, *said, BEFORE, f"  if (p.C > 4u) {{ workgroupBarrier(); }}{BEFORE[21:]}").finding
    assert finding is not None and finding.hint == GUARDED
    line = LAST_LANE[: LAST_LANE.index(BEFORE)].count("\n") + 1
    assert finding.problem == f"mine.wgsl:{line}: workgroupBarrier() stands under the condition (p.C > 4u)"


def test_a_copy_may_have_the_guarded_barriers_of_the_engine(device: Device, tmp_path: Path):
    """Those of pool.wgsl stand under its mode; on a GPU a copy may have others, too."""
    path = tmp_path / "pool.wgsl"
    cases = [case for case in forward_cases(half=False) if case.op.name == "pool"][:1]
    text = read_shader("pool")
    for new in ("    workgroupBarrier();\n    for", "    if (half > 32u) { workgroupBarrier(); }\n    }"):
        old = new if new in text else "      workgroupBarrier();\n    }"
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        shader = read_reader_shader(path)
        for c in make_candidates(shader, device, cases):
            assert find_in_source(shader, c, software=False) is None
            found = find_in_source(shader, c, software=True)
            assert (found is None) == (old == new) and (found is None or "(half > 32u)" in found.problem)


@pytest.mark.parametrize("head", ["  for (var n = 0u; n < 2u; n++) {", "  var m = 2u; while m > 0u { m--; let n = 1u - m;"])
def test_a_loop_that_ends_is_no_barrier(head: str, check: Check):
    """llvmpipe waits once more at the barriers in it when the condition is false."""
    said = ("WORKGROUP", "64", "PARAMETER", WAYS["index"][1], "LANE", "index")
    loop = (BEFORE, f"{head} workgroupBarrier();\n  if (lane == 63u && n == 1u)", "  }\n  work", "  }}\n  work")
    assert check("mine", LAST_LANE, *said, *loop).ok
    finding = check("mine", LAST_LANE, *said, *loop, "  }}\n  workgroupBarrier();", "  }}").finding
    assert finding is not None and finding.hint == RACE


def test_a_storage_barrier_orders_storage_memory_alone(check: Check):
    said = ("WORKGROUP", "64", "PARAMETER", WAYS["index"][1], "LANE", "index")
    for other in ("storageBarrier();", "textureBarrier();"):
        finding = check("mine", LAST_LANE, *said, BEFORE, BEFORE.replace("workgroupBarrier();", other)).finding
        assert finding is not None and finding.hint == RACE + STORAGE_ONLY
        finding = check("mine", LAST_LANE, *said, "workgroupBarrier();", other).finding
        assert finding is not None and finding.problem.startswith("lanes share workgroup memory, and no workgroupBarrier()")
    kept = LAST_LANE + "fn f() { out[0] = 1.0; storageBarrier(); out[1] = out[0]; }"
    assert leave_out_other_barriers(kept) == kept  # out may be read by another lane


@pytest.mark.parametrize(("lanes", "together"), [(n, w) for n in (32, 64, 128, 256) for w in (4, 8, 16) if n > 2 * w])
def test_each_of_two_lanes_comes_first_in_some_order(lanes: int, together: int):
    before = np.eye(lanes, dtype=bool)
    for order in (PLAIN, *LANE_ORDERS):
        work = [order.place(lane, lanes) for lane in range(lanes)]
        assert sorted(work) == [*range(lanes)]
        group = np.argsort(work) // together
        before |= group[:, None] < group[None, :]
    assert before.all()


@pytest.mark.parametrize("lanes", [1, 6, 24, 100])
def test_an_order_is_a_bijection_for_any_number_of_lanes(lanes: int):
    for order in LANE_ORDERS:
        assert sorted(order.place(lane, lanes) for lane in range(lanes)) == [*range(lanes)]


@pytest.mark.parametrize(
    "main",
    [
        "@compute @workgroup_size(64) fn main(@builtin(subgroup_invocation_id) lane: u32) {}",
        "@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) lane: u32) { let x = subgroupAdd(1u); }",
        "@compute fn main() {}",
        "fn other() {}",
    ],
)
def test_lanes_that_have_fixed_places_are_left_there(main: str):
    assert reorder_lanes(main, LANE_ORDERS[0]) is None
