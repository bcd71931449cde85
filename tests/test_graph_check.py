"""The self-test at start-up: the kernels of the graph that is loaded agree with numpy; a second start tries nothing."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import GOLDEN, tiny_gpt2

from gpt2wgpu import Encoder, UserError, checkpoint
from gpt2wgpu.checkpoint.graph import build_graph
from gpt2wgpu.devices.graph_check import check_graph, graph_case, graph_kernels, small_cases
from gpt2wgpu.gpu import Device, adapter_key, default_kernel, kernels
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Tensor, schedule
from gpt2wgpu.train import start
from gpt2wgpu.train.gradients import TrainGraph
from gpt2wgpu.train.selftest import check_train_graph, given_cases
from gpt2wgpu.vectors.pairwise import all_pairs


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which nothing is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gpt2wgpu" / "selftest.json"


def fresh(device: Device) -> Device:
    """The same device as a process finds it that starts now."""
    return replace(device, kernels={}, tuned={}, agreed={})


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels compiled so far."""
    found: list[str] = []
    original = kernels.compile_pipeline
    monkeypatch.setattr(kernels, "compile_pipeline", lambda d, name, *a, **k: found.append(name) or original(d, name, *a, **k))
    return found


def model_graph(name: str, half: bool = False, quantized: bool = False) -> Tensor:
    c = checkpoint.load_checkpoint(GOLDEN / name)
    return build_graph(c, c.config.layers, "f16" if half else "f32", c.modules, int8=quantized)


MODELS = [  # of every family
    f"models/{name}"
    for name in (
        *("bert_relu_odd", "distilbert", "gpt2_25_heads_f16", "gpt_neo_local_f16", "modernbert", "mpnet"),
        *("nomic_bert", "qwen3", "qwen3_window", "roberta_pad_5", "xlm_roberta"),
    )
]


# --- which kernels are tried


