"""The browser engine computes what numpy computes: its JavaScript in Node, on Dawn, Chrome's WebGPU. Run by tests/in_node."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import GOLDEN, LONG, TEXTS, golden, tiny_gpt2, with_row
from pages import REPOSITORY, read_blocks
from web_folders import export_model, served

from gpt2wgpu import Encoder
from gpt2wgpu.web.weights import weight_digests

NODE = shutil.which("node") or "node"
WEBGPU = Path(os.environ["GPT2WGPU_NODE_WEBGPU"])  # the npm package; conftest.py collects this file only where it is set
MODELS = {  # what each adds to the ops of the built-in model, a GPT-2
    "old_bert_cls_max_dense": "types, two poolings, a Dense",
    "old_mpnet_mean": "attention with a bias by distance",
    "new_qwen3_last": "norms and rotary positions of heads, shared keys, gated units, RMSNorm",
}


class Node:
    """A process of Node. `ask` gives the answer to a request."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, action: str, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"action": action, **request}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def value(self, action: str, **request: Any) -> Any:
        answer = self.ask(action, **request)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def refusal(self, action: str, **request: Any) -> str:
        error = self.ask(action, **request).get("error", "")
        assert error.startswith("EngineError: ") and "\n" not in error, error
        return error.removeprefix("EngineError: ")


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the export of each model."""
    root = tmp_path_factory.mktemp("exports")
    export_model(None, root / "built-in")
    for name in MODELS:
        export_model(GOLDEN / "sentence_models" / name, root / name, "f32")
    return root


@pytest.fixture(scope="module")
def address(exports: Path) -> Iterator[str]:
    with served(exports) as found:
        yield found


@pytest.fixture(scope="module")
def node(exports: Path) -> Iterator[Node]:
    command = [NODE, Path(__file__).parent / "web_replay.mjs", WEBGPU / "index.js", exports / "built-in/engine.js"]
    # llvmpipe compiles for vectors of this many bits in a third of the time
    environment = os.environ | {"LP_NATIVE_VECTOR_WIDTH": "128", "NODEVICE_SELECT": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8", env=environment) as process:
        yield Node(process)
        process.kill()


def expected(model: object, texts: list[str], **options: Any) -> np.ndarray:
    with Encoder(model, device="numpy") as encoder:
        return encoder.encode(texts, **options)


def test_vectors_of_the_built_in_model(node: Node, address: str):
    loaded = node.value("load", url=f"{address}/built-in", options={"device": "webgpu"})
    assert loaded["device"] == "webgpu" and loaded["dtype"] == "f32" and loaded["reason"] == ""
    assert loaded["stages"] == ["weights", "kernels", "check"] and loaded["dimensions"] == 384
    texts = [*TEXTS, "word " * 300, *(f"text number {i} is one of many" for i in range(60)), TEXTS[0]]
    found = node.value("call", name="encode", args=[texts])
    np.testing.assert_allclose(found, expected(None, texts), atol=1e-4, rtol=0)
    assert found[0] == found[-1]
    alone = node.value("call", name="encode", args=[TEXTS[0]])
    assert alone == found[0]  # the same bits in any batch
    assert node.value("call", name="encode", args=[[]]) == []


def test_a_token_table_in_pieces(node: Node, address: str):
    """Of 8 MiB each; and a device that binds too little for anything else."""
    whole = {"url": f"{address}/built-in", "options": {"device": "webgpu"}}
    node.value("load", **whole, most=8 << 20)
    found = node.value("call", name="encode", args=[TEXTS])
    np.testing.assert_allclose(found, expected(None, TEXTS), atol=1e-4, rtol=0)
    assert "MiB in one piece" in node.refusal("load", **whole, most=1 << 20)


def test_buffers_grow_or_the_text_is_refused(node: Node, tmp_path: Path):
    model = golden("bert_long", tmp_path)
    export_model(model, tmp_path / "web", "f32")
    texts = ["t1 t2", "t3 " * 250]
    with served(tmp_path / "web") as url:
        node.value("load", url=url, options={"device": "webgpu"}, most=50_000)
        assert "result of linear needs" in node.refusal("call", name="encode", args=[["t1", "t3 " * 280]])
        few = node.value("call", name="encode", args=[texts[0]])  # a refusal leaves everything as it was
        node.value("load", url=url, options={"device": "webgpu"})
        found = node.value("call", name="encode", args=[["t5 " * 280, *texts]])
    wanted = expected(model, ["t5 " * 280, *texts])
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0)
    assert found[1] == few


def test_vectors_in_f16(node: Node, tmp_path: Path):
    """Of a model whose sizes no tile divides, so an odd number of f16 too; larger kernels take minutes to compile for a CPU."""
    model = golden("bert_relu_odd", tmp_path)
    export_model(model, tmp_path / "web")
    texts = ["t1", "t2 t3 t4 t5 t6", "t7 " * 9]
    with served(tmp_path / "web") as url:
        loaded = node.value("load", url=url, options={"device": "webgpu", "dtype": "f16"})
        found = np.array(node.value("call", name="encode", args=[texts]))
        assert "needs WebGPU" in node.refusal("load", url=url, options={"dtype": "f16", "device": "cpu"})
    wanted = expected(model, texts)
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert loaded["dtype"] == "f16" and 1e-6 < error < 5e-3


def test_options_of_a_call(node: Node, address: str):
    node.value("load", url=f"{address}/built-in", options={"device": "cpu"})
    short = node.value("call", name="encode", args=[TEXTS[:2], {"dimensions": 7, "normalize": True}])
    np.testing.assert_allclose(short, expected(None, TEXTS[:2], truncate_dim=7, normalize_embeddings=True), atol=1e-4)
    answer = node.ask("call", name="encode", args=[["a", LONG]])
    assert answer["warnings"] == ["1 of 2 texts had more than 512 tokens and were cut there (max_seq_length)"]
    assert "text 1 has at least" in node.refusal("call", name="encode", args=[["a", LONG], {"truncate": False}])
    assert "text 1 is" in node.refusal("call", name="encode", args=[["a", 5]])
    assert "text 0 holds half a surrogate pair" in node.refusal("call", name="encode", args=[["\ud800"]])
    assert "string or an array" in node.refusal("call", name="encode", args=[5])
    assert "dimensions must be" in node.refusal("call", name="encode", args=["a", {"dimensions": 0}])
    assert "not among the model's prompts (none)" in node.refusal("call", name="encode", args=["a", {"promptName": "x"}])


@pytest.mark.parametrize("name", MODELS)
def test_vectors_of_other_families(name: str, node: Node, address: str):
    """The self-check of each, too, whose batches are for the kernels of few and of many rows."""
    loaded = node.value("load", url=f"{address}/{name}", options={"device": "webgpu"})
    assert loaded["model"] == name
    texts = [*TEXTS[:3], TEXTS[4], *(f"{i} and {i + 1}" for i in range(30))]
    found = node.value("call", name="encode", args=[texts])
    wanted = expected(GOLDEN / "sentence_models" / name, texts)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0)


def test_prompts(node: Node, tmp_path: Path):
    model = shutil.copytree(GOLDEN / "sentence_models/old_bert_cls_max_dense", tmp_path / "model")
    pooling = json.loads((model / "1_Pooling/config.json").read_text(encoding="utf-8")) | {"include_prompt": False}
    (model / "1_Pooling/config.json").write_text(json.dumps(pooling), encoding="utf-8")
    sentence = {"prompts": {"query": "one two: ", "passage": "three: "}, "default_prompt_name": "passage"}
    (model / "config_sentence_transformers.json").write_text(json.dumps(sentence), encoding="utf-8")
    export_model(model, tmp_path / "web", "f32")
    with served(tmp_path / "web") as url, Encoder(model, device="numpy") as encoder:
        node.value("load", url=url, options={"device": "cpu"})
        calls = {
            "encodeQuery": (encoder.encode_query(TEXTS[:3]), {}),
            "encodeDocument": (encoder.encode_document(TEXTS[:3]), {}),
            "encode": (encoder.encode(TEXTS[:3]), {}),
        }
        for name, (wanted, options) in calls.items():
            np.testing.assert_allclose(node.value("call", name=name, args=[TEXTS[:3], options]), wanted, atol=1e-4)
        named = encoder.encode(TEXTS[:3], prompt_name="query")
        np.testing.assert_allclose(node.value("call", name="encode", args=[TEXTS[:3], {"promptName": "query"}]), named, atol=1e-4)


def test_similarity_is_that_of_python(node: Node):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 8)), rng.standard_normal((3, 8))
    for metric in ("cosine", "dot", "euclidean", "manhattan"):
        from gpt2wgpu.vectors.pairwise import all_pairs

        wanted = all_pairs(a.astype(np.float32), b.astype(np.float32), metric, None)
        np.testing.assert_allclose(node.value("similarity", args=[a.tolist(), b.tolist(), metric]), wanted, atol=1e-5)
        one = node.value("similarity", args=[a[0].tolist(), b[0].tolist(), metric])
        assert one == pytest.approx(float(wanted[0, 0]), abs=1e-5)
    assert "one length" in node.refusal("similarity", args=[[1, 2], [1, 2, 3]])
    assert "metric must be" in node.refusal("similarity", args=[[1], [1], "sine"])


def test_the_interface_of_transformers_js(node: Node, address: str):
    url, options = f"{address}/old_bert_cls_max_dense", {"device": "wasm"}
    found = node.value(
        "pipeline", url=f"{address}/built-in", options=options, args=[TEXTS[:2], {"pooling": "mean", "normalize": True}]
    )
    wanted = expected(None, TEXTS[:2], normalize_embeddings=True)
    assert found["dims"] == [2, 384]
    np.testing.assert_allclose(np.reshape(found["data"], found["dims"]), wanted, atol=1e-4)
    np.testing.assert_allclose(found["list"], wanted, atol=1e-4)
    assert "pooling" in node.refusal("pipeline", url=url, options=options, args=[TEXTS[:2], {"pooling": "mean"}])
    assert "the task must be" in node.refusal("pipeline", url=url, options=options, task="translation", args=[])


def test_the_example_of_the_guide(exports: Path, address: str):
    code = next(block.text for block in read_blocks(REPOSITORY / "docs/browser.md") if block.text.startswith("import"))
    changed = code.replace("./my_page/", "./built-in/").replace("loadEngine()", f"loadEngine('{address}/built-in')")
    (exports / "example.mjs").write_text(changed, encoding="utf-8")
    shown = subprocess.run([NODE, exports / "example.mjs"], check=True, capture_output=True, text=True).stdout
    query, *texts = expected(None, ["A kitten is napping", *re.findall("'([A-Z][^']+)'", code)[:2]], normalize_embeddings=True)
    device, *scores = re.findall(r"[\w.-]+", shown)
    assert device == "cpu" and [float(x) for x in scores] == pytest.approx([float(query @ t) for t in texts], abs=1e-4)


def test_a_wrong_self_check_is_refused(node: Node, address: str, tmp_path: Path):
    """On the GPU and without: one weight of the folder has another value."""
    export_model(GOLDEN / "sentence_models/old_mpnet_mean", tmp_path / "web", "f32")
    weights = bytearray((tmp_path / "web/weights.safetensors").read_bytes())
    weights[-4000:] = weights[-8000:-4000]
    (tmp_path / "web/weights.safetensors").write_bytes(weights)
    with served(tmp_path / "web") as url:
        for device in ("webgpu", "cpu"):
            assert "another SHA-256" in node.refusal("load", url=url, options={"device": device})
        about = json.loads((tmp_path / "web/engine.json").read_text(encoding="utf-8"))
        right = {"digests": weight_digests(tmp_path / "web/weights.safetensors")}
        right["digests"]["tokenizer.json"] = about["digests"]["tokenizer.json"]
        (tmp_path / "web/engine.json").write_text(json.dumps(about | right), encoding="utf-8")
        for device in ("webgpu", "cpu"):
            assert "self-check on" in node.refusal("load", url=url, options={"device": device})
        (tmp_path / "web/weights.safetensors").write_bytes(weights[:-4])
        assert "the download was cut" in node.refusal("load", url=url, options={"device": "cpu"})
        (tmp_path / "web/engine.json").write_text(json.dumps(about | {"format": 99}), encoding="utf-8")
        assert "format 99" in node.refusal("load", url=url, options={})


def test_what_cannot_be_loaded_is_refused(node: Node, address: str):
    assert "(404)" in node.refusal("load", url=f"{address}/nowhere", options={})
    assert "device must be" in node.refusal("load", url=f"{address}/built-in", options={"device": "tpu"})
    for name in ("old_mpnet_mean", "built-in"):  # in f32 and in int8
        assert "no f16 matrices" in node.refusal("load", url=f"{address}/{name}", options={"dtype": "f16"})


def test_a_software_driver_is_not_chosen(node: Node, address: str):
    loaded = node.value("load", url=f"{address}/old_mpnet_mean", options={})
    assert loaded["device"] == "cpu" and "software driver" in loaded["reason"] and loaded["adapter"].startswith("CPU")


def test_a_vector_with_nan_names_its_text(node: Node, tmp_path: Path):
    model = tiny_gpt2(tmp_path / "model", change={"wte.weight": with_row(7, 3e38)})
    export_model(model, tmp_path / "web", "f32", layer=1)
    with served(tmp_path / "web") as url:
        node.value("load", url=url, options={"device": "webgpu"})
        assert "text 1 holds NaN or Inf" in node.refusal("call", name="encode", args=[["t1", "t7 t7"]])
