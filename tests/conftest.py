"""Fixtures for every test: strict numerics, the command line, and a device whose shaders keep wgpu's checks."""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from encoders import tiny_gpt2
from forms import has_rare_activation
from loopback_hub import Hub, serve
from process import Run
from training import write_data

from gpt2wgpu import Encoder
from gpt2wgpu.cli import main
from gpt2wgpu.corpus import job
from gpt2wgpu.gpu import Device, choose_adapter, inplace, kernels, list_adapters, open_device
from gpt2wgpu.gpu.kernels import specialise_source
from gpt2wgpu.graph.tensor import Tensor
from gpt2wgpu.hub import session

if TYPE_CHECKING:
    from schedulers import Harness

GENERATORS: dict[int, Any] = {}  # the state of each before its first test, by id()
ON_DAWN = os.environ.get("GPT2WGPU_TEST_DEVICE", "").startswith("dawn:")
collect_ignore = [] if ON_DAWN else ["test_dawn_device.py"]
collect_ignore += [] if "GPT2WGPU_NODE_WEBGPU" in os.environ else ["test_web_replay.py"]  # tests/in_node


@pytest.fixture(autouse=True)
def strict_numerics():
    with np.errstate(all="raise", under="ignore"):
        yield


@pytest.fixture(autouse=True)
def same_random_numbers_in_any_order(request: pytest.FixtureRequest):
    """A generator of a test's module begins anew for each test, so that no other test changes its numbers."""
    for value in vars(request.module).values():
        if isinstance(value, np.random.Generator):
            value.bit_generator.state = GENERATORS.setdefault(id(value), value.bit_generator.state)


@pytest.fixture(autouse=True)
def no_device_from_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GPT2WGPU_DEVICE", raising=False)


@pytest.fixture(autouse=True, scope="session")
def signals_of_a_terminal():
    """Under nohup and in a script's background job some are ignored, and would be by the processes that tests start."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ours = {number: signal.getsignal(number) for number in numbers}
    yield
    left = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert left == ours, "a test left a signal handler behind"


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
        adapter = choose_adapter(os.environ.get("GPT2WGPU_TEST_DEVICE", "gpu"))
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
def as_on_a_gpu(device: Device) -> Device:
    """The tests' device, but using the kernels that a real GPU gets."""
    opened = open_device(replace(device.adapter, kind="DiscreteGPU"), checked=True)
    assert not opened.adapter.software
    return opened


@pytest.fixture(scope="module")
def users_gpu(device: Device) -> Device:
    """The tests' device with the kernels that a real GPU gets, their shaders as users run them, without checks."""
    return open_device(replace(device.adapter, kind="DiscreteGPU"), checked=False)


@pytest.fixture(params=["as it is", "as a GPU"])
def device_form(request: pytest.FixtureRequest, device: Device, as_on_a_gpu: Device) -> Device:
    """The tests' device, once with the kernels that it gets and once with those that a real GPU gets."""
    return device if request.param == "as it is" else as_on_a_gpu


@pytest.fixture(scope="session")
def each_form(device: Device, as_on_a_gpu: Device) -> Callable[[Tensor], list[Device]]:
    """The tests' device, and the same with a real GPU's kernels where that of this op is another one. On Dawn only the latter:
    tests/test_tint.py compiles both."""

    def forms(t: Tensor) -> list[Device]:
        assert t.op is not None
        devices = (as_on_a_gpu,) if ON_DAWN or has_rare_activation(t.op, t.attrs) else (as_on_a_gpu, device)
        return [*{specialise_source(d, t): d for d in devices}.values()]

    return forms


@pytest.fixture(scope="session")
def built_in() -> Encoder:
    return Encoder(device="numpy")


@pytest.fixture
def use_gpu(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders made from here on compute on the tests' device."""
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (device, "the device of the tests"))


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """`wrong("pool", old, new)`: the source of that shader is another one."""

    def change(shader: str, old: str, new: str) -> None:
        right = kernels.read_shader
        assert old in right(shader)
        for module in (kernels, inplace):
            monkeypatch.setattr(
                module, "read_shader", lambda name: right(name).replace(old, new) if name == shader else right(name)
            )

    return change


@pytest.fixture(params=["numpy", "gpu"])
def make(request: pytest.FixtureRequest) -> Callable[..., Encoder]:
    if request.param == "gpu":
        request.getfixturevalue("use_gpu")
    return lambda *args, **options: Encoder(*args, device=request.param, **options)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


@pytest.fixture
def small_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of three texts, committed one by one; shards of some seven texts, of 32 bytes each; no waiting for disks."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(job, "BATCHES", 1)
    monkeypatch.setattr(job, "MAX_SEQUENCES", 3)
    monkeypatch.setattr(job, "COMMIT_SECONDS", -1.0)
    monkeypatch.setattr(job, "SHARD_BYTES", 7 * 32)


@pytest.fixture(scope="session")
def served() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


@pytest.fixture
def hub(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, an empty cache, and no waiting."""
    from huggingface_hub import constants

    served.bare = False
    for kept in (served.repositories, served.requests, served.faults, served.renamed):
        kept.clear()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read when it was imported, in whatever test
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(session, "PIECE", 100)
    monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    yield served
    assert not [r for r in served.requests if r.path.endswith((".bin", ".onnx", ".h5", ".pt", ".msgpack", ".md"))]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited."""
    waited: list[float] = []
    monkeypatch.setattr(session, "time", SimpleNamespace(sleep=waited.append))
    return waited


@pytest.fixture
def gpt2(hub: Hub, tmp_path: Path) -> Path:
    """The folder that the hub has as gpt2, with what is of no use here."""
    folder = tiny_gpt2(tmp_path / "gpt2-original")
    for name in ("pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "README.md", "flax_model.msgpack"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not for us")
    hub.add("gpt2", folder)
    return folder


@pytest.fixture
def encoder() -> Iterator[Encoder]:
    """In numpy, with one layer and small batches."""
    with Encoder(device="numpy", layer=1, max_tokens=256) as opened:
        yield opened


@pytest.fixture
def harness(encoder: Encoder) -> Iterator["Harness"]:
    from schedulers import Harness  # needs the extra `serve`

    found = Harness(encoder)
    yield found
    found.gate.set()
    found.scheduler.close()


def pytest_runtest_logreport(report: pytest.TestReport):
    if report.skipped and os.environ.get("CI"):
        skipped.append(f"{report.nodeid}: {report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr}")


def pytest_sessionfinish(session: pytest.Session):
    """In CI a skipped test is a failure. What a driver does not have may be skipped: SwiftShader has no shader-f16, and
    cooperative-matrix is granted by no wgpu-native of wgpu-py (benchmarks/experimental_wgpu.py)."""
    allowed = ["no shader-f16"] if any("SwiftShader" in a.name for a in list_adapters()) else []
    wrong = [s for s in skipped if not any(a in s for a in (*allowed, "grants no cooperative-matrix"))]
    if wrong:
        print("\nskipped in CI, where every test must run:", *wrong, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


skipped: list[str] = []
