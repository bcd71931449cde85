"""The CPU path of a page against numpy, in Chromium: op by op, whole models, with WebAssembly and without."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Page, open_browser
from encoders import tiny_gpt2, with_row
from pages import minilm
from web_folders import export_model, served
from web_modules import HELP, from_base64, open_modules, to_base64

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.devices.selftest import Case, case_arrays, compare_results, forward_cases, run_numpy
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Tensor

GOLDEN = Path(__file__).parent / "golden" / "sentence_models"
NOT_EXPORTED = {ops.similarity, ops.repulsion, ops.attraction, ops.nearest_rows}  # of search and maps, and those of int8
CASES = [c for c in forward_cases(half=False) if c.op not in NOT_EXPORTED and "int8" not in c.op.name]
# longer than a block of queries, widths that no panel divides, rows that no tile divides
CASES += [
    Case(ops.attention, {"N": 39}, (130, 3), {"head_size": 13, "scale": 0.3, "causal": causal, "window": window})
    for causal, window in ((False, 0), (True, 0), (False, 40), (True, 40))
]
CASES += [Case(ops.linear, {"K": k, "N": n}, (t,)) for k, n, t in ((1, 1, 1), (7, 9, 66), (8, 16, 64), (33, 8, 131))]
TEXTS = ["The cat", "a", "Über 東京 🙂", "", "A feline is"]  # short enough for every model
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_modules("plain") as found:
        yield found


def one_op(t: Tensor) -> dict[str, Any]:
    """The graph of one op as engine.json holds it; its matrix is a weight. The first input is copied first, by heads that are not
    turned: products read what another op computed."""
    assert t.op is not None
    weights = [x.is_weight and x.name != "x" for x in t.inputs]
    found = [{"name": x.name, "dtype": x.dtype, "shape": [*x.shape], "weight": w} for x, w in zip(t.inputs, weights, strict=True)]
    inputs = [*range(len(found))]
    if t.op in (ops.linear, ops.linear_add, ops.attention, ops.attention_bias):
        size = {"T": "T", "N": t.inputs[0].shape[1], "D": 2}
        copy = {
            "op": "rotary",
            "inputs": [0, 0, 0],
            "shape": [*t.inputs[0].shape],
            "dims": size,
            "attrs": {"heads": 0},
            "buffer": 1,
        }
        inputs[0] = len(found)
        found.append(copy)
    step = {"op": t.op.name, "inputs": inputs, "shape": [*t.shape], "dims": t.dims, "attrs": t.attrs, "buffer": 0}
    return {"tensors": [*found, step], "output": len(found)}


@needs_browser
@pytest.mark.parametrize("simd", [True, False])
def test_every_op_equals_numpy(page: Page, simd: bool):
    """NaN among the inputs reaches the output here, too."""
    work = []
    for case in CASES:
        t, values = case_arrays(case)
        sizes = {"T": sum(case.lengths), "B": len(case.lengths), "G": len(values.get("tiles", ()))}
        work.append({"form": one_op(t), "sizes": sizes, "arrays": {n: [v.dtype.name, to_base64(v)] for n, v in values.items()}})
    script = f"""{json.dumps(work)}.map(({{ form, sizes, arrays: packed }}) => {{
        const kinds = {{ float32: Float32Array, uint32: Uint32Array }};
        const arrays = {{}};
        for (const [name, [kind, data]] of Object.entries(packed)) arrays[name] = new kinds[kind](toBytes(data));
        arrays.spans ??= Uint32Array.of(0, sizes.T);
        const weights = new Map(Object.entries(arrays));
        const program = plain.compilePlain(form, weights, {{ simd: {json.dumps(simd)} }});
        const first = program.run({{ arrays, sizes }}).slice(), again = program.run({{ arrays, sizes }});
        return [program.simd, toText(first), first.every((x, i) => Object.is(x, again[i]))]; }})"""
    for case, (fast, found, same) in zip(CASES, page.run(script), strict=True):
        t, values = case_arrays(case)
        expected = run_numpy(t, values)
        check = compare_results(case.op.name, str(case), expected, from_base64(found).reshape(expected.shape), 2e-5)
        assert check.ok, f"{check.name} {check.shape}: {check.what}"
        assert fast == simd and same


@pytest.fixture(scope="module")
def engine_page() -> Iterator[Page]:
    with open_browser() as found:
        yield found


def run_engine(page: Page, folder: Path, script: str) -> Any:
    """The value of an expression of `engine`, which computes an exported folder on the CPU; or the message of an error."""
    with served(folder) as address:
        page.open(f"{address}/package.json")
        page.run(HELP)
        load = "(await import('/engine.js')).loadEngine('/', { device: 'cpu', cache: false })"
        return page.run(f"(async () => {{ const engine = await {load}; return {script}; }})().catch((e) => e.message)")


@needs_browser
@pytest.mark.parametrize("model", [None, "MiniLM", *sorted(p.name for p in GOLDEN.iterdir())])
def test_models_equal_python(engine_page: Page, tmp_path: Path, model: str | None):
    """Texts in, vectors out, through engine.js."""
    source = None if model is None else minilm() if model == "MiniLM" else GOLDEN / model
    folder = export_model(source, tmp_path / "web", "f32")
    with Encoder(source, device="numpy") as encoder:
        expected = encoder.encode(TEXTS)
    script = f"[engine.device, engine.adapter, (await engine.encode({json.dumps(TEXTS)})).map(toText)]"
    device, adapter, rows = run_engine(engine_page, folder, script)
    assert (device, adapter) == ("cpu", "CPU, WebAssembly SIMD")
    assert np.abs(np.stack([from_base64(r) for r in rows]) - expected).max() < 1e-4


@needs_browser
def test_what_overflows_in_python_overflows_in_a_page(engine_page: Page, tmp_path: Path):
    """The sums here are in f64, but a norm that overflows in f32 must not give a vector."""
    model = tiny_gpt2(tmp_path / "model", change={"wte.weight": with_row(7, 3e38)})
    folder = export_model(model, tmp_path / "web", "f32", layer=1)
    with (
        Encoder(model, device="numpy", layer=1) as encoder,
        pytest.raises(UserError, match="the vector of text 0 holds NaN or Inf"),
    ):
        encoder.encode(["t7 t7"])
    message = run_engine(engine_page, folder, "await engine.encode(['t7 t7'])")
    assert message == "the vector of text 0 holds NaN or Inf (CPU, WebAssembly SIMD, f32): the model's weights overflow"


@needs_browser
@pytest.mark.parametrize("model", [None, "new_qwen3_last", "old_mpnet_mean"])
def test_int8_matrices_are_those_of_python(engine_page: Page, tmp_path: Path, model: str | None):
    """From a folder in f32 (the built-in one is in int8), or from one that `convert` wrote: the same integers and scales."""
    source = None if model is None else GOLDEN / model
    with Encoder(source, device="numpy") as encoder:
        encoder.save_pretrained(tmp_path / "int8", dtype="int8")
        exact = encoder.encode(TEXTS, normalize_embeddings=True)
    with Encoder(tmp_path / "int8", device="numpy", dtype="int8") as encoder:
        expected = encoder.encode(TEXTS)
    folders = [export_model(m, tmp_path / name, "int8") for m, name in ((source, "a"), (tmp_path / "int8", "b"))]
    assert (folders[0] / "weights.safetensors").stat().st_size < 19.5e6
    for folder in folders:
        rows = run_engine(engine_page, folder, f"(await engine.encode({json.dumps(TEXTS)})).map(toText)")
        found = np.stack([from_base64(r) for r in rows])
        assert np.abs(found - expected).max() < 1e-4
        assert (found / np.linalg.norm(found, axis=1, keepdims=True) * exact).sum(1).min() > 0.99
