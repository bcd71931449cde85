"""The commands `index export`, `index import` and `index check`: parse and print."""

from pathlib import Path
from typing import Annotated

import typer

from ..progress import show_progress
from .options import load_encoder, model_options, vector_options, with_options

app = typer.Typer(no_args_is_help=True, help="Exchange an index of `search` with other programs, and check it.")
Folder = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.")]


@app.command("export")
def export_command(
    index: Folder,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help=".parquet (LanceDB, DuckDB), .sqlite or .db (the llm tool), .usearch or .faiss."),
    ],
) -> None:
    """Write the passages of an index and their vectors for another program."""
    from ..search.exchange import export_index
    from ..search.reader import open_index

    found = open_index(index)
    count = export_index(found, file, "gpt2wgpu")
    print(f"{file}: {count:,} passages")


@app.command("import")
@with_options(model_options, vector_options)
def import_command(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file as `index export` writes it, or the program itself.")],
    index: Folder,
) -> None:
    """Take vectors that another program computed with the same model into an index."""
    from ..search.taking_in import import_index
    from .search import SearchProgress

    encoder = load_encoder(ctx)
    with show_progress() as shown:
        found = import_index(encoder, index, file, SearchProgress(shown))
    print(f"{index}: {found.state.rows:,} passages")


@app.command("check")
def check_command(index: Folder) -> None:
    """Read all that an index holds and compare its checksums, as after a fault of the disk."""
    from ..search.reader import check_index, open_index

    found = open_index(index)
    check_index(found)
    print(f"{index}: {found.state.rows:,} passages, undamaged")
