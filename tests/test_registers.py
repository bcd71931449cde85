"""`tests/registers`: what its comparison of tables finds, and that the checked-in tables are whole."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_compilers import intel, packages, page
from gpu_compilers.gpus import GPUS, IN_CI
from gpu_compilers.tables import FOLDER, Row, Table, find_changes, find_faults, read_table, write_table
from test_structure import OPS

ROW = Row(registers=96, spills=0, scratch=0, memory=4096, waves=16)
TABLE = Table("Mesa 25", "2026-11-27", {"embed f32": ROW, "attention f32 head_size=128 causal=1": ROW})


def changed(kernel: str = "embed f32", **fields: int) -> dict[str, Table]:
    return {"navi31": replace(TABLE, rows=TABLE.rows | {kernel: ROW._replace(**fields)})}


def faults(new: dict[str, Table]) -> list[str]:
    return find_faults(dict.fromkeys(new, TABLE), new)


def test_the_same_again_is_no_fault():
    assert faults({"navi31": TABLE}) == [] == find_changes({"navi31": TABLE}, {"navi31": TABLE})


@pytest.mark.parametrize(
    ("fields", "said"), [({"spills": 3}, "3 spills"), ({"scratch": 256}, "256 bytes of scratch"), ({"waves": 14}, "14 waves")]
)
def test_spills_scratch_and_fewer_waves_are_faults(fields: dict[str, int], said: str):
    (fault,) = faults(changed(**fields))
    assert fault.startswith(f"navi31: embed f32: {said}")


def test_a_spill_in_the_table_is_a_fault_all_the_same():
    new = changed(spills=3)
    assert len(find_faults(new, new)) == 1


def test_more_registers_and_more_waves_are_only_told():
    new = changed(registers=84, waves=18)
    assert faults(new) == []
    assert find_changes({"navi31": TABLE}, new) == ["navi31: embed f32: registers 96 -> 84, waves 16 -> 18"]
    assert faults(changed(registers=104, memory=8192)) == []


def test_a_kernel_must_be_in_both_tables():
    fewer = replace(TABLE, rows={"embed f32": ROW})
    (new,) = find_faults({"navi31": fewer}, {"navi31": TABLE})
    (old,) = faults({"navi31": fewer})
    assert "is not in the table" in new and "is compiled no more" in old


def test_another_driver_is_a_fault():
    (fault,) = faults({"navi31": replace(TABLE, driver="Mesa 26")})
    assert "Mesa 25" in fault and "Mesa 26" in fault


def test_a_table_is_read_as_it_was_written(tmp_path: Path):
    table = replace(TABLE, rows={"b": ROW, "a": Row(registers=8)})
    write_table("m1", table, tmp_path)
    assert read_table("m1", tmp_path) == table
    lines = (tmp_path / "m1.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[2:] == ["a\t8\t-\t-\t-\t-", "b\t96\t0\t0\t4096\t16"]


def test_the_tables_have_every_op():
    for gpu in IN_CI:
        found = {re.sub("_(scalar|flash|cooperative)$", "", name.split()[0]) for name in read_table(gpu.name).rows}
        assert OPS.keys() - found == set(), gpu.name


def test_nothing_spills_in_the_tables():
    tables = {name: read_table(name) for name in GPUS}
    assert find_faults(tables, tables) == []


def test_the_tables_are_sorted():
    for path in FOLDER.glob("*.tsv"):
        kernels = path.read_text(encoding="utf-8").splitlines()[2:]
        assert kernels == sorted(kernels), path.name


def test_the_page_shows_the_tables():
    assert page.render_tables() in page.PAGE.read_text(encoding="utf-8"), "docs/registers.md is old: bash tests/registers --write"


def test_every_pattern_of_the_page_finds_a_kernel():
    names = read_table("navi31").rows.keys()
    assert [p for p in page.SHOWN if not any(re.fullmatch(p, name) for name in names)] == []


def test_kernels_are_shown_by_number():
    names = {"linear f32 activation=none 128x64/8", "linear f32 activation=none 64x64/8", "linear f32 activation=relu 64x64/8"}
    assert page.shown_kernels(names) == ["linear f32 activation=none 64x64/8", "linear f32 activation=none 128x64/8"]


def test_a_shim_that_cannot_be_built_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SystemExit, match=r"no-op driver for Intel's GPUs cannot be built: could not count: .*no such thing"):
        intel.run_step("count", [sys.executable, "-c", "import sys; sys.exit('an error: no such thing')"])
    monkeypatch.setattr(intel.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="there is no C compiler: install gcc"):
        intel.add_intel_shim(tmp_path)
    built = tmp_path / packages.LIBRARIES / intel.LIBRARY
    built.parent.mkdir(parents=True)
    built.touch()
    intel.add_intel_shim(tmp_path)  # it is there


def test_a_machine_that_cannot_unpack_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    assert packages.refusal("sid") == "it needs Debian's apt-get and dpkg-deb, and there is no apt-get"
    monkeypatch.setattr(packages.shutil, "which", lambda name: name)
    monkeypatch.setattr(packages.platform, "machine", lambda: "aarch64")
    assert packages.refusal("sid") == "it needs an x86-64 machine, and this is aarch64"
    monkeypatch.setattr(packages.platform, "machine", lambda: "x86_64")
    system = {"ID": "debian", "VERSION_CODENAME": "trixie"}
    monkeypatch.setattr(packages.platform, "freedesktop_os_release", lambda: system)
    assert packages.refusal("sid") == packages.refusal("trixie-backports") == ""
    assert packages.refusal("bookworm-backports").endswith("this is debian trixie")
    system["ID"] = "ubuntu"
    assert packages.refusal("sid").endswith("this is ubuntu trixie")
