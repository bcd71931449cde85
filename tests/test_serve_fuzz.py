"""Malformed requests on every route and in every dialect, from a seed: refused in the dialect's shape, without a traceback, and
never as an error of the server. GPT2WGPU_FUZZ sets their number."""

import http.client
import json
import random
import socket
from contextlib import closing

import pytest
from fuzzing import CASES, mutate
from servers import Figures, LiveServer

from gpt2wgpu.serve import tei
from gpt2wgpu.serve.app import GET, POST

GOOD = {
    "input": ["a", "b"],
    "inputs": {"source_sentence": "a", "sentences": ["b", "c"]},
    "dimensions": 5,
    "encoding_format": "base64",
    "truncate": True,
    "truncation_direction": "Right",
    "prompt": "a",
    "prompt_name": "query",
    "input_type": "query",
    "task": "retrieval.query",
    "normalize": False,
    "model": "name:query",
    "parameters": {"truncate": True, "prompt_name": ""},
    "add_special_tokens": False,
    "ids": [[1, 2], [3]],
    "skip_special_tokens": True,
    "options": {"num_ctx": 5},
    "keep_alive": "5m",
    "name": "a",
}
# in JSON, so that there may be what Python's json does not write
VALUES = r"""
null true false 0 1 -1 2147483648 9223372036854775808 18446744073709551616 1e40 0.5 -0.0 1e308 1e999 NaN
"" "a" "\u0020" "\u0000" "\ud800" "\ud83d\ude00" "e\u0301" "left" "float" "base64" "query"
[] [[]] [null] ["a",null] ["a",1] ["a",[1]] [1,2] [[1,2],[3]] [-1] [99999999999999999999] [0.5] [true] ["",""] ["a",["b"]]
{} {"source_sentence":"a"} {"source_sentence":null,"sentences":["a"]} {"source_sentence":"a","sentences":[]}
{"source_sentence":"a","sentences":["b","\ud83d"]}
"""
PATHS = "/v1/models/built-in /v1/models/a%00%ff%2f /openapi.json /metrics /v1/no /api/no /no // /%e4?a=%zz"
BODIES = [b"[" * 5000, b'{"input":' * 3000, b"[1e999]", b"NaN", b"\xef\xbb\xbf{}", b"null", b"7", b'"a"', b""]
HEADERS = """
x-request-timeout-ms x-request-id traceparent authorization content-type content-encoding accept expect
transfer-encoding content-length host connection content-\xe4 :
"""
IN_HEADERS = ["", "x" * 300, "\t", "0", "-1", "5", "9" * 30, "gzip", "chunked", "100-continue", "close", "caf\xe9", "a, b"]


def make_body(rng: random.Random) -> bytes:
    fields = {name: json.dumps(GOOD[name]) for name in rng.sample(sorted(GOOD), rng.randrange(len(GOOD) + 1))}
    fields |= {name: rng.choice(VALUES.split()) for name in rng.sample(sorted(GOOD), rng.randrange(4))}
    if rng.random() < 0.05:
        fields["input"] = fields["inputs"] = json.dumps("word " * 3000)
    body = ("{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items()) + "}").encode()
    kind = rng.randrange(12)
    return mutate(body, rng) if kind < 4 else rng.choice(BODIES) if kind == 4 else body


def check_shape(path: str, answer: http.client.HTTPResponse, body: bytes) -> None:
    """A refusal in JSON is in its dialect's shape."""
    if answer.status < 400 or answer.headers["content-type"] != "application/json" or not body:
        return
    error = json.loads(body)["error"]
    if path.startswith(("/v1/", "/embeddings", "/models")):
        assert set(error) == {"message", "type", "param", "code"} and error["message"], body
    else:
        assert isinstance(error, str) and error, body


@pytest.fixture(scope="module")
def server():
    with LiveServer() as running:
        yield running
        assert running.post("/embed", {"inputs": "a"}).status == 200
        assert Figures.of(running)["te_queue_size"] == 0
        assert not [line for line in running.lines if "Traceback" in line or "Error" in line]


def test_malformed_requests_are_refused(server: LiveServer):
    rng = random.Random(0)
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)) as connection:
        for case in range(CASES):
            path, body = rng.choice([*POST, *GET, *PATHS.split()]), make_body(rng)
            method = rng.choice(["POST"] * 8 + ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post"])
            connection.request(method, path, body)
            answer = connection.getresponse()
            found = answer.read()
            assert answer.status in (200, 400, 403, 404, 405, 413, 422, 424), (case, method, path, body, answer.status, found)
            assert answer.status != 424 or path in tei.OTHER_MODELS, (case, method, path, body, found)
            check_shape(path, answer, found)


def test_a_broken_body_after_its_answer_closes_the_connection(server: LiveServer):
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as client:
        client.sendall(b"GET /embed HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        answer = b""
        while not answer.endswith(b'"}'):  # head and body may come apart
            answer += client.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 405")
        client.sendall(b"zz\r\n\r\n")
        assert not client.recv(1 << 16)


@pytest.mark.parametrize("head", ["PUT /embed", "GET /embed", "GET /no", "GET /health", "HEAD /metrics", "OPTIONS /embed"])
def test_a_broken_body_beside_its_head_is_answered_once(server: LiveServer, head: str):
    """They come together, so the body is refused before the application answers."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as client:
        client.sendall(f"{head} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n".encode())
        found = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert found.count(b"HTTP/1.1") == (0 if head.startswith("HEAD") else 1) and b"HTTP/1.1 5" not in found


def test_malformed_heads_are_refused(server: LiveServer):
    """Bytes that are not HTTP, or that say what is not so; each on a connection of its own."""
    rng = random.Random(1)
    for case in range(CASES // 4):
        body = make_body(rng)
        lines = [f"POST {rng.choice([*POST, *GET, *PATHS.split()])} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
        lines += [f"{rng.choice(HEADERS.split())}: {rng.choice(IN_HEADERS)}" for _ in range(rng.randrange(3))]
        request = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
        sent = mutate(request, rng) if rng.random() < 0.5 else request
        with socket.create_connection(("127.0.0.1", server.port), timeout=120) as client:
            try:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                found = b"".join(iter(lambda: client.recv(1 << 16), b""))
            except ConnectionError:
                continue  # it refused, and closed before everything was sent
        assert not found.startswith(b"HTTP/1.1 5"), (case, sent, found)
