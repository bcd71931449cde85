"""Open a run, new or resumed: model, examples and validation, ready for the loop."""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import hub
from ..checkpoint import Checkpoint, load_checkpoint
from ..checkpoint.graph import build_graph
from ..checkpoint.prompts import family_prompts, model_names
from ..devices.choose import enough_memory, find_device
from ..encoder import Encoder
from ..errors import UserError, show
from ..evaluation.scores import check_targets
from ..files.pairs import Pairs, read_pairs
from ..graph import memory, packing
from ..graph.tensor import Array, Tensor, schedule
from ..models.gpt2 import GPT2Config
from ..tokenizer import Tokenizer
from . import checkpoint, data, from_scratch, teacher
from .data import Examples, TokenizedTexts
from .gradients import TrainGraph
from .program import TrainProgram
from .run_folder import hold_folder
from .settings import OPTIONS_OF_LOSSES, READ_AGAIN, SIZES, TrainSettings, absolute_paths, check_same, frozen_weights

Say = Callable[[str], None]
START = ".start"  # holds a model from scratch until the first checkpoint is written
PASSES = 10**9  # most examples in all epochs together: their order is computed before the first step, 1e7 per second
MANY_PASSES = 10**8  # above this the wait is long enough to be announced


@dataclass(frozen=True)
class Model:
    """The model under training."""

    program: TrainProgram
    device: str  # the name of its device, or "numpy"
    template: checkpoint.Template
    tokenizer: Tokenizer
    length: int  # tokens of a text that are read
    width: int  # length of a vector

    def tokenize(self, texts: Iterable[str]) -> TokenizedTexts:
        return data.tokenize_texts(self.tokenizer, texts, self.length)

    def batch(self, examples: Examples, rows: Array) -> dict[str, Array]:
        """A packed batch of examples, rows (n,)."""
        return examples.batch(rows, self.template.checkpoint.config.pad)


@dataclass(frozen=True)
class Validation:
    """Pairs with labels or scores, and their sentences one by one: texts 2 i and 2 i + 1 are those of pair i."""

    pairs: Pairs
    texts: Examples


@dataclass
class Run:
    """A run, and where it stands: `step` steps are done, and micro-batch `batch` of epoch `epoch` comes next."""

    folder: Path
    settings: TrainSettings
    model: Model
    examples: Examples
    validation: Validation | None
    digest: str  # of the data and the validation file
    steps: int  # in all epochs
    warmup: int  # steps
    step: int = 0
    epoch: int = 1
    batch: int = 0
    scores: dict[str, float] = field(default_factory=dict)  # of the last validation


@contextmanager
def open_run(folder: Path, given: dict[str, Any], *, resume: bool, device: str, say: Say) -> Iterator[Run]:
    """A new run with the settings `given` or, with `resume`, the run in the folder. Until the block ends, no other process can
    train in the folder. Raises UserError."""
    with hold_folder(folder):
        yield find_run(folder, given, resume, device, say)


def find_run(folder: Path, given: dict[str, Any], resume: bool, device: str, say: Say) -> Run:
    """`open_run` without the lock."""
    there = checkpoint.recover_run(folder)
    if there and not resume:
        raise UserError(f"{show(folder)} already holds a run: resume it with --resume, or choose another folder")
    if there:
        return resume_run(folder, given, device, say)
    settings = TrainSettings.from_options(given)
    if resume:
        say(f"there is no run to resume in {folder}: starting a new one")
    if not settings.data:
        raise UserError("there is nothing to learn from: give a file of pairs or of texts with --data")
    settings = settings.chosen(loss=data.choose_loss(settings.loss, settings.data, settings.teacher or settings.teacher_vectors))
    for name, loss in OPTIONS_OF_LOSSES.items():
        if name in given and settings.loss != loss:
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} is for the loss {loss}, and the loss here is {settings.loss}: leave it out")
    if settings.model is not None:
        return prepare_run(folder, settings.chosen(lr=5e-5), hub.find_model(settings.model), device, say)
    settings = settings.chosen(lr=1e-3, **{name: size for name, size in SIZES.items() if name != "vocab"})
    shutil.rmtree(folder / START, ignore_errors=True)
    try:
        return prepare_run(folder, settings, start_from_scratch(folder / START, settings), device, say)
    finally:
        shutil.rmtree(folder / START, ignore_errors=True)


def resume_run(folder: Path, given: dict[str, Any], device: str, say: Say) -> Run:
    """The run that the folder holds. Options may only repeat what it was started with, and say where its files are now."""
    progress = checkpoint.read_progress(folder)
    settings = progress.settings
    moved = {name: absolute_paths(name, given[name]) for name in READ_AGAIN if name in given and getattr(settings, name)}
    settings = replace(settings, **moved)
    check_same(settings, given)
    if digest_files(settings) != progress.digest:
        raise UserError("the data or the validation file changed since the run began: put them back, or start another run")
    run = prepare_run(folder, settings, folder / checkpoint.MODEL, device, say)
    if run.model.device != progress.device:
        say(f"the run began on {progress.device} and continues on {run.model.device}: its result will have other bits")
    state = checkpoint.read_train_state(folder, progress.state)
    try:
        run.model.program.load_state(state)
    except ValueError as error:
        raise UserError(f"{show(folder)} holds the state of another model ({error}): start a new run in another folder") from None
    run.step, run.epoch, run.batch, run.scores = progress.step, progress.epoch, progress.batch, progress.scores
    say(f"resuming after step {run.step:,}")
    return run


