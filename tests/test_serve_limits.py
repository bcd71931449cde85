"""What a server holds: for a large request, for callers that leave, that are slow, or that send too much."""

import asyncio
import gc
import json
import random
import socket
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from servers import Figures, LiveServer

from gpt2wgpu import Encoder
from gpt2wgpu.serve.answers import rows_response
from gpt2wgpu.serve.service import Limits, Service, VectorRequest

IMPATIENT = (
    "from gpt2wgpu.serve import app, run; app.BODY_SECONDS = 1.0; run.HEADER_SECONDS = 1.0\n"
    "from gpt2wgpu.cli import main; main(['serve', '--device', 'numpy', '--port', '0', '--max-body-mb', '1'])"
)
HELD_PER_TEXT = 800  # bytes besides its vector: token ids, entries of lists, the text itself


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(code=IMPATIENT) as running:
        running.post("/embed", {"inputs": ["a", "b"] * 50})
        yield running


@pytest.fixture(scope="module")
def files(server: LiveServer) -> int:
    """How many files it has open without callers."""
    return min((time.sleep(0.05), server.open_files())[1] for _ in range(20))


def still_held(server: LiveServer, files: int) -> dict[str, float]:
    """What it holds of requests, as soon as that is nothing, or after a minute."""
    deadline = time.monotonic() + 60
    while True:
        figures = Figures.of(server)
        held = {name: figures[name] for name in ("te_queue_size", "gpt2wgpu_waiting_tokens", "gpt2wgpu_body_bytes")}
        time.sleep(0.05)  # its own connection closes
        held["files"] = max(0, server.open_files() - files)
        if not any(held.values()) or time.monotonic() > deadline:
            return held


def leave_early(server: LiveServer, count: int) -> None:
    """Callers that close their connection: at any byte of the request, waiting, or while they read the answer."""
    rng = random.Random(count)
    body = json.dumps({"inputs": [f"text {i}" for i in range(200)]}).encode()
    request = b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    for i in range(count):
        sent = request if i % 3 == 0 else request[: rng.randrange(len(request))]
        with socket.create_connection(("127.0.0.1", server.port), timeout=120) as client:
            if rng.random() < 0.5:  # a reset, not an end
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(sent)
            if i % 30 == 0:
                client.recv(1000)  # the answer has begun: it has more rows than are sent in one piece


def test_callers_that_leave_leave_nothing_behind(server: LiveServer, files: int):
    leave_early(server, 60)
    memory = server.memory_mb()
    leave_early(server, 240)
    held = still_held(server, files)
    assert not any(held.values()), held
    assert server.memory_mb() < memory + 40
    assert server.post("/embed", {"inputs": "a"}).status == 200
    assert not [line for line in server.lines if "Traceback" in line]


def test_slow_callers_are_closed_and_hold_nobody_up(server: LiveServer, files: int):
    beginnings = (
        b"POST /embed HTTP/1.1\r\nhost: localhost\r\n",
        b"",
        b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{",
        b"POST /embed HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
    )
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=120)) for _ in range(200)]
        for i, client in enumerate(slow):
            client.sendall(beginnings[i % 4])
        assert server.post("/embed", {"inputs": "a"}).status == 200
        for i, client in enumerate(slow):
            found = b"".join(iter(lambda: client.recv(1000), b""))  # noqa: B023  # until it is closed
            assert found.startswith(b"HTTP/1.1 422") if i % 4 > 1 else found == b""
    assert not any(still_held(server, files).values())


def test_oversized_bodies_are_not_kept(server: LiveServer, files: int):
    """Whether their length is declared or not: nothing of them is held when they are refused."""
    memory = server.memory_mb()
    piece = b"10000\r\n" + b"x" * (1 << 16) + b"\r\n"
    for i in range(40):
        head = b"content-length: %d" % (10 << 30) if i % 2 else b"transfer-encoding: chunked"
        with socket.create_connection(("127.0.0.1", server.port), timeout=120) as client:
            client.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n" + head + b"\r\n\r\n")
            found = b""
            try:
                for _ in range(0 if i % 2 else 40):
                    client.sendall(piece)
                found = client.recv(1000)
            except ConnectionError:  # it closed before all was sent
                continue
            assert found.startswith(b"HTTP/1.1 413"), found
    assert not any(still_held(server, files).values())
    assert server.memory_mb() < memory + 40


def test_a_large_request_holds_its_vectors_once():
    """Besides them a few hundred bytes a text, and the answer is never whole in memory."""
    width, count = 384, 20_000
    texts = [f"a text of some words, number {i}" for i in range(count)]

    def at_once(sequences: Any, *_: Any, **__: Any) -> Callable[[], Any]:
        return lambda: np.ones((len(sequences), width), np.float32)

    async def ask(encoder: Encoder) -> tuple[int, int]:
        service = Service(encoder, Limits(), name="tiny", on_batch=lambda batch: None)
        await service.find_vectors(VectorRequest(["warm"]))
        gc.collect()
        tracemalloc.start()
        found = await service.find_vectors(VectorRequest(texts))
        computed = tracemalloc.get_traced_memory()[1]
        response: Any = await rows_response(found.vectors, b"[", b"]", headers={})
        async for _ in response.body_iterator:
            pass
        answered = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        service.scheduler.close()
        return computed, answered

    with Encoder(device="numpy", layer=1) as encoder:
        encoder.engine.submit = at_once  # type: ignore[method-assign]
        computed, answered = asyncio.run(ask(encoder))
    assert computed < count * (4 * width + HELD_PER_TEXT)
    assert answered == computed  # no new peak
