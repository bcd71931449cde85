"""The command `evaluate`: parse and print."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import one_line
from ..progress import on_terminal
from .options import (
    TEXT,
    Json,
    encode_options,
    load_encoder,
    model_options,
    postprocess_options,
    text_options,
    vector_options,
    with_options,
)

if TYPE_CHECKING:
    from ..encoder import Encoder
    from ..files.pairs import Pairs

HEADINGS = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "accuracy": "accuracy",
    "threshold": "from",
    "average_precision": "av. precision",
    "auc": "AUC",
}


@with_options(text_options, model_options, vector_options, postprocess_options)
def evaluate_command(
    ctx: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="FILE",
            help="Pairs: .tsv, .csv or .jsonl with sentence1, sentence2 and label (0 or 1) or score; "
            "or .tsv without a header: score, sentence1, sentence2.",
            rich_help_panel=TEXT,
        ),
    ],
    layers: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Compare layers: all, or numbers such as 6,7,8.", rich_help_panel=TEXT),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE.png", help="Draw the scores of --layers (needs matplotlib).", rich_help_panel=TEXT),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a model on pairs of sentences that people have labelled or rated.

    Prints Spearman's and Pearson's correlation of cosine, dot product and (negated) distances with the labels or scores; for
    labels also the accuracy at the best threshold, that threshold, average precision and AUC.
    """
    if layers is not None and ctx.params["layer"] is not None:
        raise typer.BadParameter("--layer takes one layer, --layers compares several: give one of the two")
    if layers is not None and ctx.params["postprocess"] is not None:
        raise typer.BadParameter("--postprocess is fitted on one layer: `gpt2wgpu study` compares layers with and without it")
    if plot is not None and layers is None:
        raise typer.BadParameter("--plot draws what --layers compares: give --layers too")
    from ..evaluation.scores import check_targets
    from ..files.pairs import read_pairs

    pairs = read_pairs(data)
    check_targets(pairs)
    options = {**encode_options(ctx), "show_progress_bar": on_terminal()}
    if layers is not None:
        return compare_layers(ctx, data, pairs, layers, plot, options)
    from ..evaluation.scores import evaluate_pairs

    encoder = load_encoder(ctx)
    scores = evaluate_pairs(encoder, pairs, **options)
    if as_json:
        print(
            json.dumps(
                {**describe_evaluation(data, pairs, encoder), "layer": encoder.layer, "scores": scores},
                indent=2,
                ensure_ascii=False,
            )
        )
        return
    print_heading(data, pairs, encoder)
    print(f"layer {encoder.layer} of {encoder.layers}\n")
    names = [*next(iter(scores.values()))]
    print(f"{'':10}" + "".join(f"{HEADINGS[name]:>15}" for name in names))
    for similarity, found in scores.items():
        print(f"{similarity:10}" + "".join(f"{found[name]:15.4f}" for name in names))


def compare_layers(ctx: typer.Context, data: str, pairs: "Pairs", asked: str, plot: str | None, options: dict[str, Any]) -> None:
    """Print a row for every layer, and draw a curve if `plot` names a file."""
    from .. import files
    from ..evaluation import plots
    from ..evaluation.scores import evaluate_layers, parse_layers

    encoder = load_encoder(ctx)
    numbers = parse_layers(asked, encoder.layers)
    if plot is not None:
        plots.need_matplotlib()
    with files.open_output(plot, {".png": plots.draw_layers}) if plot is not None else nullcontext() as drawing:
        found = dict(evaluate_layers(encoder, numbers, pairs, **options))
        spearman = {name: [scores[name]["spearman"] for scores in found.values()] for name in found[numbers[0]]}
        if drawing is not None:
            file, draw = drawing
            draw(file, numbers, spearman, f"{Path(encoder.model).name} on {Path(data).name}")
    best = numbers[spearman[encoder.similarity_fn_name].index(max(spearman[encoder.similarity_fn_name]))]
    if ctx.params["as_json"]:
        rows = [{"layer": n, "scores": scores} for n, scores in found.items()]
        print(
            json.dumps(
                {**describe_evaluation(data, pairs, encoder), "layers": rows, "best_layer": best}, indent=2, ensure_ascii=False
            )
        )
        return
    print_heading(data, pairs, encoder)
    table = dict(spearman)
    if pairs.labelled:
        table["accuracy"] = [scores[encoder.similarity_fn_name]["accuracy"] for scores in found.values()]
    also = f", and accuracy by {encoder.similarity_fn_name}" if pairs.labelled else ""
    print(f"\nSpearman by each similarity{also}; * the best of a column\n")
    print("layer" + "".join(f"{name:>11} " for name in table))
    for i, n in enumerate(numbers):
        print(f"{n:5}" + "".join(f"{column[i]:11.4f}{'*' if column[i] == max(column) else ' '}" for column in table.values()))
    print(f"\nbest by {encoder.similarity_fn_name}: layer {best}")


def describe_evaluation(data: str, pairs: "Pairs", encoder: "Encoder") -> dict[str, Any]:
    """What was measured, with which model."""
    kind = "labels" if pairs.labelled else "scores"
    return {"data": data, "pairs": len(pairs), "targets": kind, "model": encoder.model, "device": encoder.device}


def print_heading(data: str, pairs: "Pairs", encoder: "Encoder") -> None:
    assert pairs.targets is not None
    low, high = pairs.targets.min(), pairs.targets.max()
    kind = f"labels, {int(pairs.targets.sum()):,} of them 1" if pairs.labelled else f"scores from {low:g} to {high:g}"
    print(f"{one_line(data)}: {len(pairs):,} pairs with {kind}")
    print(f"{one_line(encoder.model)} model on {encoder.device}, {encoder.dtype}")