def digest_files(s: TrainSettings) -> str:
    """SHA-256 of all files that a resumed run reads again, but for the teacher."""
    return data.digest_data([*s.data, *(path for path in (s.hard_pairs, s.validation) if path), *s.teacher_vectors])


def start_from_scratch(folder: Path, s: TrainSettings) -> Path:
    """A folder with an untrained model."""
    folder.mkdir()
    texts = learning_texts(s) if s.tokenizer is None else []
    vocab, end = from_scratch.add_tokenizer(folder, s.tokenizer, s.vocab or SIZES["vocab"], texts)
    layers, heads, width, context = (int(getattr(s, name)) for name in ("layers", "heads", "width", "context"))
    config = GPT2Config(layers, heads, width, 4 * width, context, vocab, causal=not s.bidirectional)
    from_scratch.write_model(folder, config, end, s.seed)
    return folder


def learning_texts(s: TrainSettings) -> list[str]:
    """All texts of the training data, to learn a tokenizer from."""
    if s.loss == "distillation":
        return distillation_texts(s)[0]
    return [*data.texts_of_pairs(data.read_training(s.data, str(s.loss), s.limit_train)[0])]


def distillation_texts(s: TrainSettings) -> tuple[list[str], list[int], int]:
    """The texts of the training data, then those of the hard pairs; how many there are in each file of the data; and how many
    hard pairs."""
    texts, counts = data.read_training_texts(s.data, s.limit_train)
    if s.hard_pairs is None:
        return texts, counts, 0
    pairs = read_pairs(s.hard_pairs, target=False)
    return [*texts, *data.texts_of_pairs(pairs)], counts, len(pairs)


def prepare_run(folder: Path, s: TrainSettings, source: Path, device: str, say: Say) -> Run:
    """Model, examples and validation. source: the model folder that training starts from; for a resumed run, its own."""
    model = open_model(s, source, device)
    if prompts := expected_prompts(s.model, model.template.checkpoint):
        found = f"the model expects prompts ({', '.join(prompts)})"
        say(f"warning: {found}, and training puts none before texts: write them into the data")
    try:
        if s.loss == "distillation":
            examples = teacher_examples(folder, s, model, source, device)
        else:
            pairs, counts = data.read_training(s.data, str(s.loss), s.limit_train)
            starts = data.starts_of(0, len(pairs))
            texts, shares = model.tokenize(data.texts_of_pairs(pairs)), data.file_shares(counts, s.weight, s.data)
            examples = Examples(texts, starts, pairs.targets, shares)
        validation = None if s.validation is None else open_validation(s.validation, s.limit_validation, model)
    except MemoryError:
        raise UserError("the data do not fit in memory: use fewer with --limit-train") from None
    if model.device == "numpy":  # where a batch takes only the memory it needs
        check_room(model.program.graph, min(s.batch_tokens, int(examples.tokens.sum())))
    steps = count_steps(examples, s, say)
    trained = sum(math.prod(int(d) for d in t.shape) for t in model.program.graph.trained)
    say(f"{trained:,} weights are trained on {model.device}, loss {s.loss}, on {examples}")
    return Run(folder, s, model, examples, validation, digest_files(s), steps, choose_warmup(s.warmup, steps))


def open_model(s: TrainSettings, source: Path, device: str) -> Model:
    """The model of a folder, compiled for training. Raises UserError if it cannot be trained, or not on the device."""
    c = load_checkpoint(source)
    output = build_graph(c, c.config.layers, "f32", c.modules)
    length = min(s.max_seq_length or c.max_seq_length, c.config.usable_length)
    group = 1 if s.loss == "distillation" and s.hard_pairs is None else 2
    if s.batch_tokens < group * length:
        longest = f"{group} texts of {length} tokens" if group > 1 else f"a text of {length} tokens"
        raise UserError(f"batch_tokens is {s.batch_tokens}, and {longest} must fit: raise it, or lower max_seq_length")
    tokenizer = Tokenizer.of_checkpoint(c)
    absent = c.absent()
    weights = [t.name for t in schedule(output) if t.is_weight and t.name not in absent]
    graph = TrainGraph(output, s.dropout, frozen_weights(s.freeze, weights, c.config.block) | absent, s.average)
    program, name = open_program(device, graph, c.weights, length, s.batch_tokens)
    template = checkpoint.make_template(c, max_seq_length=length, dtype=s.dtype)
    c.release()
    return Model(program, name, template, tokenizer, length, int(output.shape[1]))


def expected_prompts(name: str | None, c: Checkpoint) -> list[str]:
    """The names of the prompts that the model has or, like Encoder, of those that its family expects."""
    prompts = c.prompts if any(c.prompts.values()) else family_prompts(model_names(name or "", c))
    return [name for name, text in prompts.items() if text]


