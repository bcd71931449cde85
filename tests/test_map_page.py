"""The page of a map in a headless Chromium: without a network, without an error, and what a reader can do on it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Page, open_browser

from gpt2wgpu.analyze.map_files import save_map
from gpt2wgpu.analyze.map_page import script_json
from gpt2wgpu.analyze.maps import MapColumn, TextMap, map_column
from gpt2wgpu.analyze.neighbors import Neighbors

NASTY = [
    "</script><script>document.title='broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "<!-- <script> -->",
    "\u2028 & \" ' ` ${1} $data $title \\ \x00",
    "日本語 😀 żółć",
    "",
    "half a pair \ud800",
]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")


def made_map(n: int, texts: list[str] | None = None, title: str = "A map") -> TextMap:
    """Points on a grid, so that a test knows where they are."""
    side = int(np.ceil(np.sqrt(n)))
    points = np.stack([np.arange(n) % side, np.arange(n) // side], 1).astype(np.float32)
    texts = texts or [f"text {i} {'even' if i % 2 == 0 else 'odd'}" for i in range(n)]
    columns = [
        MapColumn("cluster", np.arange(n) % 3 - (np.arange(n) % 7 == 6) * 9, ["red <b>", "green, sea", "blue"], "no cluster"),
        map_column("length", [float(i) + 0.5 for i in range(n)], n),
    ]
    near = np.stack([(np.arange(n) + 1) % n, (np.arange(n) + 2) % n], 1).astype(np.int32) if n > 2 else np.empty((n, 0), np.int32)
    solid = np.concatenate([points, points[:, :1]], axis=1)
    return TextMap(title, texts, {"t-SNE 2-D": points, "t-SNE 3-D": solid}, columns, Neighbors(near, near.astype(np.float32)))


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_browser() as found:
        yield found


def show(page: Page, made: TextMap, folder: Path, **how: Any) -> None:
    save_map(made, str(folder / "map.html"))
    page.problems.clear()
    page.requests.clear()
    page.open(folder / "map.html", **how)
    assert page.run("document.documentElement.dataset.ready") == "yes", page.problems


def check_quiet(page: Page) -> None:
    """No error in the console, and nothing was asked for but the page itself."""
    page.settle()
    assert page.problems == []
    assert [r for r in page.requests if not r.startswith(("file://", "data:"))] == [] and len(page.requests) >= 1


def test_nothing_in_a_text_ends_the_script():
    text = script_json(NASTY)
    assert "<" not in text and "\u2028" not in text
    assert json.loads(text)[:6] == NASTY[:6]


def test_the_page_names_no_other_place(tmp_path: Path):
    save_map(made_map(5), str(tmp_path / "a.html"))
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text and re.findall(r"(?:https?:)?//[\w.]+\.\w+", text) == []
    assert len(text.encode()) < 50_000  # the page without its data


@needs_browser
@pytest.mark.parametrize("n", [1, 2, 20, 2000])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_opens(page: Page, n: int, dark: bool, tmp_path: Path):
    show(page, made_map(n), tmp_path, dark=dark)
    page.screenshot(tmp_path / "map.png")
    check_quiet(page)
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(15, 18, 22)" if dark else "rgb(250, 250, 248)")
    picture = pixels(tmp_path / "map.png")
    plain = np.array([15, 18, 22] if dark else [250, 250, 248])
    coloured = np.abs(picture[:, 300:1100].astype(int) - plain).sum(axis=2) > 60
    assert coloured.sum() > 40  # there are points to see


def pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return (imread(path)[..., :3] * 255).astype(np.uint8)


COUNT_POINTS = """
window.points = [];
const draw = WebGLRenderingContext.prototype.drawArrays;
WebGLRenderingContext.prototype.drawArrays = function (kind, first, n) {
  window.points.push(n);
  return draw.call(this, kind, first, n);
};
"""
FRAMES = """
let time = 1e6, waiting = [];
window.requestAnimationFrame = (f) => { waiting.push(f); return 1; };
window.passFrame = (ms) => {
  const now = waiting;
  time += ms; waiting = [];
  for (const f of now) f(time);
  return window.points.splice(0);
};
"""


@needs_browser
def test_a_hundred_thousand_points_stay_fluid(page: Page, tmp_path: Path):
    """Counts, not seconds: a frame is one draw call, whatever the number of points."""
    show(page, made_map(100_000), tmp_path)
    page.run(COUNT_POINTS + "0")
    page.mouse("mouseWheel", 700, 400, deltaX=0, deltaY=-100)
    page.settle()
    assert 1 <= len(page.run("window.points")) <= 3
    check_quiet(page)
    assert (tmp_path / "map.html").stat().st_size < 12_000_000


@needs_browser
def test_slow_frames_draw_fewer_points_until_the_map_rests(page: Page, tmp_path: Path):
    """Frames are passed one by one, and take as long as the test says."""
    script = page.call("Page.addScriptToEvaluateOnNewDocument", source=COUNT_POINTS + FRAMES)["identifier"]
    show(page, made_map(100_000), tmp_path)
    page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)

    def frame(ms: float, move: bool = True) -> list[int]:
        if move:
            page.run("document.getElementById('reset').click()")
        return page.run(f"window.passFrame({ms})")

    def rest() -> list[int]:
        return [n for _ in range(30) for n in frame(16, move=False)]

    rest()
    slow = [n for _ in range(12) for n in frame(200)]
    assert slow == sorted(slow, reverse=True) and slow[-1] == 5000, slow
    quick = [n for _ in range(60) for n in frame(16)]
    assert quick == sorted(quick) and quick[-1] == 100_000, quick
    slow = [n for _ in range(12) for n in frame(200)]
    assert slow[-1] == 5000 and rest()[-1] == 100_000 and rest() == []
    page.mouse("mouseMoved", 760, 420)
    page.mouse("mouseMoved", 700, 300)
    assert frame(16, move=False) == []  # a hover draws no point


@needs_browser
def test_texts_are_shown_and_never_run(page: Page, tmp_path: Path):
    made = made_map(len(NASTY), NASTY, title="<script>document.title='broken'</script> $data")
    show(page, made, tmp_path)
    assert page.run("document.title") == made.title == page.run("document.querySelector('h1').textContent")
    page.run("const s = document.getElementById('search'); s.value = '<'; s.dispatchEvent(new Event('input')); 0")
    page.run("new Promise(done => setTimeout(done, 100))")
    assert page.run("[...document.querySelectorAll('#results .name')].map(e => e.textContent)") == NASTY[:3]
    assert page.run("document.querySelectorAll('img, #results script').length") == 0
    check_quiet(page)


@needs_browser
def test_search_hover_and_neighbours(page: Page, tmp_path: Path):
    show(page, made_map(100), tmp_path)
    page.run("const s = document.getElementById('search'); s.value = 'ODD'; s.dispatchEvent(new Event('input')); 0")
    page.run("new Promise(done => setTimeout(done, 100))")
    assert page.run("document.getElementById('found').textContent") == "50"
    page.run("document.querySelector('#results .row').click(); 0")
    page.settle()
    assert page.run("document.querySelector('#details .text').textContent") == "text 1 odd"
    near = page.run("[...document.querySelectorAll('#details .row .name')].map(e => e.textContent)")
    assert near == ["text 2 even", "text 3 odd"]
    page.mouse("mouseMoved", 292 + (1280 - 292) / 2, 400)  # it flew there
    assert page.run("document.querySelector('#tip .text').textContent") == "text 1 odd"
    assert page.run("document.getElementById('tip').hidden") is False
    page.mouse("mouseMoved", 1279, 799)
    assert page.run("document.getElementById('tip').hidden") is True
    check_quiet(page)


@needs_browser
def test_pan_zoom_turn_and_colour(page: Page, tmp_path: Path):
    show(page, made_map(400), tmp_path)

    def shot() -> bytes:
        page.settle()
        page.screenshot(tmp_path / "shot.png")
        return pixels(tmp_path / "shot.png")[:, 300:1100].tobytes()

    def drag() -> None:
        page.mouse("mousePressed", 700, 400, button="left", clickCount=1)
        page.mouse("mouseMoved", 760, 450, button="left", buttons=1)
        page.mouse("mouseReleased", 760, 450, button="left", clickCount=1)
        page.mouse("mouseMoved", 1279, 799)

    def choose(name: str, value: int) -> None:
        page.run(f"{{ const e = document.getElementById('{name}'); e.value = {value}; e.dispatchEvent(new Event('change')); }}")

    seen = [shot()]
    for act in (
        drag,
        lambda: page.mouse("mouseWheel", 700, 400, deltaX=0, deltaY=-300),
        lambda: choose("colour", 1),
        lambda: choose("colour", -1),
        lambda: choose("layout", 1),
        drag,
        lambda: page.run("document.getElementById('theme').click()"),
        lambda: choose("colour", 0),
        lambda: page.run("document.querySelector('#legend .row').click()"),
    ):
        act()
        seen.append(shot())
        assert seen[-1] != seen[-2]
    names = page.run("[...document.querySelectorAll('#legend .row .name')].map(e => e.textContent)")
    assert sorted(names) == ["blue", "green, sea", "no cluster", "red <b>"]
    check_quiet(page)


@needs_browser
def test_a_browser_without_webgl_draws_too(tmp_path: Path):
    with open_browser("--disable-3d-apis") as page:
        show(page, made_map(500), tmp_path)
        page.screenshot(tmp_path / "map.png")
        coloured = np.abs(pixels(tmp_path / "map.png")[:, 300:1100].astype(int) - [250, 250, 248]).sum(axis=2) > 60
        assert coloured.sum() > 2000
        assert [p for p in page.problems if "WebGL" not in p] == []
