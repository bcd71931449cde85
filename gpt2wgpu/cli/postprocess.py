"""The command `postprocess`: parse and print."""

from typing import Annotated

import typer

from .options import TEXT, load_encoder, model_options, vector_options, with_options


@with_options(model_options, vector_options)
def postprocess_command(
    ctx: typer.Context,
    postprocess: Annotated[
        str, typer.Argument(metavar="STEPS", help="centre, standardise, whiten:K, remove_top:K, or several with commas.")
    ],
    fit: Annotated[str, typer.Option(metavar="FILE", help="Unlabelled texts, or pairs, to fit on.", rich_help_panel=TEXT)],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FOLDER", help="Save the model with it there.", rich_help_panel=TEXT)
    ],
) -> None:
    """Fit a repair of a model's vectors on unlabelled texts, and save the model with it.

    The repair becomes a Dense module of the folder, which this package and sentence-transformers apply.
    """
    encoder = load_encoder(ctx)
    encoder.save_pretrained(output)
    print(f"{output}: {encoder.dimensions} dimensions, {encoder.info()['pooling']}")
