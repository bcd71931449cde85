"""The command `export web`: parse and print."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from .options import ModelOption, Revision

app = typer.Typer(no_args_is_help=True, help="Write a model for other places where it can run.")


@app.callback()
def export() -> None:
    """Write a model for other places where it can run."""  # a callback, so that `web` stays a command of its own


@app.command("web")
def web_command(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="The folder to write to; new or empty.", show_default=False)
    ] = None,
    model: ModelOption = None,
    revision: Revision = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Dtype of the matrices in the folder: f16, f32 or int8. Default: int8 if the model is stored in it, else f16.",
            show_default=False,
        ),
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Then serve it on this machine, until Ctrl-C.")] = False,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port for --serve, 8000 by default; 0 for any free one.", show_default=False),
    ] = None,
) -> None:
    """Write a folder that computes vectors in a browser, on its GPU or, without one, on its CPU.

    It holds the graph with its kernels, the weights, the tokenizer, an ES module with types and a demo page: a static site, and
    a package for npm. With --serve and no FOLDER the demo runs from a temporary one.
    """
    if folder is None and not serve:
        raise typer.BadParameter("give a FOLDER to write to, or --serve")
    if port is not None and not serve:
        raise typer.BadParameter("--port is for --serve: give that, too")
    from ..encoder import Encoder
    from ..web import export_web, folder_server, serve_forever

    with ExitStack() as stack:
        target = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpt2wgpu-"))) / "web"
        server = None
        if serve:  # before the work, which a port that is taken would waste
            server = stack.enter_context(folder_server(target, 8000 if port is None else port))
        with Encoder(model, revision=revision, device="numpy") as encoder:
            sizes = export_web(encoder, target, dtype)
        if folder is not None:
            print(f"{folder}: {len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB")
        if server is not None:
            serve_forever(server)
