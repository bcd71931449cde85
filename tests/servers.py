"""Live servers for tests: `gpt2wgpu serve` in a process of its own, on a free port of loopback."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

READY = 120.0  # seconds, on a busy machine


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class LiveServer:
    """A server that is ready, and what it says on stderr. Use it with `with`. code: Python that starts it in another way."""

    def __init__(
        self, *options: str, environment: dict[str, str] | None = None, folder: Path | None = None, code: str | None = None
    ) -> None:
        command = [sys.executable, "-m", "gpt2wgpu", "serve", "--device", "numpy", "--port", "0", *options]
        command = [sys.executable, "-c", code] if code else command
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GPT2WGPU_")}
        env = clean | {"NO_PROXY": "*"} | (environment or {})
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=folder)
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        where = self.wait_for_line(r"https?://(?:\[?[\w.:]+\]?):(\d+)$|unix:")
        self.port = int(where[1]) if where[1] else 0
        self.url = f"http://127.0.0.1:{self.port}"
        if self.port and "--tls-certificate" not in options:
            self.wait_until_ready()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._said:
                self.lines.append(line.rstrip("\n"))
                self._said.notify_all()
        with self._said:
            self.lines.append("")
            self._said.notify_all()

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        """The first line, past or future, that holds the pattern."""
        deadline = time.monotonic() + READY
        with self._said:
            while True:
                for line in self.lines:
                    if found := re.search(pattern, line):
                        return found
                if self.lines[-1:] == [""] or not self._said.wait(deadline - time.monotonic()):
                    raise AssertionError(f"the server did not say {pattern!r}: {self.lines}")

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline:
            try:
                if self.ask("GET", "/health/ready").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"the server is not ready: {self.lines}")

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 120.0
    ) -> Answer:
        """One request on a connection of its own. body: JSON, or bytes as they are."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("POST", path, body, headers)

    def memory_mb(self) -> float:
        """Its resident memory, by Linux."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS"))

    def open_files(self) -> int:
        """How many files and sockets it has open, by Linux."""
        return len([*Path(f"/proc/{self.process.pid}/fd").iterdir()])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait: the exit code."""
        self.process.send_signal(number)
        return self.process.wait(READY)

    def __enter__(self) -> "LiveServer":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(READY)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@dataclass
class Figures:
    """The values of /metrics by name and labels."""

    values: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, server: LiveServer) -> "Figures":
        lines = server.ask("GET", "/metrics").body.decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return cls({name: float(value) for name, value in pairs})

    def __getitem__(self, name: str) -> float:
        return self.values[name]
