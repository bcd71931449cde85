"""The page of an export in Chromium: search, comparison, explanation, cache, refusals; on the CPU and on WebGPU (SwiftShader)."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, SWIFTSHADER, Page, open_browser
from web_folders import add_blank_page, export_model, served
from web_modules import HELP, from_base64

from gpt2wgpu import Encoder

GOLDEN = Path(__file__).parent / "golden" / "sentence_models"
TEXTS = ["The cat sleeps", "a", "Über 東京 🙂", "A feline is resting"]
READY = """new Promise((done) => { const timer = setInterval(() => { const found = document.documentElement.dataset.ready;
    if (found) { clearInterval(timer); done(found); } }, 20); })"""
RESULTS = "[...document.querySelectorAll('#results b')].map((e) => e.textContent)"
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model, and a page that holds nothing."""
    return add_blank_page(export_model(None, tmp_path_factory.mktemp("web") / "built-in"))


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(folder) as found:
        yield found


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_browser() as found:
        yield found


@pytest.fixture
def new_page() -> Iterator[Page]:
    """A browser of its own, with an empty cache."""
    with open_browser() as found:
        yield found


def open_page(page: Page, address: str, **how: Any) -> str:
    page.problems.clear()
    page.requests.clear()
    page.open(f"{address}/index.html?device=cpu", **how)
    return str(page.run(READY))


def text_of(page: Page, name: str) -> str:
    return str(page.run(f"document.getElementById('{name}').textContent"))


def put(page: Page, name: str, value: str) -> None:
    """Type a value into a field."""
    page.run(
        f"{{ const e = document.getElementById('{name}'); e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input')); }}"
    )


def wait_until(page: Page, condition: str) -> None:
    page.run(
        f"new Promise((done) => {{ const t = setInterval(() => {{ if ({condition}) {{ clearInterval(t); done(); }} }}, 20); }})"
    )


@needs_browser
def test_search_compare_and_explain(page: Page, address: str):
    assert open_page(page, address) == "yes", text_of(page, "stage")
    assert "Computed on: CPU, WebAssembly SIMD" in text_of(page, "stage") and text_of(page, "dimensions") == "384 numbers"
    sentences = page.run("document.getElementById('sentences').value").split("\n")
    with Encoder(device="numpy") as model:
        scores = model.similarity(model.encode(["kids at the beach"]), model.encode(sentences))[0]
        explained = model.explain("The cat sleeps on the sofa", "A kitten is napping on the couch")
    found = page.run(RESULTS)
    assert found[0] == "Two children are building a sandcastle" and sorted(found) == sorted(sentences)
    order = [sentences.index(s) for s in found]
    assert np.all(np.diff(scores[order]) <= 1e-4)
    assert text_of(page, "score") == text_of(page, "total") == "0.792" == f"{explained.cosine:.3f}"
    assert explained.shares is not None
    cells = page.run(
        "[...document.querySelectorAll('#pairs td:not(:empty)')].map((e) => Number(e.textContent.replace('−', '-')))"
    )
    assert np.abs(np.array(cells) - explained.shares.pairs.ravel()).max() < 6e-4  # three decimals
    put(page, "query", "music")
    wait_until(page, f"{RESULTS}[0] === 'He plays the guitar in a small band'")
    put(page, "sentences", "rain\n\nsnow \n")
    wait_until(page, f"{RESULTS}.length === 2")
    put(page, "second", "The cat sleeps on the sofa")
    wait_until(page, "document.getElementById('score').textContent === '1.000'")
    page.settle()
    assert page.problems == [] and {r.startswith((address, "data:")) for r in page.requests} == {True}


@needs_browser
def test_a_failure_names_its_field_and_ends_with_it(page: Page, address: str):
    assert open_page(page, address) == "yes"
    stage, status = "document.getElementById('stage').textContent", "document.getElementById('status').className"
    put(page, "first", "\ud800")
    wait_until(page, f"{stage}.startsWith('the first sentence holds half a surrogate pair')")
    assert page.run(f"[{status}, document.getElementById('compared').className]") == ["failed", "stale"]
    put(page, "sentences", "rain\n\n\ud800")
    put(page, "first", "A cat")
    wait_until(page, f"{stage}.startsWith('sentence 2 of the list holds')")
    put(page, "sentences", "rain\nsnow")
    wait_until(page, f"{stage}.startsWith('Ready after')")
    assert page.run(f"[{status}, document.querySelectorAll('.stale').length]") == ["ready", 0]
    assert page.problems == []


