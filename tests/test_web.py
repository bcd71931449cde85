"""What `export web` writes: the graph, its kernels, weights and settings, as the page's engine reads them."""

import hashlib
import json
import math
import shutil
import socket
import struct
import threading
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from encoders import GOLDEN, golden, refusal, tiny_gpt2, with_row
from pages import REPOSITORY
from process import Run
from safetensors.numpy import load_file, save_file
from web_folders import export_model, served

from gpt2wgpu import Encoder
from gpt2wgpu.checkpoint.graph import build_graph
from gpt2wgpu.devices.selftest import case_arrays, forward_cases
from gpt2wgpu.gpu import paper_device, paper_kernels
from gpt2wgpu.graph import memory
from gpt2wgpu.graph.tensor import schedule
from gpt2wgpu.web import export_web
from gpt2wgpu.web.export import CHECK_TEXTS, STATIC
from gpt2wgpu.web.forms import TILE_ROWS, graph_form, page_capacity
from gpt2wgpu.web.grids import Letter, write_expression, write_grid

SIZES = {"T": 333, "B": 7, "G": 15, "M": 70}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(None, tmp_path_factory.mktemp("web") / "built-in")


@pytest.fixture(scope="module")
def in_f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(None, tmp_path_factory.mktemp("web") / "f16", "f16")


@pytest.fixture(scope="module")
def engine(folder: Path) -> dict[str, Any]:
    return read_engine(folder)


def read_engine(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "engine.json").read_text(encoding="utf-8"))


def evaluate(size: Any) -> int:
    """As gridSize in gpu.js."""
    if isinstance(size, list):
        name, a, b = size
        assert name == "cdiv"
        return math.ceil(evaluate(a) / evaluate(b))
    return SIZES.get(size, size)


def test_grids_are_those_of_python():
    for case in forward_cases(half=True):
        t, _ = case_arrays(case)
        letters = {name: size for name, size in t.dims.items() if isinstance(size, str)}
        params = {**t.dims, **t.attrs}
        for _, kernel in paper_kernels(paper_device(), t):
            written = write_grid(kernel.grid(t, params | {name: Letter(size) for name, size in letters.items()}))
            expected = kernel.grid(t, params | {name: SIZES[size] for name, size in letters.items()})
            assert [evaluate(size) for size in written] == [*expected], case


