"""`doctor --shader`: right kernels pass, and each kind of mistake is found, named and placed."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from process import Run

from gpt2wgpu.devices.selftest import forward_cases
from gpt2wgpu.diagnose.lane_orders import LANE_ORDERS, PLAIN, has_barrier, reorder_lanes, shares_memory
from gpt2wgpu.diagnose.reader_shader import make_candidates, read_reader_shader
from gpt2wgpu.diagnose.shader_check import ShaderReport, check_shader
from gpt2wgpu.diagnose.shader_hints import RACE
from gpt2wgpu.errors import UserError
from gpt2wgpu.gpu import Device, read_shader

CASES = [case for case in forward_cases(half=False) if case.op.name in ("layer_norm", "l2_normalize", "concat", "similarity")]
# A whole kernel of an op of the engine, as a reader would write it: a thread per element.
CONCAT = """// op: concat
struct Params { B: u32, J: u32, K: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.J + p.K) { return; }
  let at = id.y * (p.J + p.K) + id.x;
  if (id.x < p.J) { out[at] = a[id.y * p.J + id.x]; } else { out[at] = b[id.y * p.K + id.x - p.J]; }
}
"""
Check = Callable[..., ShaderReport]


@pytest.fixture
def check(device: Device, tmp_path: Path) -> Check:
    """`check(name, text, old, new, ...)` checks a file of that name, with each `old` replaced by `new`."""

    def check_text(name: str, text: str, *changes: str) -> ShaderReport:
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / f"{name}.wgsl"
        path.write_text(text, encoding="utf-8")
        return check_shader(path, device, CASES)

    return check_text


def test_a_right_kernel_is_right_and_timed(check: Check):
    report = check("mine", CONCAT)
    assert report.ok and all(c.ok for c in report.checks) and [c.name for c in report.checks] == ["concat", "concat"]
    assert report.signatures == {"concat": "a[B,J] b[B,K] -> out[B,J+K]"}
    assert report.orders == 1 and report.workgroups > 1  # its lanes share nothing
    assert report.times is not None and report.times.seconds > 0 and report.times.engine and report.times.ratio


def test_a_copy_of_the_engines_kernel_is_right(check: Check):
    """In the form of a software driver and in that of a GPU, which has 64 lanes a row."""
    report = check("layer_norm", read_shader("layer_norm"))
    assert report.ok and report.orders == 1 + len(LANE_ORDERS) and len(report.forms) == 2
    report = check("similarity", read_shader("similarity"))
    assert report.ok and report.orders == 1 + len(LANE_ORDERS)


@pytest.mark.parametrize(
    ("changes", "problem", "hint"),
    [
        (
            ("id.x >= p.J + p.K", "id.x > p.J + p.K"),
            r"it writes past the end of out, which has 219 elements: at element 219",
            "must not",
        ),
        (("if (id.x >= p.J + p.K) { return; }", ""), r"it writes past the end of out", "threads that have no element"),
        (("id.x >= p.J + p.K", "id.x >= p.J"), r"out\[0, 70\] is never written, nor are 8 more of 219", "2 x 3 x 1 workgroups"),
        (("- p.J", "- p.J + 1u"), r"out\[0, 70\] is \S+, expected \S+", "columns 0 to 69 are right"),
        (("a[id.y * p.J + id.x]", "a[id.x]"), r"out\[1, 0\] is \S+, expected \S+", ""),
        (("a[id.y * p.J + id.x]", "2.0 * a[id.y * p.J + id.x]"), r"out\[0, 0\] is", "2 times what is expected"),
        (
            ("b[id.y * p.K + id.x - p.J]", "b[3u * p.B + id.x - p.J]"),
            r"out\[0, 70\] is nan",
            "past the end of an input",
        ),
        (("@workgroup_size(64)", "@workgroup_size(32)"), r"is never written", "workgroups"),
    ],
)
def test_wrong_kernels_without_shared_memory(changes: tuple[str, ...], problem: str, hint: str, check: Check):
    finding = check("mine", CONCAT, *changes).finding
    assert finding is not None
    assert re.search(problem, finding.problem), finding
    assert hint in finding.hint and finding.case.startswith("concat T=39 J=70 K=3")


# --- lanes that share memory

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
    assert shares_memory("var < workgroup > x: u32;") and not shares_memory("// var<workgroup> x: u32;")


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


# --- files, messages


def test_the_compilers_message_has_the_lines_of_the_file(check: Check):
    finding = check("layer_norm", read_shader("layer_norm"), "let mean = ", "let mean = nonsense + ").finding
    assert finding is not None and finding.problem == "it does not compile"
    line = read_shader("layer_norm").split("let mean")[0].count("\n") + 1
    assert (
        f"layer_norm.wgsl:{line}:" in finding.details
        and "nonsense" in finding.details
        and "Validation Error" not in finding.details
    )
    finding = check("row_sum", read_shader("row_sum"), "var total = 0.0;", "var total = nonsense;").finding
    line = read_shader("row_sum").split("var total")[0].count("\n") + 1
    assert finding is not None and f"row_sum.wgsl:{line}:" in finding.details  # behind another file in the source
    assert re.search(rf"^ *{line} │ +var total = nonsense;$", finding.details, re.M)
    finding = check("row_sum", read_shader("row_sum"), "fn row_sum(", "fn sum_of_row(").finding
    assert finding is not None and "another file of shaders/ (let mean = row_sum(add_up(sum), lane)" in finding.details


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mine", CONCAT.replace("// op: concat", "// op: nothing"), "op 'nothing' of its first line is none of concat, "),
        ("mine", CONCAT.replace("// op: concat\n", ""), "its first line must be `// op: NAME`"),
        ("mine", CONCAT.replace("struct Params {", "struct Sizes {"), "`struct Params { B: u32, J: u32, K: u32 }`"),
        ("mine", CONCAT.replace("K: u32 }", "L: u32 }"), "`L: u32` of struct Params is none of B: u32, J: u32, K: u32"),
        ("mine", "// op: similarity\nstruct Params { M: u32 }", "the grid of similarity depends on a line `const PAIRS: u32"),
        ("mine", "", "found an empty file"),
        ("ceiling_copy", read_shader("ceiling_copy"), "shaders/ceiling_copy.wgsl is part of no op's kernel"),
    ],
)
def test_a_file_that_is_no_kernel_is_refused(name: str, text: str, message: str, check: Check):
    with pytest.raises(UserError) as refused:
        check(name, text)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "binary.wgsl").write_bytes(b"\xff\xfe")
    for name, message in {"none.wgsl": "No such file", ".": "Is a directory", "binary.wgsl": "is not UTF-8"}.items():
        with pytest.raises(UserError, match=message):
            read_reader_shader(tmp_path / name)


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path):
    path = tmp_path / "mine.wgsl"
    path.write_bytes(("\ufeff" + CONCAT.replace("\n", "\r\n")).encode())
    assert read_reader_shader(path).op == "concat" and "\r" not in read_reader_shader(path).text


def test_f16_is_checked_where_the_file_has_its_types(device: Device, tmp_path: Path):
    path = tmp_path / "layer_norm.wgsl"
    path.write_text(read_shader("layer_norm"), encoding="utf-8")
    cases = [case for case in forward_cases(half=True) if case.op.name == "layer_norm"]
    stands_in = make_candidates(read_reader_shader(path), device, cases)
    assert {c.source.startswith("enable f16;") for c in stands_in} == {False, True}
    path.write_text("// op: layer_norm\n" + read_shader("layer_norm").replace("alias O", "alias P"), encoding="utf-8")
    whole = make_candidates(read_reader_shader(path), device, cases)
    assert whole and not any(c.case.half for c in whole)


# --- the command


def test_the_command_says_right_or_wrong(run: Run, device: Device, tmp_path: Path):
    path = tmp_path / "mine.wgsl"
    path.write_text(CONCAT, encoding="utf-8")
    code, out, err = run("doctor", "--shader", path, "--device", device.adapter.index)
    assert (code, err) == (0, "")
    first, second, right, timed = out.splitlines()
    assert first == f"{path}: concat: a[B,J] b[B,K] -> out[B,J+K]" and second == f"device: {device.adapter}"
    assert re.fullmatch(r"right: 2 cases, up to \d+ workgroups, the same bits twice", right)
    assert re.fullmatch(r"time: \d+\.\d+ ms \(concat T=.*\); the engine's kernel \d+\.\d+ ms: \d+\.\d\d times as long", timed)
    path.write_text(CONCAT.replace("- p.J", "- p.J + 1u"), encoding="utf-8")
    code, out, err = run("doctor", "--shader", path, "--device", device.adapter.index)
    assert (code, err) == (1, "")
    assert (
        out.splitlines()[2].startswith("wrong: out[0, 70] is ") and "\ncase: concat T=39 J=70 K=3\nhint: columns 0 to 69" in out
    )


def test_the_command_in_json(run: Run, device: Device, tmp_path: Path):
    path = tmp_path / "mine.wgsl"
    for text, right in ((CONCAT, True), (CONCAT.replace("- p.J", "- p.J + 1u"), False), (CONCAT.replace("let at", "at"), False)):
        path.write_text(text, encoding="utf-8")
        code, out, err = run("doctor", "--json", "--shader", path, "--device", device.adapter.index)
        report = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert (code, err, report["ok"]) == (int(not right), "", right)
        assert (report["wrong"] is None) == right and (report["times"] is not None) == right
        assert report["device"] == str(device.adapter) and report["ops"] == {"concat": "a[B,J] b[B,K] -> out[B,J+K]"}
    assert report["wrong"]["details"] and report["checks"][0]["error"] is None


def test_the_command_refuses_what_it_cannot_do(run: Run, tmp_path: Path):
    path = tmp_path / "mine.wgsl"
    path.write_text(CONCAT, encoding="utf-8")
    code, out, err = run("doctor", "--shader", path, "--device", "numpy")
    assert (code, out) == (
        1,
        "",
    ) and err == "error: numpy cannot run a shader: --device gpu takes a GPU, or a software driver if there is none\n"
    code, out, err = run("doctor", "--shader", path, "--device", "gpu", "--layer", "1", "--max-tokens", "9")
    assert (code, out) == (2, "") and "leave out --layer, --max-tokens" in " ".join(err.split())
    code, out, err = run("doctor", "--shader", tmp_path / "none.wgsl", "--device", "gpu")
    assert (code, out, err.count("\n")) == (1, "", 1) and err.startswith("error: ") and "No such file" in err


def test_without_an_adapter_it_says_so_in_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "mine.wgsl"
    path.write_text(CONCAT, encoding="utf-8")
    monkeypatch.setattr("gpt2wgpu.gpu.device.list_adapters", lambda library: ())
    code, out, err = run("doctor", "--shader", path, "--device", "auto")
    assert (code, out, err.count("\n")) == (1, "", 1) and "no WebGPU adapter found; install a driver" in err
