"""The training loop: steps, validation, checkpoints and interruption."""

import json
import math
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..devices.choose import enough_memory
from ..errors import UserError
from ..evaluation.scores import pair_measures
from ..graph import packing
from ..graph.cores import ONE_THREAD_BLAS
from ..graph.tensor import Array
from ..vectors.pairwise import row_by_row
from . import card, checkpoint, losses
from .adamw import learning_rate
from .ahead import BatchesAhead, MicroBatch
from .average import average_share
from .data import dropout_seed
from .program import TrainProgram
from .start import Run, Validation, too_large

METRICS_FILE = "metrics.jsonl"
MATRICES_WEIGHT = 10.0  # weight of the cosine matrices in distillation, as for the built-in model
HARD_PAIRS_WEIGHT = 3.0  # weight of the cosines of hard pairs: a larger one costs more elsewhere than it gives (LOG.md)
ALIKE, SPREAD = 0.99, 0.01  # a mean of all cosines in a batch above, or a standard deviation below, shows a collapse
WATCHED = 256  # texts of a batch, evenly spaced, whose cosines are looked at
PATIENCE = 10  # steps in a row, after which a collapse is reported
SEQUENCES = 1024  # most texts in a batch of the validation
LOSS_ADVICE = "lower --lr, or raise --warmup; RUN/model is as it was last saved"


@dataclass(frozen=True)
class TrainStep:
    """A step of the optimiser. metrics: its line in metrics.jsonl: step and epoch (from 1), loss, lr, norm (of the gradient),
    cosine_mean and cosine_std (over up to WATCHED texts of a batch), texts (how many it learnt from) and seconds."""

    metrics: dict[str, float]


@dataclass(frozen=True)
class Validated:
    """A validation. metrics: its line in metrics.jsonl: step, spearman, and accuracy if the pairs have labels; with
    an average these are its scores, and unaveraged_spearman and unaveraged_accuracy those of the weights themselves."""

    metrics: dict[str, float]


@dataclass(frozen=True)
class Collapsed:
    """All texts are getting the same vector."""

    message: str


@dataclass(frozen=True)
class Stopped:
    """SIGINT or SIGTERM came, and the run is saved."""

    signal: int


Event = TrainStep | Validated | Collapsed | Stopped


def run_training(run: Run) -> Generator[Event, None, None]:
    """Train to the end, or to the next step after SIGINT or SIGTERM; then the last event is `Stopped`.

    RUN/model is saved before the first step, every `save_every` steps, after every epoch, and when a signal stops the run.
    At every event `run` says where training stands. Raises UserError if a loss is not finite or memory runs out.
    """
    s = run.settings
    watch = Watch(run.warmup, s.loss == "contrastive")
    program, device = run.model.program, run.model.device
    memory = enough_memory(lambda room: too_large(program.graph, s.batch_tokens, room.format(device=device)))
    with memory, interruptible() as signals, metrics_file(run.folder, run.step) as metrics:
        if run.step == 0:
            if s.average:
                program.move_average(1)  # the weights may have been set since the program was made
            yield from validate_and_save(run, metrics)
        for step in train_steps(run, watch):
            write_line(metrics, step.metrics)
            yield step
            if (message := watch.message(run.step)) is not None:
                yield Collapsed(message)
            stop, epoch_ends = bool(signals), run.batch == 0
            if stop and not epoch_ends:
                save(run, metrics)
            elif epoch_ends or run.step % s.save_every == 0:
                yield from validate_and_save(run, metrics)
                stop = bool(signals)
            if stop and run.epoch <= s.epochs:
                yield Stopped(signals[0])
                return


def train_steps(run: Run, watch: "Watch") -> Iterator[TrainStep]:
    """The remaining steps. `run` is advanced before each is yielded."""
    s = run.settings
    while run.epoch <= s.epochs:
        order = run.examples.batches(s.batch_tokens, s.seed, run.epoch)
        if run.batch >= len(order):
            found = f"the checkpoint stands at batch {run.batch} of epoch {run.epoch}, which has {len(order)}"
            raise UserError(f"{found}: it is damaged, start a new run in another folder")
        ahead = BatchesAhead(run, order[run.batch :])
        for first in range(run.batch, len(order), s.accumulate):
            step = train_step(run, first, min(s.accumulate, len(order) - first), ahead, watch)
            epoch_ends = first + s.accumulate >= len(order)
            run.epoch, run.batch = (run.epoch + 1, 0) if epoch_ends else (run.epoch, first + s.accumulate)
            yield step