def test_other_arithmetic_in_a_grid_is_refused():
    with pytest.raises(TypeError):
        _ = Letter("T") // 2
    with pytest.raises(TypeError, match="cdiv"):
        write_expression(-Letter("T"))
    with pytest.raises(TypeError, match="cdiv"):
        write_expression(1.5)
    assert write_expression(-(-Letter("T") // 64)) == ["cdiv", "T", 64]


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_the_form_is_the_graph(in_f16: Path, engine: dict[str, Any], dtype: str):
    with Encoder(device="numpy") as encoder:
        output = build_graph(encoder.checkpoint, encoder.layer, dtype, encoder.modules)
    form, tensors = read_engine(in_f16)["forms"][dtype], schedule(output)
    assert dtype == "f16" or form == engine["forms"]["f32"]
    assert form["output"] == len(tensors) - 1
    written: dict[int, int] = {}  # buffer -> the tensor in it
    for i, (t, found) in enumerate(zip(tensors, form["tensors"], strict=True)):
        assert found["shape"] == [*t.shape] and found["dtype"] == t.dtype
        if t.op is None:
            assert found["name"] == t.name and found.get("weight", False) == t.is_weight
            continue
        assert (found["op"], found["attrs"], found["dims"]) == (t.op.name, t.attrs, t.dims)
        assert [tensors[k] for k in found["inputs"]] == [*t.inputs]
        for k in found["inputs"]:  # whoever reads a buffer finds what was meant, and nobody writes where it reads
            if tensors[k].op is not None:
                assert written[form["tensors"][k]["buffer"]] == k != i
                assert form["tensors"][k]["buffer"] != found["buffer"]
        written[found["buffer"]] = i
        kind = form["kinds"][found["kind"]]
        ladder = paper_kernels(paper_device(), t)
        assert [form["sources"][source] for _, source, _ in kind["kernels"]] == [k.source for _, k in ladder]
        assert [*kind["uniforms"]] == [name for name, _ in ladder[0][1].fields]
        assert kind["rows"] == t.dims.get("T", 0) and kind["kernels"][-1][0] is None


def test_buffers_hold_what_shares_them():
    """A buffer that is large enough for the largest batch is so for smaller ones, as it has the size of its largest sharer."""
    with Encoder(device="numpy") as encoder:
        output = build_graph(encoder.checkpoint, encoder.layer, "f32", encoder.modules)
    form = graph_form(output, page_capacity(512))
    places = {t["buffer"] for t in form["tensors"] if "op" in t}
    assert places == {*range(len(places))} and len(places) < 8
    whole = sum(memory.tensor_bytes(t, dict.fromkeys("TBG", TILE_ROWS)) for t in schedule(output) if t.op is not None)
    largest: dict[int, int] = {}
    for t, found in zip(schedule(output), form["tensors"], strict=True):
        if t.op is not None:
            size = memory.tensor_bytes(t, dict.fromkeys("TBG", TILE_ROWS))
            largest[found["buffer"]] = max(largest.get(found["buffer"], 0), size)
    assert sum(largest.values()) < whole / 4


def test_uniform_values_are_bits(engine: dict[str, Any]):
    form = engine["forms"]["f32"]
    norm = next(t for t in form["tensors"] if t.get("op") == "layer_norm")
    uniforms = form["kinds"][norm["kind"]]["uniforms"]
    assert uniforms["T"] == "T" and uniforms["C"] == norm["dims"]["C"]
    assert np.uint32(uniforms["eps"]).view(np.float32) == np.float32(norm["attrs"]["eps"])


def test_a_folder_in_int8_is_exported_in_int8(folder: Path, engine: dict[str, Any]):
    """Without a dtype: the same integers and scales, and the norms, biases and positions in f16, as the folder has them."""
    with Encoder(device="numpy") as encoder:
        stored = load_file(encoder.checkpoint.path / "model.safetensors")
    found = load_file(folder / "weights.safetensors")
    assert engine["dtype"] == "int8" and found.keys() == {name.replace("_scale", " scale") for name in stored}
    for name, array in stored.items():
        np.testing.assert_array_equal(found[name.replace("_scale", " scale")], array, strict=True)
    assert engine["weights"]["bytes"] == (folder / "weights.safetensors").stat().st_size


def test_the_dtype_that_a_folder_is_stored_in(tmp_path: Path):
    """One float matrix among integers would be rounded by int8. Scales that f16 would round keep their dtype."""
    model = tiny_gpt2(tmp_path / "model")
    with Encoder(model, device="numpy", layer=1) as encoder:
        encoder.save_pretrained(tmp_path / "int8", dtype="int8")
    name, scale = "h.0.attn.c_attn.weight", "h.0.attn.c_attn.weight_scale"
    floats, integers = load_file(model / "model.safetensors"), load_file(tmp_path / "int8/model.safetensors")
    wide = integers | {scale: integers[scale].astype(np.float32) * np.float32(1.0001)}
    mixed = {n: a for n, a in integers.items() if n != scale} | {name: floats[name]}
    for kind, tensors in (("wide", wide), ("mixed", mixed)):
        folder = shutil.copytree(tmp_path / "int8", tmp_path / kind)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for source, dtype in ((model, "f16"), (tmp_path / "int8", "int8"), (tmp_path / "wide", "int8"), (tmp_path / "mixed", "f16")):
        found = read_engine(export_model(source, tmp_path / f"web {source.name}", layer=1))
        assert found["dtype"] == dtype
    exported = load_file(tmp_path / "web wide/weights.safetensors")
    np.testing.assert_array_equal(exported[f"{name} scale"], wide[scale], strict=True)
    with Encoder(tmp_path / "wide", device="numpy", layer=1) as encoder:
        vectors = encoder.encode(CHECK_TEXTS[:2])
    checks = read_engine(tmp_path / "web wide")["checks"]
    np.testing.assert_allclose([check["vector"] for check in checks[:2]], vectors, atol=1e-6)


def test_the_weights_in_f16_are_those_of_the_model(in_f16: Path, engine: dict[str, Any]):
    found = load_file(in_f16 / "weights.safetensors")
    with Encoder(device="numpy") as encoder:
        leaves = {
            t.name: t for t in schedule(build_graph(encoder.checkpoint, encoder.layer, "f16", encoder.modules)) if t.is_weight
        }
        assert found.keys() == leaves.keys() == {t["name"] for t in engine["forms"]["f32"]["tensors"] if t.get("weight")}
        for name, t in leaves.items():
            np.testing.assert_array_equal(found[name], encoder.checkpoint.weights(t))
    assert {a.dtype for a in found.values()} == {np.dtype(np.float16)}  # norms, biases and positions, too: f16 holds them exactly


def test_the_self_check_holds_the_vectors_of_encode(engine: dict[str, Any]):
    with Encoder(device="numpy") as encoder:
        vectors = encoder.encode(CHECK_TEXTS)
        lengths = [len(ids) for ids in encoder.tokenizer.encode(CHECK_TEXTS, 512)[0]]
    found = np.array([check["vector"] for check in engine["checks"]])
    np.testing.assert_allclose(found, vectors, atol=2e-6)  # the page has the integers of the built-in's own folder
    assert lengths[0] <= 8 and 3 * sum(lengths) > 128  # so all three kernels of a matmul are tried (tiles.UNMEASURED)


def test_the_built_in_model_is_at_most_20_megabytes(folder: Path):
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 20_000_000


def test_a_digest_of_every_file_that_a_page_reads(folder: Path, engine: dict[str, Any]):
    weights = (folder / "weights.safetensors").read_bytes()
    end = 8 + int.from_bytes(weights[:8], "little")
    parts = {name: array.tobytes() for name, array in load_file(folder / "weights.safetensors").items()}
    parts |= {"tokenizer.json": (folder / "tokenizer.json").read_bytes(), "header of weights.safetensors": weights[8:end]}
    assert engine["digests"] == {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()}


def test_the_hash_is_of_what_vectors_depend_on(in_f16: Path, engine: dict[str, Any], tmp_path: Path):
    again = read_engine(export_model(None, tmp_path / "again"))
    assert again["hash"] == engine["hash"] and len(engine["hash"]) == 64
    other = read_engine(export_model(None, tmp_path / "other", max_seq_length=20))
    wide = read_engine(export_model(None, tmp_path / "wide", "f32"))
    half = read_engine(in_f16)
    assert len({engine["hash"], other["hash"], wide["hash"], half["hash"]}) == 4
    assert [*wide["forms"]] == [*engine["forms"]] == ["f32"] and [*half["forms"]] == ["f32", "f16"]
    assert {a.dtype for a in load_file(tmp_path / "wide/weights.safetensors").values()} == {np.dtype(np.float32)}


def test_a_folder_is_a_package_with_every_file_of_the_engine(folder: Path):
    for file in STATIC.rglob("*"):
        if file.is_file():
            copied = folder / file.relative_to(STATIC)
            assert hashlib.sha256(copied.read_bytes()).digest() == hashlib.sha256(file.read_bytes()).digest()
    package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    assert package["name"] == "built-in-web" and package["type"] == "module"
    for name in (package["types"], *package["exports"]["."].values()):
        assert (folder / name).is_file()
    assert oct((folder / "weights.safetensors").stat().st_mode)[-3:] == oct((folder / "engine.json").stat().st_mode)[-3:]


def test_a_folder_has_the_licences_of_its_code(folder: Path):
    assert (folder / "LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()
    assert "Apache License" in (folder / "vendor/LICENSE").read_text(encoding="utf-8")


def test_settings_of_a_sentence_model(tmp_path: Path):
    """Prompts, special tokens, positions from a pad id, pooling that leaves the prompt out, a truncated vector."""
    model = shutil.copytree(GOLDEN / "sentence_models/new_camembert_cls", tmp_path / "model")
    with Encoder(
        model, device="numpy", prompts={"query": "ask: ", "document": "tell: "}, default_prompt_name="document"
    ) as encoder:
        encoder.truncate_dim = 5
        export_web(encoder, tmp_path / "web", "f32")
        head, tail = encoder.tokenizer.special_ends()
        found = read_engine(tmp_path / "web")
        assert found["text"]["head"] == head and found["text"]["tail"] == tail and head and tail
        assert found["position_pad"] == encoder.checkpoint.config.pad is not None
        assert found["text"]["empty"] is None and found["text"]["vocab"] == encoder.tokenizer.vocab
        assert (found["dimensions"], found["width"]) == (5, encoder.width)
    assert found["query_prompt"] == "ask: " and found["document_prompt"] == found["default_prompt"] == "tell: "
    assert found["model"] == "model" and str(tmp_path) not in json.dumps(found)


def test_an_empty_text_has_the_id_that_python_gives_it(tmp_path: Path):
    found = read_engine(export_model(golden("gpt2_one_layer", tmp_path), tmp_path / "web"))
    assert found["text"]["head"] == found["text"]["tail"] == [] and found["text"]["empty"] == 0


def test_long_texts_have_room():
    assert page_capacity(512)["T"] == 2048 and page_capacity(8192)["T"] == 8192


def test_nothing_is_written_over_a_folder(tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with Encoder(golden("gpt2_one_layer", tmp_path), device="numpy") as encoder:
        assert "is not an empty folder" in refusal(lambda: export_web(encoder, tmp_path / "full"))
        assert "make it first" in refusal(lambda: export_web(encoder, tmp_path / "no/where"))
        assert "export to another place" in refusal(lambda: export_web(encoder, "/dev/fd/web"))
        assert "one of f16, f32, int8, not" in refusal(lambda: export_web(encoder, tmp_path / "new", "int4"))
        assert "one layer" in refusal(lambda: export_web(encoder.with_layers([0, 1]), tmp_path / "new"))
    assert {p.name for p in tmp_path.iterdir()} == {"full", "gpt2_one_layer"}


def test_a_tokenizer_that_json_cannot_hold_is_refused(tmp_path: Path):
    model = golden("gpt2_one_layer", tmp_path)
    (model / "tokenizer_config.json").write_text('{"eos_token": "t0", "split_special_tokens": true}', encoding="utf-8")
    with Encoder(model, device="numpy") as encoder:
        assert "split_special_tokens" in refusal(lambda: export_web(encoder, tmp_path / "web"))
    assert not (tmp_path / "web").exists()


def test_values_that_overflow_f16_are_refused(tmp_path: Path):
    model = tiny_gpt2(tmp_path / "model", change={"h.0.mlp.c_fc.weight": with_row(0, 1e6)})
    with Encoder(model, device="numpy", layer=1) as encoder:
        assert "largest in f16" in refusal(lambda: export_web(encoder, tmp_path / "web"))
        export_web(encoder, tmp_path / "web", "f32")


def test_the_command(run: Run, tmp_path: Path):
    code, out, err = run("export", "web", tmp_path / "page", "--model", golden("gpt2_one_layer", tmp_path), "--dtype", "f32")
    assert code == 0 and err == "" and out.startswith(f"{tmp_path / 'page'}: ") and out.rstrip().endswith("MB")
    assert read_engine(tmp_path / "page")["dtype"] == "f32"
    code, _, err = run("export", "web", tmp_path / "page")
    assert code == 1 and "is not an empty folder" in err
    code, _, err = run("export", "web", tmp_path / "more", "--port", 1)
    assert code == 2 and "--serve" in err
    code, _, err = run("export", "web")
    assert code == 2 and "--serve" in err


def test_a_served_folder_has_the_types_that_browsers_ask_for(folder: Path):
    types = {"engine.js": "text/javascript", "engine.json": "application/json", "weights.safetensors": "application/octet-stream"}
    with served(folder) as address:
        for name, expected in types.items():
            with urlopen(f"{address}/{name}") as answer:
                assert answer.headers["content-type"] == expected
                assert len(answer.read()) == (folder / name).stat().st_size


def test_a_port_that_is_taken(folder: Path, tmp_path: Path, run: Run):
    with served(folder) as address:
        port = int(address.rpartition(":")[2])
        code, _, err = run("export", "web", tmp_path / "new", "--serve", "--port", port)
    assert not (tmp_path / "new").exists()  # it is found before the work
    assert code == 1 and f"port {port} cannot be used" in err and "--port" in err


def test_a_client_that_goes_away_is_no_error(folder: Path, capsys: pytest.CaptureFixture[str]):
    before = {*threading.enumerate()}
    with served(folder) as address:
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
            client.sendall(b"GET /weights.safetensors HTTP/1.0\r\n\r\n")
            assert client.recv(100)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
        for thread in {*threading.enumerate()} - before:
            if "process_request" in thread.name:
                thread.join()
    assert capsys.readouterr().err == ""
