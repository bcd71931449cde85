"""From the start of a server to its end: signals under load, slow and broken callers, other ASGI servers."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import READY, Figures, LiveServer

from gpt2wgpu import Encoder
from gpt2wgpu.serve import create_app, run

TEXTS = [f"{'word ' * (i % 20)}{i}" for i in range(64)]


def ask_for_long(server: LiveServer, answers: list[Any], stop: threading.Event) -> None:
    """Requests on connections of their own until the server refuses to be reached; (status, whether it was sent at all)."""
    while not stop.is_set():
        try:
            answers.append(server.post("/embed", {"inputs": TEXTS}).status)
        except ConnectionRefusedError:
            return
        except OSError as error:
            answers.append(repr(error))
            return


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_no_request(number: int):
    with LiveServer("--drain-pause", "1", "--drain", "60") as server:
        answers: list[Any] = []
        stop = threading.Event()
        threads = [threading.Thread(target=ask_for_long, args=(server, answers, stop)) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answers) < 8:
            time.sleep(0.01)
        server.process.send_signal(number)
        if number == signal.SIGTERM:  # not ready, but alive and serving
            assert server.wait_for_line("SIGTERM: not ready any more")
            assert server.ask("GET", "/health/ready").status == 503
            assert server.ask("GET", "/health").status == 200
        code = server.process.wait(120)
        stop.set()
        for thread in threads:
            thread.join()
        assert code == 0
        # a connection that the kernel took but no request was read from may be reset as the socket closes
        assert {a for a in answers if isinstance(a, int)} == {200}, answers
        assert not any("Traceback" in line for line in server.lines)


def test_a_terminal_that_closes_ends_the_server_in_order():
    """Where SIGHUP is not ignored, as it may be where the tests run."""
    start = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); from gpt2wgpu.cli import main; "
    with LiveServer(code=start + "main(['serve', '--device', 'numpy', '--port', '0'])") as server:
        assert server.post("/embed", {"inputs": "a"}).status == 200
        assert server.stop(signal.SIGHUP) == 0
    assert not any("Traceback" in line for line in server.lines)


def connect_when_it_listens(path: Path, process: subprocess.Popen) -> socket.socket:
    while True:
        assert process.poll() is None, "the server ended"
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(READY)
        try:
            client.connect(str(path))
            return client
        except OSError:
            client.close()
            time.sleep(0.05)


def test_a_log_on_a_full_disk_ends_nothing(tmp_path: Path):
    path = tmp_path / "s"
    options = ["--device", "numpy", "--uds", str(path), "--drain-pause", "0.1"]
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen([sys.executable, "-m", "gpt2wgpu", "serve", *options], stderr=full)
    try:
        body = b'{"inputs": "a"}'
        for _ in range(2):
            with connect_when_it_listens(path, process) as client:
                client.sendall(b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                assert client.recv(100).startswith(b"HTTP/1.1 200")
        process.terminate()
        assert process.wait(READY) == 0
    finally:
        process.kill()
        process.wait()


def test_one_text_among_many_requests_has_its_own_bits(built_in: Encoder):
    """In numpy a request's vectors are those of `encode` on the same list, whoever else is calling."""
    with LiveServer() as server:
        lists = [[f"{'word ' * (i % 9)}text {i} {j}" for j in range(1 + i % 5)] for i in range(120)]
        found: list[Any] = [None] * len(lists)

        def ask(i: int) -> None:
            found[i] = server.post("/v1/embeddings", {"input": lists[i], "normalize": False}).json

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(lists))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for texts, answer in zip(lists, found, strict=True):
            vectors = np.array([item["embedding"] for item in answer["data"]], np.float32)
            np.testing.assert_array_equal(vectors, built_in.encode(texts))
        assert Figures.of(server)["te_queue_size"] == 0


def test_the_application_runs_under_another_server(monkeypatch: pytest.MonkeyPatch, built_in: Encoder):
    """By ASGI alone: the lifespan, then a request."""
    monkeypatch.setenv("GPT2WGPU_DEVICE", "numpy")
    monkeypatch.delenv("GPT2WGPU_MODEL", raising=False)
    sent: list[Any] = []

    async def serve() -> None:
        app = create_app()
        started, ended = asyncio.Event(), asyncio.Event()
        events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive_life() -> Any:
            event = next(events)
            if event["type"] == "lifespan.shutdown":
                await ended.wait()
            return event

        async def send_life(message: Any) -> None:
            assert message["type"] in ("lifespan.startup.complete", "lifespan.shutdown.complete"), message
            started.set()

        life = asyncio.ensure_future(app({"type": "lifespan"}, receive_life, send_life))
        await started.wait()
        body = json.dumps({"inputs": ["hello"]}).encode()
        received = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            if (event := next(received, None)) is not None:
                return event
            await asyncio.sleep(3600)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/embed", "query_string": b"", "headers": [(b"host", b"localhost")]}
        await app(scope, receive, send)
        ended.set()
        await life

    asyncio.run(serve())
    assert sent[0]["status"] == 200
    vectors = np.array(json.loads(sent[1]["body"]), np.float32)
    np.testing.assert_array_equal(vectors, built_in.encode(["hello"], normalize_embeddings=True))


def test_uvicorn_by_itself():
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GPT2WGPU_")}
    env = clean | {"GPT2WGPU_DEVICE": "numpy", "GPT2WGPU_TOKEN_IDS": "sometimes"}
    command = [sys.executable, "-m", "uvicorn", "--factory", "gpt2wgpu.serve:create_app", "--port", "0"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode != 0 and "token_ids must be refuse, model, cl100k" in done.stderr


def test_an_answer_does_not_wait_for_an_acknowledgement():
    """asyncio sets TCP_NODELAY on sockets of its own making only."""
    with run.bind_socket(run.Listen(port=0)) as sock, socket.create_connection(sock.getsockname()):
        connection, _ = sock.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_schema_names_every_route():
    from gpt2wgpu.serve import app
    from gpt2wgpu.serve.openapi import describe_api

    paths = json.loads(describe_api())["paths"]
    served = {*app.GET, *app.POST, "/v1/models/{name}"} - {*app.tei.OTHER_MODELS, "/openapi.json"}
    assert set(paths) == served
    assert run.FATAL_CODE == 3
