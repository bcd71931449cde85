"""What a page says of wrong files and wrong calls, in Chromium, and how it comes back once the files are right."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Page, open_browser
from web_folders import add_blank_page, export_model, served

from gpt2wgpu.web.serve import FolderHandler

MODEL = Path(__file__).parent / "golden" / "sentence_models" / "plain_bert"
LOAD = """(async () => { try {
    const engine = window.engine = await (await import('/engine.js')).loadEngine('/', { device: 'cpu' });
    return ['loaded', ...engine.notices].join('; '); } catch (error) { return `${error.name}: ${error.message}`; } })()"""
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model, and a page that holds nothing."""
    return add_blank_page(export_model(MODEL, tmp_path_factory.mktemp("web") / "whole", "f32"))


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_browser() as found:
        yield found


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return shutil.copytree(whole, tmp_path / "web")


@contextmanager
def no_http_cache(page: Page) -> Iterator[None]:
    """A module that was removed would come from it."""
    page.call("Network.setCacheDisabled", cacheDisabled=True)
    try:
        yield
    finally:
        page.call("Network.setCacheDisabled", cacheDisabled=False)


def load(page: Page, address: str) -> str:
    """What loading gives in a new page."""
    page.open(f"{address}/blank.html")
    return str(page.run(LOAD))


