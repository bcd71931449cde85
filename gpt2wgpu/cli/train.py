"""The command `train`: parse and print."""

import shutil
from contextlib import closing
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UserError
from ..progress import notice, show_progress
from .options import DeviceOption

DATA, MODEL, LEARNING = "Data", "Model", "Learning"
MOST_FITTED = 100_000  # texts that post-processing is fitted on


def option(*names: str, panel: str, help: str, metavar: str | None = None, default: str | bool = True) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=panel, show_default=default)


def train_command(
    ctx: typer.Context,
    output: Annotated[
        str, option("--output", "-o", metavar="RUN", panel=DATA, help="Folder of the run; the model is RUN/model.")
    ],
    data: Annotated[
        list[str] | None,
        option("--data", metavar="FILE", panel=DATA, help="Pairs, as for evaluate; texts for distillation. May be repeated."),
    ] = None,
    weight: Annotated[
        list[float] | None,
        option("--weight", panel=DATA, default="1", help="How often an epoch takes the examples of each --data, such as 0.5."),
    ] = None,
    hard_pairs: Annotated[
        str | None,
        option(metavar="FILE", panel=DATA, help="distillation: two texts a line, whose similarity by the teacher counts extra."),
    ] = None,
    validation: Annotated[
        str | None, option(metavar="FILE", panel=DATA, help="Pairs with labels or scores, to measure progress on.")
    ] = None,
    limit_train: Annotated[int | None, option(metavar="N", panel=DATA, help="Learn from the first N only.")] = None,
    limit_validation: Annotated[int | None, option(metavar="N", panel=DATA, help="Validate with the first N only.")] = None,
    resume: Annotated[bool, option("--resume", panel=DATA, help="Resume the run in RUN, with its own settings.")] = False,
    model: Annotated[
        str | None,
        option(
            "--model",
            "-m",
            metavar="MODEL",
            panel=MODEL,
            default="from scratch",
            help="Model to fine-tune: a folder, a name on the hub, or `built-in`.",
        ),
    ] = None,
    layers: Annotated[int | None, option(metavar="N", panel=MODEL, default="6", help="Layers of a GPT-2 from scratch.")] = None,
    heads: Annotated[int | None, option(metavar="N", panel=MODEL, default="4", help="Its attention heads.")] = None,
    width: Annotated[
        int | None, option(metavar="N", panel=MODEL, default="256", help="Its width, the dimensions of a vector.")
    ] = None,
    context: Annotated[int | None, option(metavar="N", panel=MODEL, default="128", help="Most tokens that it can read.")] = None,
    vocab: Annotated[
        int | None, option(metavar="N", panel=MODEL, default="12288", help="Size of the tokenizer made from the data.")
    ] = None,
    bidirectional: Annotated[
        bool,
        option("--bidirectional", panel=MODEL, help="From scratch: every token sees the whole text, not only what is before it."),
    ] = False,
    tokenizer: Annotated[
        str | None, option(metavar="FOLDER", panel=MODEL, help="Use this one instead, made by `tokens create`.")
    ] = None,
    max_seq_length: Annotated[
        int | None, option(metavar="TOKENS", panel=MODEL, default="the model's", help="Cut texts that are longer than this.")
    ] = None,
    freeze: Annotated[
        list[str] | None,
        option(metavar="NAME", panel=MODEL, help="Weights that stay as they are: wte, layers:0-3, h.0.attn.*. May be repeated."),
    ] = None,
    dtype: Annotated[str, option(metavar="TYPE", panel=MODEL, help="Type of the saved weights: float32 or float16.")] = "float32",
    loss: Annotated[
        str | None,
        option(
            metavar="NAME",
            panel=LEARNING,
            default="by the data",
            help="contrastive (labels), cosine (scores), info_nce (pairs that belong together), distillation (a teacher).",
        ),
    ] = None,
    margin: Annotated[
        float, option(panel=LEARNING, help="contrastive: least cosine distance that pairs of label 0 should have.")
    ] = 0.5,
    temperature: Annotated[float, option(panel=LEARNING, help="info_nce: what cosines are divided by.")] = 0.05,
    teacher: Annotated[str | None, option(metavar="MODEL", panel=LEARNING, help="distillation: model to imitate.")] = None,
    teacher_vectors: Annotated[
        list[str] | None,
        option(
            "--teacher-vectors",
            metavar="FILE",
            panel=LEARNING,
            help="distillation: vectors made before, .npy, row i for text i; one file for each --data, then for --hard-pairs.",
        ),
    ] = None,
    token_vectors: Annotated[
        bool,
        typer.Option(help="distillation from scratch: start from the teacher's token vectors.", rich_help_panel=LEARNING),
    ] = True,
    epochs: Annotated[int, option(metavar="N", panel=LEARNING, help="Passes through the data.")] = 3,
    batch_tokens: Annotated[
        int, option(metavar="TOKENS", panel=LEARNING, help="Most tokens in a batch; it bounds memory.")
    ] = 2048,
    accumulate: Annotated[int, option(metavar="N", panel=LEARNING, help="Batches per step; their gradients are averaged.")] = 1,
    lr: Annotated[
        float | None,
        option(panel=LEARNING, default="0.001, with --model 5e-05", help="Peak of the learning rate, after the warm-up."),
    ] = None,
    warmup: Annotated[
        int | None,
        option(
            metavar="STEPS", panel=LEARNING, default="a tenth, at most 200", help="Steps until the peak; then half a cosine to 0."
        ),
    ] = None,
    weight_decay: Annotated[float, option(panel=LEARNING, help="Weight decay of matrices, as in AdamW.")] = 0.01,
    clip: Annotated[float, option(panel=LEARNING, help="Largest norm of a gradient; longer ones are scaled down.")] = 1.0,
    dropout: Annotated[float, option(panel=LEARNING, help="Probability, after the embeddings and residual branches.")] = 0.0,
    average: Annotated[
        bool,
        option("--average", panel=LEARNING, help="Save and validate a moving average of the weights, mostly of the last steps."),
    ] = False,
    seed: Annotated[
        int, option(panel=LEARNING, help="Seed of weights, order and dropout; the same seed gives the same bits.")
    ] = 0,
    save_every: Annotated[
        int, option(metavar="STEPS", panel=LEARNING, help="Validate and save this often, and after each epoch.")
    ] = 500,
    postprocess: Annotated[
        str | None,
        option(
            metavar="STEPS",
            panel=LEARNING,
            help="At the end, fit these on the texts of --data, and save RUN/postprocessed: centre, standardise, whiten:K, ...",
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train a model from scratch, or fine-tune one.

    RUN/model is a sentence-transformers folder, RUN/metrics.jsonl has a line for every step, and RUN/loss.png is the curve.
    Ctrl-C saves and stops. A resumed run ends with the same bits as one that was never stopped.
    """
    from ..train.settings import TrainSettings

    names = {f.name for f in fields(TrainSettings)}
    options = {name: value for name, value in ctx.params.items() if name in names}
    options |= {"data": data or [], "weight": weight or [], "freeze": freeze or [], "teacher_vectors": teacher_vectors or []}
    given = {name: value for name, value in options.items() if is_given(ctx, name)}
    from ..train import loop, start
    from ..vectors.postprocess import parse_steps, width_after
    from .progress import TrainProgress

    steps = () if postprocess is None else parse_steps(postprocess)
    stopped: loop.Stopped | None = None
    with show_progress() as shown:
        report = TrainProgress(shown)
        opened = start.open_run(Path(output), given, resume=resume, device=device, say=report.say)
        with opened as run, closing(loop.run_training(run)) as events:
            width = run.model.width
            for step in steps:  # before the hours, not after them
                width = width_after(step, width)
            report.begin(run.step, run.steps)
            for event in events:
                if isinstance(event, loop.TrainStep):
                    report.step(event.metrics)
                elif isinstance(event, loop.Validated):
                    report.validated(event.metrics)
                elif isinstance(event, loop.Collapsed):
                    report.say(event.message)
                else:
                    stopped = event
    if stopped is not None:
        notice(f"stopped after step {run.step:,}, which is saved: resume with --resume")
        raise typer.Exit(128 + stopped.signal)
    draw_loss(run.folder)
    if postprocess is not None:
        save_postprocessed(run.folder, postprocess, run.settings.data, device)
    found = "".join(f", {name} {value:.4f}" for name, value in run.scores.items())
    print(f"{run.folder / 'model'}: {run.step:,} {'step' if run.step == 1 else 'steps'}{found}")


def save_postprocessed(run: Path, steps: str, data: list[str], device: str) -> None:
    """RUN/postprocessed: RUN/model with post-processing fitted on texts that it was trained on. An earlier one is replaced."""
    from ..encoder import Encoder
    from ..files.pairs import read_sentences

    texts = dict.fromkeys(text for file in data for text in read_sentences(file))
    fixed = Encoder(run / "model", device=device).with_postprocessing(steps, [*islice(texts, MOST_FITTED)])
    new, target = run / ".postprocessed-new", run / "postprocessed"
    for old in (new, target):
        shutil.rmtree(old, ignore_errors=True)
    fixed.save_pretrained(new)
    new.rename(target)


def draw_loss(run: Path) -> None:
    """RUN/loss.png from RUN/metrics.jsonl, or one line that says why there is none."""
    from .. import files
    from ..evaluation import plots
    from ..train.loop import read_metrics

    try:
        plots.need_matplotlib()
    except UserError as error:
        return notice(f"no loss.png: {error}")
    with files.open_output(str(run / "loss.png"), {".png": plots.draw_training}) as (file, draw):
        draw(file, read_metrics(run))


def is_given(ctx: typer.Context, name: str) -> bool:
    """Whether an option is on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
