"""Starting engines.py in processes, and talking to them."""

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inputs import REPOSITORY

HERE = Path(__file__).resolve().parent


class Gone(Exception):
    """The process ended, took too long, or could not do what it was asked."""


@dataclass(frozen=True)
class Peer:
    """An engine with its options. `gpu`: whether it computes on one."""

    name: str
    engine: str
    options: dict[str, Any] = field(default_factory=dict)
    gpu: bool = False

    @property
    def ours(self) -> bool:
        return self.engine == "gpt2wgpu"


def environment(ours: bool) -> dict[str, str]:
    """Peers see nothing of the checkout; all see one network setting: none is to be used."""
    env = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    if ours:
        env["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    return env


class Worker:
    """A process that runs one peer. Starting it returns at once; `ready` waits."""

    def __init__(self, peer: Peer, python: str, folder: Path, log: Path) -> None:
        self.peer, self.log = peer, log
        options = {"engine": peer.engine, "folder": str(folder), **peer.options}
        with log.open("w", encoding="utf-8") as stderr:
            self.process = subprocess.Popen(
                [python, str(HERE / "engines.py"), json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment(peer.ours),
                encoding="utf-8",
            )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def receive(self, seconds: float) -> dict[str, Any]:
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            self.stop()
            raise Gone(f"no answer in {seconds:.0f} s") from None
        if not line:
            code = self.process.wait()
            lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((text.strip() for text in reversed(lines) if text.strip()), "")
            raise Gone(f"the process ended with code {code}: {last[:200]}")
        found = json.loads(line)
        if "error" in found:
            raise Gone(found["error"][:300])
        return found

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert self.process.stdin is not None
        with suppress(OSError):  # it has ended: `receive` says how
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self.receive(seconds)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def adapters(python: str) -> list[dict[str, Any]]:
    """What the project finds, asked in a process of its own."""
    code = (
        "import json; from gpt2wgpu import gpu; print(json.dumps([{'index': a.index, 'name': a.name, 'software': a.software, "
        "'half': 'shader-f16' in a.features, 'text': str(a)} for a in gpu.list_adapters()]))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment(True))
    if done.returncode:
        print(f"no WebGPU adapters: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return []
    return json.loads(done.stdout)
