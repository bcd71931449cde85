"""An exported folder on a port of this machine. WebGPU needs https or localhost, so a page cannot be opened as a file."""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..errors import UserError


class FolderHandler(SimpleHTTPRequestHandler):
    """Files of one folder, with the types that modules need, whatever the system's registry says; no log."""

    extensions_map = {  # noqa: RUF012 (the base class has it as a plain attribute)
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".json": "application/json",
        ".html": "text/html; charset=utf-8",
        ".safetensors": "application/octet-stream",
    }

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the page says what happens."""


class FolderServer(ThreadingHTTPServer):
    """A server that says nothing of clients that go away, as a page does that is closed while it downloads."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def folder_server(folder: Path, port: int) -> FolderServer:
    """A server for one folder on 127.0.0.1; port 0 takes any free one. Raises UserError if the port is taken."""
    try:
        return FolderServer(("127.0.0.1", port), partial(FolderHandler, directory=str(folder)))
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror}): give another with --port") from None


def serve_forever(server: FolderServer) -> None:
    """Serve until Ctrl-C; prints the page's address first."""
    print(f"http://127.0.0.1:{server.server_address[1]}/  (Ctrl-C ends it)", flush=True)
    server.serve_forever()
