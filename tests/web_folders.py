"""Exported folders for the tests of the browser engine, served on a port of their own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt2wgpu import Encoder
from gpt2wgpu.web import export_web
from gpt2wgpu.web.serve import folder_server


def export_model(model: str | Path | None, folder: Path, dtype: str | None = None, **options: object) -> Path:
    """The folder of a model. options: of `Encoder`."""
    with Encoder(model, device="numpy", **options) as encoder:
        export_web(encoder, folder, dtype)
    return folder


def add_blank_page(folder: Path) -> Path:
    """The folder, with a page blank.html that holds nothing and asks for nothing."""
    page = '<!doctype html><title>blank</title><link rel="icon" href="data:,">'
    (folder / "blank.html").write_text(page, encoding="utf-8")
    return folder


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder while the block runs."""
    with folder_server(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