def open_program(
    device: str, graph: TrainGraph, weights: Callable[[Tensor], Array], length: int, tokens: int
) -> tuple[TrainProgram, str]:
    """The program that trains on a device, for texts of up to `length` tokens and batches of up to `tokens`; and the
    device's name."""
    opened, _ = find_device(device)
    name = "numpy" if opened is None else str(opened.adapter)
    with enough_memory(lambda room: too_large(graph, length if opened is None else tokens, room.format(device=name))):
        if opened is None:
            from .program import NumpyTrainProgram

            check_room(graph, length)
            return NumpyTrainProgram(graph, weights), name
        from .gpu import GPUTrainProgram, check_bindings
        from .loop_limit import check_loops
        from .selftest import check_train_graph

        check_bindings(opened, graph, tokens)
        check_train_graph(opened, graph)
        if opened.adapter.uses_main_memory:
            check_room(graph, tokens)
        check_loops(opened, graph.output, length, tokens)
        return GPUTrainProgram(opened, graph, weights, batch_capacity(tokens)), name


def batch_capacity(tokens: int) -> dict[str, int]:
    return {"T": tokens, "B": tokens, "G": packing.max_tiles(tokens, tokens)}


def check_room(graph: TrainGraph, tokens: int) -> None:
    """Raise UserError if main memory is too small, before the system kills the process."""
    room = memory.available_memory()
    if room is not None and graph.memory_needed(batch_capacity(tokens)).total > room:
        raise too_large(graph, tokens, f"and this machine has {memory.readable_bytes(room)} free")


def too_large(graph: TrainGraph, tokens: int, room: str) -> UserError:
    need = graph.memory_needed(batch_capacity(tokens))
    advice = "lower --batch-tokens or --max-seq-length, or train a smaller model"
    return UserError(f"training with batches of {tokens:,} tokens needs {need}, {room}: {advice}")


def teacher_examples(folder: Path, s: TrainSettings, model: Model, source: Path, device: str) -> Examples:
    """Texts, hard pairs, and their teacher's vectors. A model from scratch takes its first weights from the teacher."""
    texts, counts, pairs = distillation_texts(s)
    shares = [*data.file_shares(counts, s.weight, s.data), *([(pairs, 1.0)] if pairs else ())]
    guessing = s.token_vectors and s.teacher is not None and source == folder / START
    encoder = Encoder(s.teacher, device=device) if s.teacher and (guessing or not s.teacher_vectors) else None
    if s.teacher_vectors:
        names, whole = s.data, [s.limit_train is None] * len(counts)
        if s.hard_pairs is not None:
            counts, names, whole = [*counts, 2 * pairs], [*names, s.hard_pairs], [*whole, True]
        vectors = teacher.read_vectors(folder, s.teacher_vectors, counts, names, model.width, whole)
    else:
        assert encoder is not None
        vectors = teacher.ask_teacher(folder, encoder, texts, model.width, source == folder / checkpoint.MODEL)
    examples = Examples(model.tokenize(texts), data.starts_of(len(texts) - 2 * pairs, pairs), vectors, shares)
    if guessing:
        assert encoder is not None
        config = model.template.checkpoint.config
        guess = teacher.first_guess(encoder, vectors, model.tokenizer, config, examples.texts)
        model.program.load_state(model.program.state() | {f"weight/{name}": array for name, array in guess.items()})
    return examples


def open_validation(path: str, limit: int | None, model: Model) -> Validation:
    """The pairs of the validation file, at most `limit`, tokenised. Raises UserError if nothing can be measured with them."""
    pairs = read_pairs(path)
    pairs = pairs if limit is None else data.take_pairs(pairs, np.arange(min(limit, len(pairs))))
    check_targets(pairs)
    texts = model.tokenize(data.texts_of_pairs(pairs))
    return Validation(pairs, Examples(texts, data.starts_of(len(texts), 0), None, []))


def count_steps(examples: Examples, s: TrainSettings, say: Say) -> int:
    """Steps of all epochs, whose batches differ from one epoch to the next."""
    passes = sum(data.examples_until(n, weight, s.epochs) for n, weight in examples.shares)
    if passes > PASSES:
        found = f"{s.epochs:,} epochs of {len(examples):,} examples are {passes:,} examples"
        raise UserError(f"{found}, at most {PASSES:,} are possible: lower --epochs")
    if passes > MANY_PASSES:
        say(f"counting the steps of {s.epochs:,} epochs of {len(examples):,} examples")
    batches = (examples.batches(s.batch_tokens, s.seed, epoch) for epoch in range(1, s.epochs + 1))
    return sum(math.ceil(len(found) / s.accumulate) for found in batches)


def choose_warmup(asked: int | None, steps: int) -> int:
    """Steps of warm-up: by default a tenth of all, at most 200."""
    if asked is None:
        return min(200, steps // 10)
    if asked >= steps:
        found = f"a warm-up of {asked:,} steps, and the whole run has {steps:,}"
        raise UserError(f"{found}: the learning rate would never reach --lr; lower --warmup, or raise --epochs")
    return asked
