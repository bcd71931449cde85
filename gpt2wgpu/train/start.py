"""A run, new or resumed, made ready for the loop."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import checkpoint as models
from .. import hub
from ..checkpoint.graph import build_graph
from ..devices.choose import find_device
from ..errors import UserError, show
from ..evaluation.scores import check_options
from ..files.pairs import Pairs, read_pairs
from ..graph import packing
from ..graph.tensor import Array, Tensor, schedule
from ..models.gpt2 import GPT2Config
from ..tokenizer import Tokenizer
from . import checkpoint, data, from_scratch, teacher
from .data import Examples
from .settings import READ_AGAIN, SIZES, TrainSettings, absolute, check_same, frozen_weights

Say = Callable[[str], None]
START = ".start"  # a model from scratch, until the first checkpoint is written


@dataclass
class Run:
    folder: Path
    settings: TrainSettings
    template: checkpoint.Template
    program: Any  # TrainProgram or GPUTrainProgram
    device: str
    examples: Examples
    validation: tuple[Pairs, Examples] | None  # the sentences of the pairs one by one
    width: int  # of a vector
    pad: int | None
    digest: str  # of the data
    step: int = 0
    epoch: int = 1  # the one under way
    batch: int = 0  # the next one in it
    scores: dict[str, float] = field(default_factory=dict)  # of the last validation


def open_run(folder: Path, given: dict[str, Any], *, resume: bool, device: str, say: Say) -> Run:
    """A new run of settings `given`, or the one that the folder holds, which has to be asked for. Raises UserError."""
    if not folder.absolute().parent.is_dir():
        raise UserError(f"there is no folder {show(folder.absolute().parent)} to make {show(folder.name)} in")
    there = checkpoint.recover(folder)
    if there and not resume:
        raise UserError(f"{show(folder)} holds a run: go on with it (--resume), or choose another folder")
    if there:
        progress = checkpoint.read_progress(folder)
        settings = TrainSettings.from_json(progress["settings"], folder)
        moved = {name: absolute(name, given[name]) for name in READ_AGAIN if name in given and getattr(settings, name)}
        settings = replace(settings, **moved)
        check_same(settings, given)
        if digest_files(settings) != progress["digest"]:
            raise UserError("the data or the validation file changed since the run began: put them back, or start another run")
        run = prepare_run(folder, settings, folder / checkpoint.MODEL, device, say)
        if run.device != progress["device"]:
            say(f"the run was on {progress['device']} and goes on on {run.device}: the bits of its result depend on that")
        run.program.load_state(checkpoint.read_train_state(folder))
        run.step, run.epoch, run.batch = (int(progress[name]) for name in ("step", "epoch", "batch"))
        run.scores = progress["scores"]
        say(f"going on after step {run.step:,}")
        return run
    settings = TrainSettings.from_options(given)
    if resume:
        say(f"{folder} holds no run to go on with: this one begins")
    if not settings.data:
        raise UserError("there is nothing to learn from: give a file of pairs or of texts with --data")
    settings = settings.chosen(loss=data.choose_loss(settings.loss, settings.data, settings.teacher))
    folder.mkdir(exist_ok=True)
    if settings.model is not None:
        source = hub.find_model(settings.model)
        return prepare_run(folder, settings.chosen(lr=5e-5), source, device, say)
    settings = settings.chosen(lr=1e-3, **{name: size for name, size in SIZES.items() if name != "vocab"})
    shutil.rmtree(folder / START, ignore_errors=True)
    try:
        return prepare_run(folder, settings, start_from_scratch(folder / START, settings), device, say)
    finally:
        shutil.rmtree(folder / START, ignore_errors=True)


def digest_files(s: TrainSettings) -> str:
    return data.digest_data([*s.data, *([s.validation] if s.validation else ())])


def start_from_scratch(folder: Path, s: TrainSettings) -> Path:
    """A folder with a model that has learnt nothing yet."""
    folder.mkdir()
    texts: list[str] = []
    if s.tokenizer is None:
        texts = learning_texts(s)
    vocab, end = from_scratch.add_tokenizer(folder, s.tokenizer, s.vocab or SIZES["vocab"], texts)
    layers, heads, width, context = (int(getattr(s, name)) for name in ("layers", "heads", "width", "context"))
    from_scratch.write_model(folder, GPT2Config(layers, heads, width, 4 * width, context, vocab), end, s.seed)
    return folder


def learning_texts(s: TrainSettings) -> list[str]:
    if s.loss == "distillation":
        return data.read_training_texts(s.data, s.limit_train)
    pairs = data.read_training(s.data, str(s.loss), s.limit_train)
    return [*pairs.sentences1, *pairs.sentences2]


def prepare_run(folder: Path, s: TrainSettings, source: Path, device: str, say: Say) -> Run:
    """Model, program and examples. `source` is the folder of the model that training starts from or goes on with."""
    c = models.load_checkpoint(source)
    output = build_graph(c, c.config.layers, "f32", c.modules)
    length = min(s.max_seq_length or c.max_seq_length, c.config.usable_length)
    group = 1 if s.loss == "distillation" else 2
    if s.batch_tokens < group * length:
        longest = f"{group} texts of {length} tokens" if group > 1 else f"a text of {length} tokens"
        raise UserError(f"batch_tokens is {s.batch_tokens}, and {longest} must fit: raise it, or lower max_seq_length")
    tokenizer = Tokenizer(c.folder, kind=c.config.tokenizer, vocab=c.config.vocab, lower_case=c.lower_case)
    tokenize = partial(data.tokenize, tokenizer, max_length=length)
    absent = c.absent()
    weights = [t.name for t in schedule(output) if t.is_weight and t.name not in absent]
    frozen = frozen_weights(s.freeze, weights, c.config.block) | absent
    program, name = open_program(device, output, c.weights, length, s.batch_tokens, s.dropout, frozen)
    template = checkpoint.template(c, max_seq_length=length, dtype=s.dtype)
    c.release()
    examples: Examples
    if s.loss == "distillation":
        texts = data.read_training_texts(s.data, s.limit_train)
        asked = teacher.ask(folder, str(s.teacher), texts, int(output.shape[1]), device, source == folder / checkpoint.MODEL)
        examples = Examples(tokenize(texts), 1, asked.vectors)
        if s.token_vectors and source == folder / START:  # it has learnt nothing yet
            guess = teacher.first_guess(asked, tokenizer, c.config, examples.texts)
            program.load_state(program.state() | {f"weight/{name}": array for name, array in guess.items()})
    else:
        examples = data.pair_examples(data.read_training(s.data, str(s.loss), s.limit_train), tokenize)
    validation = None
    if s.validation is not None:
        pairs = read_pairs(s.validation)
        pairs = pairs if s.limit_validation is None else data.take(pairs, np.arange(min(s.limit_validation, len(pairs))))
        check_options(pairs)
        validation = pairs, Examples(data.pair_examples(pairs, tokenize).texts, 1, None)
    trained = sum(int(np.prod([int(d) for d in t.shape])) for t in program.graph.trained)
    say(f"{trained:,} weights are trained on {name}, loss {s.loss}, on {len(examples):,} {'pairs' if group == 2 else 'texts'}")
    return Run(folder, s, template, program, name, examples, validation, int(output.shape[1]), c.config.pad, digest_files(s))


def open_program(
    device: str,
    output: Tensor,
    weights: Callable[[Tensor], Array],
    length: int,
    tokens: int,
    dropout: float,
    frozen: set[str],
) -> tuple[Any, str]:
    """The program that trains on a device, for texts of up to `length` and batches of up to `tokens`, and the device's name."""
    opened, _ = find_device(device)
    if opened is None:
        from .program import NumpyTrainProgram

        return NumpyTrainProgram(output, weights, dropout=dropout, frozen=frozen), "numpy"
    from .gpu import GPUTrainProgram
    from .loop_limit import check_loops

    check_loops(opened, output, length, tokens)
    capacity = {"T": tokens, "B": tokens, "G": packing.max_tiles(tokens, tokens)}
    return GPUTrainProgram(opened, output, weights, capacity, dropout=dropout, frozen=frozen), str(opened.adapter)
