"""An empty page in Chromium that imports modules of gpt2wgpu/web/static, and arrays that go there and back."""

import base64
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from browser import Page, open_browser

import gpt2wgpu
from gpt2wgpu.graph.tensor import Array

STATIC = Path(gpt2wgpu.__file__).parent / "web" / "static"
HELP = """
window.toBytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
window.toText = (array) => btoa(Array.from(new Uint8Array(array.buffer), (b) => String.fromCharCode(b)).join(''));
"""


@contextmanager
def open_modules(*names: str) -> Iterator[Page]:
    """The page. Each module is a global variable of its name; toBytes and toText read and write base64."""
    with tempfile.TemporaryDirectory() as folder, open_browser("--allow-file-access-from-files") as page:
        (Path(folder) / "empty.html").write_text("<!doctype html><title>test</title>", encoding="utf-8")
        page.open(Path(folder) / "empty.html")
        page.run(HELP)
        for name in names:
            page.run(f"import('{(STATIC / name).with_suffix('.js').as_uri()}').then(m => {{ window.{name} = m; }})")
        yield page
        assert page.problems == []


def to_base64(array: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def from_base64(text: str) -> Array:
    """f32."""
    return np.frombuffer(base64.b64decode(text), np.float32)
