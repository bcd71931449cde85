"""POST /search: what it finds, refuses and counts, and an index that changes under a running server."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from searching import Quiet, update, write_folder
from servers import Figures, LiveServer
from test_search import NOTES

from gpt2wgpu import Encoder
from gpt2wgpu.encoder import Encoder as Opened
from gpt2wgpu.gpu import Device
from gpt2wgpu.search.query import encode_question, search_index
from gpt2wgpu.search.update import update_index
from gpt2wgpu.serve.metrics import Metrics
from gpt2wgpu.serve.search import IndexSearch


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("notes"), NOTES)


@pytest.fixture(scope="module")
def server(built_in: Encoder, notes: Path) -> Iterator[LiveServer]:
    update(built_in, notes / "index", notes)
    with LiveServer("--index", str(notes / "index")) as running:
        yield running


@pytest.mark.parametrize("mode", ["semantic", "lexical", "hybrid"])
def test_a_server_finds_what_the_command_finds(server: LiveServer, built_in: Encoder, notes: Path, mode: str):
    query = "the parrot on its perch"
    index = update(built_in, notes / "index", notes)
    expected = search_index(index, query, encode_question(built_in, query), 3, mode)
    answer = server.post("/search", {"query": query, "k": 3, "mode": mode})
    assert answer.status == 200, answer.body
    assert (answer.json["mode"], answer.json["passages"]) == (mode, 4)
    hits = answer.json["hits"]
    assert [(hit["path"], hit["line"], hit["last_line"], hit["text"]) for hit in hits] == [
        (hit.path, hit.first, hit.last, hit.text) for hit in expected
    ]
    np.testing.assert_allclose([hit["score"] for hit in hits], [hit.score for hit in expected], atol=1e-6)
    assert hits[0]["path"] == str(notes / "animals.md") and hits[0]["line"] == 5


def test_a_file_whose_name_is_not_utf8_is_named(server: LiveServer, built_in: Encoder, notes: Path):
    name = os.fsencode(notes) + b"/b\xffd.txt"
    try:
        Path(os.fsdecode(name)).write_text("The numbat eats termites.")
    except OSError:
        pytest.skip("this file system takes no such name")
    update(built_in, notes / "index", notes)
    answer = server.post("/search", {"query": "numbat", "mode": "lexical"})
    Path(os.fsdecode(name)).unlink()
    update(built_in, notes / "index", notes)
    assert answer.status == 200, answer.body
    assert [hit["path"] for hit in answer.json["hits"]] == [f"{notes}/b\\udcffd.txt"]


def test_fields_are_checked(server: LiveServer):
    for body, said in (
        ({}, "query is missing"),
        ({"query": " "}, "query is missing"),
        ({"query": ["a"]}, "the request has a wrong field"),
        ({"query": "a", "k": 0}, "k is 0, expected 1 to 1000"),
        ({"query": "a", "mode": "fuzzy"}, "mode is 'fuzzy', known are hybrid, semantic, lexical"),
    ):
        answer = server.post("/search", body)
        assert answer.status in (400, 422) and said in answer.json["error"]
    assert server.post("/search", {"query": "parrot", "min_score": 9}).json["hits"] == []
    assert len(server.post("/search", {"query": "parrot", "k": None, "mode": None}).json["hits"]) == 4
    assert server.ask("GET", "/search").status == 405


def test_a_changed_index_is_opened_again(server: LiveServer, built_in: Encoder, notes: Path):
    write_folder(notes, {"later.txt": "The quokka smiles."})
    assert "later.txt" not in str(server.post("/search", {"query": "quokka", "mode": "lexical"}).json)
    update(built_in, notes / "index", notes)
    (hit,) = server.post("/search", {"query": "quokka", "mode": "lexical"}).json["hits"]
    assert hit["text"] == "The quokka smiles."
    (notes / "later.txt").unlink()
    update(built_in, notes / "index", notes)
    assert server.post("/search", {"query": "quokka", "mode": "lexical"}).json["hits"] == []


def test_searches_are_counted(server: LiveServer):
    before = Figures.of(server)
    server.post("/search", {"query": "parrot"})
    after = Figures.of(server)
    assert after["gpt2wgpu_search_seconds_count"] == before["gpt2wgpu_search_seconds_count"] + 1
    assert after["gpt2wgpu_search_passages"] == 4


def test_a_server_without_an_index_says_so():
    with LiveServer() as plain:
        answer = plain.post("/search", {"query": "a"})
    assert answer.status == 422 and answer.json["error"] == "this server has no index: start it with --index FOLDER"


def test_an_index_that_is_gone_is_an_error_of_the_request(built_in: Encoder, notes: Path, tmp_path: Path):
    update(built_in, tmp_path / "index", notes / "animals.md")
    with LiveServer("--index", str(tmp_path / "index")) as running:
        shutil.rmtree(tmp_path / "index")
        answer = running.post("/search", {"query": "a"})
        assert answer.status == 503 and "there is no index" in answer.json["error"]
        assert running.post("/embed", {"inputs": "a"}).status == 200


def test_the_vectors_stay_on_the_device(
    notes: Path, tmp_path: Path, use_gpu: None, device: Device, capsys: pytest.CaptureFixture[str]
):
    """Searches do not take the lock of the model's device, which a busy server holds; a lost device is opened again."""
    encoder = Opened(device="gpu", layer=1)
    index = update_index(encoder, tmp_path / "index", [str(notes)], Quiet())
    search = IndexSearch(encoder, tmp_path / "index", Metrics(), most=8)
    assert search.corpus is not None and search.device is not None
    vector = encode_question(encoder, "parrot")
    with encoder.engine.lock:
        found = search.thread.submit(search.search, "parrot", vector, 3, "semantic").result(60)
    assert found == search_index(index, "parrot", vector, 3, "semantic")
    search.device.raw.destroy()
    assert search.search("parrot", vector, 3, "semantic") == found
    assert "was lost: its driver was reset or updated, or the GPU is gone: opening it again" in capsys.readouterr().err
    search.close()
    encoder.close()