@pytest.mark.parametrize("kind", ["CPU", "DiscreteGPU"])
def test_a_first_start_compiles_only_the_models_own_kernels(
    kind: str, device: Device, compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each once. A second start compiles no others; of a matmul only the tile that its batches need."""
    opened = replace(fresh(device), adapter=replace(device.adapter, kind=kind))
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (fresh(opened), ""))
    folder, counts = tiny_gpt2(tmp_path / "m"), []
    for trial in ("first", "second"):
        compiled.clear()
        model = Encoder(folder, device="gpu", dtype="float32")
        assert model.encode(["a", "b"]).shape[0] == 2, trial
        counts.append(sorted(compiled))
    own = {k for step in model.engine.program.steps for _, k in step.kernels}
    assert counts[0] == sorted(k.name for k in own)
    assert not Counter(counts[1]) - Counter(counts[0]) and set(counts[1]) == set(counts[0])
    monkeypatch.setattr("gpt2wgpu.devices.graph_check.check_graph", lambda *_: None)
    compiled.clear()
    Encoder(folder, device="gpu", dtype="float32").encode(["a", "b"])
    assert sorted(compiled) == counts[1], "the self-test compiles nothing of its own"


def test_every_kernel_of_a_graph_is_tried_by_its_source(device_form: Device):
    """A small case runs the very kernel that the graph gets, with its attributes and NaN, on sizes that no tile divides."""
    for name in MODELS:
        for half, quantized in ((False, False), (True, False), (False, True)):
            if half and not device_form.has_f16:
                continue
            tensors = schedule(model_graph(name, half, quantized))
            tried = graph_kernels(device_form, tensors)
            ops_of = [t for t in tensors if t.op is not None]
            own = {default_kernel(device_form, t, n).source for t in ops_of for n in (1, 8, 9, 64, 65, 128, 129, 512, 4000)}
            assert {default_kernel(device_form, t, rows).source for t, rows in tried.values()} == own
            for t, rows in tried.values():
                case = graph_case(device_form, t, rows)
                assert default_kernel(device_form, case.output(), rows) is default_kernel(device_form, t, rows)
                assert t.attrs.get("window") or sum(case.lengths) == rows
                assert case.nan and case.attrs == t.attrs and case.types == t.types


def large_linear(k: int, n: int, **attrs: Any) -> Tensor:
    return ops.linear(Tensor(("T", k), name="x"), Tensor((k, n), name="weight"), Tensor((n,), name="bias"), **attrs)


def test_sizes_are_small_and_awkward(device: Device):
    assert graph_case(device, large_linear(768, 3072)).sizes == {"K": 68, "N": 132}
    assert graph_case(device, large_linear(771, 3073)).sizes == {"K": 67, "N": 131}
    assert graph_case(device, large_linear(8, 12)).sizes == {"K": 8, "N": 12}
    table = ops.embed(
        *(Tensor(("T",), "u32", name) for name in ("ids", "positions")),
        Tensor((50257, 768), name="wte"),
        Tensor((1024, 768), name="wpe"),
    )
    assert graph_case(device, table).sizes == {"V": 77, "C": 100, "S": 40}
    rotated = ops.rotary(
        Tensor(("T", 4096), name="qkv"), Tensor(("T",), "u32", "positions"), Tensor((32768, 128), name="table"), heads=24
    )
    assert graph_case(device, rotated).sizes == {"N": 4096, "S": 40, "D": 128}
    qwen = ops.norm_rotary(
        Tensor(("T", 4096), name="qkv"),
        *(Tensor((3072,), name="weight"), Tensor(("T",), "u32", "positions"), Tensor((32768, 128), name="table")),
    )
    assert graph_case(device, qwen).sizes == {"N": 4096, "K": 3072, "S": 40, "D": 128}


def test_a_kernel_that_depends_on_its_size_is_tried_with_it(device: Device, monkeypatch: pytest.MonkeyPatch):
    """As one would that keeps a whole row in registers: the first case that gives the same source is taken."""
    right = kernels.specialise_source
    for condition, sizes in (
        ("K % 64", {"K": 128, "N": 192}),
        ("K > 700", {"K": 768, "N": 132}),
        ("N > 700", {"K": 768, "N": 3072}),
    ):
        monkeypatch.setattr(
            kernels,
            "specialise_source",
            lambda d, t, tile=None, c=condition: right(d, t, tile) + f"\n// {eval(c, {}, dict(t.dims))}",
        )
        assert graph_case(device, large_linear(768, 3072)).sizes == sizes


@pytest.mark.parametrize("name", ["models/qwen3_window", "models/modernbert", "models/mpnet"])
def test_models_of_other_families_pass(name: str, device: Device, cache: Path):
    """Norms and rotary positions of heads, windows that hide keys, shared keys, gated units, biases by distance."""
    check_graph(fresh(device), schedule(model_graph(name)))
    [entries] = json.loads(cache.read_text())["adapters"].values()
    assert len(entries) >= 7


def test_distinct_kernels_are_tried_once(device: Device, compiled: list[str]):
    tensors = [large_linear(768, 3072), large_linear(3072, 768), large_linear(768, 768, activation="relu")]
    assert len(graph_kernels(device, tensors)) == 2
    norms = [ops.layer_norm(Tensor(("T", 8)), Tensor((8,)), Tensor((8,)), eps=eps) for eps in (1e-5, 1e-12, 1e-5)]
    assert len(graph_kernels(device, norms)) == 2  # the same kernel, which gets another number
    windows = [
        ops.attention(
            *(Tensor(("T", 30), name="qkv"), Tensor(("B", 2), "u32", "spans"), Tensor(("G", 2), "u32", "tiles")),
            head_size=10,
            scale=0.3,
            causal=causal,
            window=window,
        )
        for causal in (True, False)
        for window in (0, 20)
    ]
    assert len(graph_kernels(device, windows)) == 4
    check_graph(fresh(device), windows)
    assert compiled == ["attention"] * 4


def test_every_case_at_the_graphs_own_sizes_is_the_last(device: Device):
    *_, last = small_cases(large_linear(768, 3072), (1, 70, 17))
    assert last.sizes == {"K": 768, "N": 3072}


# --- the verdict is kept


def test_what_agreed_is_kept_by_adapter_driver_and_version(device: Device, cache: Path, compiled: list[str]):
    tensors = [large_linear(68, 132), ops.l2_normalize(Tensor(("B", 8), name="x"))]
    check_graph(fresh(device), tensors)
    assert sorted(compiled) == ["l2_normalize", "linear"]
    kept = json.loads(cache.read_text())
    [(key, entries)] = kept["adapters"].items()
    for part in (device.adapter.name, device.adapter.driver, device.adapter.backend, "wgpu-native 29"):
        assert part in key
    assert len(entries) == 2 and all(re.fullmatch(r"[0-9a-f]{20}", digest) for digest in entries)
    assert any(re.match(r"linear \(T=88 K=68 N=132 .*NaN\) error \d", value) for value in entries.values())
    compiled.clear()
    check_graph(fresh(device), tensors)
    assert compiled == []
    other = fresh(device)
    check_graph(replace(other, adapter=replace(device.adapter, driver="another 1.2")), tensors)
    assert sorted(compiled) == ["l2_normalize", "linear"]
    compiled.clear()
    cache.write_text(json.dumps({**kept, "version": "0.0.0"}))
    check_graph(fresh(device), tensors)
    assert sorted(compiled) == ["l2_normalize", "linear"]


def test_an_edited_shader_is_tried_again(device: Device, wrong: Callable[..., None], compiled: list[str]):
    check_graph(fresh(device), [large_linear(68, 132)])
    wrong("linear", "bias[", " bias[")
    check_graph(fresh(device), [large_linear(68, 132)])
    assert compiled == ["linear", "linear"]


def test_a_driver_without_a_version_goes_with_the_system(device: Device):
    """Metal's is a part of macOS."""
    import platform

    for driver in ("", "Apple"):
        assert platform.release() in adapter_key(replace(device.adapter, driver=driver))
    assert platform.release() not in adapter_key(replace(device.adapter, driver="Mesa 25.0.7"))


def test_a_folder_that_cannot_be_written_costs_a_test_each_time(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: list[str], capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        check_graph(fresh(device), [large_linear(68, 132)])
        [said] = capsys.readouterr().err.splitlines()
        assert said.startswith(f"what was tested of {device.adapter.name} cannot be kept and is tested again next time (")
    assert compiled == ["linear", "linear"]


# --- wrong kernels

WRONG = [
    ("layer_norm", "+ p.eps", "+ 1.5 * p.eps + 0.001"),
    ("layer_norm", "weight[c], bias[c]", "weight[c], bias[0]"),
    ("row_sum", "i < PARTS; i++", "i < PARTS - 1u; i++"),
    ("attention_keys", "query + 1u, CAUSAL", "query + 2u, CAUSAL"),
    ("softmax_attention", "total[e] *= fade;", ""),
    ("embed", "wpe[positions[t]", "wpe[min(positions[t], 3u)"),
    ("linear_add", "residual[at] +", "0.99 * residual[at] +"),
    ("scalar_matmul", "k < p.K", "k < p.K - 1u"),
    ("l2_normalize", "/ norm", ""),
    ("activation", "if (is_nan(x)) { return x; }", "if (is_nan(x)) { return 0.0; }"),
    ("pool", "b, not_numbers(b)), a, not_numbers(a))", "a, not_numbers(b)), b, not_numbers(a))"),
]


def small_model(odd: bool) -> list[Tensor]:
    """All ops of a GPT-2."""
    c, n = (15, 21) if odd else (32, 64)
    spans, tiles = Tensor(("B", 2), "u32", "spans"), Tensor(("G", 2), "u32", "tiles")
    x = ops.embed(Tensor(("T",), "u32", "ids"), Tensor(("T",), "u32", "positions"), Tensor((9, c)), Tensor((40, c)))
    h = ops.layer_norm(x, Tensor((c,)), Tensor((c,)))
    h = ops.attention(ops.linear(h, Tensor((c, 3 * c)), Tensor((3 * c,))), spans, tiles, head_size=c, scale=0.3, causal=True)
    h = ops.linear(h, Tensor((c, n)), Tensor((n,)), activation="relu")
    h = ops.linear_add(h, Tensor((n, c)), Tensor((c,)), x)
    return schedule(ops.l2_normalize(ops.pool(h, spans, Tensor(("B",), "u32", "skip"), mode="max")))


@pytest.mark.parametrize(("shader", "old", "new"), WRONG)
def test_a_wrong_kernel_is_refused(shader: str, old: str, new: str, device: Device, wrong: Callable[..., None], cache: Path):
    wrong(shader, old, new)
    with pytest.raises(UserError, match=r": (\w+) \(.*\) is wrong: error .*, tolerance .*device='numpy'") as caught:
        check_graph(fresh(device), small_model(odd="scalar" in shader))
    assert "\n" not in str(caught.value) and str(device.adapter) in str(caught.value)
    assert not cache.exists()


def test_a_right_device_passes(device_form: Device):
    for odd in (False, True):
        check_graph(fresh(device_form), small_model(odd))


def test_a_kernel_that_does_not_compile_is_refused(device: Device, wrong: Callable[..., None]):
    wrong("layer_norm", "let mean", "nonsense")
    with pytest.raises(UserError, match=r": layer_norm \(.*\) does not run: Shader .*; update its driver, or use device='numpy'"):
        check_graph(fresh(device), small_model(odd=False))


def test_only_the_graphs_own_kernels_count(device: Device, wrong: Callable[..., None]):
    wrong("attention", "-> f32 { return score; }", "-> nonsense { return score; }")
    wrong("linear_add_int8", "Columns4(weight[k * (p.N / 4u) + n4]", "Columns4(weight[k * (p.N / 4u)]")
    check_graph(fresh(device), [large_linear(68, 132), ops.l2_normalize(Tensor(("B", 8), name="x"))])
    x, weight = Tensor(("T", 68), name="x"), Tensor((68, 132), name="weight")
    q, scale = Tensor((68, 132), "i8", "q"), Tensor((2, 132), name="scale")
    check_graph(fresh(device), [ops.linear_add(x, weight, Tensor((132,)), Tensor(("T", 132)))])
    with pytest.raises(UserError, match=r": linear_add_int8 .* is wrong"):
        check_graph(fresh(device), [ops.linear_add_int8(x, q, scale, Tensor((132,)), Tensor(("T", 132)))])


# --- who asks


def test_an_encoder_is_refused_before_it_computes(device: Device, wrong: Callable[..., None], monkeypatch, tmp_path: Path):
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (fresh(device), ""))
    model = Encoder(tiny_gpt2(tmp_path / "m"), device="gpu", dtype="float32")
    wrong("layer_norm", "weight[c], bias[c]", "weight[c], bias[0]")
    with pytest.raises(UserError, match=r": layer_norm \("):
        Encoder(tiny_gpt2(tmp_path / "m"), device="gpu", dtype="float32")
    model.close()


def test_similarities_are_tried_too(device: Device, wrong: Callable[..., None]):
    a = np.eye(8, dtype=np.float32)
    np.testing.assert_allclose(all_pairs(a, a, "dot", fresh(device)), a)
    wrong("l2_normalize", "/ norm", "")
    with pytest.raises(UserError, match=r": l2_normalize \("):
        all_pairs(a, a, "cosine", fresh(device))


def train_graph(name: str) -> TrainGraph:
    return TrainGraph(model_graph(name), dropout=0.1)


@pytest.mark.parametrize("name", ["models/bert_relu_odd", "models/roberta_pad_5"])
def test_training_tries_its_kernels_once(name: str, device: Device, compiled: list[str]):
    graph = train_graph(name)
    check_train_graph(fresh(device), graph)
    tried = {t.op.name for t in (*graph.forward, *graph.backward) if t.op is not None}
    assert tried <= set(compiled)
    compiled.clear()
    check_train_graph(fresh(device), graph)
    assert compiled == []


@pytest.mark.parametrize(
    ("shader", "old", "new"),
    [("scatter_rows", "dtable[at] = sum", "dtable[at] = 1.01 * sum"), ("adamw", "* p.decay", "")],
)
def test_training_with_a_wrong_kernel_is_refused(shader: str, old: str, new: str, device: Device, wrong: Callable[..., None]):
    wrong(shader, old, new)
    with pytest.raises(UserError, match=rf": ({shader}|training step) \(.* is wrong"):
        check_train_graph(fresh(device), train_graph("models/roberta_pad_5"))


def test_the_start_of_training_asks(device: Device, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    monkeypatch.setattr("gpt2wgpu.train.selftest.check_train_graph", lambda d, graph: asked.append(graph))
    monkeypatch.setattr(start, "find_device", lambda name: (device, ""))
    graph = train_graph("models/roberta_pad_5")
    c = checkpoint.load_checkpoint(GOLDEN / "models/roberta_pad_5")
    start.open_program("gpu", graph, c.weights, 16, 64)
    assert asked == [graph]
    assert given_cases(graph.forward[-1]) == []
