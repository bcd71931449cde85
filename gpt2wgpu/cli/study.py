"""The command `study`: parse and print."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from ..progress import notice
from .options import MODEL, TEXT, DeviceOption, Json

if TYPE_CHECKING:
    from ..evaluation.study import Study


def study_command(
    data: Annotated[str, typer.Option("--data", metavar="FILE", help="Judged pairs, as for evaluate.", rich_help_panel=TEXT)],
    fit: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Unlabelled texts, or pairs, that post-processing is fitted on.", rich_help_panel=TEXT),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            show_default="the built-in one",
            help="A folder or a name on the hub; may be repeated. `built-in` is the built-in one.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    layers: Annotated[str, typer.Option(metavar="LIST", help="all, or numbers such as 6,7,8.", rich_help_panel=MODEL)] = "all",
    poolings: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            show_default="mean,mean_without_first,weighted_mean,last,cls,max",
            help="Poolings, with commas; mean_without_first leaves out the first token.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    treatments: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            show_default="raw,centre,standardise,whiten,remove_top,ranks; without --fit raw,ranks",
            help="What is done with vectors; also whiten:128, or remove_top:2+standardise.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    vectors: Annotated[
        list[str] | None,
        typer.Option(
            "--vectors",
            metavar="FILE",
            help="Word vectors in the text format of word2vec or GloVe; may be repeated.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write a report there: .html or .json.", rich_help_panel=TEXT),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE.png", help="Draw the curves over the layers (needs matplotlib).", rich_help_panel=TEXT),
    ] = None,
    device: DeviceOption = "auto",
    as_json: Json = False,
) -> None:
    """Where in a model is the meaning? Score layers, poolings and post-processing on judged pairs.

    Prints the best layer of every pooling and treatment. Baselines that read no context come with it: the model's token table
    alone, and word vectors from --vectors.
    """
    from .. import files
    from ..encoder import Encoder
    from ..evaluation import plots
    from ..evaluation.study import STUDY_POOLINGS, TREATMENTS, check_names, run_study
    from ..evaluation.study_report import study_table
    from ..files.pairs import read_pairs, read_sentences

    asked = split_list(treatments) or (TREATMENTS if fit else ("raw", "ranks"))
    pooled = split_list(poolings) or STUDY_POOLINGS
    check_names(pooled, asked)
    if fit is None and (fitted := [name for name in asked if name not in ("raw", "ranks")]):
        raise typer.BadParameter(f"{', '.join(fitted)} of --treatments must be fitted on texts: give --fit FILE")
    pairs = read_pairs(data)
    texts = [*read_sentences(fit)] if fit else []
    if plot is not None:
        plots.need_matplotlib()
    with ExitStack() as opened:
        report = (
            opened.enter_context(files.open_output(output, {".html": write_study_page, ".json": write_study_json}))
            if output
            else None
        )
        drawing = opened.enter_context(files.open_output(plot, {".png": plots.draw_study})) if plot else None
        models = [Encoder(None if name == "built-in" else name, device=device) for name in model or ["built-in"]]
        if models[0].device == "numpy" and device == "auto":
            notice(models[0].engine.place.reason)
        found = run_study(
            models, pairs, texts, layers=layers, poolings=pooled, treatments=asked, vectors=vectors or (),
            data=Path(data).name, fit=Path(fit).name if fit else "",
        )  # fmt: skip
        if report is not None:
            report[1](report[0], found)
        if drawing is not None:
            drawing[1](drawing[0], study_panels(found), f"{found.data}: {found.pairs:,} pairs")
    print(
        json.dumps(found.to_json(), indent=2, ensure_ascii=False) if as_json else study_table(found), end="\n" if as_json else ""
    )


def split_list(given: str | None) -> tuple[str, ...]:
    """ "mean,last" -> ("mean", "last")"""
    return tuple(part.strip() for part in given.split(",")) if given else ()


def study_panels(found: "Study") -> dict[str, dict[str, list[tuple[int, float]]]]:
    """The curves of each model and pooling that has layers."""
    panels = {}
    for name in found.models:
        for pooling in found.values("pooling", name):
            curves = {asked: found.curve(name, pooling, asked) for asked in found.values("asked")}
            if all(curves.values()):
                panels[f"{name}, {pooling}"] = curves
    return panels


def write_study_page(file: BinaryIO, found: "Study") -> None:
    from ..evaluation.study_report import study_page

    file.write(study_page(found).encode())


def write_study_json(file: BinaryIO, found: "Study") -> None:
    file.write(json.dumps(found.to_json(), indent=2, ensure_ascii=False).encode() + b"\n")
