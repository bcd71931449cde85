"""The two ladders of the book of kernels: every rung agrees with numpy, and what is said of it is what its source does."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "docs"))
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import ladder as ladder_script
from book import rungs
from book.ladder_pages import read_ladder_prose, read_measurements
from book.wgsl import read_constants
from dawns import null_adapter
from gpu_compilers.tables import read_table
from process import Run

from gpt2wgpu.devices.selftest import Case, forward_cases
from gpt2wgpu.gpu import Device, MatrixUnits, open_device
from gpt2wgpu.gpu.kernels import compile_pipeline
from gpt2wgpu.graph import ops

AWKWARD = {
    "matmul": [Case(ops.linear, {"K": 36, "N": 68}, (1, 5, 33)), Case(ops.linear, {"K": 132, "N": 260}, (65,))],
    "softmax": [
        Case(ops.attention, {"N": 576}, (1, 70, 17), rungs.HEAD),
        Case(ops.attention, {"N": 96}, (33, 1, 64), rungs.HEAD | {"head_size": 32, "causal": False}),
    ],
}
RUNGS = [(name, rung) for name, ladder in rungs.LADDERS.items() for rung in ladder.rungs]


def skip_without_matrices(rung: rungs.Rung, device: Device) -> Device:
    found, why = ladder_script.device_of(rung, device)
    if found is None:
        pytest.skip(f"the device grants no cooperative-matrix: {why}")
    return found


@pytest.mark.parametrize(("name", "rung"), RUNGS, ids=lambda x: x if isinstance(x, str) else x.name)
def test_a_rung_equals_numpy(name: str, rung: rungs.Rung, as_on_a_gpu: Device):
    own = skip_without_matrices(rung, as_on_a_gpu)
    for case in AWKWARD[name]:
        check = rungs.check_rung(rung, own, case)
        assert check.ok, check


@pytest.mark.parametrize("name", rungs.LADDERS)
def test_the_first_rung_computes_every_size(name: str, as_on_a_gpu: Device):
    ladder = rungs.LADDERS[name]
    cases = [c for c in forward_cases(half=False) if c.op is ladder.op]
    assert len(cases) > 5
    for case in cases:
        check = rungs.check_rung(ladder.rungs[0], as_on_a_gpu, case)
        assert check.ok, check


def test_a_reader_can_climb_from_the_first_rung(tmp_path: Path, run: Run):
    for path in ladder_script.write_starts(tmp_path / "mine"):
        assert path.read_text(encoding="utf-8").count("fn main(") == 1
    code, out, _ = run("doctor", "--shader", tmp_path / "mine" / "my_matmul.wgsl", "--device", "gpu")
    assert code == 0 and "\nright: " in out and " times as long" in out


def start_script(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """What the script says as it ends."""
    monkeypatch.setattr(sys, "argv", ["ladder.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        ladder_script.main()
    return ended.value.code


def test_a_readers_work_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not even one of the two files, and the other is not written either."""
    mine = tmp_path / "mine" / "my_softmax.wgsl"
    mine.parent.mkdir()
    mine.write_text("weeks of work", encoding="utf-8")
    said = f"error: {mine} exists and may be your work, so nothing was written: name another folder"
    assert start_script(monkeypatch, "--start", str(mine.parent)) == said
    assert [(path, path.read_text(encoding="utf-8")) for path in mine.parent.iterdir()] == [(mine, "weeks of work")]


def test_a_wrong_start_or_device_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "notes.md"
    file.write_text("mine", encoding="utf-8")
    assert start_script(monkeypatch, "--start", str(file)) == f"error: --start needs a folder, but {file} is a file"
    assert start_script(monkeypatch, "--start", str(file / "x")) == f"error: cannot write into {file / 'x'}: Not a directory"
    said = start_script(monkeypatch, "--device", "nonsense")
    assert isinstance(said, str) and said.startswith("error: ") and "nonsense" in said and "\n" not in said


@pytest.mark.parametrize("name", rungs.LADDERS)
def test_a_rung_on_matrix_units_runs_in_f16(name: str, as_on_a_gpu: Device, monkeypatch: pytest.MonkeyPatch):
    """With kernels that need no matrix units in the place of those on them, which few drivers compile."""
    if not as_on_a_gpu.has_f16:
        pytest.skip("the device has no shader-f16")
    others = {
        "matmul_cooperative": ("matmul_workgroup", "matmul_order", "k_in_one"),
        "attention_cooperative": ("attention", "softmax_attention", "attention_keys", "attention_load"),
    }
    right = rungs.read_rung
    monkeypatch.setattr(rungs, "read_rung", lambda file: "\n".join(map(right, others.get(file, (file,)))))
    own = replace(as_on_a_gpu, matrix_units=MatrixUnits(16, 32), kernels={}, tuned={})
    rung = rungs.LADDERS[name].rungs[-1]
    assert rung.half
    for case in AWKWARD[name]:
        check = rungs.check_rung(rung, own, case)
        assert check.ok and check.shape.endswith(" f16"), check


def test_rungs_compile_in_tint():
    """As every kernel does (tests/test_tint.py): a browser could run them."""
    null = open_device(null_adapter(), checked=True)
    for name, rung in RUNGS:
        ladder = rungs.LADDERS[name]
        if not rung.half:
            source = rung.source(ladder.small.output())
            compile_pipeline(null, rung.name, source, 1 + len(ladder.op.args))


