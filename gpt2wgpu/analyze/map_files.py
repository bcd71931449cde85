"""A map as a picture, as points, and as the files of TensorBoard's projector."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import UserError
from ..files import open_output
from ..files.source import import_arrow
from ..graph.tensor import Array
from .map_page import write_map_page
from .maps import TextMap
from .records import write_record_lines, write_record_table

LABELS_SHOWN = 30  # on a picture
PROJECTOR_CONFIG = """embeddings {{
  tensor_name: {}
  tensor_shape: {}
  tensor_shape: {}
  tensor_path: "vectors.tsv"
  metadata_path: "metadata.tsv"
}}
"""


def save_map(made: TextMap, path: str) -> None:
    """Write a map: a page .html, a picture .png (needs matplotlib), points .parquet (needs pyarrow), .jsonl or .tsv.

    Raises UserError for another name; OSError.
    """
    with open_output(path, MAP_FORMATS) as (file, write):
        write(file, made)


def map_points(made: TextMap) -> dict[str, Any]:
    """The columns of the points: text, x, y, cluster (-1: none), label, the file's own columns, neighbors."""
    cluster = next(c for c in made.columns if c.name == "cluster" and c.names is not None)
    x, y = next(points for points in made.layouts.values() if points.shape[1] == 2).T.astype(np.float64)
    own = {"text": made.texts, "x": x.tolist(), "y": y.tolist(), "cluster": cluster.values.tolist(), "label": cluster.shown}
    near = [
        {"ids": ids, "distances": [max(0.0, 1 - s) for s in scores]}
        for ids, scores in zip(made.neighbors.rows.tolist(), made.neighbors.similarities.tolist(), strict=True)
    ]
    others = {c.name: c.values.tolist() if c.names is None else c.shown for c in made.columns if c is not cluster}
    return {**own, **{name: values for name, values in others.items() if name not in own}, "neighbors": near}


def write_map_parquet(file: BinaryIO, made: TextMap) -> None:
    """neighbors: a struct of ids, row numbers from 0, and distances, 1 - cosine, as embedding-atlas reads them."""
    pyarrow = import_arrow("the output", ".parquet")
    from pyarrow import parquet

    columns = map_points(made)
    kind = pyarrow.struct([("ids", pyarrow.list_(pyarrow.int64())), ("distances", pyarrow.list_(pyarrow.float64()))])
    arrays = {name: pyarrow.array(values, kind if name == "neighbors" else None) for name, values in columns.items()}
    parquet.write_table(pyarrow.table(arrays), file)


def write_map_lines(file: BinaryIO, made: TextMap) -> None:
    write_record_lines(file, {name: none_for_nan(values) for name, values in map_points(made).items()})


def none_for_nan(values: list[Any]) -> list[Any]:
    """JSON has no NaN."""
    return [None if isinstance(v, float) and np.isnan(v) else v for v in values]


def write_map_table(file: BinaryIO, made: TextMap) -> None:
    """Without the neighbours."""
    write_record_table(file, {name: none_for_nan(v) for name, v in map_points(made).items() if name != "neighbors"})


def write_map_picture(file: BinaryIO, made: TextMap) -> None:
    """The first layout, coloured by the first column, with the names of the largest categories. PNG, needs matplotlib."""
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    points = next(points for points in made.layouts.values() if points.shape[1] == 2)
    figure = Figure(figsize=(11, 8), dpi=150, layout="constrained", facecolor="#fafaf8")
    axes = figure.subplots()
    column = made.columns[0]
    size = float(np.clip(6000 / len(points), 1.2, 60))
    if column.names is None:
        drawn = axes.scatter(
            points[:, 0], points[:, 1], c=column.values, s=size, cmap="viridis", linewidths=0, plotnonfinite=False
        )
        figure.colorbar(drawn, ax=axes, label=column.name.replace("$", r"\$"), shrink=0.6)
    else:
        colours = np.array([category_colour(i) for i in range(len(column.names))] + [(0.74, 0.75, 0.77)])
        axes.scatter(points[:, 0], points[:, 1], c=colours[column.values], s=size, linewidths=0, alpha=0.85)
        for code, name in enumerate(column.names[:LABELS_SHOWN]):
            x, y = dense_place(points[column.values == code])
            shown = (name if len(name) <= 32 else name[:31] + "…").replace("$", r"\$")  # else it would be read as a formula
            edge = [withStroke(linewidth=3, foreground="#fafaf8")]
            ink = [0.6 * v for v in category_colour(code)]
            axes.text(x, y, shown, ha="center", va="center", fontsize=8, weight="bold", color=ink, path_effects=edge)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_axis_off()
    axes.set_title(made.title.replace("$", r"\$"), fontsize=13, color="#1d2126")
    figure.savefig(file, format="png", facecolor=figure.get_facecolor())


def dense_place(points: Array) -> tuple[float, float]:
    """The point of some (m, d) with the least median distance to the others, of at most 200 of them."""
    some = points[:: max(1, len(points) // 200)]
    apart = np.linalg.norm(some[:, None] - some[None], axis=2)
    x, y = some[np.median(apart, axis=1).argmin()].tolist()
    return x, y


def category_colour(i: int) -> tuple[float, float, float]:
    """A hue for each category, spread by the golden angle."""
    import colorsys

    hue = (0.58 + i * 0.618034) % 1
    return colorsys.hls_to_rgb(hue, (0.5, 0.42, 0.6)[i // 8 % 3], 0.55)


def write_projector(folder: str, made: TextMap, vectors: Array) -> None:
    """vectors.tsv and metadata.tsv, which projector.tensorflow.org loads too, and projector_config.pbtxt, by which TensorBoard
    finds them. Raises UserError."""
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise UserError(f"{folder}: is a file, expected a folder")
    place.mkdir(exist_ok=True)
    with open_output(str(place / "vectors.tsv"), {".tsv": None}) as (file, _):
        for row in vectors:
            file.write(("\t".join(f"{v:.7g}" for v in row.tolist()) + "\n").encode())
    texts = [text if text.strip() else "(empty)" for text in made.texts]  # the projector skips a line of blanks
    with open_output(str(place / "metadata.tsv"), {".tsv": None}) as (file, _):
        write_record_table(file, {"text": texts, **{c.name: c.shown for c in made.columns}})  # several columns: with a header
    name = re.sub("[&#%+]", "-", made.title)  # the projector puts it into an address as it is
    config = PROJECTOR_CONFIG.format(json.dumps(name, ensure_ascii=False), *np.shape(vectors))
    with open_output(str(place / "projector_config.pbtxt"), {".pbtxt": None}) as (file, _):
        file.write(config.encode("utf-8", "replace"))


MAP_FORMATS: Mapping[str, Callable[[BinaryIO, TextMap], None]] = {
    ".html": write_map_page,
    ".png": write_map_picture,
    ".parquet": write_map_parquet,
    ".jsonl": write_map_lines,
    ".tsv": write_map_table,
}
