"""The puzzles: templates and typical mistakes are rejected, solutions are right; their numpy against other formulas."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from dawns import null_adapter
from pages import PUZZLES, read_blocks
from process import Run

from gpt2wgpu.diagnose import puzzles
from gpt2wgpu.diagnose.endless_loop import count_rounds
from gpt2wgpu.diagnose.lane_orders import LANE_ORDERS, reorder_lanes, shares_memory
from gpt2wgpu.diagnose.puzzles import PUZZLE_CASES
from gpt2wgpu.diagnose.shader_check import ShaderReport, check_shader
from gpt2wgpu.diagnose.shader_hints import ENDLESS, GUARDED, NOT_FINITE, RACE, STORAGE_ONLY, UNEVEN
from gpt2wgpu.gpu import Device, open_device
from gpt2wgpu.gpu.kernels import compile_pipeline
from gpt2wgpu.graph import ops

TEMPLATES = sorted(PUZZLES.glob("*.wgsl"))
GUARD = "  if (c >= p.C) { return; }\n"
BARRIER = "workgroupBarrier();"
TREE = "  partial[lane] = value;\n  workgroupBarrier();"
READ = "  workgroupBarrier(); // before the next call writes\n"
PAST_THE_END = "must not write"
# What readers get wrong, as changes of the solutions, and what the hint says about it ("" where there may be none)
MISTAKES = {
    "add_ten": [
        ("+ 10.0", "+ 1.0", "every element is 9 too small"),
        ("group.y * p.C + ", "", ""),
        ("group.x * 64u + ", "", ""),
        ("+ lane", "+ lane + 1u", PAST_THE_END),
        ("  out[at]", "  loop { if (p.C == 0u) { break; } }\n  out[at]", ENDLESS),
        ("out[at] = x[at] + 10.0;", "loop { out[at] = x[at] + 10.0; if (out[at] == 12345.0) { break; } }", ENDLESS),
        ("  out[at]", "  if (at == 0u) { loop { if (p.T < 100u) { break; } } }\n  out[at]", ENDLESS),  # timed cases have more
        ("group.y * p.C", "group.y * 64u", ""),
    ],
    "add_bias": [
        (GUARD, "", PAST_THE_END),
        ("c >= p.C", "c > p.C", PAST_THE_END),
        ("c >= p.C", "c >= arrayLength(&out)", "arrayLength() is no bound"),
        ("c >= p.C", "c + 1u >= p.C", "together they must write every element"),
        ("bias[c]", "bias[group.y]", ""),
        ("@workgroup_size(64)", "@workgroup_size(32)", "together they must write every element"),
    ],
    "plain_gelu": [
        ("-2.0 * clamp", "-clamp", ""),
        ("0.044715 * v * v * v", "0.044715 * v * v", ""),
        ("0.7978845608 * (v + 0.044715 * v * v * v)", "0.851 * v", ""),
        ("v / (1.0 + exp(-2.0 * clamp(u, -40.0, 40.0)))", "v * exp(2.0 * u) / (1.0 + exp(2.0 * u))", NOT_FINITE),
    ],
    "mean_pool": [
        ("t < span.y", "t <= span.y", ""),
        ("t < span.y", "t + 1u < span.y", ""),
        ("t = span.x", "t = 0u", "rows 0 to 0 are right"),
        ("f32(span.y - span.x)", "f32(p.T)", ""),
        ("x[t * p.C + c]", "x[c * p.T + t]", ""),
    ],
    "lane_sum": [
        ("  partial[lane] = sum;\n  workgroupBarrier();", "  partial[lane] = sum;", RACE),
        ("    workgroupBarrier();\n  }", "  }", RACE),
        ("partial[lane + half]; }\n    workgroupBarrier();", "partial[lane + half]; workgroupBarrier(); }", UNEVEN),
        ("  partial[lane] = sum;", "  if (lane >= p.C) { return; }\n  partial[lane] = sum;", UNEVEN),
        ("    workgroupBarrier();\n  }", "    if (half >= 32u) { workgroupBarrier(); }\n  }", GUARDED),
        ("    workgroupBarrier();\n  }", "    if (p.C > 4000000u) { workgroupBarrier(); }\n  }", GUARDED),
        ("workgroupBarrier", "storageBarrier", RACE + STORAGE_ONLY),
        ("    workgroupBarrier();\n  }", "    storageBarrier();\n  }", RACE + STORAGE_ONLY),
        ("half = 32u", "half = 16u", ""),
        ("c < p.C", "c < 64u", ""),
        ("x[group.y * p.C + c]", "x[c * p.T + group.y]", ""),
    ],
    "standardise_rows": [
        ("x[first + c] - mean;", "x[first + c];", ""),
        ("/ f32(p.C) + p.eps", "/ f32(p.C - 1u) + p.eps", ""),
        ("+ p.eps", "", ""),
        (TREE, "  partial[lane] = value;", RACE),
        (READ, "", RACE),
    ],
    "plain_softmax": [
        ("var most = -3e38", "var most = 0.0", NOT_FINITE),
        ("exp(x[first + c] - largest) / total", "exp(x[first + c]) / total", ""),
        ("  let largest = partial[0];\n  workgroupBarrier();", "  let largest = partial[0];", RACE),
        ("c += 64u) { most", "c += 128u) { most", ""),
    ],
    "softmax_mean": [
        ("total * scale", "total", ""),
        ("weighted * scale", "weighted", ""),
        ("largest = -3e38", "largest = 0.0", NOT_FINITE),
        ("c = 0u", "c = 1u", ""),
        ("score[id.x * p.C + c]", "score[c * p.T + id.x]", ""),
        ("  if (id.x >= p.T) { return; }\n", "", PAST_THE_END),
    ],
    "causal_attention": [
        ("j <= t", "j < span.y", ""),
        ("j <= t", "j < t", NOT_FINITE),
        ("j = span.x", "j = 0u", ""),
        ("dot / sqrt(f32(p.C))", "dot", ""),
        ("k[j * p.C + i]", "k[i * p.T + j]", ""),
    ],
    "tile_matmul": [
        ("r0 + r < p.T && ", "", PAST_THE_END),
        ("r0 + r < p.T && c0 + i < p.N", "r0 + r < p.T && c0 + i <= p.N", PAST_THE_END),
        ("x[min(r0 + r, p.T - 1u) * p.K + k]", "x[k * p.T + min(r0 + r, p.T - 1u)]", ""),
        ("k < p.K", "k + 1u < p.K", ""),
        ("sums[r] += ", "sums[0] += ", ""),
    ],
    "shared_matmul": [
        ("    right[lane.y][lane.x] = b;\n    workgroupBarrier();", "    right[lane.y][lane.x] = b;", RACE),
        ("    workgroupBarrier();\n  }", "  }", RACE),
        ("    workgroupBarrier();\n  }", "    if (k0 == 0u) { workgroupBarrier(); }\n  }", GUARDED),
        ("if (row < p.T && k0 + lane.x < p.K) { a =", "if (row < p.T) { a =", ""),
        ("left[lane.y][k] * right[k][lane.x]", "left[lane.y][k] * right[lane.x][k]", ""),
        ("row < p.T && column < p.N) { out", "column < p.N) { out", PAST_THE_END),
    ],
    "unpack_int8": [
        ("bitcast<i32>(word << (24u - 8u * (at % 4u))) >> 24u", "(word >> (8u * (at % 4u))) & 0xffu", ""),
        ("24u - 8u * (at % 4u)", "8u * (at % 4u)", ""),
        ("c / 64u", "c / 32u", ""),
        ("p.J + c / 64u", "p.J", "columns 0 to 63 are right"),
        ("q[at / 4u]", "q[group.y * ((p.C + 3u) / 4u) + c / 4u]", ""),
    ],
}


def solution(op: str) -> str:
    [path] = (PUZZLES / "solutions").glob(f"*_{op}.wgsl")
    return path.read_text(encoding="utf-8")


def check(text: str, device: Device, folder: Path) -> ShaderReport:
    path = folder / "mine.wgsl"
    path.write_text(text, encoding="utf-8")
    return check_shader(path, device, PUZZLE_CASES)


def test_there_are_twelve_puzzles():
    names = [path.stem.split("_", 1) for path in TEMPLATES]
    assert [int(number) for number, _ in names] == [*range(1, 13)]
    assert {op for _, op in names} == {case.op.name for case in PUZZLE_CASES} == MISTAKES.keys()
    assert [p.name for p in sorted((PUZZLES / "solutions").glob("*.wgsl"))] == [p.name for p in TEMPLATES]
    page = (PUZZLES / "README.md").read_text(encoding="utf-8")
    assert all(path.name in page for path in TEMPLATES)


def test_the_page_shows_what_the_first_command_prints(run: Run, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(TEMPLATES[0], "mine.wgsl")
    code, out, err = run("doctor", "--shader", "mine.wgsl", "--device", device.adapter.index)
    shown = read_blocks(PUZZLES / "README.md")[1].text.splitlines()
    assert (code, err) == (1, "") and [line for line in out.splitlines() if "device: " not in line] == [shown[0], *shown[2:-1]]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_compiles_and_is_rejected(path: Path, device: Device):
    report = check_shader(path, device, PUZZLE_CASES)
    assert report.finding is not None and report.finding.problem != "it does not compile"
    assert ("are digits lost" in report.finding.hint) == (path.stem == "06_standardise_rows")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_and_its_solution_have_the_same_frame(path: Path):
    """The op, the uniform block and the bindings."""
    frame = re.compile(r"^(?:// op: .*|struct Params .*|@group.*|@compute.*)$", re.M)
    text = path.read_text(encoding="utf-8")
    op = path.stem.split("_", 1)[1]
    assert text.startswith(f"// op: {op}\n// Puzzle {int(path.stem[:2])}: ") and "// TODO: " in text
    assert frame.findall(text) == frame.findall(solution(op))
    assert max(map(len, (text + solution(op)).splitlines())) <= 130


@pytest.mark.parametrize("op", MISTAKES)
def test_a_solution_is_right(op: str, device: Device, tmp_path: Path):
    report = check(solution(op), device, tmp_path)
    assert report.ok, report.finding
    assert report.workgroups > 1 and report.times is not None and report.times.engine is None
    assert report.orders == (1 + len(LANE_ORDERS) if shares_memory(solution(op)) else 1)


@pytest.mark.parametrize(
    ("op", "old", "new", "hint"), [(op, *mistake) for op, mistakes in MISTAKES.items() for mistake in mistakes]
)
def test_a_mistake_is_rejected(op: str, old: str, new: str, hint: str, device: Device, tmp_path: Path):
    if RACE in hint and not device.adapter.software:
        pytest.skip("a GPU may hide a race")
    assert old in solution(op)
    finding = check(solution(op).replace(old, new), device, tmp_path).finding
    assert finding is not None
    if hint == UNEVEN and "uniform control flow" in finding.details:
        return  # Dawn's compiler says it first
    assert finding.problem != "it does not compile" and hint in finding.hint, finding


def test_a_kernel_of_many_rounds_is_timed_where_they_are_counted(device: Device, tmp_path: Path):
    """It is right, and its first thread has 256 x 256 rounds in the largest case."""
    text = solution("add_ten").replace("  out[at]", "  if (at == 0u) { for (var i = 0u; i < p.C * p.C; i++) { } }\n  out[at]")
    report = check(text, device, tmp_path)
    assert report.ok and report.times is not None and "C=128" in report.times.shape, report


def test_every_puzzle_compiles_in_tint():
    """Templates, solutions, and solutions with their lanes in other orders."""
    null = open_device(null_adapter(), checked=True)
    for path in TEMPLATES:
        right = solution(path.stem.split("_", 1)[1])
        texts = [path.read_text(encoding="utf-8"), right]
        texts += [text for order in LANE_ORDERS if (text := reorder_lanes(right, order)) and shares_memory(right)]
        assert len(texts) == (2 + len(LANE_ORDERS) if shares_memory(right) else 2)
        for text in texts:
            compile_pipeline(null, path.stem, text, len(re.findall(r"@binding\(", right)))


def test_rounds_are_counted_in_tint_too_where_no_barrier_is():
    null = open_device(null_adapter(), checked=True)
    texts = {path.stem: solution(path.stem.split("_", 1)[1]) for path in TEMPLATES}
    counted = {name: made for name, text in texts.items() if BARRIER not in text and (made := count_rounds(text))}
    assert len(counted) == 4
    for name, text in counted.items():
        compile_pipeline(null, name, text, len(re.findall(r"@binding\(", text)))


# --- the definitions in numpy


def test_definitions_against_those_of_the_engine():
    rng = np.random.default_rng(0)
    x, q, k, v = rng.standard_normal((4, 28, 70), dtype=np.float32)
    spans = np.array([[0, 1], [1, 21], [21, 28]], np.uint32)
    ones, zeros = np.ones(70, np.float32), np.zeros(70, np.float32)
    found = puzzles.standardise_rows.reference(x)
    np.testing.assert_allclose(found, ops.layer_norm.reference(x, ones, zeros), rtol=1e-4, atol=1e-5)
    found = puzzles.mean_pool.reference(x, spans)
    np.testing.assert_allclose(found, ops.pool.reference(x, spans, np.zeros(3, np.uint32), mode="mean"), rtol=1e-5)
    found = puzzles.causal_attention.reference(q, k, v, spans)
    qkv = np.concatenate([q, k, v], axis=1)
    expected = ops.attention.reference(qkv, spans, None, head_size=70, scale=70**-0.5, causal=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_definitions_against_formulas():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 7), dtype=np.float32)
    powers = np.exp(x.astype(np.float64))
    soft = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(puzzles.plain_softmax.reference(x), soft, rtol=1e-5)
    np.testing.assert_allclose(puzzles.softmax_mean.reference(x, x[0]), soft @ x[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(puzzles.lane_sum.reference(x), x.astype(np.float64).sum(1), rtol=1e-4, atol=1e-6)
    u = np.sqrt(2 / np.pi) * (x + 0.044715 * x.astype(np.float64) ** 3)
    np.testing.assert_allclose(puzzles.plain_gelu.reference(x), 0.5 * x * (1 + np.tanh(u)), rtol=1e-5, atol=1e-6)
    q = np.arange(-66, 66).reshape(2, 66).astype(np.int8)
    scale = np.array([[1, 2], [3, 4]], np.float32)
    np.testing.assert_array_equal(puzzles.unpack_int8.reference(q, scale), q * scale[:, [0] * 64 + [1] * 2])
