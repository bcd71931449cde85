"""The commands `classify train` and `classify predict`: parse and print."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError, one_line
from ..progress import notice
from .analyze import File, RecordOutput, shorten_text, table_vectors
from .options import (
    TEXT,
    Column,
    DeviceOption,
    Json,
    encode_options,
    encoder_options,
    model_options,
    text_options,
    vector_options,
    with_options,
)

if TYPE_CHECKING:
    from ..analyze.classify import ClassScores
    from ..analyze.table import TextTable
    from ..graph.tensor import Array

app = typer.Typer(no_args_is_help=True, help="Learn classes from labelled texts, and find the class of others.")
OWN_DEVICE = ("device", "dtype", "max_tokens")  # options of the machine, not of the vectors


@app.command("train")
@with_options(text_options, model_options, vector_options)
def classify_train_command(
    ctx: typer.Context,
    file: File,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FOLDER", help="Save the classifier there.", rich_help_panel=TEXT)
    ],
    label: Annotated[str, typer.Option(metavar="NAME", help="Column of the labels.", rich_help_panel=TEXT)] = "label",
    method: Annotated[str, typer.Option(metavar="NAME", help="logistic (needs scikit-learn), centroid or knn.")] = "logistic",
    k: Annotated[int, typer.Option(metavar="N", help="knn: how many nearest examples decide.")] = 5,
    folds: Annotated[int, typer.Option(metavar="N", help="Parts for cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the parts.")] = 0,
    column: Column = None,
    as_json: Json = False,
) -> None:
    """Learn classes from labelled texts.

    Prints how good the classifier is on texts that it has not seen, by cross-validation, and then trains on all of them. The
    folder holds classifier.safetensors and classifier.json, with the model and the options that made the vectors.
    """
    import json
    from dataclasses import asdict

    from ..analyze.classifier_file import save_classifier
    from ..analyze.classify import CLASSIFIERS, cross_validate, train_classifier
    from ..analyze.clusters import import_sklearn
    from ..analyze.table import read_table

    if method not in CLASSIFIERS:
        raise UserError(f"--method is one of {', '.join(CLASSIFIERS)}, not {method}")
    if method == "logistic":
        import_sklearn("--method logistic")
    table = read_table(file, column)
    labels = table_labels(file, table, label)
    if len(set(labels)) < 2:
        raise UserError(f"{file}: a classifier needs at least two classes, all {len(labels):,} labels are {labels[0]!r}")
    vectors = table_vectors(ctx, table, "classification")
    scores = (
        cross_validate(vectors, labels, method, k=k, folds=folds, seed=seed) if max(map(labels.count, set(labels))) > 1 else None
    )
    made = train_classifier(vectors, labels, method, k=k)
    facts = {"vectors": describe_vectors(ctx, table), "examples": len(labels), "dimensions": made.dimensions}
    save_classifier(output, made, {**facts, "cross_validation": None if scores is None else asdict(scores)})
    if as_json:
        print(
            json.dumps({"classifier": output, "method": method, **facts, "scores": scores and asdict(scores)}, ensure_ascii=False)
        )
        return
    if scores is None:
        notice("each class has one example only: nothing is left to test with")
        return
    print_class_scores(method, labels, scores)


def print_class_scores(method: str, labels: list[str], scores: "ClassScores") -> None:
    print(f"{method} on {len(labels):,} texts of {len(set(labels)):,} classes, {scores.folds}-fold cross-validation\n")
    width = min(40, max(len("class"), *(len(shorten_text(name, 40)) for name in scores.by_class)))
    print(f"{'class':{width}}  precision  recall      F1   texts")
    for name, (precision, recall, f1, count) in scores.by_class.items():
        print(f"{shorten_text(name, 40):{width}}  {precision:9.4f}  {recall:6.4f}  {f1:6.4f}  {count:6,}")
    print(
        f"\naccuracy {scores.accuracy:.4f}, macro F1 {scores.macro_f1:.4f}; always the most frequent class: {scores.majority:.4f}"
    )
    if scores.untested:
        notice(f"not tested, as they have one example only: {one_line(', '.join(scores.untested))}")


def table_labels(file: str, table: "TextTable", name: str) -> list[str]:
    """The label of each text, as a text. Raises UserError for a missing column or label."""
    if name not in table.columns:
        there = ", ".join(table.columns) or "none beside the texts"
        raise UserError(f"{file}: there is no column {name!r} with labels (--label NAME); its columns: {there}")
    for row, value in enumerate(table.columns[name]):
        if value is None or value == "":
            raise UserError(f"{file}: row {row} has no {name!r}: give it a label, or leave the row out")
    return [str(value) for value in table.columns[name]]


def describe_vectors(ctx: typer.Context, table: "TextTable") -> dict[str, Any]:
    """How vectors were made, so that `predict` makes them in the same way."""
    if table.vectors is not None:
        return {"model": table.facts.get("model"), "from_file": True}
    own = {name: value for name, value in encoder_options(ctx).items() if name not in OWN_DEVICE}
    return {**own, "from_file": False, "encode": encode_options(ctx)}


@app.command("predict")
@with_options()
def classify_predict_command(
    ctx: typer.Context,
    file: File,
    classifier: Annotated[
        str, typer.Option("--classifier", "-c", metavar="FOLDER", help="From `classify train`.", rich_help_panel=TEXT)
    ],
    column: Column = None,
    output: RecordOutput = None,
    device: DeviceOption = "auto",
) -> None:
    """Find the class of each text.

    Prints class, probability and text. --output writes every text in the order of the file: text, class, probability, and the
    file's other columns. The vectors are made as in training; those of a file must be of the same model.
    """
    from .. import files
    from ..analyze.classifier_file import load_classifier
    from ..analyze.records import RECORD_FORMATS
    from ..analyze.table import read_table

    made, facts = load_classifier(classifier)
    table = read_table(file, column)
    with files.open_output(output, RECORD_FORMATS) if output is not None else nullcontext() as writing:
        chosen, probabilities = made.choose(vectors_as_trained(classifier, facts["vectors"], table, device))
        classes = [made.classes[i] for i in chosen.tolist()]
        sure = [float(row[i]) for row, i in zip(probabilities, chosen.tolist(), strict=True)]
        if writing is not None:
            own = {"text": table.texts, "class": classes, "probability": sure}
            writing[1](writing[0], {**own, **{name: v for name, v in table.columns.items() if name not in own}})
            return
    for name, p, text in zip(classes, sure, table.texts, strict=True):
        print(f"{one_line(name)}\t{p:.4f}\t{shorten_text(text)}")


def vectors_as_trained(classifier: str, how: dict[str, Any], table: "TextTable", device: str) -> "Array":
    """The vectors of a table, made as those that the classifier was trained on. Raises UserError if that is impossible."""
    from ..encoder import Encoder
    from ..progress import on_terminal

    if table.vectors is not None:
        mine, theirs = how.get("model") or (None if how["from_file"] else "built-in"), table.facts.get("model")
        if mine is not None and theirs is not None and mine != theirs:
            raise UserError(f"{classifier} was trained on vectors of {mine}, these are of {theirs}: embed the texts with {mine}")
        return table.vectors
    if how["from_file"]:
        raise UserError(
            f"{classifier} was trained on vectors from a file: embed these texts in the same way, and give their vectors"
        )
    options = {name: value for name, value in how.items() if name not in ("from_file", "encode")}
    encoder = Encoder(**options, device=device)
    if encoder.device == "numpy" and device == "auto":
        notice(encoder.engine.place.reason)
    return encoder.encode(table.texts, show_progress_bar=on_terminal(), **how["encode"])
