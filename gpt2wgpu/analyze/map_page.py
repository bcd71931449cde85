"""A map as one HTML file that needs nothing else: no network, no server, no library."""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, BinaryIO

import numpy as np

from ..graph.tensor import Array
from .maps import MapColumn, TextMap

PAGE = Path(__file__).parent / "page"
MAP_SCRIPTS = ("data.js", "draw.js", "colour.js", "interface.js")
TEXT_SHOWN = 1000  # characters of a text that the page carries, for few texts
PAGE_CHARACTERS = 30_000_000  # of all texts: a browser opens such a page within a second or two
NEIGHBORS_SHOWN = 8
NO_CODE = 65535
MANY_NUMBERS = 200  # of which colours show all but the lowest and highest hundredth


def write_map_page(file: BinaryIO, made: TextMap) -> None:
    """The page, UTF-8. Texts are data in it, never markup."""
    template = Template((PAGE / "page.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(made.title),
        style=(PAGE / "style.css").read_text(encoding="utf-8"),
        script="".join((PAGE / name).read_text(encoding="utf-8") for name in MAP_SCRIPTS),
        data=script_json(page_data(made)),
    )
    file.write(page.encode())


def script_json(value: Any) -> str:
    """JSON that can stand inside a script element: no text in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair has no UTF-8


def page_data(made: TextMap) -> dict[str, Any]:
    most = max(80, min(TEXT_SHOWN, PAGE_CHARACTERS // max(1, len(made.texts))))
    texts = [text if len(text) <= most else text[: most - 1] + "…" for text in made.texts]
    neighbors = None
    if made.neighbors.rows.shape[1]:
        rows = made.neighbors.rows[:, :NEIGHBORS_SHOWN]
        neighbors = {"k": rows.shape[1], "rows": encode_array(rows, "<u4")}
    return {
        "title": made.title,
        "texts": texts,
        "layouts": [
            {"name": name, "dims": points.shape[1], "places": encode_array(quantise_places(points), "<u2")}
            for name, points in made.layouts.items()
        ],
        "columns": [column_data(column) for column in made.columns],
        "neighbors": neighbors,
    }


def quantise_places(points: Array) -> Array:
    """Places (n, d) -> uint16 (n, 3), of which 32767.5 is the middle and all axes have one scale."""
    found = np.full((len(points), 3), 32768, np.uint16)
    if len(points):
        low, high = points.min(axis=0), points.max(axis=0)
        half = max(float((high - low).max()) / 2, 1e-30)
        found[:, : points.shape[1]] = np.rint(((points - (low + high) / 2) / half * 0.97 + 1) * 32767.5).astype(np.uint16)
    return found


def column_data(column: MapColumn) -> dict[str, Any]:
    if column.names is not None:
        codes = np.where(column.values < 0, NO_CODE, column.values)
        return {"name": column.name, "names": column.names, "codes": encode_array(codes, "<u2"), "unnamed": column.unnamed}
    values = np.asarray(column.values, np.float32)
    finite = values[np.isfinite(values)]
    beyond = len(finite) > MANY_NUMBERS  # a few far-off values would leave one colour for all others
    low, high = np.percentile(finite, (1, 99) if beyond else (0, 100)).tolist() if len(finite) else (0.0, 0.0)
    values = np.where(np.isfinite(values), values, np.float32(np.nan))
    return {"name": column.name, "values": encode_array(values, "<f4"), "low": low, "high": high, "beyond": beyond}


def encode_array(values: Array | Sequence[int], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
