"""The training loop: steps, validation, checkpoints; what goes wrong is named."""

import json
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from ..errors import UserError
from ..evaluation.scores import measures
from ..graph import packing
from ..graph.tensor import Array
from ..vectors.pairwise import row_by_row
from . import card, checkpoint, losses
from .adamw import learning_rate
from .data import batches, dropout_seed
from .settings import TrainSettings
from .start import Run

METRICS = "metrics.jsonl"
MATRICES_WEIGHT = 10.0  # of the cosine matrices in distillation, as the built-in model was made
ALIKE, SPREAD = 0.99, 0.01  # mean of all cosines in a batch, and their standard deviation, that show a collapse
PATIENCE = 10  # steps in a row
SEQUENCES = 1024  # texts of a batch of the validation


class TrainReport(Protocol):
    """How a person is told."""

    def say(self, line: str) -> None: ...
    def begin(self, step: int, steps: int) -> None: ...
    def step(self, values: dict[str, Any]) -> None: ...
    def validated(self, values: dict[str, Any]) -> None: ...


def run_training(run: Run, report: TrainReport) -> tuple[dict[str, Any], int | None]:
    """Run to the end, or until SIGINT or SIGTERM, which is given back. RUN/model is the result, or what goes on from here.

    Raises UserError where the loss is no number.
    """
    s = run.settings
    counts = [math.ceil(len(plan_micro_batches(run, epoch)) / s.accumulate) for epoch in range(1, s.epochs + 1)]
    steps = sum(counts)
    warmup = min(200, steps // 10) if s.warmup is None else s.warmup
    watch = Watch(warmup)
    found = run.scores
    report.begin(run.step, steps)
    with interruptible() as stopped, metrics_file(run.folder, run.step) as metrics:

        def save() -> None:
            os.fsync(metrics.fileno())
            progress = {"step": run.step, "epoch": run.epoch, "batch": run.batch, "settings": s.as_json(run.folder)}
            progress |= {"digest": run.digest, "device": run.device, "steps": steps, "scores": found}
            checkpoint.write_checkpoint(
                run.folder, run.template, card.card_text(run, steps, found), run.program.state(), progress
            )

        def pause() -> None:
            if run.validation is not None:
                found.update(validate(run))
                line = {"step": run.step, **found}
                metrics.write(json.dumps(line) + "\n")
                report.validated(line)
            metrics.flush()
            save()

        if run.step == 0:
            pause()
        while run.epoch <= s.epochs:
            order = plan_micro_batches(run, run.epoch)
            while run.batch < len(order):
                began = time.perf_counter()
                here = order[run.batch : run.batch + s.accumulate]
                value = float(np.mean([batch_gradients(run, rows, run.batch + i, watch) for i, rows in enumerate(here)]))
                lr = learning_rate(run.step + 1, steps, float(s.lr or 0), warmup)
                norm = run.program.step(lr, weight_decay=s.weight_decay, clip=s.clip)
                run.step += 1
                if not (math.isfinite(value) and math.isfinite(norm)):
                    raise UserError(not_finite(run, value, norm, lr))
                run.batch += len(here)
                texts = run.examples.group * sum(map(len, here))
                line = {"step": run.step, "epoch": run.epoch, "loss": value, "lr": lr, "norm": norm, **watch.values}
                line |= {"texts": texts, "seconds": time.perf_counter() - began}
                metrics.write(json.dumps(line) + "\n")
                report.step(line)
                if warning := watch.warning(run.step, s):
                    report.say(warning)
                if run.batch == len(order):
                    break
                if stopped:
                    metrics.flush()
                    save()
                    return found, stopped[0]
                if run.step % s.save_every == 0:
                    pause()
            run.epoch, run.batch = run.epoch + 1, 0
            pause()
            if stopped and run.epoch <= s.epochs:
                return found, stopped[0]
    return found, None


def plan_micro_batches(run: Run, epoch: int) -> list[Array]:
    return batches(run.examples.tokens, run.settings.batch_tokens, run.settings.seed, epoch)


def batch_gradients(run: Run, rows: Array, at: int, watch: "Watch") -> float:
    """The loss of one micro-batch, whose gradient the program keeps."""
    s = run.settings
    targets = np.empty(0) if run.examples.targets is None else np.asarray(run.examples.targets[rows])

    def loss(vectors: Array) -> tuple[float, Array]:
        watch.look(vectors)
        with np.errstate(all="ignore"):  # what is no number is named by the loop
            if s.loss == "contrastive":
                return losses.contrastive(vectors, targets, s.margin)
            if s.loss == "info_nce":
                return losses.info_nce(vectors, s.temperature)
            if s.loss == "cosine":
                return losses.cosine_regression(vectors, targets)
            return losses.distillation(vectors, targets, MATRICES_WEIGHT)

    batch = run.examples.batch(rows.tolist(), run.pad)
    return float(run.program.gradients(batch, loss, dropout_seed(s.seed, run.epoch, at)))


def validate(run: Run) -> dict[str, float]:
    """Of the model as it is: Spearman of cosine, and for labels the accuracy at the best threshold."""
    assert run.validation is not None
    pairs, texts = run.validation
    assert pairs.targets is not None
    vectors = np.empty((len(texts), run.width), np.float32)
    for rows in packing.plan_batches(texts.tokens.tolist(), run.settings.batch_tokens, SEQUENCES):
        vectors[rows] = run.program.vectors(texts.batch(rows, run.pad))
    if not np.isfinite(vectors).all():
        raise UserError(f"step {run.step}: a vector of the validation file holds NaN or infinity: {ADVICE}")
    found = measures(row_by_row(vectors[::2], vectors[1::2], "cosine"), pairs.targets, pairs.labelled)
    return {name: found[name] for name in ("spearman", "accuracy") if name in found}


ADVICE = "lower --lr, or raise --warmup; RUN/model is as it was when last saved"


def not_finite(run: Run, loss: float, norm: float, lr: float) -> str:
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the norm of the gradient is {norm}"
    return f"step {run.step}: {what} at a learning rate of {lr:.3g}: {ADVICE}"


class Watch:
    """Notices that all texts are getting the same vector: a collapse, from which a model seldom recovers."""

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.values: dict[str, float] = {}
        self.in_a_row = 0

    def look(self, vectors: Array) -> None:
        """Mean and standard deviation of the cosines of all different texts of a batch, (B, C)."""
        if len(vectors) < 4:
            return
        with np.errstate(all="ignore"):
            units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            cosines = (units @ units.T)[np.triu_indices(len(units), 1)]
        self.values = {"cosine_mean": float(cosines.mean()), "cosine_std": float(cosines.std())}

    def warning(self, step: int, s: TrainSettings) -> str | None:
        """One line when it has been so for some steps."""
        if not self.values or step <= self.warmup:
            return None
        mean, std = self.values["cosine_mean"], self.values["cosine_std"]
        self.in_a_row = self.in_a_row + 1 if mean > ALIKE or std < SPREAD else 0
        if self.in_a_row != PATIENCE:
            return None
        remedy = "a larger --margin, pairs of label 0, " if s.loss == "contrastive" else ""
        found = f"the cosine of two different texts is {mean:.3f} on average, with a spread of {std:.3f}"
        return f"warning: step {step}: the embeddings have collapsed, {found}: try a lower --lr, {remedy}or --loss info_nce"


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """SIGINT and SIGTERM only leave a note, once: the step under way is finished and saved. A second one is not waited for."""
    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def note(number: int, _: object) -> None:
        if number in stopped:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        stopped.append(number)

    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}  # as nohup asks
    for number in before:
        signal.signal(number, note)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def metrics_file(folder: Path, step: int) -> Iterator[TextIO]:
    """RUN/metrics.jsonl to append to, without what came after the checkpoint that the run goes on from."""
    path = folder / METRICS
    kept = [json.dumps(line) + "\n" for line in read_metrics(folder) if line["step"] <= step and step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)
    with path.open("a", buffering=1) as file:
        yield file


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of steps, with "loss", and of validations, without; but for a last one that is incomplete."""
    path = folder / METRICS
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found
