"""The commands `duplicates`, `cluster` and `map`: parse and print."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError, one_line, utf8_name
from ..progress import notice, on_terminal, show_progress
from .options import (
    TEXT,
    Column,
    Json,
    encode_options,
    load_encoder,
    model_options,
    text_options,
    vector_options,
    with_options,
)

if TYPE_CHECKING:
    from ..analyze.table import TextTable
    from ..graph.tensor import Array

File = Annotated[
    str,
    typer.Argument(
        help="Texts (one a line, or a column of .jsonl .csv .tsv .parquet), vectors from `embed`, or an index of `search`.",
        show_default=False,
    ),
]
RecordOutput = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write rows there: .parquet .jsonl or .tsv.", rich_help_panel=TEXT),
]


def table_vectors(ctx: typer.Context, table: "TextTable", task: str) -> "Array":
    """The vectors of a table, computed where it has none. task: of the model's prompts, this one is used if it has it."""
    if table.vectors is not None:
        named = ctx.params.get("model")
        if named is not None and table.facts.get("model") not in (None, named):
            raise UserError(
                f"the vectors are those of {table.facts['model']}, not of {named}: leave out --model, or give the texts"
            )
        return table.vectors
    encoder = load_encoder(ctx)
    options = encode_options(ctx)
    if options["prompt"] is None and options["prompt_name"] is None and task in encoder.prompts:
        options["prompt_name"] = task
    return encoder.encode(table.texts, show_progress_bar=on_terminal(), **options)


def shorten_text(text: str, most: int = 100) -> str:
    text = " ".join(text.split())
    return one_line(text if len(text) <= most else text[: most - 1] + "…")


@with_options(text_options, model_options, vector_options)
def duplicates_command(
    ctx: typer.Context,
    file: File,
    threshold: Annotated[float, typer.Option(metavar="COSINE", help="Least cosine of two texts that say the same.")] = 0.9,
    pairs: Annotated[bool, typer.Option("--pairs", help="Write pairs, best first, instead of groups.")] = False,
    column: Column = None,
    output: RecordOutput = None,
) -> None:
    """Find texts that say the same.

    Prints groups of texts that are connected by pairs with a cosine of at least --threshold, the largest first. Every pair is
    compared. --output writes a row for each text of a group: group, row, similarity to the group's first text, text; with
    --pairs one for each pair: similarity, row1, row2, text1, text2. Rows count from 0.
    """
    from .. import files
    from ..analyze.duplicates import find_duplicates
    from ..analyze.neighbors import unit_vectors
    from ..analyze.records import RECORD_FORMATS
    from ..analyze.table import read_table

    table = read_table(file, column)
    with files.open_output(output, RECORD_FORMATS) if output is not None else nullcontext() as writing:
        vectors = table_vectors(ctx, table, "clustering")
        found = find_duplicates(vectors, threshold)
        unit = unit_vectors(vectors)
        if pairs:
            one, other = found.pairs.T.tolist()
            columns: dict[str, list[Any]] = {
                "similarity": found.similarities.tolist(),
                "row1": one,
                "row2": other,
                "text1": [table.texts[i] for i in one],
                "text2": [table.texts[i] for i in other],
            }
        else:
            rows = [row for group in found.groups for row in group]
            columns = {
                "group": [i for i, group in enumerate(found.groups) for _ in group],
                "row": rows,
                "similarity": [float(min(1, unit[g[0]] @ unit[row])) for g in found.groups for row in g],
                "text": [table.texts[row] for row in rows],
            }
        if writing is not None:
            writing[1](writing[0], columns)
    members = sum(map(len, found.groups))
    notice(
        f"{len(table.texts):,} texts: {len(found.pairs):,} pairs with a cosine of at least {threshold:g}, {members:,} texts in "
        f"{len(found.groups):,} groups, {len(table.texts) - members + len(found.groups):,} texts without their duplicates"
    )
    if output is not None:
        return
    if pairs:
        for score, i, j, a, b in zip(*columns.values(), strict=True):
            print(f"{score:.4f}  {i}  {shorten_text(a, 60)}  |  {j}  {shorten_text(b, 60)}")
        return
    scores = iter(columns["similarity"])
    for i, group in enumerate(found.groups):
        print(f"{'' if i == 0 else chr(10)}group {i}: {len(group):,} texts")
        for row in group:
            print(f"  {next(scores):.4f}  {row}  {shorten_text(table.texts[row])}")