def train_step(run: Run, first: int, count: int, ahead: BatchesAhead, watch: "Watch") -> TrainStep:
    """One step of the optimiser, on the next `count` micro-batches, which are `first`, `first` + 1, ... of the epoch. Raises
    UserError if the loss or the gradient is not finite."""
    began = time.perf_counter()
    s = run.settings
    found, texts = [], 0
    for i in range(count):
        batch = ahead.take()
        found.append(batch_gradients(run, batch, first + i, watch))
        texts += len(batch.packed["spans"])
        ahead.prepare()  # a device is still computing
    loss = float(np.mean(found))
    lr = learning_rate(run.step + 1, run.steps, float(s.lr or 0), run.warmup)
    norm = run.model.program.step(lr, weight_decay=s.weight_decay, clip=s.clip)
    run.step += 1
    if s.average and (share := average_share(run.step, run.steps)) is not None:
        run.model.program.move_average(share)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise UserError(not_finite(run, loss, norm, lr))
    metrics = {"step": run.step, "epoch": run.epoch, "loss": loss, "lr": lr, "norm": norm, **watch.values}
    metrics |= {"texts": texts, "seconds": time.perf_counter() - began}
    return TrainStep(metrics)


def batch_gradients(run: Run, batch: MicroBatch, number: int, watch: "Watch") -> float:
    """The loss of micro-batch `number` of the epoch; the program keeps its gradient."""
    s = run.settings
    targets = batch.targets

    def loss(vectors: Array) -> tuple[float, Array]:
        many = losses.one_crew() if len(vectors) > losses.FEW else nullcontext()
        with np.errstate(all="ignore"), many:  # train_step reports what is not finite
            watch.look(vectors)
            if s.loss == "contrastive":
                return losses.contrastive(vectors, targets, s.margin)
            if s.loss == "info_nce":
                return losses.info_nce(vectors, s.temperature)
            if s.loss == "cosine":
                return losses.cosine_regression(vectors, targets)
            value, gradient = losses.distillation(vectors, targets, MATRICES_WEIGHT)
            if s.hard_pairs is not None:
                of_pairs, more = losses.pair_distillation(vectors, targets, run.examples.pair_rows(batch.rows))
                value, gradient = value + HARD_PAIRS_WEIGHT * of_pairs, gradient + np.float32(HARD_PAIRS_WEIGHT) * more
            return value, gradient

    return run.model.program.gradients(batch.packed, loss, dropout_seed(s.seed, run.epoch, number))


def validate_and_save(run: Run, metrics: TextIO) -> Iterator[Validated]:
    """Validate, if there is a validation file, then write RUN/model. Of a model with an average, which is what is written, the
    weights themselves are validated too."""
    if run.validation is not None:
        run.scores = validate(run, run.validation)
        if run.settings.average:
            unaveraged = {f"unaveraged_{name}": score for name, score in run.scores.items()}
            with averaged(run.model.program):
                run.scores = validate(run, run.validation) | unaveraged
        event = Validated({"step": run.step, **run.scores})
        write_line(metrics, event.metrics)
        yield event
    save(run, metrics)


@contextmanager
def averaged(program: TrainProgram) -> Iterator[None]:
    """The average in the place of the weights."""
    program.exchange_average()
    try:
        yield
    finally:
        program.exchange_average()


def validate(run: Run, validation: Validation) -> dict[str, float]:
    """Scores of the current model: Spearman's correlation of cosines and targets and, for labels, the accuracy at the best
    threshold."""
    pairs, texts = validation.pairs, validation.texts
    assert pairs.targets is not None
    vectors = np.empty((len(texts), run.model.width), np.float32)
    for rows in packing.plan_batches(texts.tokens.tolist(), run.settings.batch_tokens, SEQUENCES):
        vectors[rows] = run.model.program.vectors(run.model.batch(texts, np.array(rows)))
    if not np.isfinite(vectors).all():
        raise UserError(f"step {run.step}: a vector of the validation file holds NaN or infinity: {LOSS_ADVICE}")
    found = pair_measures(row_by_row(vectors[::2], vectors[1::2], "cosine"), pairs.targets, pairs.labelled)
    return {name: found[name] for name in ("spearman", "accuracy") if name in found}


