"""A hub on 127.0.0.1 that speaks what huggingface_hub asks of one, and misbehaves where a test wants it to.

Large files (weights of any kind, and tokenizer.json) are redirected to a second server, as the real one does to its CDN.
"""

import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".onnx", ".h5", "tokenizer.json")


@dataclass
class Repository:
    """Files by name. `commits` are older states, by a branch, tag or commit."""

    files: dict[str, bytes]
    token: str | None = None  # needed to see it
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        for name, files in {"main": self.files, **self.commits}.items():
            commit = commit_of(files)
            if revision in (name, commit):
                return commit, files
        return None


@dataclass
class Fault:
    """What the next `times` requests whose "METHOD path" matches get instead of an answer, or of a part of it."""

    match: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""  # with status
    keep: int | None = None  # bytes of the body that are sent before the connection is cut
    change: Callable[[bytes], bytes] | None = None
    ranges: bool = True  # whether Range is heeded
    endless: bool = False  # a body without announced length, sent until the client leaves


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    cdn: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Hub:
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)  # old names, which are redirected
    bare: bool = False  # whether /api/models leaves the files out, which /tree lists
    endpoint: str = ""
    cdn: str = ""

    def add(self, name: str, folder: Path, **options: object) -> Repository:
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        self.repositories[name] = Repository(files, **options)  # type: ignore[arg-type]
        return self.repositories[name]

    def fault(self, match: str, **options: object) -> None:
        self.faults.append(Fault(match, **options))  # type: ignore[arg-type]

    def fetched(self) -> list[str]:
        """The files that were asked for, in order."""
        return [p for r in self.requests if r.method == "GET" and not r.cdn and "/resolve/" in (p := r.path)]

    def blob(self, sha256: str) -> bytes | None:
        found = (f for r in self.repositories.values() for files in (r.files, *r.commits.values()) for f in files.values())
        return next((f for f in found if hashlib.sha256(f).hexdigest() == sha256), None)


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that leaves in the middle
            super().handle_error(request, client_address)


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    servers = []
    for cdn in (False, True):
        handler = type("Handler", (Handler,), {"hub": hub, "cdn": cdn})
        server = Server(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
    hub.endpoint, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    cdn: bool

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = Request(self.command, path, {k.lower(): v for k, v in self.headers.items()}, self.cdn)
        self.hub.requests.append(request)
        fault = next((f for f in self.hub.faults if f.times and re.search(f.match, str(request))), None)
        if fault is not None:
            fault.times -= 1
            if fault.endless and self.command == "GET":
                return self.send_endless()
            if fault.status is not None:
                return self.send(fault.status, fault.body, fault.headers)
        if self.cdn:
            content = self.hub.blob(path.removeprefix("/blob/"))
            return self.send(404, b"") if content is None else self.send_file(content, {}, fault)
        for old, new in self.hub.renamed.items():
            if path.startswith((f"/{old}/resolve/", f"/api/models/{old}/")):
                return self.send(307, b"", {"Location": path.replace(old, new, 1)})
        if match := re.fullmatch(r"/api/models/(.+)/tree/([^/]+)(/.*)?", path):
            return self.send_tree(match[1], match[2], (match[3] or "/")[1:])
        if match := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+))?", path):
            return self.send_listing(match[1], match[2] or "main")
        if match := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path):
            return self.send_resolved(match[1], match[2], match[3], fault)
        return self.send(404, b"")

    def send_endless(self) -> None:
        self.close_connection = True
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b" " * (1 << 16))

    def find(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and files that the request may see; None once an error was answered."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif repository.token is not None and self.headers.get("Authorization") != f"Bearer {repository.token}":
            code = "GatedRepo" if repository.gated else "RepoNotFound"
            self.send(403 if repository.gated else 401, b"", {"X-Error-Code": code})
        elif (found := repository.at(revision)) is None:
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return found
        return None

    def send_listing(self, name: str, revision: str) -> None:
        if (found := self.find(name, revision)) is not None:
            info = {"id": name, "modelId": name, "sha": found[0], "tags": []}
            if not self.hub.bare:
                sizes = "blobs=" in self.path
                info["siblings"] = [
                    {"rfilename": file, **({"size": len(content)} if sizes else {})} for file, content in sorted(found[1].items())
                ]
            self.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def send_tree(self, name: str, revision: str, folder: str) -> None:
        if (found := self.find(name, revision)) is not None:
            inside = [f for f in sorted(found[1]) if f.startswith(folder)]
            if not inside:
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            entries = [{"type": "file", "path": f, "size": len(found[1][f]), "oid": "0" * 40} for f in inside]
            self.send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def send_resolved(self, name: str, revision: str, file: str, fault: Fault | None) -> None:
        if (found := self.find(name, revision)) is None:
            return
        commit, files = found
        headers = {"X-Repo-Commit": commit}
        if (content := files.get(file)) is None:
            return self.send(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        if file.endswith(LARGE):
            sha256 = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha256}"', "ETag": '"of the redirect"'}
            return self.send(302, b"", headers | {"Location": f"{self.hub.cdn}/blob/{sha256}"})
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.send_file(content, headers | {"ETag": f'"{git}"'}, fault)

    def send_file(self, content: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        if fault is not None and fault.change is not None:
            content = fault.change(content)
        status, body = 200, content
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and (fault is None or fault.ranges):
            start = int(wanted[1])
            if start >= len(content):
                return self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            status, body = 206, content[start:]
            headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if fault is not None:
            headers = headers | fault.headers
        self.send(status, body, headers, None if fault is None else fault.keep)

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None, keep: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if keep is None else body[:keep])
        if keep is not None:
            self.close_connection = True
