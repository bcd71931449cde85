"""Training that asks for too much, or for something without effect, is refused in one line before it begins."""

import re
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
import wgpu
from process import Run
from training import SCRATCH, metrics

from gpt2wgpu import UserError
from gpt2wgpu.gpu import Device
from gpt2wgpu.graph import memory
from gpt2wgpu.models.gpt2 import GPT2Config
from gpt2wgpu.train import gpu, loop, run_folder, start
from gpt2wgpu.train.gradients import TrainGraph
from gpt2wgpu.train.program import NumpyTrainProgram

Refused = Callable[..., str]


@pytest.fixture
def refused(run: Run, data: Path, tmp_path: Path) -> Refused:
    """`refused(*options)`: the last line of stderr of a run that ends with exit code 1 and without a model."""

    def refuse(*options: object) -> str:
        code, out, err = run("train", "--data", data / "labels.tsv", *options, "-o", tmp_path / "run")
        assert (code, out) == (1, "") and "Traceback" not in err, err
        return err.splitlines()[-1]

    return refuse


def test_epochs_without_end(refused: Refused, data: Path, monkeypatch: pytest.MonkeyPatch):
    assert "epochs must be a whole number from 1 to 100000" in refused(*SCRATCH, "--epochs", 1_000_000_000)
    monkeypatch.setattr(start, "PASSES", 60 * 99)
    monkeypatch.setattr("gpt2wgpu.train.data.epoch_batches", lambda *_: pytest.fail("begins to count"))
    expected = "error: 100 epochs of 60 examples are 6,000 examples, at most 5,940 are possible: lower --epochs"
    assert refused(*SCRATCH, "--epochs", 100) == expected


