"""Keys, Host header, CORS, TLS, limits: what the server refuses, and that it goes on."""

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from process import Run
from servers import Figures, LiveServer

from gpt2wgpu.errors import UserError
from gpt2wgpu.serve.run import Listen, check_tls
from gpt2wgpu.serve.settings import Settings


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text("# ours\nfirst-key\nsecond-key\n", encoding="utf-8")
    options = ("--api-key-file", str(file), "--cors-origin", "https://page.example", "--strict-model", "--max-body-mb", "1")
    with LiveServer(*options, "--token-ids", "model", environment={"GPT2WGPU_API_KEY": "third"}) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_is_needed_in_every_dialect(locked: LiveServer):
    for path, shape in (("/v1/embeddings", dict), ("/embed", str), ("/api/embed", str)):
        for headers in ({}, bearer(""), bearer("wrong"), {"authorization": "Basic Zmlyc3Q="}):
            answer = locked.post(path, {"input": "a", "inputs": "a"}, headers)
            assert answer.status == 401 and isinstance(answer.json["error"], shape), path
            assert answer.headers["www-authenticate"] == "Bearer"
    for key in ("first-key", "second-key", "third"):
        assert locked.post("/embed", {"inputs": "a"}, bearer(key)).status == 200
    for path in ("/", "/health", "/health/ready", "/metrics"):
        assert locked.ask("GET", path).status == 200
    assert locked.ask("GET", "/v1/models").status == 401


def test_another_host_is_refused(locked: LiveServer):
    answer = locked.post("/embed", {"inputs": "a"}, {"host": "evil.example", **bearer("third")})
    assert answer.status == 403 and "--allow-host" in answer.json["error"]
    for host in ("localhost", f"127.0.0.1:{locked.port}", f"[::1]:{locked.port}", "LOCALHOST:1"):
        assert locked.post("/embed", {"inputs": "a"}, {"host": host, **bearer("third")}).status == 200


