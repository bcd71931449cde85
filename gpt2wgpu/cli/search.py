"""The command `search`: parse and print."""

import json
import math
import os
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError, between, one_line
from ..progress import Lines, notice, show_progress
from .options import TEXT, check_decoded, load_encoder, model_options, vector_options, with_options

if TYPE_CHECKING:
    from ..search.query import Hit
    from ..search.reader import Index

INDEX_PANEL = "Index"
SNIPPET = 160  # characters of a passage on its line
WORTH_KEEPING = 2000  # passages of a search without an index, from which on it says how to keep them


@with_options(model_options, vector_options)
def search_command(
    ctx: typer.Context,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="[PATH]... QUERY", help="Files and folders (none: the current one), then the question."),
    ],
    k: Annotated[int, typer.Option("-k", "--top-k", metavar="N", help="Most passages to print.")] = 10,
    mode: Annotated[
        str, typer.Option(metavar="MODE", help="semantic: by meaning. lexical: by words, BM25. hybrid: both, fused by rank.")
    ] = "hybrid",
    context: Annotated[
        int | None, typer.Option("--context", "-C", metavar="N", help="Print whole passages, with N lines around them.")
    ] = None,
    min_score: Annotated[float | None, typer.Option(metavar="X", help="Leave out passages with a lower score.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column of .jsonl .csv .tsv .parquet .arrow files that holds the texts; a number if a file has no header.",
            rich_help_panel=TEXT,
        ),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep the vectors there, and bring them up to date with the paths. Without paths: search what it holds.",
            rich_help_panel=INDEX_PANEL,
        ),
    ] = None,
) -> None:
    """Find the passages of files that answer a question. Nothing leaves this machine.

    Prints FILE:LINE: SCORE TEXT, best first. Folders are read as ripgrep does: no hidden files, none that .gitignore names.
    Exit code 1 if nothing is found.
    """
    from ..search.query import MOST_WANTED, check_mode, encode_question, search_index

    *paths, query = arguments
    check_decoded(query)
    check_mode(mode)
    between("k", k, 1, MOST_WANTED)
    between("context", context or 0, 0, MOST_WANTED)
    if min_score is not None and math.isnan(min_score):
        raise UserError("--min-score takes a number, not nan")
    if not query.strip():
        raise UserError("the question, the last argument, is empty")
    if not paths and index is None:
        paths = ["."]
    encoder = load_encoder(ctx)
    kept = nullcontext(str(index)) if index else tempfile.TemporaryDirectory(prefix="gpt2wgpu-search-")
    with kept as folder:
        found = open_or_update(encoder, Path(folder), paths, column, kept=index is not None)
        say_left_out(found)
        vector = None if mode == "lexical" else encode_question(encoder, query)
        below = [str(Path(path).resolve()) for path in paths] or None
        hits = search_index(found, query, vector, k, mode, below)
        hits = [hit for hit in hits if min_score is None or hit.score >= min_score]
        if as_json:
            print(json.dumps([describe_hit(hit, paths) for hit in hits], ensure_ascii=False, indent=2))
        else:
            for i, hit in enumerate(hits):
                print_hit(hit, show_path(hit.path, paths), context, first=i == 0)
        passages = found.state.rows
    if not hits:
        notice(f"nothing found in {passages:,} passages")
        raise typer.Exit(1)


def open_or_update(encoder: Any, folder: Path, paths: list[str], column: str | None, *, kept: bool) -> "Index":
    """The index, brought up to date with the paths; as it is if there are none. kept: it is not thrown away."""
    from ..search.reader import open_index
    from ..search.update import index_fingerprint, update_index

    if not paths:
        found = open_index(folder)
        index_fingerprint(encoder, found.state)
        return found
    with show_progress() as shown:
        found = update_index(encoder, folder, paths, SearchProgress(shown), column, durable=kept)
    if not kept and found.state.rows > WORTH_KEEPING:
        notice(f"{found.state.rows:,} passages were computed for this one search: keep them with --index FOLDER")
    return found


class SearchProgress:
    """How far an update is."""

    def __init__(self, shown: Lines) -> None:
        self.shown = shown
        shown.begin()

    def say(self, line: str) -> None:
        self.shown.say(line)

    def step(self, passages: int, files: int, of: int) -> None:
        self.shown.total = of
        self.shown.update(files, f"{files:,} of {of:,} new files, {passages:,} passages")


def say_left_out(index: "Index") -> None:
    """One line on the files that are not searched; files that are no text are not mentioned."""
    left = {path: file.why for path, file in index.catalogue.files.items() if file.why and file.why != "not text"}
    if left:
        path, why = min(left.items())
        reasons = f"{path}: {why}" if len(left) == 1 else f"{len(left):,} files, such as {path} ({why})"
        notice(f"not searched: {reasons}")


def show_path(path: str, given: Sequence[str]) -> str:
    """A file's name beginning as the user gave it; else relative to the current folder where it is below that."""
    for start in given:
        whole = str(Path(start).resolve())
        if path == whole:
            return start
        if path.startswith(whole.rstrip(os.sep) + os.sep):
            inside = path[len(whole.rstrip(os.sep)) + 1 :]
            return inside if start == "." else os.path.join(start, inside)  # noqa: PTH118
    here = os.getcwd().rstrip(os.sep) + os.sep  # noqa: PTH109
    return path.removeprefix(here)


def describe_hit(hit: "Hit", given: Sequence[str]) -> dict[str, Any]:
    scores = {"score": hit.score, "semantic": hit.semantic, "lexical": hit.lexical}
    others = {"others": [show_path(path, given) for path in hit.others]} if hit.others else {}
    return {"path": show_path(hit.path, given), "line": hit.first, "last_line": hit.last, **scores, "text": hit.text, **others}


def print_hit(hit: "Hit", path: str, context: int | None, *, first: bool) -> None:
    """One line; or with `context` the passage, as grep prints it: a colon where it matches, hyphens around it."""
    path = one_line(path)
    if context is None:
        text = " ".join(hit.text.split())
        text = text if len(text) <= SNIPPET else f"{text[: SNIPPET - 1]}…"
        print(f"{path}:{hit.first}: {hit.score:.4f} {one_line(text)}")
        return
    if not first:
        print("--")
    before, after = surrounding_lines(hit, context)
    for number, line in before:
        print(f"{path}-{number}- {one_line(line)}")
    for number, line in enumerate(split_lines(hit.text), hit.first):
        print(f"{path}:{min(number, hit.last)}: {hit.score:.4f} {one_line(line)}")
    for number, line in after:
        print(f"{path}-{number}- {one_line(line)}")


def surrounding_lines(hit: "Hit", count: int) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Up to `count` lines of the file before and after a passage; none in a table, or in a file that is gone."""
    from ..search.passages import is_table

    if not count or is_table(hit.path):
        return [], []
    try:
        text = Path(hit.path).read_bytes().decode("utf-8-sig")
    except (OSError, ValueError):
        return [], []
    numbered = [*enumerate(split_lines(text.removesuffix("\n")), 1)]
    return numbered[max(0, hit.first - 1 - count) : hit.first - 1], numbered[hit.last : hit.last + count]


def split_lines(text: str) -> list[str]:
    """The lines as passages count them: a carriage return alone ends none."""
    return [line.removesuffix("\r") for line in text.split("\n")]