@needs_browser
def test_old_results_are_marked_while_new_ones_are_computed(page: Page, address: str):
    assert open_page(page, address) == "yes"
    busy = "document.querySelectorAll('[aria-busy=true]').length"
    mark = "getComputedStyle(document.querySelector('#found .computing')).display"
    assert page.run(f"[{busy}, {mark}]") == [0, "none"]
    page.run("""{ const { postMessage } = Worker.prototype; window.held = [];  // the worker gets its messages later
        Worker.prototype.postMessage = function (...values) { held.push(() => postMessage.apply(this, values)); };
        window.release = () => { Worker.prototype.postMessage = postMessage; held.forEach((send) => send()); }; }""")
    put(page, "sentences", "rain\nsnow")
    wait_until(page, f"{busy} === 1")
    assert page.run(f"{RESULTS}.length") == 14 and page.run(mark) == "inline"
    assert page.run("getComputedStyle(document.getElementById('results')).opacity") == "0.45"
    page.run("release()")
    wait_until(page, f"{busy} === 0")
    assert page.run(f"{RESULTS}.length") == 2 and page.run(mark) == "none"


@needs_browser
def test_a_page_that_cannot_start_says_why(page: Page, folder: Path, address: str):
    page.open(folder / "index.html")
    wait_until(page, "getComputedStyle(document.getElementById('unstarted')).visibility === 'visible'")
    assert "needs JavaScript and a web server" in text_of(page, "unstarted")
    assert open_page(page, address) == "yes"
    assert page.run("document.getElementById('unstarted')") is None


@needs_browser
def test_an_unknown_device_is_shown_as_such(page: Page, address: str):
    page.open(f"{address}/index.html?device=bogus")
    assert page.run(READY) == "failed" and 'not "bogus"' in text_of(page, "stage")
    assert page.run("document.getElementById('device').selectedOptions[0].text") == "bogus, which is unknown"


@needs_browser
def test_texts_from_right_to_left_are_laid_out_so(page: Page, address: str):
    assert open_page(page, address) == "yes"
    put(page, "first", "חתול ישן")
    put(page, "sentences", "חתול ישן\nA cat sleeps")
    wait_until(page, f"{RESULTS}.length === 2")
    found = page.run("[...document.querySelectorAll('#results b')].map((e) => [e.textContent, getComputedStyle(e).direction])")
    assert sorted(found) == [["A cat sleeps", "ltr"], ["חתול ישן", "rtl"]]
    assert page.run("['first', 'second'].map((id) => getComputedStyle(document.getElementById(id)).direction)") == ["rtl", "ltr"]


@needs_browser
def test_a_software_driver_is_named_while_it_compiles(address: str):
    with open_browser(*SWIFTSHADER) as page:
        page.open(f"{address}/blank.html")
        page.wait_for_adapter()
        page.open(f"{address}/index.html?device=webgpu")
        wait_until(page, "!document.getElementById('hint').hidden")
        assert "can take minutes to compile the kernels, and the CPU is faster" in text_of(page, "hint")
        assert page.run("document.querySelector('#hint a').search") == "?device=cpu"


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_the_page_fits_and_has_two_schemes(page: Page, address: str, width: int, dark: bool):
    assert open_page(page, address, width=width, dark=dark) == "yes"
    assert page.run("document.documentElement.scrollWidth") == width
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(15, 18, 22)" if dark else "rgb(250, 250, 248)")
    assert page.run("[...document.querySelectorAll('input, textarea, select')].every((e) => e.labels.length === 1)")


@needs_browser
def test_worker_has_the_vectors_of_python(page: Page, address: str):
    page.problems.clear()
    page.open(f"{address}/blank.html")
    page.run(HELP)
    script = f"""(async () => {{
        const {{ loadWorkerEngine }} = await import('/worker_client.js');
        window.engine = await loadWorkerEngine('/', {{ device: 'cpu' }});
        const vectors = await engine.encode({json.dumps(TEXTS)});
        const {{ pairs, cosine }} = await engine.explain({json.dumps(TEXTS[0])}, {json.dumps(TEXTS[3])});
        return {{ device: engine.device, explains: engine.explains, vectors: vectors.map(toText), pairs, cosine,
            similarity: engine.similarity(vectors[0], vectors[3]), tokens: (await engine.tokenize('The cat')).tokens }}; }})()"""
    found = page.run(script)
    with Encoder(device="numpy") as model:
        expected, explained = model.encode(TEXTS), model.explain(TEXTS[0], TEXTS[3])
    assert np.abs(np.stack([from_base64(v) for v in found["vectors"]]) - expected).max() < 1e-4
    assert explained.shares is not None
    assert np.abs(np.array(found["pairs"]) - explained.shares.pairs).max() < 1e-4
    assert np.sum(found["pairs"]) == pytest.approx(found["cosine"], abs=1e-9) == pytest.approx(found["similarity"], abs=1e-5)
    assert found["tokens"] == ["[CLS]", "the", "cat", "[SEP]"] and found["device"] == "cpu" and found["explains"]
    refused = page.run("engine.encode(['a', 7]).catch((e) => [e.name, e.message])")
    assert refused == ["EngineError", "text 1 is 7 (type number), expected a string"]
    closed = page.run("(() => { const late = engine.encode('a'); engine.close(); return late.catch((e) => e.message); })()")
    assert closed == "this engine was closed: load it again" == page.run("engine.encode('a').catch((e) => e.message)")
    assert page.problems == []


