"""The command `embed`: parse and print."""

import shlex
import sys
from contextlib import closing
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..progress import notice, on_terminal, show_progress
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
    from .. import files


@with_options(text_options, model_options, vector_options, postprocess_options)
def embed_command(
    ctx: typer.Context,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed.", show_default=False)] = None,
    sentence: Annotated[
        list[str] | None,
        typer.Option(
            "--sentence",
            "-s",
            metavar="TEXT",
            help="A text to embed; may be repeated.",
            rich_help_panel=TEXT,
        ),
    ] = None,
    input: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="Texts of a file: one per line (a blank one is an empty text), or a column of .jsonl .tsv .csv .parquet .arrow; "
            "also with .gz or .zst. A folder is one data set in several files. - is stdin.",
            rich_help_panel=TEXT,
        ),
    ] = None,
    column: Column = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write there instead of stdout: .json .jsonl .jsonl.gz .npy .npz .parquet .arrow .safetensors .sqlite "
            "or .tsv; a name that ends in / is a folder of Parquet shards.",
            rich_help_panel=TEXT,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue where the same command was stopped.", rich_help_panel=TEXT)
    ] = False,
    precision: Annotated[
        str,
        typer.Option(metavar="TYPE", help="Type of the vectors: float32, int8, uint8, binary or ubinary.", rich_help_panel=TEXT),
    ] = "float32",
) -> None:
    """Turn texts into vectors.

    One text prints {"sentence": ..., "embedding": [...], "dimensions": N}; several texts, or a file, print an array of these.
    A file of any size is read and written row by row, in the order of its texts. An output file appears when it is complete.
    If the command is stopped, by Ctrl-C or a power cut, finished rows stay in OUTPUT.part, and --resume continues from them.
    """
    from ..errors import UserError

    given = [*(sentence or ()), *(texts or ())]
    check_decoded(*given)
    if bool(given) == (input is not None):
        raise typer.BadParameter("give texts, or a file of texts with --input FILE (- is stdin), not both")
    if column is not None and input is None:
        raise typer.BadParameter("--column needs --input")
    at_once = input in (None, "-") or output is None or output.lower().endswith(".npz")
    if at_once and (resume or precision != "float32"):
        option = "--resume" if resume else "--precision"
        if input in (None, "-") or output is None:
            raise typer.BadParameter(f"{option} needs --input FILE, which can be read again, and --output FILE")
        raise UserError(f"{output}: .npz is written at once, without {option}: choose .npy, .parquet or .safetensors")
    if input is None or output is None or at_once:
        embed_at_once(ctx, given, input, column, output)
    else:
        embed_resumable(ctx, input, column, output)


def embed_at_once(ctx: typer.Context, given: list[str], input: str | None, column: str | None, output: str | None) -> None:
    """Write rows to stdout, or to a file that is removed if the command is stopped."""
    from .. import files

    formats = {**files.VECTOR_FORMATS, ".json": files.write_jsonl if len(given) == 1 else files.write_json}
    mine, rest = tee(iter(given) if input is None else files.read_texts(input, column))

    def rows() -> "files.Rows":
        encoder = load_encoder(ctx)
        bar = input is not None and on_terminal() and not (output is None and sys.stdout.isatty())
        vectors = encoder.encode_stream(rest, show_progress_bar=bar, **encode_options(ctx))
        # The vectors come first, so that zip exhausts their generator, which at its end warns of texts that were cut.
        return ((text, vector) for vector, text in zip(vectors, mine, strict=True))

    if output is None:
        formats[".json"](sys.stdout.buffer, rows(), files.OutputFacts())
    else:
        with files.open_output(output, formats) as (file, write):
            write(file, rows(), files.OutputFacts())


def embed_resumable(ctx: typer.Context, input: str, column: str | None, output: str) -> None:
    """Embed a file of any size into a file or a folder of shards, so that --resume can continue."""
    from .. import corpus, files
    from ..errors import UserError
    from ..vectors.quantize import check_precision
    from .progress import CorpusProgress

    p = ctx.params
    check_precision(p["precision"])
    source, target, shards = Path(input).resolve(), Path(output).resolve(), corpus.is_folder(output)
    if source.is_dir() and source == (target if shards else target.parent):
        raise UserError(f"{output}: would be read as texts the next time: write it into another folder than {input}")
    if not shards and target.is_file() and source.exists() and target.samefile(source):
        raise UserError(f"{output}: is the file of texts: write to another one")
    with closing(files.Texts(input, column)) as found, corpus.open_workspace(output, resume=p["resume"]) as work:
        if work.complete:
            notice(f"{output} exists and nothing is unfinished: left as it is, unchecked; leave out --resume to make it again")
            return
        if p["resume"] and work.state is None:
            notice(f"nothing to resume in {work.folder}: starting from the first text")
        encoder = load_encoder(ctx)
        asked = encoder.options(**encode_options(ctx))
        with show_progress() as shown:
            report = CorpusProgress(shown, command_to_resume(ctx))
            corpus.embed_corpus(encoder, found, work, report, asked, precision=p["precision"])


def command_to_resume(ctx: typer.Context) -> str:
    args = [a for a in ctx.find_root().obj or sys.argv[1:] if a != "--resume"]
    return shlex.join(["gpt2wgpu", *args, "--resume"])