def test_counting_the_steps_of_many_epochs_is_announced(run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(start, "MANY_PASSES", 100)
    args = ("--data", data / "labels.tsv", *SCRATCH, "-o", tmp_path / "run", "--epochs", 2)
    code, _, err = run("train", *args)
    assert code == 0 and "counting the steps of 2 epochs of 60 examples\n" in err


def test_a_warmup_that_never_ends(refused: Refused, run: Run, data: Path, tmp_path: Path):
    options = (*SCRATCH, "--epochs", 1, "--batch-tokens", 128)
    assert run("train", "--data", data / "labels.tsv", *options, "-o", tmp_path / "whole")[0] == 0
    steps = len(metrics(tmp_path / "whole"))
    found = refused(*options, "--warmup", steps)
    assert f"a warm-up of {steps} steps, and the whole run has {steps}: the learning rate would never reach --lr" in found
    assert run("train", "--data", data / "labels.tsv", *options, "--warmup", steps - 1, "-o", tmp_path / "warm")[0] == 0


@pytest.mark.parametrize(
    "option, loss", [(("--margin", 0.4), "info_nce"), (("--temperature", 1), "contrastive"), (("--no-token-vectors",), "cosine")]
)
def test_options_of_another_loss(refused: Refused, option: tuple[object, ...], loss: str):
    name = str(option[0]).replace("--no-", "--")
    assert refused(*SCRATCH, *option, "--loss", loss).startswith(f"error: {name} is for the loss ")


# --- memory


def test_numpy_refuses_what_does_not_fit(refused: Refused, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 100_000)
    found = refused(*SCRATCH)
    assert found.startswith("error: a model of 1 layers, width 16, context 24 and ") and "this machine has 1 MB free" in found
    for room in (300_000, 700_000):  # for the longest text, for the largest batch
        monkeypatch.setattr(memory, "available_memory", lambda room=room: room)
        found = refused(*SCRATCH)
        assert "error: training with batches of" in found and found.endswith(
            "and this machine has 1 MB free: lower --batch-tokens or --max-seq-length, or train a smaller model"
        )


def test_a_budget_that_no_batch_fills_takes_no_memory(run: Run, data: Path, tmp_path: Path):
    args = ("--data", data / "labels.tsv", *SCRATCH, "--epochs", 1, "--batch-tokens", 100_000_000, "-o", tmp_path / "run")
    code, out, err = run("train", *args)
    assert code == 0 and out.endswith(": 1 step\n"), err


def test_memory_that_runs_out_while_it_trains(refused: Refused, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise MemoryError("Unable to allocate 1.00 EiB")

    with monkeypatch.context() as patch:
        patch.setattr("gpt2wgpu.train.data.tokenize_texts", full)
        assert "the data do not fit in memory: use fewer with --limit-train" in refused(*SCRATCH)
    monkeypatch.setattr(NumpyTrainProgram, "gradients", full)
    assert "more than numpy has free: lower --batch-tokens" in refused(*SCRATCH)


def test_a_device_refuses_what_it_cannot_bind(refused: Refused, device: Device):
    found = refused(*SCRATCH, "--device", device.adapter.index, "--batch-tokens", 100_000_000)
    assert "cannot train on batches of 100,000,000 tokens: lower --batch-tokens to " in found


IN_WGPU = "Validation Error\n\nCaused by:\n  In wgpuDeviceCreateBuffer, label = 'm of wte'\n    Not enough memory left."


def test_a_device_without_memory(refused: Refused, device: Device, monkeypatch: pytest.MonkeyPatch):
    create_buffer = type(device.raw).create_buffer

    def full(self: Any, *args: Any, label: str = "", **keywords: Any) -> Any:
        if label.startswith("m of "):
            raise wgpu.GPUValidationError(IN_WGPU)
        return create_buffer(self, *args, label=label, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(type(device.raw), "create_buffer", full)
        found = refused(*SCRATCH, "--device", device.adapter.index)
        assert f"more than {device.adapter} has free: lower --batch-tokens" in found
    monkeypatch.setattr(memory, "available_memory", lambda: 300_000)  # of a device that uses main memory
    assert "this machine has 1 MB free" in refused(*SCRATCH, "--device", device.adapter.index)


def test_a_weight_that_is_too_large_for_a_device(device: Device, monkeypatch: pytest.MonkeyPatch):
    graph = TrainGraph(GPT2Config(layers=1, heads=2, width=12, inner=20, context=20, vocab=30).hidden(1))
    gpu.check_bindings(device, graph, 128)
    monkeypatch.setattr(type(device.adapter), "limit", property(lambda _: 4 * 30 * 12 - 1))
    with pytest.raises(UserError, match=r"^wte\.weight is too large to be trained on .*: use --freeze wte\.weight"):
        gpu.check_bindings(device, graph, 128)


# --- events


def test_events_say_where_a_run_stands(data: Path, tmp_path: Path):
    """A reader that stops early restores the signal handlers."""
    labels = str(data / "labels.tsv")
    given = {"data": [labels], "validation": labels, "epochs": 1, "batch_tokens": 128}
    given |= {"layers": 1, "heads": 2, "width": 16, "context": 24, "vocab": 300}
    with opened_run(tmp_path / "run", given) as run, closing(loop.run_training(run)) as events:
        before = signal.getsignal(signal.SIGINT)
        first = next(events)
        assert isinstance(first, loop.Validated) and first.metrics == {"step": 0, **run.scores}
        second = next(events)
        assert isinstance(second, loop.TrainStep) and second.metrics["step"] == run.step == 1 and (run.epoch, run.batch) == (1, 1)
        assert signal.getsignal(signal.SIGINT) is not before
        signal.raise_signal(signal.SIGINT)
        third = next(events)
        assert isinstance(third, loop.Stopped) and third.signal == signal.SIGINT and [*events] == []
        assert signal.getsignal(signal.SIGINT) is before
    with opened_run(tmp_path / "run", {}, resume=True) as again:
        assert (again.step, again.epoch, again.batch, again.steps) == (1, 1, 1, run.steps)
        with closing(loop.run_training(again)) as events:
            assert isinstance(next(events), loop.TrainStep)
        assert signal.getsignal(signal.SIGINT) is before
    with opened_run(tmp_path / "run", {}, resume=True) as again:
        left = [type(event).__name__ for event in loop.run_training(again)]
        assert left == ["TrainStep"] * (run.steps - 1) + ["Validated"]


def opened_run(folder: Path, given: dict[str, Any], *, resume: bool = False) -> AbstractContextManager[start.Run]:
    return start.open_run(folder, given, resume=resume, device="numpy", say=lambda line: None)


# --- the folder of a run


def test_one_process_trains_in_a_folder(run: Run, data: Path, tmp_path: Path):
    args = ("--data", data / "labels.tsv", *SCRATCH, "--epochs", 1, "-o", tmp_path / "run")
    with run_folder.hold_folder(tmp_path / "run"):
        code, out, err = run("train", *args)
        assert (code, out) == (1, "") and err.startswith("error: another process is training in ") and err.count("\n") == 1
    assert not (tmp_path / "run").exists()  # nothing was made in it
    assert run("train", *args)[0] == 0
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["loss.png", "metrics.jsonl", "model"]


def test_a_folder_of_another_user(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Links in it would lead elsewhere."""
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(run_folder, "trusted_owners", lambda folder: {1 + folder.stat().st_uid})
    assert re.search(r"run belongs to another user \(uid \d+\): choose another folder$", refused(*SCRATCH))
    assert not any((tmp_path / "run").iterdir())
