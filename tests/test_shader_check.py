"""`doctor --shader`: right kernels pass, and each kind of mistake is found, named and placed."""

import json
import re
from pathlib import Path

import pytest
from dawns import null_adapter
from pages import REPOSITORY, read_blocks
from process import Run
from reader_shaders import CONCAT, Check, text_checker

from gpt2wgpu.devices.selftest import forward_cases
from gpt2wgpu.diagnose.lane_orders import LANE_ORDERS
from gpt2wgpu.diagnose.reader_shader import make_candidates, read_reader_shader
from gpt2wgpu.diagnose.shader_hints import ENDLESS, compiler_hint
from gpt2wgpu.diagnose.shader_times import ShaderTimes, sum_up
from gpt2wgpu.errors import UserError
from gpt2wgpu.gpu import Device, DeviceLost, GPUError, open_device, read_shader
from gpt2wgpu.gpu.kernels import compile_pipeline
from gpt2wgpu.graph import ops


@pytest.fixture
def check(device: Device, tmp_path: Path) -> Check:
    return text_checker(device, tmp_path)


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


def test_a_lost_device_is_a_verdict(check: Check, monkeypatch: pytest.MonkeyPatch):
    def lose(*args: object) -> None:
        raise DeviceLost("the device was lost")

    monkeypatch.setattr("gpt2wgpu.gpu.trial.Trial.run", lose)
    finding = check("mine", CONCAT).finding
    assert finding is not None and finding.problem == "the device was lost while it ran" and finding.hint == ENDLESS
    monkeypatch.undo()
    monkeypatch.setattr("gpt2wgpu.gpu.trial.Trial.time", lose)
    finding = check("mine", CONCAT).finding
    assert finding is not None and finding.problem == "the device was lost when it ran without bounds checks"


def test_a_ratio_is_of_passes_side_by_side():
    """So that a machine that slows down for both changes nothing."""
    assert sum_up("x", [[2.0, 1.0], [20.0, 10.0], [300.0, 100.0]]) == ShaderTimes("x", 20.0, 10.0, 2.0)
    assert sum_up("x", [[2.0], [5.0], [3.0]]) == ShaderTimes("x", 3.0, None, None)


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


BINDINGS = "the bindings of concat, all in @group(0): 0 is p (uniform), 1 is a (storage, read), 2 is b (storage, read), 3 is out"


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        (("binding(3)", "binding(9)", "binding(1)", "binding(3)", "binding(9)", "binding(1)"), BINDINGS),
        (("@group(0) @binding(3)", "@group(1) @binding(3)"), BINDINGS),
        (("@binding(3)", "@binding(4)"), BINDINGS),
        (("@binding(2)", "@binding(1)"), BINDINGS),
        (("<storage, read> b", "<storage, read_write> b"), BINDINGS),
        (("@workgroup_size(64)", "@workgroup_size(100000)"), "this device allows sizes from 1 to "),
        (("@workgroup_size(64)", "@workgroup_size(1024, 1024)"), " lanes in all; every device allows 256 x 256 x 64, and 256"),
        (("@workgroup_size(64)", "@workgroup_size(0)"), "this device allows sizes from 1 to "),
        (("let at", "at"), ""),
    ],
)
def test_the_hint_says_what_the_compilers_message_does_not(changes: tuple[str, ...], hint: str, device: Device, check: Check):
    finding = check("mine", CONCAT, *changes).finding
    assert finding is not None and finding.problem == "it does not compile"
    assert hint in finding.hint and bool(hint) == bool(finding.hint)
    text = CONCAT
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        text = text.replace(old, new)
    with pytest.raises(GPUError) as refused:
        compile_pipeline(open_device(null_adapter(), checked=True), "mine", text, 4)
    found = compiler_hint(str(refused.value), ops.concat, device)
    assert hint in found and bool(hint) == bool(found)  # of Chrome's compiler too


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


def test_the_page_shows_what_the_command_prints(run: Run, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """But for the device and what the machine's speed decides: the largest case and its times."""
    if not device.has_f16 or not device.adapter.software:
        pytest.skip("the device has no shader-f16")
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/layer_norm.wgsl").write_text(read_shader("layer_norm"), encoding="utf-8")
    code, out, err = run("doctor", "--shader", "mine/layer_norm.wgsl", "--device", device.adapter.index)
    [shown] = [b.text for b in read_blocks(REPOSITORY / "docs" / "doctor.md") if "mine/layer_norm.wgsl: " in b.text]
    vary = re.compile(r"^device: .*? \(Vulkan, CPU\)|\d+ workgroups|^time: .* ms \(.*\)|[\d.]+ ms: [\d.]+", re.M)
    assert (code, err) == (0, "") and vary.sub("", out) == vary.sub("", shown)


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
