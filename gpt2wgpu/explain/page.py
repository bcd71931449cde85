"""An Explanation -> one HTML file, which needs no network and no library."""

import base64
import hashlib
import html
import json
import zlib
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np

from ..graph.tensor import Array
from .result import Explanation, TextTrace, plain_value

HERE = Path(__file__).parent
SCRIPTS = ("page.js", "figures.js", "sections.js", "shares.js")
MOST_BYTES = 1_900_000  # of a page
MOST_COLUMNS = 1024  # of the strips of token and position vectors
# shades from 0 to the largest value, of attention and cosines, and of strips; finer ones first
SHADES = ((255, 127), (127, 63), (63, 31), (31, 31), (31, 15), (15, 15), (15, 7), (7, 7), (3, 3), (1, 1))


class Packer:
    """Arrays for the script of the page: small whole numbers, one after the other in one piece of bytes."""

    def __init__(self) -> None:
        self.bytes = bytearray()

    def add(self, array: Array, steps: int, *, root: bool = False, signed: bool = False) -> dict[str, Any]:
        """Round an array to `steps` steps up to its largest value; `root` rounds the square roots, which keeps small ones
        visible. Returns where it lies and how to read it."""
        each = np.abs(array).max(axis=(-2, -1), keepdims=True, initial=0)  # of each matrix, as heads differ
        each[each == 0] = 1
        scaled = array / each
        rounded = np.rint(steps * (np.sign(scaled) * np.sqrt(np.abs(scaled)) if root else scaled)).astype(
            np.int8 if signed else np.uint8
        )
        start = len(self.bytes)
        self.bytes += rounded.tobytes()
        return {
            "at": start,
            "shape": [*array.shape],
            "largest": plain_value(each.ravel()),
            "steps": steps,
            "root": root,
            "signed": signed,
        }


def write_page(e: Explanation) -> str:
    """The page, of at most about 2 MB for texts of up to 128 tokens: large models get coarser pictures, and the page says so."""
    pages: dict[int, str] = {}

    def size(i: int) -> int:
        pages[i] = fill_template(e, pack_data(e, *SHADES[i]))
        return len(pages[i])

    if size(0) <= MOST_BYTES:
        return pages[0]
    found = bisect_left(range(len(SHADES) - 1), True, lo=1, key=lambda i: size(i) <= MOST_BYTES)
    return pages[found] if found in pages else fill_template(e, pack_data(e, *SHADES[found]))


def pack_data(e: Explanation, fine: int, strip: int) -> bytes:
    """Everything that the script draws: the length of the JSON, the JSON, the packed arrays; compressed."""
    packer = Packer()
    pair = len(e.texts) == 2
    data = {
        "model": e.model | {"model": Path(name).name if Path(name := str(e.model["model"])).exists() else name},
        "positions": e.positions,
        "cosine": e.cosine,
        "encodedCosine": e.encoded_cosine,
        "layerCosines": plain_value(e.layer_cosines),
        "tokenCosines": packer.add(e.token_cosines(0, 1 if pair else None), min(fine, 127), signed=True),
        "texts": [pack_text(t, packer, fine, strip) for t in e.texts],
        "shares": plain_value(e.shares) | {"pairs": np.round(e.shares.pairs, 5).tolist(), "pairsTotal": e.shares.pairs_total},
        "dispatches": plain_value(e.dispatches),
        "shaders": e.shaders,
        "ops": plain_value(e.ops),
        "timed": e.timed,
        "finalNorm": e.has_final_norm,
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return zlib.compress(len(text).to_bytes(4, "little") + text + bytes(packer.bytes), 6)


def pack_text(t: TextTrace, packer: Packer, fine: int, strip: int) -> dict[str, Any]:
    """One text for the script."""
    return {
        "text": t.text,
        "read": t.read,
        "tokens": plain_value(t.tokens),
        "words": plain_value(t.words),
        "columns": t.token_vectors.shape[1],
        "tokenVectors": packer.add(t.token_vectors[:, :MOST_COLUMNS], strip, root=True, signed=True),
        "positionVectors": packer.add(t.position_vectors[:, :MOST_COLUMNS], strip, root=True, signed=True),
        "firstSum": plain_value(np.stack([t.token_vectors[:, 0], t.position_vectors[:, 0]])),
        "attention": packer.add(t.attention, fine, root=True),
        "pooling": [{"mode": mode, "weights": plain_value(w[:, 0] if w.shape[1] == 1 else w.mean(1))} for mode, w in t.pooling],
        "lastStates": plain_value(t.states[-1][:, first_shown(t)]),
        "shown": first_shown(t),
        "pooled": plain_value(t.pooled),
        "vector": plain_value(t.vector),
        "encodedError": float(np.abs(t.vector - t.encoded).max()),
    }


def first_shown(t: TextTrace) -> int:
    """The dimension of the pooled vector that is worked out as an example: the largest one."""
    return int(np.abs(t.pooled[: t.states.shape[2]]).argmax())


def fill_template(e: Explanation, data: bytes) -> str:
    """The template with its style, its script and the data. Texts of the user are escaped; only this style and this script are
    allowed to do anything, and nothing may be loaded."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    shown = [html.escape(t.text) for t in e.texts]
    values = {
        "POLICY": f"default-src 'none'; style-src '{content_hash(style)}'; script-src '{content_hash(script)}'",
        "TITLE": " | ".join(s if len(s) <= 60 else s[:60] + "…" for s in shown),
        "SUMMARY": "".join(f"<li>{s}</li>" for s in shown),
        "COSINE": f"{e.cosine:.4f}",
        "STYLE": style,
        "SCRIPT": script,
        "DATA": base64.b64encode(data).decode(),
    }
    page = (HERE / "page.html").read_text(encoding="utf-8")
    before, *parts = page.split("{{")
    filled = [before]
    for part in parts:  # one pass: a text that holds a marker of the template stays as it is
        name, _, rest = part.partition("}}")
        filled += [values[name], rest]
    return "".join(filled)


def content_hash(text: str) -> str:
    """As a Content-Security-Policy names the content of an element."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
