"""The command line: parses and prints, holds no logic. `main` runs it.

The commands import numpy and wgpu inside, so that --help does not wait for them.
"""

import sys
import warnings
from typing import Annotated

import typer

from .. import __version__
from ..errors import UserError
from ..progress import notice
from .analyze import cluster_command, duplicates_command, map_command
from .classify import app as classify
from .console import say_error, shorten_line
from .diagnose import doctor_command, info_command, profile_command, tune_command
from .embed import embed_command
from .evaluate import evaluate_command
from .explain import explain_command
from .export import app as export
from .index import app as index
from .models import convert_command, models_command, pull_command
from .postprocess import postprocess_command
from .process import flush_stdout, open_streams, stop_on_signals
from .search import search_command
from .serve import serve_command
from .similarity import similarity_command
from .study import study_command
from .tokens import app as tokens
from .train import train_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # an exception that reaches the user is a bug: show it whole
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    embed_command,
    similarity_command,
    explain_command,
    search_command,
    duplicates_command,
    cluster_command,
    map_command,
    evaluate_command,
    postprocess_command,
    study_command,
    train_command,
    serve_command,
    models_command,
    pull_command,
    convert_command,
    info_command,
    doctor_command,
    tune_command,
    profile_command,
):
    app.command(command.__name__.removesuffix("_command"))(command)
app.add_typer(classify, name="classify")
app.add_typer(export, name="export")
app.add_typer(index, name="index")
app.add_typer(tokens, name="tokens")


def version(wanted: bool) -> None:
    if wanted:
        print(f"gpt2wgpu {__version__}")
        raise typer.Exit


@app.callback()
def gpt2wgpu(
    _: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Texts in, embeddings out, on any GPU through WebGPU; without one, in numpy.

    [bold]How similar are two sentences, or all sentences of a file?[/bold]

    [cyan]  gpt2wgpu similarity --sentence1 "A cat sleeps" --sentence2 "A feline rests"[/cyan]
    [cyan]  gpt2wgpu similarity --matrix sentences.txt --output matrix.tsv[/cyan]

    [bold]Vectors of a text, of a file's column, of a file of any size[/bold]

    [cyan]  gpt2wgpu embed "The quick brown fox jumps over the lazy dog"[/cyan]
    [cyan]  gpt2wgpu embed --input articles.csv --column title --output titles.npy[/cyan]
    [cyan]  gpt2wgpu embed --model all-MiniLM-L6-v2 --input texts.txt -o a.jsonl[/cyan]
    [cyan]  gpt2wgpu embed --input huge.jsonl.gz --output vectors.parquet --resume[/cyan]

    [bold]Which passages of files answer a question?[/bold]

    [cyan]  gpt2wgpu search notes/ "how do I reset it"[/cyan]
    [cyan]  gpt2wgpu search --index notes.index notes/ "how do I reset it"[/cyan]

    [bold]Models on the Hugging Face hub, by name[/bold]

    [cyan]  gpt2wgpu models[/cyan]
    [cyan]  gpt2wgpu pull BAAI/bge-small-en-v1.5[/cyan]

    [bold]Texts that say the same, groups of one theme, classes, a map[/bold]

    [cyan]  gpt2wgpu duplicates texts.txt[/cyan]
    [cyan]  gpt2wgpu cluster texts.txt[/cyan]
    [cyan]  gpt2wgpu classify train labelled.csv --output my_classifier[/cyan]
    [cyan]  gpt2wgpu map texts.txt --output map.html[/cyan]

    [bold]How good is a model, and which of its layers is best?[/bold]

    [cyan]  gpt2wgpu evaluate --data pairs.tsv[/cyan]
    [cyan]  gpt2wgpu evaluate --data pairs.tsv --layers all --plot layers.png[/cyan]

    [bold]How does a sentence become a vector, and why are two alike?[/bold]

    [cyan]  gpt2wgpu explain "A cat sleeps" "A feline rests" -o page.html[/cyan]

    [bold]Vectors over HTTP, for clients of OpenAI, TEI, Hugging Face and Ollama[/bold]

    [cyan]  gpt2wgpu serve --model BAAI/bge-small-en-v1.5[/cyan]

    [bold]Vectors in a browser, without a server[/bold]

    [cyan]  gpt2wgpu export web my_page --model all-MiniLM-L6-v2[/cyan]

    [bold]A model of your own[/bold]

    [cyan]  gpt2wgpu train --data pairs.tsv --validation dev.tsv --output my_run[/cyan]
    [cyan]  gpt2wgpu train --data texts.txt --teacher path/to/all-MiniLM-L6-v2 --output my_run[/cyan]
    [cyan]  gpt2wgpu convert --model my_run/model --dtype int8 --output small[/cyan]

    [bold]What does it run on, and can that be trusted?[/bold]

    [cyan]  gpt2wgpu info[/cyan]
    [cyan]  gpt2wgpu doctor[/cyan]

    [bold]How fast is it, and why?[/bold]

    [cyan]  gpt2wgpu profile --texts 32 --tokens 128[/cyan]
    [cyan]  gpt2wgpu tune[/cyan]

    Results go to stdout, messages to stderr. Exit code: 0; 1 for an error or a wrong value, in one line;
    2 for unknown, missing or contradicting options.
    """


def main(args: list[str] | None = None) -> None:
    """Run a command line and exit. A user's mistake is one line on stderr and code 1; a bug keeps its traceback."""
    try:
        open_streams()
        with stop_on_signals():
            run_command(args)
    except UserError as error:
        say_error(str(error))
        sys.exit(1)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.exit(1)
    except OSError as error:
        say_error(": ".join(str(part) for part in (error.filename, error.strerror or error) if part is not None))
        sys.exit(1)


def run_command(args: list[str] | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: notice(shorten_line(f"warning: {message}"))
        try:
            # Windows: typer would replace a text with a * in it by the names of files
            app(args, prog_name="gpt2wgpu", windows_expand_args=False, obj=args)
        finally:
            flush_stdout()