def test_matmul_rungs_give_the_same_bits(as_on_a_gpu: Device):
    case, found = AWKWARD["matmul"][0], []
    for rung in rungs.MATMUL.rungs:
        if not rung.half:
            program, values = rungs.compile_rung(rung, as_on_a_gpu, case)
            found.append(program.run(values))
    assert len(found) == 5
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_a_wrong_rung_is_not_timed(as_on_a_gpu: Device, monkeypatch: pytest.MonkeyPatch):
    small = replace(rungs.SOFTMAX, small=AWKWARD["softmax"][1], large=AWKWARD["softmax"][1], rungs=rungs.SOFTMAX.rungs[:2])
    right = rungs.read_rung
    monkeypatch.setattr(rungs, "read_rung", lambda name: right(name).replace("sum[d] * fade", "sum[d]"))
    first, second = ladder_script.climb(small, as_on_a_gpu)
    assert first.row[0] == "three passes" and float(first.row[1]) > 0 and first.row[3] == "1.00"
    assert second.row[:2] == ["online", "wrong"] and second.why.startswith("is wrong: error")
    assert ladder_script.show_rows(small, as_on_a_gpu, [second]).endswith(f"- online: wrong: {second.why}\n")


def test_shared_blocks_are_the_tiles():
    """What a rung says of itself is what its source says."""
    for rung in rungs.MATMUL.rungs:
        constants = read_constants(rung.source(rungs.MATMUL.small.output()))
        if rung.made_by == "matmul_workgroup":
            assert rung.shared == (constants["TILE_T"], constants["TILE_N"])
            assert rung.thread == (constants["THREAD_ROWS"], constants["TILE_N"] // constants["THREADS_N"])
        if rung.made_by == "matmul_cooperative":
            assert rung.shared == (constants["TILE_T"], constants["TILE_N"])
            assert rung.thread == (constants["THREAD_ROWS"],) * 2
    for _, rung in RUNGS:
        assert not rung.compiled or rung.compiled in read_table("navi31").rows
    for rung in rungs.SOFTMAX.rungs[2:]:
        assert read_constants(rung.source(rungs.SOFTMAX.small.output()))["QUERIES"] == rung.shared[0]


def test_bytes_of_a_rung_are_the_loads_of_its_source():
    """Counted from the constants: what a workgroup or a thread loads in one round, for how many outputs."""
    for rung in rungs.MATMUL.rungs[2:]:
        c = read_constants(rung.source(rungs.MATMUL.small.output()))
        if "X_LOADS" in c:  # groups of four, of x and of the weights, in a slice of k
            size, deep = (8, c["SLICE"]) if rung.half else (16, 4 * c["SLICE4"])
            loaded, outputs = c["LANES"] * (c["X_LOADS"] + c["WEIGHT_LOADS"]) * size, c["TILE_T"] * c["TILE_N"]
        else:  # for four k: a group of four for each row, and four rows of the columns' groups
            rows, columns = rung.thread
            loaded, outputs, deep = 16 * (rows + 4 * columns // 4), rows * columns, 4
        assert rungs.matmul_bytes(rung, deep) == loaded / outputs, rung.name
    for rung in rungs.SOFTMAX.rungs[2:]:
        c = read_constants(rung.source(rungs.SOFTMAX.small.output()))
        rows = 2 * c["KEYS"] + (c["QUERIES"] if "SLICE" in c else 0)  # keys, values, and queries that are staged again
        loaded = rows * c["D4"] * (8 if rung.half else 16)
        assert rungs.softmax_bytes(rung, 4 * c["D4"]) == loaded / (c["KEYS"] * c["QUERIES"]), rung.name


def test_what_is_said_of_flash_tiles():
    """That they load more than the rung before, what, and how the two compare where they were timed."""
    before, flash = rungs.SOFTMAX.rungs[2:4]
    assert (rungs.softmax_bytes(before, 64), rungs.softmax_bytes(flash, 64)) == (16, 24)
    c = read_constants(flash.source(rungs.SOFTMAX.small.output()))
    queries = c["QUERIES"] * 64 * 4
    assert queries == 8 * 1024 and queries / (c["QUERIES"] * c["KEYS"]) == 24 - 16
    times = [[float(table.rows[rung.name][1]) for rung in (before, flash)] for table in read_measurements(rungs.SOFTMAX)]
    assert [f"{new / old:.1f}" for old, new in times] == ["1.8", "0.6"]  # the newer driver is the first
    registers, waves = read_ladder_prose(rungs.SOFTMAX)[0].path.with_name("softmax_measured.md"), "| 240 → 120, 4 → 8, 0 → 0 |"
    assert f"attention, 64 {waves}" in registers.read_text(encoding="utf-8")


def log_rows() -> Iterator[tuple[str, list[str]]]:
    for name, ladder in rungs.LADDERS.items():
        for measured in read_measurements(ladder):
            for row in measured.rows.values():
                yield name, row


def test_the_log_has_a_figure_of_every_rung():
    for name, ladder in rungs.LADDERS.items():
        read_ladder_prose(ladder)
        tables = read_measurements(ladder)
        assert tables, f"benchmarks/LOG.md has no table of {name}"
        for table in tables:
            assert list(table.rows) == [rung.name for rung in ladder.rungs]
            assert table.case.startswith(f"{ladder.op.name} {ladder.small}, texts of {ladder.small.lengths[0]}, ")
    for name, row in log_rows():
        if row[1] != "not run":
            case = rungs.LADDERS[name].small
            rate = ladder_script.useful_operations(case) / (float(row[1]) / 1e3) / 1e9
            assert rate == pytest.approx(float(row[2]), rel=0.02), f"{name}: {row}"
