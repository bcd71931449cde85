"""The command `explain`: parse and print."""

import json
import shutil
import sys
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from .options import TEXT, Json, check_decoded, load_encoder, model_options, postprocess_options, vector_options, with_options

if TYPE_CHECKING:
    from ..explain.result import Explanation


@with_options(model_options, vector_options, postprocess_options)
def explain_command(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(help="The text to explain.", show_default=False)],
    other: Annotated[str | None, typer.Argument(help="Another one: why are the two alike?", show_default=False)] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write there: .html, .json or .txt.", rich_help_panel=TEXT),
    ] = None,
    as_text: Annotated[bool, typer.Option("--text", help="Print a summary; the default without --output.")] = False,
    as_json: Json = False,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="Put this before each text.", rich_help_panel=TEXT)] = None,
    prompt_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Put the model's prompt of this name before each text.", rich_help_panel=TEXT),
    ] = None,
) -> None:
    """Show how a text becomes a vector, and why two texts are alike.

    -o page.html writes one page that needs no network: tokens, attention of every head, pooling, the vector, the kernels; for
    two texts, the cosine as exact sums over tokens, pairs of tokens, dimensions, blocks, heads and MLPs.
    """
    if as_text and as_json:
        raise typer.BadParameter("--text and --json print different things: give one of the two")
    check_decoded(text, other, prompt)
    from .. import files

    formats = {".html": write_html, ".json": write_explanation_json, ".txt": write_plain}

    def compute() -> "Explanation":
        return load_encoder(ctx).explain(text, other, prompt_name=prompt_name, prompt=prompt)

    if output is not None:
        with files.open_output(output, formats) as (file, write):
            write(file, found := compute())
    else:
        found = compute()
    if as_json:
        write_explanation_json(sys.stdout.buffer, found)
    elif as_text or output is None:
        print(found.to_text(max(60, shutil.get_terminal_size().columns)), end="")


def write_html(file: BinaryIO, found: "Explanation") -> None:
    file.write(found.to_html().encode())


def write_explanation_json(file: BinaryIO, found: "Explanation") -> None:
    file.write(json.dumps(found.to_json(), ensure_ascii=False).encode() + b"\n")


def write_plain(file: BinaryIO, found: "Explanation") -> None:
    file.write(found.to_text().encode())
