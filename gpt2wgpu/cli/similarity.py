"""The command `similarity`: parse and print."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import one_line
from .options import (
    TEXT,
    Column,
    check_decoded,
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
    from ..graph.tensor import Array


@with_options(text_options, model_options, vector_options, postprocess_options)
def similarity_command(
    ctx: typer.Context,
    sentence1: Annotated[str | None, typer.Option(metavar="TEXT", rich_help_panel=TEXT)] = None,
    sentence2: Annotated[str | None, typer.Option(metavar="TEXT", rich_help_panel=TEXT)] = None,
    all_metrics: Annotated[
        bool,
        typer.Option("--all-metrics", help="Print distances, dot product and correlation, too.", rich_help_panel=TEXT),
    ] = False,
    matrix: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Compare all texts of a file (one a line; - is stdin).", rich_help_panel=TEXT),
    ] = None,
    column: Column = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the matrix there instead of stdout: .json .npy .tsv or .csv.",
            rich_help_panel=TEXT,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=TEXT)] = False,
) -> None:
    """Measure how similar two sentences are, or all sentences of a file."""
    if matrix is not None:
        if sentence1 is not None or sentence2 is not None or all_metrics:
            raise typer.BadParameter("--matrix FILE cannot be combined with --sentence1, --sentence2 or --all-metrics")
        return similarity_matrix(ctx, matrix, column, output, as_json)
    if sentence1 is None or sentence2 is None:
        raise typer.BadParameter("give --sentence1 TEXT and --sentence2 TEXT, or --matrix FILE")
    if column is not None or output is not None:
        raise typer.BadParameter("--column and --output need --matrix FILE")
    from ..vectors.measures import METRICS

    check_decoded(sentence1, sentence2)
    encoder = load_encoder(ctx)
    a, b = encoder.encode([sentence1, sentence2], **encode_options(ctx))
    chosen = METRICS if all_metrics else {"cosine_similarity": METRICS["cosine_similarity"]}
    values = {name: metric.function(a, b) for name, metric in chosen.items()}
    if as_json:
        print(json.dumps({"sentence1": sentence1, "sentence2": sentence2, **values}, ensure_ascii=False))
        return
    print(f'Sentence 1: "{one_line(sentence1)}"')
    print(f'Sentence 2: "{one_line(sentence2)}"')
    print()
    for name, value in values.items():
        print(f"{chosen[name].label}: {value:.4f} ({chosen[name].meaning})")


def similarity_matrix(ctx: typer.Context, path: str, column: str | None, output: str | None, as_json: bool) -> None:
    """Compare all pairs of a file's sentences: print a table or JSON, or write a file."""
    from .. import files

    sentences = [*files.read_texts(path, column)]

    def compute() -> "tuple[Encoder, Array]":
        encoder = load_encoder(ctx)
        return encoder, encoder.similarity_matrix(sentences, **encode_options(ctx))

    if output is not None:
        with files.open_output(output, files.MATRIX_FORMATS) as (file, write):
            write(file, sentences, compute()[1])
        return
    encoder, found = compute()
    if as_json:
        files.write_matrix_json(sys.stdout.buffer, sentences, found)
        return
    width = len(str(len(sentences)))
    for i, text in enumerate(sentences, 1):
        print(f"{i:{width}}  {one_line(text)}")
    print(f"\n{encoder.similarity_fn_name} similarity of every pair")
    cells = [[str(j) for j in range(1, len(found) + 1)], *([f"{x:.4f}" for x in row] for row in found)]
    room = max(len(c) for row in cells for c in row)
    for i, row in enumerate(cells):
        print(f"{i or '':{width}}  " + "  ".join(c.rjust(room) for c in row))