def test_pages_of_the_named_origin_may_ask(locked: LiveServer):
    preflight = {"origin": "https://page.example", "access-control-request-method": "POST"}
    asked = preflight | {"access-control-request-headers": "authorization,content-type"}
    answer = locked.ask("OPTIONS", "/v1/embeddings", headers=asked)
    assert answer.status == 200 and answer.headers["access-control-allow-origin"] == "https://page.example"
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    other = locked.ask("OPTIONS", "/v1/embeddings", headers=asked | {"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_a_strict_server_knows_its_model(locked: LiveServer):
    for name in ("built-in", "built-in:latest", "built-in:query", None, ""):
        assert locked.post("/v1/embeddings", {"input": "a", "model": name}, bearer("third")).status == 200, name
    answer = locked.post("/v1/embeddings", {"input": "a", "model": "text-embedding-3-small"}, bearer("third"))
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
    for path in ("/api/embed", "/api/pull"):
        assert locked.post(path, {"input": "a", "model": "other"}, bearer("third")).status == 404


def test_token_ids_of_the_model_are_taken_if_the_server_says_so(locked: LiveServer):
    texts = ["hello world", "a"]
    rows = locked.post("/tokenize", {"inputs": texts}, bearer("third")).json
    ids = [[t["id"] for t in row] for row in rows]
    by_ids = locked.post("/v1/embeddings", {"input": ids}, bearer("third"))
    assert by_ids.json["data"] == locked.post("/v1/embeddings", {"input": texts}, bearer("third")).json["data"]
    wrong = locked.post("/v1/embeddings", {"input": [[10**6]]}, bearer("third"))
    assert wrong.status == 400 and "from 0 to" in wrong.json["error"]["message"]
    assert locked.post("/v1/embeddings", {"input": ["a", [1]]}, bearer("third")).status == 400


def test_a_large_body_is_refused_before_it_is_read(locked: LiveServer):
    connection = http.client.HTTPConnection("127.0.0.1", locked.port, timeout=60)
    connection.putrequest("POST", "/v1/embeddings")
    connection.putheader("authorization", "Bearer third")
    connection.putheader("content-length", str(10 << 30))
    connection.endheaders()  # nothing follows
    answer = connection.getresponse()
    assert answer.status == 413 and json.loads(answer.read())["error"]["code"] == "request_too_large"
    connection.close()

    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * (64 << 10)

    connection = http.client.HTTPConnection("127.0.0.1", locked.port, timeout=60)
    try:
        connection.request("POST", "/embed", parts(), bearer("third"), encode_chunked=True)
        status = connection.getresponse().status
    except (BrokenPipeError, ConnectionResetError):
        status = 413  # it stopped reading, and closed
    assert status == 413
    connection.close()
    assert locked.post("/embed", {"inputs": "a"}, bearer("third")).status == 200


def test_errors_at_the_start_are_one_line(run: Run, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = run("serve", "--device", "numpy", "--port", port)
        assert code == 1 and err.count("\n") == 1 and "Address already in use" in err
    for options, said in (
        (("--model", tmp_path / "nothing"), "nothing"),
        (("--host", "203.0.113.1"), "cannot listen on 203.0.113.1:8080"),
        (("--tls-key", tmp_path / "k"), "TLS needs both files"),
        (("--tls-key", tmp_path / "k", "--tls-certificate", tmp_path / "c"), "is not a file"),
        (("--token-ids", "all"), "token_ids must be refuse, model, cl100k"),
        (("--log-format", "xml"), "log_format must be text or json"),
        (("--api-key-file", tmp_path / "nothing"), "cannot be read"),
    ):
        code, out, err = run("serve", "--device", "numpy", *options)
        assert (code, out, err.count("\n")) == (1, "", 1) and said in err, err


def test_a_server_that_others_reach_without_a_key_warns():
    with LiveServer("--host", "0.0.0.0") as running:
        assert running.wait_for_line("warning: whoever reaches 0.0.0.0 can use this server")
        assert running.post("/embed", {"inputs": "a"}, {"host": "any.example"}).status == 200


def make_certificate(certificate: Path, key: Path, *options: str) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=localhost", *(options or ["-nodes"])]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)


def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path):
    certificate, key, locked_key, broken = (tmp_path / name for name in ("c.pem", "k.pem", "locked.pem", "broken.pem"))
    make_certificate(tmp_path / "other.pem", locked_key, "-passout", "pass:word")
    make_certificate(certificate, key)
    broken.write_text("-----BEGIN CERTIFICATE-----\n", encoding="utf-8")
    for pair, said in (
        ((key, certificate), r"k.pem holds no .*: --tls-certificate takes a certificate in PEM form"),
        ((certificate, certificate), r"c.pem holds no .*: --tls-key takes a private key in PEM form"),
        ((tmp_path / "other.pem", key), r"other.pem and .*k.pem cannot be used for TLS: the key is not the certificate's"),
        ((tmp_path / "other.pem", locked_key), r"locked.pem is locked with a password"),
        ((broken, key), r"broken.pem and .*k.pem cannot be used for TLS"),
    ):
        with pytest.raises(UserError, match=said):
            check_tls(Listen(certificate=pair[0], key=pair[1]))
    check_tls(Listen(certificate=certificate, key=key))


def test_tls_and_a_unix_socket(tmp_path: Path):
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    make_certificate(certificate, key)
    with LiveServer("--tls-certificate", str(certificate), "--tls-key", str(key)) as running:
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False
        connection = http.client.HTTPSConnection("127.0.0.1", running.port, context=context, timeout=60)
        connection.request("GET", "/health/ready")
        assert connection.getresponse().status == 200
        connection.close()
    path = tmp_path / "s"
    with LiveServer("--uds", str(path)) as running:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert running.stop() == 0
    assert not path.exists()


def test_the_check_of_a_container(locked: LiveServer, run: Run):
    assert run("serve", "--check", locked.url)[0] == 0
    code, _, err = run("serve", "--check", "http://127.0.0.1:1")
    assert code == 1 and "127.0.0.1:1" in err


def test_too_many_requests_are_told_when_to_come_again():
    with LiveServer("--max-requests", "2", "--max-waiting-batches", "1") as running:
        bulk = {"input": [f"{i} " * 100 for i in range(60)]}
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(running.post("/v1/embeddings", bulk))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [a for a in answers if a.status == 429]
        assert {a.status for a in answers} == {200, 429}
        for a in refused:
            assert a.json["error"]["code"] == "rate_limit_exceeded"
            assert int(a.headers["retry-after"]) >= 1 and int(a.headers["retry-after-ms"]) >= 1
        assert Figures.of(running)['te_request_failure{err="overloaded"}'] == len(refused)
        assert running.post("/embed", {"inputs": "a"}).status == 200


def test_a_caller_that_leaves_frees_its_place():
    with LiveServer("--max-requests", "1") as running:
        body = json.dumps({"inputs": [f"{i} " * 400 for i in range(1000)]}).encode()
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", running.port)) as client:
                client.sendall(b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                while Figures.of(running)["te_queue_size"] == 0:
                    time.sleep(0.01)
            while Figures.of(running)["te_queue_size"] > 0:  # it would take long to compute
                time.sleep(0.01)
        assert Figures.of(running)['te_request_failure{err="dropped"}'] == 3
        assert running.post("/embed", {"inputs": "a"}).status == 200


def test_a_request_may_say_how_long_it_waits():
    with LiveServer() as running:
        bulk = [f"{i} " * 400 for i in range(300)]
        answer = running.post("/embed", {"inputs": bulk}, {"x-request-timeout-ms": "50"})
        assert answer.status == 503 and "not computed in" in answer.json["error"] and "retry-after" in answer.headers
        assert running.post("/embed", {"inputs": "a"}, {"x-request-timeout-ms": "soon"}).status == 422
        assert running.post("/embed", {"inputs": "a"}, {"x-request-timeout-ms": "60000"}).status == 200


def test_a_table_of_tokens_that_cannot_be_loaded_is_an_error_at_the_start(monkeypatch: pytest.MonkeyPatch):
    def fail(_: str) -> None:
        raise ConnectionError("no name\nfor the host")

    tiktoken = ModuleType("tiktoken")
    tiktoken.__spec__, tiktoken.get_encoding = ModuleSpec("tiktoken", None), fail
    monkeypatch.setitem(sys.modules, "tiktoken", tiktoken)
    with pytest.raises(UserError, match=r"tiktoken cannot load its table cl100k_base.*no name\\nfor"):
        Settings(token_ids="cl100k")


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path):
    code = "import sys; sys.modules['starlette'] = None; from gpt2wgpu.cli import main; main(['serve', '--device', 'numpy'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1 and 'pip install "gpt2wgpu[serve]"' in done.stderr and done.stderr.count("\n") == 1