@with_options(text_options, model_options, vector_options)
def cluster_command(
    ctx: typer.Context,
    file: File,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="communities, or hdbscan or kmeans (these need scikit-learn).")
    ] = "communities",
    threshold: Annotated[float, typer.Option(metavar="COSINE", help="communities: least cosine with the central text.")] = 0.75,
    min_size: Annotated[int, typer.Option(metavar="N", help="communities, hdbscan: least texts of a cluster.")] = 5,
    clusters: Annotated[int | None, typer.Option(metavar="N", help="kmeans: how many clusters.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="kmeans: of the starting points.")] = 0,
    column: Column = None,
    output: RecordOutput = None,
    as_json: Json = False,
) -> None:
    """Find groups of texts of one theme, and name them.

    Prints for each cluster its size, the words that set it apart, and its most central texts. --output writes every text in the
    order of the file: text, cluster (-1: none), label, central (true for the central texts), and the file's other columns.
    """
    import json

    from .. import files
    from ..analyze.clusters import CLUSTER_METHODS, cluster_texts, import_sklearn
    from ..analyze.records import RECORD_FORMATS
    from ..analyze.table import read_table

    if method not in CLUSTER_METHODS:
        raise UserError(f"--method is one of {', '.join(CLUSTER_METHODS)}, not {method}")
    if (method == "kmeans") != (clusters is not None):
        raise typer.BadParameter("--method kmeans and --clusters N need each other")
    if method != "communities":
        import_sklearn(method)
    table = read_table(file, column)
    with files.open_output(output, RECORD_FORMATS) if output is not None else nullcontext() as writing:
        vectors = table_vectors(ctx, table, "clustering")
        found = cluster_texts(table.texts, vectors, method, threshold=threshold, min_size=min_size, clusters=clusters, seed=seed)
        numbers = found.numbers.tolist()
        if writing is not None:
            central = {row for rows in found.central for row in rows}
            own = {
                "text": table.texts,
                "cluster": numbers,
                "label": [found.names[i] if i >= 0 else "" for i in numbers],
                "central": [row in central for row in range(len(numbers))],
            }
            others = {name: values for name, values in table.columns.items() if name not in own}
            writing[1](writing[0], {**own, **others})
    sizes = [numbers.count(i) for i in range(len(found.names))]
    notice(f"{len(numbers):,} texts: {sum(sizes):,} in {len(sizes):,} clusters, {numbers.count(-1):,} in none")
    if as_json:
        rows = [
            {
                "cluster": i,
                "label": found.names[i],
                "size": size,
                "words": found.words[i],
                "central": [table.texts[r] for r in found.central[i]],
            }
            for i, size in enumerate(sizes)
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if output is not None:
        return
    for i, size in enumerate(sizes):
        print(f"{'' if i == 0 else chr(10)}cluster {i}: {size:,} texts: {one_line(', '.join(found.words[i]) or 'no own words')}")
        for row in found.central[i]:
            print(f"  {row}  {shorten_text(table.texts[row])}")


@with_options(text_options, model_options, vector_options)
def map_command(
    ctx: typer.Context,
    file: File,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="A page .html, a picture .png (needs matplotlib), points .parquet .jsonl .tsv, or a FOLDER/ for the projector.",
            rich_help_panel=TEXT,
        ),
    ],
    column: Column = None,
    color_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Colour by this column first.", show_default="the cluster")
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Of the map.", show_default="the file's name")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the starting layout.")] = 0,
    flat: Annotated[bool, typer.Option("--flat", help="Leave out the t-SNE layout in 3-D, the slowest part.")] = False,
) -> None:
    """Draw all texts on a map, on which texts of like meaning stand together.

    A page, .html, is one file that needs no network: pan, zoom, turn, hover, search, colours by cluster or by any column.
    Points, .parquet, have the columns that embedding-atlas reads: text, x, y, cluster, label, neighbors.
    The same file gives the same map.
    """
    from .. import files
    from ..analyze.map_files import MAP_FORMATS, save_map, write_projector
    from ..analyze.maps import map_texts, show_first
    from ..analyze.table import read_table

    folder = output.endswith(("/", "\\"))
    if not folder:
        files.resolve_output(output, MAP_FORMATS)
    if output.lower().endswith(".png"):
        from ..evaluation.plots import need_matplotlib

        need_matplotlib()
    table = read_table(file, column)
    if color_by is not None and color_by not in ("cluster", *table.columns):
        raise UserError(
            f"{file}: there is no column {color_by!r} to colour by, there are: {', '.join(['cluster', *table.columns])}"
        )
    with show_progress() as shown:
        vectors = table_vectors(ctx, table, "clustering")
        begun = ""

        def report(what: str, done: int, of: int) -> None:
            nonlocal begun
            if what != begun:
                begun = what
                shown.begin(0, of)
            shown.update(done, f"{what}: round {done} of {of}{shown.left(done)}")

        three = not flat and output.lower().endswith(".html")
        made = map_texts(
            table.texts,
            vectors,
            table.columns,
            title=title or utf8_name(Path(file).name),
            seed=seed,
            three=three,
            device=ctx.params["device"],
            progress=report,
        )
    made = show_first(made, color_by)
    if folder:
        write_projector(output, made, vectors)
    else:
        save_map(made, output)
    count = len(made.columns[0].names or []) if color_by in (None, "cluster") else None
    notice(f"{output}: {len(table.texts):,} texts" + ("" if count is None else f" in {count:,} clusters"))
