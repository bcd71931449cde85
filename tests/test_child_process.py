"""What might crash a driver runs in a child process: a first kernel for matrix units, listing adapters on Windows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2wgpu.devices import matrix_units
from gpt2wgpu.gpu import Device, backends, open_device
from gpt2wgpu.gpu.child_process import ChildResult, run_in_child
from gpt2wgpu.gpu.library import BACKENDS
from gpt2wgpu.gpu.native import NATIVE


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache in which nothing is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (("math", "sqrt", 4.0), ChildResult(2.0)),
        (("math", "sqrt", -1.0), ChildResult(None, "ValueError: math domain error")),
        (("os", "abort"), ChildResult(None, "crashed with SIGABRT", crashed=True)),
        (("os", "_exit", 3), ChildResult(None, "ended with exit code 3")),
        (("os", "_exit", 0), ChildResult(None, "gave no answer", crashed=True)),
        (("time", "sleep", 600), ChildResult(None, "was not done after 5 seconds", crashed=True)),
    ],
    ids=lambda x: "",
)
def test_a_child_process(call: tuple, expected: ChildResult):
    assert run_in_child(*call, seconds=5 if call[0] == "time" else 300) == expected


def test_a_frozen_program_starts_no_copy_of_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.frozen", True, raising=False)
    assert run_in_child("math", "sqrt", 4.0, seconds=60).failure == "this program cannot start a Python process to try it in"


@pytest.fixture
def granted(device: Device) -> Device:
    """A device that says it has matrix units."""
    return replace(device, granted=device.granted.union(device.library.matrix_features), kernels={})


def test_matrix_units_are_tried_in_a_process_of_their_own(granted: Device, monkeypatch: pytest.MonkeyPatch):
    """The child opens the adapter itself, which does not grant them here; its answer is kept."""
    if open_device(granted.adapter).grants_matrices:
        pytest.skip("the device grants cooperative-matrix")
    found, why = matrix_units.find_matrix_units(granted)
    assert found is granted and " is not granted: " in why
    monkeypatch.setattr(matrix_units, "run_in_child", lambda *a, **k: pytest.fail("tried again"))
    assert matrix_units.find_matrix_units(granted) == (granted, why)


def test_matrix_units_that_agreed_are_not_tried_again(granted: Device, monkeypatch: pytest.MonkeyPatch):
    tried: list[object] = []
    answer = ChildResult([[16, 32], ""])
    monkeypatch.setattr(matrix_units, "run_in_child", lambda *a, **k: tried.append(a) or answer)
    for _ in range(2):
        found, why = matrix_units.find_matrix_units(granted)
        assert (found.matrix_units, why) == ((16, 32), "")
    assert len(tried) == 1
    monkeypatch.setattr(matrix_units, "shader_digest", lambda: "edited")
    matrix_units.find_matrix_units(granted)
    assert len(tried) == 2


def test_matrix_units_for_matmuls_alone_are_kept_too(granted: Device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(matrix_units, "run_in_child", lambda *a, **k: ChildResult([[16, 32], "attention does without: wrong"]))
    for _ in range(2):
        found, why = matrix_units.find_matrix_units(granted)
        assert (found.matrix_units, found.matrix_attention, why) == ((16, 32), False, "attention does without: wrong")
        monkeypatch.setattr(matrix_units, "run_in_child", lambda *a, **k: pytest.fail("tried again"))


def test_a_driver_that_crashes_leaves_matrix_units_off(
    granted: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(matrix_units, "run_in_child", lambda *a, seconds: run_in_child("os", "abort", seconds=seconds))
    for starts in (1, 2):
        found, why = matrix_units.find_matrix_units(granted)
        assert found is granted and why == "their first kernel crashed with SIGABRT"
        said = capsys.readouterr().err.splitlines()
        assert said == [f"matrix units of {granted.adapter} are not used: {why}; update its driver"][: 2 - starts]


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """As on Windows with one driver; the backends that child processes were asked for."""
    asked: list[list[str]] = []
    monkeypatch.setattr(backends, "on_windows", lambda: True)
    monkeypatch.setattr(backends, "windows_drivers", lambda: ["AMD Radeon 31.0.1"])
    return asked


def child(asked: list[list[str]], *crashing: str) -> Callable[..., ChildResult]:
    def run(module: str, function: str, prefix: str, wanted: list[str], seconds: float) -> ChildResult:
        asked.append(wanted)
        return ChildResult(None, "crashed with 0xc0000005", True) if set(crashing) & set(wanted) else ChildResult(1)

    return run


def test_adapters_are_listed_in_a_child_on_windows(windows: list, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(backends, "run_in_child", child(windows))
    assert [*backends.safe_backends(NATIVE)] == backends.safe_backends(NATIVE) == [*BACKENDS]
    assert windows == [[*BACKENDS]] and capsys.readouterr().err == ""
    monkeypatch.setattr(backends, "windows_drivers", lambda: ["AMD Radeon 31.0.2"])
    backends.safe_backends(NATIVE)
    assert len(windows) == 2, "another driver"


def test_a_driver_that_crashes_windows_while_adapters_are_listed(windows: list, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(backends, "run_in_child", child(windows, "Vulkan"))
    assert backends.safe_backends(NATIVE) == backends.safe_backends(NATIVE) == ["D3D12"]
    assert windows == [[*BACKENDS], ["D3D12"]]
    [said] = capsys.readouterr().err.splitlines()
    assert "crashed with 0xc0000005: those of D3D12 only are used; update the GPU's driver" in said
    monkeypatch.setattr(backends, "windows_drivers", lambda: [])
    monkeypatch.setattr(backends, "run_in_child", child(windows, "Vulkan", "D3D12"))
    assert backends.safe_backends(NATIVE) == []
    assert capsys.readouterr().err.splitlines()[-1].startswith("listing the GPUs by D3D12 crashed with 0xc0000005: numpy is used")


def test_no_other_system_starts_a_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "run_in_child", lambda *a, **k: pytest.fail("a process"))
    if not backends.on_windows():
        assert backends.safe_backends(NATIVE) == BACKENDS


def test_the_drivers_of_windows(monkeypatch: pytest.MonkeyPatch):
    """By a registry that has a key without rights, as the real one has."""
    values = {"0000": ("AMD Radeon", "31.0.1"), "0001": ("Intel UHD", "30.1")}

    class Key:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> "Key":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    class Registry:
        HKEY_LOCAL_MACHINE = None

        @staticmethod
        def OpenKey(parent: Key | None, name: str) -> Key:
            if name == "Properties":
                raise PermissionError(name)
            return Key(name)

        @staticmethod
        def EnumKey(key: Key, i: int) -> str:
            return ["0000", "0001", "Properties"][i] if i < 3 else (_ for _ in ()).throw(OSError("no more"))

        @staticmethod
        def QueryValueEx(key: Key, field: str) -> tuple[str, int]:
            return values[key.name][field == "DriverVersion"], 1

    monkeypatch.setitem(__import__("sys").modules, "winreg", Registry)
    assert backends.windows_drivers() == ["AMD Radeon 31.0.1", "Intel UHD 30.1"]
