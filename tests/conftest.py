"""Fixtures for every test: strict numerics, the command line, and a device whose shaders keep wgpu's checks."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from process import Run
from training import write_data

from gpt2wgpu import Encoder
from gpt2wgpu.cli import main
from gpt2wgpu.gpu import Device, adapters, choose, open_device


@pytest.fixture(autouse=True)
def strict_numerics():
    with np.errstate(all="raise", under="ignore"):
        yield


@pytest.fixture(autouse=True)
def no_device_from_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GPT2WGPU_DEVICE", raising=False)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    """Nothing is asked of a hub but where a test has one of its own, and the user's cache and token are not ours."""
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "SENTENCE_TRANSFORMERS_HOME", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.getbasetemp() / "hub"))


@pytest.fixture(autouse=True, scope="session")
def cache_of_our_own(tmp_path_factory: pytest.TempPathFactory):
    """What is measured of a GPU is kept in the user's cache folder, which is not ours to write."""
    with pytest.MonkeyPatch.context() as patch:
        compiled = os.environ.get("MESA_SHADER_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        patch.setenv("MESA_SHADER_CACHE_DIR", str(compiled))  # compiling every shader anew takes minutes
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in numpy and gives exit code, stdout and stderr."""
    monkeypatch.setenv("GPT2WGPU_DEVICE", "numpy")
    monkeypatch.setenv("COLUMNS", "200")

    def run_main(*args: object, stdin: bytes = b"") -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            with pytest.raises(SystemExit) as caught:
                main([str(a) for a in args])
        out, err = capfdbinary.readouterr()
        return int(caught.value.code or 0), out.decode(), err.decode()

    return run_main


def open_any(checked: bool) -> Device:
    """The GPU if there is one, else a software adapter. In CI there must be one; elsewhere the tests that need it are skipped."""
    try:
        adapter = choose(os.environ.get("GPT2WGPU_TEST_DEVICE", "gpu"))
    except ValueError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    assert adapter is not None
    return open_device(adapter, checked=checked)


@pytest.fixture(scope="session")
def device() -> Device:
    """Shaders checked: an index out of range cannot pass unnoticed."""
    return open_any(checked=True)


@pytest.fixture(scope="session")
def production_device() -> Device:
    """Shaders as users run them."""
    return open_any(checked=False)


@pytest.fixture(scope="session")
def built_in() -> Encoder:
    return Encoder(device="numpy")


@pytest.fixture
def use_gpu(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders made from here on compute on the tests' device."""
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (device, "the device of the tests"))


@pytest.fixture(params=["numpy", "gpu"])
def make(request: pytest.FixtureRequest) -> Callable[..., Encoder]:
    if request.param == "gpu":
        request.getfixturevalue("use_gpu")
    return lambda *args, **options: Encoder(*args, device=request.param, **options)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


def pytest_runtest_logreport(report: pytest.TestReport):
    if report.skipped and os.environ.get("CI"):
        skipped.append(f"{report.nodeid}: {report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr}")


def pytest_sessionfinish(session: pytest.Session):
    """In CI a skipped test is a failure. What a driver does not have may be skipped: SwiftShader has no shader-f16, and
    cooperative-matrix is granted by no wgpu-native of wgpu-py (benchmarks/experimental_wgpu.py)."""
    allowed = ["no shader-f16"] if any("SwiftShader" in a.name for a in adapters()) else []
    wrong = [s for s in skipped if not any(a in s for a in (*allowed, "grants no cooperative-matrix"))]
    if wrong:
        print("\nskipped in CI, where every test must run:", *wrong, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


skipped: list[str] = []
