"""The page of an explanation in a browser: it draws everything, loads nothing, and a text cannot become a part of it."""

import base64
import json
import re
import shutil
import subprocess
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from encoders import GOLDEN

from gpt2wgpu import Encoder
from gpt2wgpu.explain.page import MOST_BYTES, SHADES, Packer, pack_data
from gpt2wgpu.explain.result import Explanation, TextTrace

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)> & \"'`{{DATA}}\u2028"
LONG = "the quick brown fox jumps over the lazy dog and runs home " * 10


def open_page(path: Path, folder: Path) -> tuple[str, list[str]]:
    """The page's elements when its script has run, and what the browser logged."""
    if CHROMIUM is None:
        pytest.skip("no chromium")
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"),
            *("--virtual-time-budget=20000", f"--user-data-dir={folder / 'profile'}", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    drawn = done.stdout.split('<script type="text/plain"')[0].split("</style>")[1]
    return drawn, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@cache
def explained(pair: bool) -> Explanation:
    model = Encoder(device="numpy")
    return model.explain(EVIL, "The cat sleeps") if pair else model.explain("The cat sleeps on the sofa")


@pytest.mark.parametrize("pair", [False, True])
def test_the_page_draws_everything(pair: bool, tmp_path: Path):
    page = tmp_path / "page.html"
    page.write_text(explained(pair).to_html(), encoding="utf-8")
    dom, logged = open_page(page, tmp_path)
    assert logged == []
    assert 'data-ready="yes"' in dom and "[object" not in dom and "NaN" not in dom and "undefined" not in dom
    assert dom.count("<section") == 8
    assert len(re.findall(r"<tr[ >]", dom)) == 1 + 46
    assert dom.count('class="big"') == pair
    assert "sees the tokens before it and after it" in dom and "after block 6 and the final norm" in dom
    assert "<title>taken" not in dom and "<img" not in dom
    if pair:
        assert "document.title='taken'&lt;/script&gt;&lt;img src=x" in dom  # as text, where the sentence is shown


def test_the_page_of_a_causal_model_with_merges(tmp_path: Path):
    page = tmp_path / "page.html"
    found = Encoder(GOLDEN / "sentence_models" / "new_qwen3_last", device="numpy").explain("The cat sleeps")
    page.write_text(found.to_html(), encoding="utf-8")
    dom, logged = open_page(page, tmp_path)
    assert logged == [] and 'data-ready="yes"' in dom
    assert "reads from left to right" in dom and "starts as single letters" in dom


def test_a_fault_in_the_page_is_seen(tmp_path: Path):
    page = tmp_path / "page.html"
    html = explained(False).to_html()
    page.write_text(html.replace("drawContents();", "drawContents(); ", 1), encoding="utf-8")  # not the script that is allowed
    dom, logged = open_page(page, tmp_path)
    assert "data-ready" not in dom and "Content Security Policy" in "".join(logged)


def test_nothing_is_loaded():
    html = explained(True).to_html()
    assert "default-src 'none'" in html
    assert not re.search(
        r"""(src|href)\s*=\s*["']?(https?:|//)|@import|url\(|fetch\(|XMLHttpRequest|import\(""", html.split('id="data"')[0]
    )
    scripts = html.rpartition("</script>\n<script>")[2]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(|XMLHttp|import\(|https?://(?!www\.w3\.org)",
        scripts,
    )


def test_texts_are_escaped_in_the_template():
    html = explained(True).to_html()
    assert html.count("<script") == 2 and "onerror=alert(1)&gt;" in html and "<img" not in html


def test_size_for_128_tokens(built_in: Encoder):
    words = LONG.split()[:110]
    e = built_in.explain(" ".join(words), " ".join(reversed(words)))
    assert 100 < len(e.texts[0].tokens) <= 128
    assert len(e.to_html()) < 2_000_000


def test_size_for_128_tokens_of_a_large_model(built_in: Encoder):
    """Two texts, the sizes of BERT base, and numbers that do not compress."""
    rng = np.random.default_rng(0)
    e = built_in.explain(" ".join(LONG.split()[:110]), " ".join(LONG.split()[5:115]))
    blocks, width = 12, 768

    def enlarge(t: TextTrace) -> TextTrace:
        n = len(t.tokens)
        attention = rng.exponential(size=(blocks, 12, n, n)) ** 3
        rows = rng.standard_normal((2, n, width))
        states = rng.standard_normal((blocks + 1, n, 8))
        attention /= attention.sum(-1, keepdims=True)
        return replace(t, attention=attention, token_vectors=rows[0], position_vectors=rows[1], states=states)

    large = replace(e, texts=tuple(map(enlarge, e.texts)))
    assert len(large.to_html()) < 2_000_000


def test_large_models_get_coarser_shades(monkeypatch: pytest.MonkeyPatch):
    """The finest shades whose page is small enough."""
    e = explained(True)
    fine = len(e.to_html())
    monkeypatch.setattr("gpt2wgpu.explain.page.MOST_BYTES", fine - 1)
    assert len(e.to_html()) < fine
    monkeypatch.undo()
    assert fine <= MOST_BYTES


@pytest.mark.parametrize(("fine", "strip"), SHADES)
def test_packed_numbers_are_near(fine: int, strip: int):
    e = explained(False)
    raw = zlib.decompress(pack_data(e, fine, strip))
    size = int.from_bytes(raw[:4], "little")
    data, packed = json.loads(raw[4 : 4 + size]), np.frombuffer(raw[4 + size :], np.uint8)
    about = data["texts"][0]["attention"]
    found = packed[about["at"] :][: np.prod(about["shape"])].reshape(about["shape"]) / about["steps"]
    exact = e.texts[0].attention
    largest = exact.max(axis=(-2, -1), keepdims=True)
    assert np.abs(found - np.sqrt(exact / largest)).max() <= 0.5001 / fine
    assert np.allclose(data["shares"]["pairs"], e.shares.pairs, atol=1e-5) and data["shares"]["pairsTotal"] == pytest.approx(1)
    assert data["shares"]["parts"]["total"] == pytest.approx(e.cosine) and data["cosine"] == e.cosine


def test_a_path_of_the_reader_is_not_on_the_page(tmp_path: Path):
    model = Encoder(GOLDEN / "sentence_models" / "plain_bert", device="numpy")
    raw = zlib.decompress(pack_data(model.explain("a"), 255, 127))
    assert str(GOLDEN).encode() not in raw and b'"model":"plain_bert"' in raw


def test_packer_keeps_signs():
    packer = Packer()
    about = packer.add(np.array([[-4.0, 1.0], [0.0, 4.0]]), 100, root=True, signed=True)
    assert np.frombuffer(bytes(packer.bytes), np.int8).tolist() == [-100, 50, 0, 100] and about["largest"] == [4.0]


def test_data_is_base64_of_the_payload():
    html = explained(False).to_html()
    payload = html.split('id="data">')[1].split("<")[0]
    assert zlib.decompress(base64.b64decode(payload))
