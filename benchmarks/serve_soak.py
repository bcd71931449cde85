"""A server with more to do than it can, for minutes: its memory must not grow, and no answer be lost, doubled or wrong.

    python benchmarks/serve_soak.py [--minutes 2] [--clients 64]

Clients of mixed sizes ask as fast as they are let; others leave in the middle. Every answer is compared with `encode`. At the
end the server is told to drain under this load. Exits with 1 where something is wrong, saying what.
"""

import argparse
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from statistics import median

import numpy as np
from report import machine
from serve_load import Caller, make_texts, read_vectors

from gpt2wgpu import Encoder

from servers import Figures, LiveServer  # isort: skip  # serve_load makes the tests' helpers importable

# a request waits as long as a busy machine takes: its refusal then is no fault
OPTIONS = ("--max-requests", "48", "--max-waiting-batches", "4", "--drain", "60", "--queue-timeout", "600")
SIZES = [1] * 5 + [8] * 2 + [64]
LEAVERS = 2


class Soak:
    """The clients, and what they saw. statuses: how often; wrong: what must not be."""

    def __init__(self, server: LiveServer, texts: list[str]) -> None:
        self.server, self.texts = server, texts
        with Encoder(device="numpy") as encoder:
            self.expected = encoder.encode(texts, normalize_embeddings=True)
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.left = 0
        self.draining = self.stop = False

    def call(self, number: int) -> None:
        """One client, until it is told to stop or the server closes."""
        rng, caller, i = random.Random(number), Caller(self.server.port), 0
        while not self.stop and not self.wrong:
            rows, name = rng.sample(range(len(self.texts)), SIZES[number % len(SIZES)]), f"{number}-{i}"
            try:
                response, body = caller.ask([self.texts[r] for r in rows], {"x-request-id": name})
            except OSError as error:
                if not self.draining:
                    self.wrong.append(f"request {name} was lost: {error!r}")
                return
            i += 1
            self.statuses[response.status] += 1
            if response.status == 200:
                found = read_vectors(body)
                if response.headers["x-request-id"] != name or np.abs(found - self.expected[rows]).max() > 1e-5:
                    self.wrong.append(f"request {name} got the answer of another")
            elif response.status == 429:
                time.sleep(min(1.0, int(response.headers["retry-after-ms"]) / 1e3))
            elif response.status != 503 or not self.draining:
                self.wrong.append(f"request {name} got {response.status}: {body[:200]!r}")

    def leave(self, number: int) -> None:
        """Clients that leave before they get their answer."""
        rng = random.Random(number)
        while not self.stop and not self.draining:
            body = json.dumps({"inputs": rng.sample(self.texts, 100)}).encode()
            try:
                with socket.create_connection(("127.0.0.1", self.server.port)) as client:
                    client.sendall(b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body))
                    client.sendall(body[: rng.choice([10, len(body)])])
                    time.sleep(rng.uniform(0, 0.1))
            except OSError:
                return
            self.left += 1

    def start(self, clients: int) -> list[threading.Thread]:
        self.stop = False
        work = [(self.call, clients), (self.leave, LEAVERS)]
        threads = [threading.Thread(target=target, args=(i,)) for target, count in work for i in range(count)]
        for thread in threads:
            thread.start()
        return threads

    def end(self, threads: list[threading.Thread]) -> None:
        self.stop = True
        for thread in threads:
            thread.join()

    def check(self, memory: list[float], files: int) -> None:
        """Add to `wrong` what the server's own figures say when it has nothing to do. files: how many were open at first."""
        deadline = time.monotonic() + 60
        while (now := self.server.open_files()) > files and time.monotonic() < deadline:
            time.sleep(0.1)
        if now > files:
            self.wrong.append(f"{files} files were open, now {now} are")
        figures = Figures.of(self.server)
        if figures["te_queue_size"] or figures["gpt2wgpu_waiting_tokens"]:
            self.wrong.append(f"{figures['te_queue_size']:.0f} requests still wait")
        succeeded = figures['te_request_success{method="single"}'] + figures['te_request_success{method="batch"}']
        if not self.statuses[200] <= succeeded <= self.statuses[200] + self.left:
            self.wrong.append(f"{succeeded:.0f} requests succeeded and {self.statuses[200]} were answered, {self.left} left")
        quarter = max(1, len(memory) // 4)
        early, late = median(memory[quarter : 2 * quarter]), median(memory[-quarter:])
        if late > 1.05 * early + 10:
            self.wrong.append(f"memory grew from {early:.0f} to {late:.0f} MB")
        if any("Traceback" in line for line in self.server.lines):
            self.wrong.append("there was a traceback")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--clients", type=int, default=64)
    args = parser.parse_args()
    print(machine())
    with LiveServer(*OPTIONS) as server:
        soak = Soak(server, make_texts(1000, 7))
        files, memory = server.open_files(), list[float]()
        threads = soak.start(args.clients)
        end = time.monotonic() + 60 * args.minutes
        while time.monotonic() < end and not soak.wrong:
            time.sleep(min(2.0, max(0.0, end - time.monotonic())))
            memory.append(server.memory_mb())
            if len(memory) % 30 == 0:
                print(f"{len(memory) // 30} min: {dict(soak.statuses)}, {soak.left} left, {memory[-1]:.0f} MB", flush=True)
        soak.end(threads)
        soak.check(memory, files)
        print(f"{dict(soak.statuses)}, {soak.left} left, {memory[0]:.0f} MB at first, {memory[-1]:.0f} MB at the end", flush=True)
        answered = soak.statuses[200]
        threads = soak.start(args.clients)
        deadline = time.monotonic() + 300
        while soak.statuses[200] < answered + args.clients and not soak.wrong:
            time.sleep(0.05)
            if time.monotonic() > deadline:
                soak.wrong.append(f"{soak.statuses[200] - answered} answers in 300 s")
        soak.draining = True
        code = server.stop()  # under load
        soak.end(threads)
        print(f"after SIGTERM: {soak.statuses[200] - answered} answers more, {soak.statuses[503]} times 503, exit code {code}")
        if code:
            soak.wrong.append(f"the server ended with code {code}")
    if soak.wrong:
        sys.exit("\n".join(soak.wrong[:10]))


if __name__ == "__main__":
    main()