def test_a_wrong_file_is_not_kept(page: Page, whole: Path, folder: Path):
    weights = (whole / "weights.safetensors").read_bytes()
    size = int.from_bytes(weights[:8], "little")
    table = max(json.loads(weights[8 : 8 + size]).items(), key=lambda item: item[1].get("shape", [0])[0])
    place = 8 + size + table[1]["data_offsets"][1] - 16
    wrong = {
        "the download was cut": weights[: len(weights) // 2],
        f"{table[0]} in": weights[:place] + bytes(16) + weights[place + 16 :],  # of a token that the self-check does not have
        "the header of": weights[:9] + b" " + weights[10:],
        "no header of safetensors": b"<!doctype html>" + weights[15:],
    }
    with served(folder) as address:
        for expected, changed in wrong.items():
            (folder / "weights.safetensors").write_bytes(changed)
            for _ in range(2):
                found = load(page, address)
                assert found.startswith("EngineError: ") and expected in found and "reload the page" in found
            (folder / "weights.safetensors").write_bytes(weights)
            assert load(page, address) == "loaded"
            page.run("caches.keys().then((names) => Promise.all(names.map((name) => caches.delete(name))))")


def test_another_tokenizer_is_refused(page: Page, folder: Path):
    state = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    first, second = [*state["model"]["vocab"]][-2:]
    vocab = state["model"]["vocab"]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (folder / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    with served(folder) as address:
        assert "EngineError: tokenizer.json is not what the export wrote" in load(page, address)


def test_without_https_the_page_says_that_it_compared_nothing(page: Page, whole: Path):
    with served(whole) as address:
        page.open(f"{address}/blank.html")
        page.run("Object.defineProperty(crypto, 'subtle', { value: undefined })")
        found = page.run(LOAD)
    assert found == "loaded; the files were not compared with their SHA-256: that needs https or localhost"


def test_another_export_is_loaded_although_the_server_lets_files_be_kept(
    page: Page, whole: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def end_headers(self: FolderHandler) -> None:
        self.send_header("Cache-Control", "max-age=3600")
        super(FolderHandler, self).end_headers()

    monkeypatch.setattr(FolderHandler, "end_headers", end_headers)
    other = export_model(MODEL, tmp_path / "other", "f16", max_seq_length=9)
    for name in ("engine.json", "tokenizer.json", "weights.safetensors"):
        os.utime(folder / name, (1e9, 1e9))  # times in HTTP are whole seconds
    with served(folder) as address:
        assert load(page, address) == "loaded"
        for name in ("engine.json", "tokenizer.json", "weights.safetensors"):
            shutil.copy(other / name, folder)
        assert load(page, address) == "loaded"
        assert page.run("engine.maxLength") == 9


def test_files_that_are_broken_are_named(page: Page, folder: Path):
    about = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
    cases: list[tuple[str, str | None, str]] = [
        ("engine.json", json.dumps(about)[:1000], "engine.json is not JSON"),
        ("tokenizer.json", "<!doctype html>", "tokenizer.json is not what the export wrote"),
        ("engine.json", "<!doctype html>", "check what the server sends"),
        ("engine.json", "null", "engine.json has format undefined"),
        ("vendor/tokenizers.js", None, "text.js, or a file that it imports, cannot be loaded"),
        ("plain.js", None, "plain.js, or a file that it imports, cannot be loaded"),
    ]
    wrong: list[tuple[str, Any]] = [("checks", []), ("similarity", "foo"), ("dimensions", 999), ("digests", None), ("forms", {})]
    cases += [("engine.json", json.dumps(about | {name: value}), f"engine.json has no {name} that") for name, value in wrong]
    with no_http_cache(page), served(folder) as address:
        for name, text, expected in cases:
            before = (folder / name).read_bytes()
            (folder / name).unlink()
            if text is not None:
                (folder / name).write_text(text, encoding="utf-8")
            found = load(page, address)
            assert found.startswith("EngineError: ") and expected in found, (name, found)
            (folder / name).write_bytes(before)


def test_calls_that_cannot_be_done_are_refused(page: Page, whole: Path):
    with served(whole) as address:
        assert load(page, address) == "loaded"
        page.run("""(async () => { Object.assign(window, await import('/engine.js'), await import('/worker_client.js'));
            window.vector = await engine.encode('x'); window.away = await loadWorkerEngine('/', { device: 'cpu' }); })()""")
        cases = {
            "engine.similarity(vector, engine.encode('x'))": "await it first",
            "engine.similarity(vector)": "b must be a vector",
            "engine.similarity(null, vector)": "a must be a vector",
            "engine.similarity('cat', 'dog')": "a must be a vector",
            "similarity(new Float32Array(0), new Float32Array(0))": "with numbers in it",
            "engine.encode('x', { prompt: 5 })": "prompt must be a string, not 5",
            "engine.encode('x', { promptName: 'x' })": "not among the model's prompts",
            "engine.encode('x', { dimensions: NaN })": "not NaN",
            "engine.encode('x', { normalise: true })": 'encode has no option "normalise": it has prompt,',
            "engine.encodeQuery('x', 5)": "the options of encode must be an object, not 5",
            "loadEngine('/', { cache: 'no' })": "cache must be a boolean",
            "loadEngine('/', { progress: 5 })": "progress must be a function",
            "loadEngine('http://')": "is not the address of a folder",
            "loadWorkerEngine('/', { gpu: {} })": 'has no option "gpu"',
            "loadWorkerEngine('http://')": "is not the address of a folder",
            "away.encode('x', { prompt: () => 1 })": "cannot be sent to a worker",
            "away.encode([() => 1])": "cannot be sent to a worker",
            "pipeline('embeddings', '/', { quantized: true })": 'pipeline has no option "quantized"',
            "pipeline('embeddings', '/', { dtype: 'q8' })": "--dtype int8",
        }
        for call, expected in cases.items():
            found = page.run(f"(async () => {call})().then(() => 'done', (e) => `${{e.name}}: ${{e.message}}`)")
            assert found.startswith("EngineError: ") and expected in found, (call, found)
        for options in ("{ prompt: null, promptName: null, dimensions: null }", "null", "{ dimensions: 1000 }"):
            assert page.run(f"engine.encode('x', {options}).then((v) => `${{v}}` === `${{vector}}`)"), options
        assert page.run("away.encodeQuery('x', { prompt: null }).then((v) => `${v}` === `${vector}`)")