@needs_browser
def test_weights_come_from_the_cache_at_the_second_visit(new_page: Page, address: str):
    new_page.open(f"{address}/blank.html")
    visit = """(async () => { const events = [];
        await (await import('/engine.js')).loadEngine('/', { device: 'cpu', progress: (e) => events.push(e) });
        return events.filter((e) => e.stage === 'weights').map((e) => [e.loaded, e.total, e.cached]).at(-1); })()"""
    size = new_page.run("fetch('/engine.json').then((r) => r.json()).then((about) => about.weights.bytes)")
    new_page.requests.clear()
    assert new_page.run(visit) == [size, size, False]
    assert new_page.run(visit) == [size, size, True]
    assert [r for r in new_page.requests if r.endswith(".safetensors")] == [f"{address}/weights.safetensors"]
    assert size < 20e6


@needs_browser
def test_wrong_files_are_refused(new_page: Page, folder: Path, tmp_path: Path):
    wrong = shutil.copytree(folder, tmp_path / "wrong")
    about = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
    about["checks"][1]["vector"][0] += 0.5
    (wrong / "engine.json").write_text(json.dumps(about), encoding="utf-8")
    with served(wrong) as address:
        assert open_page(new_page, address) == "failed"
        assert text_of(new_page, "stage").startswith("self-check on CPU, WebAssembly SIMD: the vector of")
        assert new_page.run("document.querySelector('main').hidden")
        shutil.copy(folder / "engine.json", wrong / "engine.json")
        with (wrong / "weights.safetensors").open("r+b") as file:
            file.truncate(1_000_000)
        new_page.run("caches.keys().then((names) => Promise.all(names.map((name) => caches.delete(name))))")
        assert open_page(new_page, address) == "failed"
        assert "the download was cut" in text_of(new_page, "stage")


@needs_browser
def test_a_missing_file_of_the_worker_is_named(page: Page, folder: Path, tmp_path: Path):
    """worker.js, a module that it imports, and one that this imports; or a page that a server sends in place of a file."""
    part = shutil.copytree(folder, tmp_path / "part")
    with served(part) as address:
        for name in ("worker.js", "explain.js", "wasm.js"):
            (part / name).unlink()
            assert open_page(page, address) == "failed"
            assert text_of(page, "stage") == f"{address}/{name} cannot be loaded (404): is the whole exported folder there?"
            shutil.copy(folder / name, part)
        (part / "worker.js").unlink()
        (part / "worker.js").mkdir()
        shutil.copy(part / "blank.html", part / "worker.js" / "index.html")  # as servers do that answer everything with a page
        assert open_page(page, address) == "failed"
        expected = (
            f"{address}/worker.js is sent as text/html; charset=utf-8, not as JavaScript: is the whole exported folder there?"
        )
        assert text_of(page, "stage") == expected


@needs_browser
def test_shares_are_shown_where_they_are_exact(page: Page, tmp_path: Path):
    """A Dense layer after the pooling has no share for each token; the mean and the last token have."""
    for model, explains in (("new_bert_sqrt_dense", False), ("old_bert_mean", True), ("new_qwen3_last", True)):
        with served(export_model(GOLDEN / model, tmp_path / model, "f32")) as address:
            assert open_page(page, address) == "yes", text_of(page, "stage")
            assert page.run("document.getElementById('explained').hidden") is not explains
            if explains:
                assert text_of(page, "total") == text_of(page, "score")


@needs_browser
def test_webgpu_gives_the_vectors_of_python(tmp_path: Path):
    model = GOLDEN / "plain_bert"
    folder = add_blank_page(export_model(model, tmp_path / "web", "f32"))
    with served(folder) as address, open_browser(*SWIFTSHADER) as page:
        page.open(f"{address}/blank.html")
        page.wait_for_adapter()
        page.run(HELP)
        script = f"""(async () => {{
            const {{ loadWorkerEngine }} = await import('/worker_client.js');
            const load = (tries) => loadWorkerEngine('/', {{ device: 'webgpu' }}).catch((error) => {{
                if (!tries || !error.message.includes('finds no GPU')) throw error; // a worker may be there before its adapter
                return new Promise((done) => setTimeout(done, 500)).then(() => load(tries - 1)); }});
            const engine = await load(60);
            return [engine.device, engine.adapter, (await engine.encode({json.dumps(TEXTS)})).map(toText)]; }})()"""
        device, adapter, vectors = page.run(script)
        assert page.problems == []
    with Encoder(model, device="numpy") as encoder:
        expected = encoder.encode(TEXTS)
    assert device == "webgpu" and "swiftshader" in adapter.lower()
    assert np.abs(np.stack([from_base64(v) for v in vectors]) - expected).max() < 1e-4
