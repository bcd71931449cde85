"""A server under load, on loopback: latencies of single texts with and without a bulk caller, and texts per second.

    python benchmarks/serve_load.py [--seconds 10] [--clients 64] [--device numpy]

It starts its own servers with the built-in model. Compared with ours: `Encoder.encode` of the same texts, and the same server
computing request by request in the order of arrival, each alone, as a server without batches across requests does. The callers
are Python too, and take their part of the cores.
"""

import argparse
import base64
import http.client
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from report import machine, table

from gpt2wgpu import Encoder
from gpt2wgpu.graph.tensor import Array

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from servers import Figures, LiveServer

SENTENCE = "the quick brown fox runs over a lazy river while rain falls outside and matrices warm the windows of a cat that sits"
HERE = str(Path(__file__).resolve().parent)


def make_texts(count: int, seed: int) -> list[str]:
    """5 to 39 words each."""
    rng, words = np.random.default_rng(seed), SENTENCE.split()
    return [" ".join(rng.choice(words, size=n)) for n in rng.integers(5, 40, size=count)]


def serve_by_request(device: str) -> None:
    """The server, but computing one request after the other, each alone. For a process of its own."""
    from gpt2wgpu.cli import main
    from gpt2wgpu.engine import Engine
    from gpt2wgpu.serve import scheduler

    start, submit = scheduler.Scheduler.__init__, Engine.submit

    def never_mix(self: Any, *args: Any, **options: Any) -> None:
        start(self, *args, **options)
        self.mixes = False

    def on_all_cores(self: Any, *args: Any, one_core: bool = False, **options: Any) -> Any:
        return submit(self, *args, **options)

    changed: Any = scheduler
    changed.UNDER_WAY, changed.usable_cores = 1, lambda: 1
    changed.SMALL_PART = 1e-9  # every request is a small one: the order of arrival
    changed.Scheduler.__init__, Engine.submit = never_mix, on_all_cores  # type: ignore[method-assign]
    main(["serve", "--device", device, "--port", "0"])


class Caller:
    """A keep-alive connection."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def ask(self, texts: list[str], headers: dict[str, str] | None = None) -> tuple[http.client.HTTPResponse, bytes]:
        body = json.dumps({"input": texts, "encoding_format": "base64"}).encode()
        self.connection.request("POST", "/v1/embeddings", body, headers or {})
        response = self.connection.getresponse()
        return response, response.read()

    def embed(self, texts: list[str]) -> tuple[int, float]:
        """The status, and seconds."""
        start = time.perf_counter()
        response, _ = self.ask(texts)
        return response.status, time.perf_counter() - start


def read_vectors(body: bytes) -> Array:
    rows = [base64.b64decode(item["embedding"]) for item in json.loads(body)["data"]]
    return np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), -1)


def call_until(stop: float, port: int, sizes: Callable[[int], int], seed: int, found: list[Any]) -> None:
    caller, i = Caller(port), 0
    while time.perf_counter() < stop:
        texts = make_texts(sizes(i), seed * 100003 + i)
        status, seconds = caller.embed(texts)
        found.append((len(texts), status, seconds))
        i += 1


def run_clients(port: int, seconds: float, clients: list[Callable[[int], int]]) -> list[list[Any]]:
    """What each client saw: (texts, status, seconds) of its requests."""
    found: list[list[Any]] = [[] for _ in clients]
    stop = time.perf_counter() + seconds
    threads = [threading.Thread(target=call_until, args=(stop, port, sizes, i, found[i])) for i, sizes in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def percentiles(seconds: list[float]) -> list[float]:
    """The median, the 99th of a hundred and the most, in ms."""
    ordered = sorted(seconds)
    return [1e3 * ordered[int(p * (len(ordered) - 1))] for p in (0.5, 0.99, 1.0)]


def measure_loads(server: LiveServer, seconds: float, count: int, batch: float) -> list[list[str]]:
    """Rows of the table for one server. batch: seconds of a full batch."""
    rows = []
    for name, clients in (
        (f"{count} clients, a text each", [lambda i: 1] * count),
        (f"{count} clients, 1 or 32 texts", [lambda i, n=n: n for n in ([1] * 3 + [32]) * (count // 4)]),
        ("8 single clients", [lambda i: 1] * 8),
        ("8 single clients beside a bulk one", [lambda i: 2048, *[lambda i: 1] * 8]),
    ):
        start = time.perf_counter()
        found = run_clients(server.port, seconds, clients)
        took = time.perf_counter() - start  # the last answers too
        if failures := {status for row in found for _, status, _ in row} - {200}:
            print(f"{name}: statuses {failures}")
        latencies = percentiles([seconds for row in found for n, _, seconds in row if n == 1])
        rate = sum(n for row in found for n, _, _ in row) / took
        rows.append([name, f"{rate:.0f}", *(f"{ms:.0f}" for ms in latencies), f"{latencies[1] / 1e3 / batch:.1f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--device", default="numpy")
    args = parser.parse_args()
    print(machine())
    bulk = make_texts(2048, 1)
    with Encoder(device=args.device) as encoder:
        encoder.encode(bulk[:64])
        start = time.perf_counter()
        encoder.encode(bulk)
        own = time.perf_counter() - start
    by_request = f"import sys; sys.path.insert(0, {HERE!r}); import serve_load; serve_load.serve_by_request({args.device!r})"
    rows = [["Encoder.encode, 2,048 texts", f"{len(bulk) / own:.0f}", "", "", "", ""]]
    with LiveServer("--device", args.device) as server:
        caller = Caller(server.port)
        caller.embed(bulk[:64])
        before = Figures.of(server)["te_batch_next_size_count"]
        served = min(caller.embed(bulk)[1] for _ in range(3))
        batch = 3 * served / (Figures.of(server)["te_batch_next_size_count"] - before)
        alone = [caller.embed([text])[1] for text in bulk[:200]]
        rows.append([f"one request of 2,048 texts ({own / served:.2f} of encode)", f"{len(bulk) / served:.0f}", "", "", "", ""])
        rate = 1 / statistics.mean(alone)
        rows.append(["one client, text by text", f"{rate:.0f}", *(f"{ms:.0f}" for ms in percentiles(alone)), ""])
        rows += measure_loads(server, args.seconds, args.clients, batch)
        memory = server.memory_mb()
        code = server.stop()
    with LiveServer(code=by_request) as server:
        Caller(server.port).embed(bulk[:64])
        loads = measure_loads(server, args.seconds, args.clients, batch)
        rows += [[f"request by request: {row[0]}", *row[1:]] for row in loads]
    print(table(["", "texts/s", "p50 ms", "p99 ms", "most ms", "p99, batches"], rows))
    print(f"a full batch: {1e3 * batch:.0f} ms; the server: {memory:.0f} MB, exit code {code}")


if __name__ == "__main__":
    main()
