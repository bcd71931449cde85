"""An Encoder is opened, closed, dropped, copied, sent to other processes; and warns where it is called."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from encoders import LONG, refusal, tiny_gpt2

from gpt2wgpu import Encoder
from gpt2wgpu.errors import UserError
from gpt2wgpu.files import windows
from gpt2wgpu.gpu import Device, open_device

TEXTS = ["t1 t2", "t3", "t4 t5 t6"]


@pytest.fixture
def no_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_dropping_the_last_reference_frees_it(
    make: Callable[..., Encoder], tmp_path: Path, no_collection: None, monkeypatch: pytest.MonkeyPatch
):
    model = make(tiny_gpt2(tmp_path))
    model.encode(TEXTS)
    model.encode(TEXTS, output_value="token_embeddings")
    stream = model.encode_stream(TEXTS)
    next(stream)
    stream.close()
    monkeypatch.setattr(windows, "WINDOW", 2)
    for wrong in ([None], [*TEXTS, None], {"t1"}):
        with suppress(UserError):
            model.encode(wrong)
    model.similarity([[1.0]], [[1.0]])
    gone = [weakref.ref(x) for x in (model, model.engine, model.engine.program, model.engine._states_program(), model.checkpoint)]
    del model, stream
    assert [ref() for ref in gone] == [None] * len(gone)


def test_a_closed_encoder_says_so(make: Callable[..., Encoder], tmp_path: Path):
    with make(tiny_gpt2(tmp_path)) as model:
        expected = model.encode(TEXTS)
        model.encode(TEXTS, output_value="token_embeddings")
        stream = model.encode_stream(TEXTS)
    model.close()  # a second time does nothing
    for call in (
        lambda: model.encode("t1"),
        lambda: model.encode("t1", output_value="token_embeddings"),
        lambda: next(stream),
        lambda: model.similarity(expected, expected),
        lambda: model.with_layers([0]),
    ):
        assert refusal(call) == "this Encoder was closed: reopen() opens it again"
    assert model.dimensions == 8
    assert model.info()["bytes on device"] == 0
    model.reopen()
    np.testing.assert_array_equal(model.encode(TEXTS), expected)
    model.reopen()  # while it is open, too
    np.testing.assert_array_equal(model.encode(TEXTS), expected)


def test_token_embeddings_that_a_closed_encoder_never_gave(make: Callable[..., Encoder], tmp_path: Path):
    """Their program would be made of weights that are gone."""
    model = make(tiny_gpt2(tmp_path))
    model.close()
    assert refusal(lambda: model.encode("t1", output_value="token_embeddings")).startswith("this Encoder was closed")


def test_closing_one_of_two_layers_leaves_the_other(make: Callable[..., Encoder], tmp_path: Path):
    model = make(tiny_gpt2(tmp_path, layers=2))
    expected = model.encode(TEXTS)
    with model.with_layers([0, 1, 2]) as other:
        assert other.encode(TEXTS).shape == (3, 24)
        assert other.engine.lock is model.engine.lock  # on one device one computes at a time
    np.testing.assert_array_equal(model.encode(TEXTS), expected)


@pytest.mark.parametrize("duplicate", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy], ids=["pickle", "deepcopy"])
def test_a_copy_is_opened_from_the_arguments(
    duplicate: Callable[[Encoder], Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tiny_gpt2(tmp_path / "model", layers=2)
    monkeypatch.chdir(tmp_path)
    model = Encoder("model", device="numpy", layer=1, pooling="max", prompts={"query": "t9 "}, max_tokens=64, token="secret")
    model.default_prompt_name, model.max_seq_length, model.truncate_dim, model.similarity_fn_name = "query", 7, 5, "dot"
    expected = model.encode(TEXTS)
    model.close()  # what is copied does not have to be open
    monkeypatch.chdir("/")
    assert b"secret" not in pickle.dumps(model)
    other = duplicate(model)
    names = "model", "layer", "pooling", "prompts", "default_prompt_name", "max_seq_length", "truncate_dim", "similarity_fn_name"
    assert [getattr(other, name) for name in names] == [getattr(model, name) for name in names]
    np.testing.assert_array_equal(other.encode(TEXTS), expected)
    assert other.engine.max_tokens == 64
    side_by_side = duplicate(other.with_layers([0, 2]))
    assert side_by_side.encode(TEXTS).shape == (3, 16)


def test_a_spawned_pool(tmp_path: Path):
    """As `datasets.map` and joblib do: the method is pickled with its Encoder."""
    model = Encoder(tiny_gpt2(tmp_path), device="numpy")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        np.testing.assert_allclose(pool.submit(model.encode, TEXTS).result(), model.encode(TEXTS), atol=1e-6)


FORK = """
import os, signal, threading, warnings
warnings.simplefilter("ignore")
from gpt2wgpu import Encoder
model = Encoder(device="numpy", layer=1)
expected = model.encode(["a", "b"])
with model.engine.lock:  # as another thread holds it that encodes
    if not (child := os.fork()):
        signal.alarm(30)  # ends it if it waits for ever
        os._exit(0 if abs(model.encode(["a", "b"]) - expected).max() < 1e-6 else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_while_another_thread_encodes():
    done = subprocess.run([sys.executable, "-c", FORK], cwd=Path(__file__).parents[1], timeout=60, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()


def test_weights_that_are_written_over_while_numpy_uses_them(tmp_path: Path):
    folder = tiny_gpt2(tmp_path)
    model = Encoder(folder, device="numpy")
    expected = model.encode(TEXTS)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "new").write_bytes(weights)
    (folder / "new").replace(folder / "model.safetensors")  # another file: the mapped one stays
    np.testing.assert_array_equal(model.encode(TEXTS), expected)
    model.truncate_dim = 5
    model.reopen()
    np.testing.assert_array_equal(model.encode(TEXTS), expected[:, :5])
    (folder / "model.safetensors").write_bytes(weights[:-4])
    for call in (lambda: model.encode(TEXTS), lambda: [*model.encode_stream(TEXTS)]):
        assert refusal(call).endswith("model.safetensors changed while it was in use: load the model again")
    (folder / "model.safetensors").write_bytes(weights)
    model.reopen()
    np.testing.assert_array_equal(model.encode(TEXTS), expected[:, :5])


def test_a_lost_device_can_be_opened_again(device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    opened = [open_device(device.adapter) for _ in range(2)]
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (opened[-1], ""))
    model = Encoder(tiny_gpt2(tmp_path), device="gpu", dtype="float32")
    expected = model.encode(TEXTS)
    opened.pop().raw.destroy()
    for _ in range(2):
        assert "was lost" in refusal(lambda: model.encode(TEXTS))
    model.reopen()
    np.testing.assert_array_equal(model.encode(TEXTS), expected)


def line_of(caught: list[warnings.WarningMessage]) -> tuple[str, str]:
    [warning] = caught
    return warning.filename, Path(warning.filename).read_text(encoding="utf-8").splitlines()[warning.lineno - 1].strip()


def test_warnings_point_at_the_line_that_led_to_them(built_in: Encoder):
    calls: list[Callable[[], object]] = [
        lambda: built_in.encode(LONG),  # 0
        lambda: built_in.encode_query(LONG),  # 1
        lambda: built_in.encode_document([LONG]),  # 2
        lambda: built_in.similarity_matrix([LONG]),  # 3
        lambda: [*built_in.encode_stream([LONG])],  # 4
        lambda: list(built_in.encode_stream([LONG])),  # 5
    ]
    for i, call in enumerate(calls):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        name, line = line_of(caught)
        assert name == __file__ and line.endswith(f"# {i}")


def test_the_reminder_of_prompts_points_there_too(tmp_path: Path):
    calls: list[Callable[[Encoder], object]] = [
        lambda model: model.encode("t1"),  # 0
        lambda model: model.encode_stream(["t1"]),  # 1
        lambda model: model.options(),  # 2
    ]
    for i, call in enumerate(calls):
        model = Encoder(tiny_gpt2(tmp_path / str(i) / "e5-small"), device="numpy")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call(model)
        name, line = line_of(caught)
        assert name == __file__ and line.endswith(f"# {i}")


def test_rows_that_are_kept_keep_nothing_else(built_in: Encoder):
    row = next(built_in.encode_stream(["a", "b"]))
    assert row.base is None and row.nbytes == 384 * 4
    assert [states.base for states in built_in.encode(["a", "b"], output_value="token_embeddings")] == [None, None]


def test_an_error_leaves_no_batch_under_way(make: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = make(
        tiny_gpt2(tmp_path, change={"wte.weight": lambda a: np.where(np.arange(len(a))[:, None] == 9, np.float32(3e38), a)})
    )
    submit, waited = model.engine.program.submit, []

    def noted(batch: dict[str, np.ndarray]) -> Callable[[], np.ndarray]:
        wait, i = submit(batch), len(waited)
        waited.append(False)

        def note() -> np.ndarray:
            waited[i] = True
            return wait()

        return note

    monkeypatch.setattr(model.engine.program, "submit", noted)
    assert "text 0 holds NaN or Inf" in refusal(lambda: model.encode(["t9", "t1", "t2"], batch_size=1))
    assert len(waited) >= 2 and all(waited)


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)
