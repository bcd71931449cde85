"""A server under load, on loopback: latencies of single texts with and without a bulk caller, and texts per second.

    python benchmarks/serve_load.py [--seconds 10] [--clients 64] [--device numpy] [--soak MINUTES]

It starts its own server with the built-in model. Compared with it: `Encoder.encode` of the same texts, and a server that
computes request by request, as TEI's first stage would without batching across requests (the same server, one client after
the other). --soak: 64 clients of mixed sizes and some that leave, for so long; the memory of the server is printed every
minute and must not grow.
"""

import argparse
import http.client
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from report import machine, table
from workers import environment

from gpt2wgpu import Encoder

WORDS = [
    "the",
    "a",
    "cat",
    "sleeps",
    "runs",
    "quick",
    "brown",
    "fox",
    "over",
    "lazy",
    "river",
    "matrices",
    "warm",
    "windows",
    "rain",
    "falls",
    "outside",
]


def make_texts(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=n)) for n in rng.integers(5, 40, size=count)]


class ServerProcess:
    """`gpt2wgpu serve` on a free port."""

    def __init__(self, device: str, *options: str) -> None:
        command = [sys.executable, "-m", "gpt2wgpu", "serve", "--device", device, "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(True))
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)$", line.rstrip()):
                self.port = int(found[1])
                break
        else:
            sys.exit("the server did not start")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        while self.get("/health/ready") != 200:
            time.sleep(0.05)

    def get(self, path: str) -> int:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0

    def memory_mb(self) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS"))

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


class Caller:
    """A keep-alive connection."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def embed(self, texts: list[str]) -> tuple[int, float]:
        """The status, and seconds."""
        start = time.perf_counter()
        self.connection.request("POST", "/v1/embeddings", json.dumps({"input": texts, "encoding_format": "base64"}).encode())
        response = self.connection.getresponse()
        response.read()
        return response.status, time.perf_counter() - start


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


def percentiles(seconds: list[float]) -> list[str]:
    ordered = sorted(seconds)
    return [f"{1e3 * ordered[int(p * (len(ordered) - 1))]:.1f}" for p in (0.5, 0.99, 1.0)]


def soak(server: ServerProcess, minutes: float) -> None:
    """64 clients of mixed sizes and callers that leave. Exits with an error if memory grows or a status is wrong."""
    memory = []
    for minute in range(max(2, round(minutes))):
        sizes = [lambda i, n=n: n for n in [1] * 40 + [8] * 16 + [64] * 8]
        found = run_clients(server.port, 60 * minutes / max(2, round(minutes)), sizes)
        for _ in range(20):  # callers that leave in the middle
            caller = Caller(server.port)
            caller.connection.request("POST", "/embed", json.dumps({"inputs": make_texts(200, minute)}).encode())
            caller.connection.close()
        statuses = {status for rows in found for _, status, _ in rows}
        memory.append(server.memory_mb())
        print(f"minute {minute + 1}: {sum(len(r) for r in found)} requests, statuses {statuses}, {memory[-1]:.0f} MB", flush=True)
        if statuses - {200, 429}:
            sys.exit(f"wrong statuses: {statuses}")
    if memory[-1] > 1.1 * memory[len(memory) // 2] + 20:
        sys.exit(f"memory grew: {[round(m) for m in memory]} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--device", default="numpy")
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    args = parser.parse_args()
    print(machine())
    server = ServerProcess(args.device)
    try:
        if args.soak:
            soak(server, args.soak)
            return
        bulk = make_texts(2048, 1)
        with Encoder(device=args.device) as encoder:
            encoder.encode(bulk[:64])
            start = time.perf_counter()
            encoder.encode(bulk)
            own = len(bulk) / (time.perf_counter() - start)
        caller = Caller(server.port)
        caller.embed(bulk[:64])
        served = len(bulk) / min(caller.embed(bulk)[1] for _ in range(3))
        one_by_one = [caller.embed([text])[1] for text in bulk[:200]]
        rows = [
            ["Encoder.encode, 2,048 texts", f"{own:.0f} texts/s", ""],
            ["one request of 2,048 texts", f"{served:.0f} texts/s", f"{served / own:.2f} of encode"],
            ["one client, text by text", f"{1 / statistics.mean(one_by_one):.0f} texts/s", " ".join(percentiles(one_by_one))],
        ]
        mixed = [lambda i, n=n: n for n in ([1] * 3 + [32]) * (args.clients // 4)]
        for name, clients in (
            (f"{args.clients} clients, a text each", [lambda i: 1] * args.clients),
            (f"{args.clients} clients of mixed sizes", mixed),
            ("8 single clients", [lambda i: 1] * 8),
            ("8 single clients beside a bulk one", [lambda i: 2048, *[lambda i: 1] * 8]),
        ):
            found = run_clients(server.port, args.seconds, clients)
            singles = [seconds for row in found for n, status, seconds in row if n == 1 and status == 200]
            total = sum(n for row in found for n, status, _ in row if status == 200)
            rows.append([name, f"{total / args.seconds:.0f} texts/s", " ".join(percentiles(singles))])
            failures = {status for row in found for _, status, _ in row} - {200}
            if failures:
                print(f"{name}: statuses {failures}")
        print(table(["", "rate", "single texts: p50, p99, most, ms"], rows))
        print(f"server: {server.memory_mb():.0f} MB")
    finally:
        code = server.stop()
        print(f"exit code {code}")


if __name__ == "__main__":
    main()