def save(run: Run, metrics: TextIO) -> None:
    """Write RUN/model, once the metrics so far are on disk."""
    metrics.flush()
    os.fsync(metrics.fileno())
    s = run.settings
    progress = {"step": run.step, "epoch": run.epoch, "batch": run.batch, "settings": s.as_json(run.folder)}
    progress |= {"digest": run.digest, "device": run.model.device, "steps": run.steps, "scores": run.scores}
    text = card.card_text(
        s,
        run.model.template.checkpoint.config,
        examples=str(run.examples),
        steps=f"{run.step:,} of {run.steps:,}",
        device=run.model.device,
        scores=run.scores,
    )
    checkpoint.write_checkpoint(run.folder, run.model.template, text, run.model.program.state(), progress)


def not_finite(run: Run, loss: float, norm: float, lr: float) -> str:
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the norm of the gradient is {norm}"
    return f"step {run.step}: {what} at a learning rate of {lr:.3g}: {LOSS_ADVICE}"


class Watch:
    """Notices a collapse: all texts are getting the same vector, from which a model seldom recovers.

    A resumed run counts anew, so it may warn a second time.
    """

    def __init__(self, warmup: int, contrastive: bool) -> None:
        self.warmup = warmup  # steps without a warning
        self.contrastive = contrastive  # whether that is the loss
        self.values: dict[str, float] = {}
        self.in_a_row = 0

    def look(self, vectors: Array) -> None:
        """Note the mean and standard deviation of all cosines between the vectors (B, C) of a batch, or between WATCHED of
        them."""
        if len(vectors) < 4:
            return
        vectors = vectors[np.linspace(0, len(vectors) - 1, min(len(vectors), WATCHED)).astype(int)]
        with np.errstate(all="ignore"), ONE_THREAD_BLAS:
            units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            cosines = (units @ units.T)[np.triu_indices(len(units), 1)]
        self.values = {"cosine_mean": float(cosines.mean()), "cosine_std": float(cosines.std())}

    def message(self, step: int) -> str | None:
        """A warning, once the vectors have been alike for PATIENCE steps; else None."""
        if not self.values or step <= self.warmup:
            return None
        mean, std = self.values["cosine_mean"], self.values["cosine_std"]
        self.in_a_row = self.in_a_row + 1 if mean > ALIKE or std < SPREAD else 0
        if self.in_a_row != PATIENCE:
            return None
        remedy = "a larger --margin, pairs of label 0, " if self.contrastive else ""
        found = f"the cosine of two different texts is {mean:.3f} on average, with a spread of {std:.3f}"
        return f"warning: step {step}: the embeddings have collapsed, {found}: try a lower --lr, {remedy}or --loss info_nce"


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM is only noted in the list, so that the current step is finished and saved. The same signal a
    second time goes to the previous handler."""
    signals: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread can set handlers
        yield signals
        return

    def note(number: int, _: object) -> None:
        if number in signals:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        signals.append(number)

    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}  # keep what nohup ignores
    for number in before:
        signal.signal(number, note)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def metrics_file(folder: Path, step: int) -> Iterator[TextIO]:
    """RUN/metrics.jsonl to append to, without the lines after the checkpoint of `step`, from which the run continues."""
    path = folder / METRICS_FILE
    kept = [json.dumps(line) + "\n" for line in read_metrics(folder) if line["step"] <= step and step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)
    with path.open("a", buffering=1) as file:
        yield file


def write_line(metrics: TextIO, values: dict[str, float]) -> None:
    metrics.write(json.dumps(values) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of RUN/metrics.jsonl: those of steps have a "loss", those of validations do not. Reading stops at a line that is
    incomplete or damaged."""
    path = folder / METRICS_FILE
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
        except ValueError:
            break
        if not isinstance(values, dict) or not isinstance(values.get("step"), int):
            break
        found.append(values)
    return found
