"""`profile` and `tune`: sums against counts made by hand; and calls of wgpu-native that wgpu-py lacks."""

import dataclasses
import json
import time
from collections.abc import Callable

import numpy as np
import pytest
import wgpu

from gpt2wgpu import Encoder, UserError, checkpoint, hub
from gpt2wgpu.cli import main
from gpt2wgpu.diagnose.profile import Profile, ProfileLine, count_bytes, count_flops, profile_model, tune_model
from gpt2wgpu.gpu import Clock, Device, GPUProgram, MatrixUnits, Measurement, Tile, measure_ceilings
from gpt2wgpu.gpu.device_cache import cache_file
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Tensor

BUILT_IN = checkpoint.load_checkpoint(hub.BUILT_IN).config
C, INNER, VOCAB, CONTEXT = BUILT_IN.width, BUILT_IN.inner, BUILT_IN.vocab, BUILT_IN.context


@pytest.fixture
def encoder(production_device: Device, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Encoder]:
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (production_device, "the tests'"))
    return lambda **options: Encoder(device="gpu", layer=1, **options)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.diagnose.profile.MEASURED_SECONDS", 0.05)


def test_every_step_is_counted_once(encoder: Callable[..., Encoder], quick: None):
    model = encoder()
    p = profile_model(model, texts=3, tokens=10)
    assert sum(line.calls for line in p.lines) == len(model.engine.program.steps)
    assert [line.seconds for line in p.lines] == sorted((line.seconds for line in p.lines), reverse=True)
    assert all(line.seconds >= 0 and line.bytes > 0 for line in p.lines)
    linears = {line.shape: line for line in p.lines if line.op.startswith("linear")}
    activation = model.checkpoint.config.activation
    assert {*linears} == {
        f"T=30 K={C} N={3 * C}",
        f"T=30 K={C} N={C}",
        f"T=30 K={C} N={INNER} {activation}",
        f"T=30 K={INNER} N={C}",
    }
    line = linears[f"T=30 K={INNER} N={C}"]
    assert line.flops == 2 * 30 * INNER * C
    assert line.bytes == 4 * (30 * INNER + INNER * C + C + 30 * C + 30 * C)  # x, weight, bias, residual, output
    assert line.tile.count("x") == 1
    embed = next(line for line in p.lines if line.op == "embed")
    assert embed.bytes == 4 * (2 * 30 + (30 + 10 + 30) * C)  # ids, positions; rows of both tables, output


def test_a_row_of_a_table_counts_once_by_hand():
    """7 tokens of 4 ids, at 5 positions."""
    ids, positions = Tensor(("T",), "u32", "ids"), Tensor(("T",), "u32", "positions")
    batch = {"ids": np.array([9, 9, 8, 7, 6, 9, 8]), "positions": np.array([0, 1, 2, 3, 4, 0, 1])}
    sizes = {"T": 7}
    wte, wpe = Tensor((50, 12), "f16", "wte"), Tensor((20, 12), "f16", "wpe")
    assert count_bytes(ops.embed(ids, positions, wte, wpe), sizes, batch) == 4 * 2 * 7 + 4 * 12 * 2 + 5 * 12 * 2 + 7 * 12 * 4
    stored, scale = Tensor((50, 32), "i8", "wte"), Tensor((50, 1), "f32", "scale")
    t = ops.embed_int8(ids, positions, stored, scale, Tensor((20, 32), "f32", "wpe"))
    assert count_bytes(t, sizes, batch) == 4 * 2 * 7 + 4 * (32 + 4) + 5 * 32 * 4 + 7 * 32 * 4
    qkv, table = Tensor(("T", 24), name="qkv"), Tensor((20, 8), name="table")
    assert count_bytes(ops.rotary(qkv, positions, table, heads=2), sizes, batch) == 4 * (7 * 24 + 7 + 5 * 8 + 7 * 24)
    t = ops.norm_rotary(qkv, Tensor((16,), name="weight"), positions, table)
    assert count_bytes(t, sizes, batch) == 4 * (7 * 24 + 16 + 7 + 5 * 8 + 7 * 24)


def test_work_of_attention_by_hand():
    """5 tokens: 15 pairs of query and key where the future is hidden, 25 where not; twice 2 C operations each."""
    qkv, spans, tiles = Tensor(("T", 24), name="qkv"), Tensor(("B", 2), "u32", "spans"), Tensor(("G", 2), "u32", "tiles")
    sizes, lengths = {"T": 7, "B": 2, "G": 2}, np.array([5, 2])
    for causal, pairs in ((True, 15 + 3), (False, 25 + 4)):
        t = ops.attention(qkv, spans, tiles, head_size=4, scale=1.0, causal=causal)
        assert count_flops(t, sizes, lengths) == 4 * pairs * 8
        assert count_bytes(t, sizes, {}) == 4 * (7 * 24 + 2 * 2 + 2 * 2 + 7 * 8)


def test_work_of_attention_in_a_window_by_hand():
    """5 tokens that see 2 each way: 1 + 2 + 3 + 3 + 3 pairs where the future is hidden; four heads share their keys."""
    qkv, spans, tiles = Tensor(("T", 24), name="qkv"), Tensor(("B", 2), "u32", "spans"), Tensor(("G", 2), "u32", "tiles")
    sizes, lengths = {"T": 7, "B": 2, "G": 2}, np.array([5, 2])
    for causal, pairs in ((True, 12 + 3), (False, 19 + 4)):
        t = ops.attention(qkv, spans, tiles, head_size=4, scale=1.0, causal=causal, window=2, kv_heads=1)
        assert count_flops(t, sizes, lengths) == 4 * pairs * 16


def test_idle_share():
    assert Profile([], 0.004, 0.003, None).idle == 0.25  # type: ignore[arg-type]
    assert Profile([], 0.004, 0.0041, None).idle == 0  # type: ignore[arg-type]


def test_steps_take_about_what_the_batch_takes(encoder: Callable[..., Encoder], quick: None):
    p = profile_model(encoder(), texts=16, tokens=32)
    assert 0.3 < sum(line.seconds for line in p.lines) / p.busy < 3  # the machine does other things too
    assert p.busy > 0
    assert 0 <= p.idle < 1
    best = max(line.gflops or 0 for line in p.lines)
    assert 0 < best < 1.5 * p.ceilings.gflops


def test_what_does_not_fit_is_refused(encoder: Callable[..., Encoder]):
    model = encoder(max_tokens=100)
    with pytest.raises(UserError, match=r"^tokens must be a whole number from 1 to 512, not 513"):
        profile_model(model, 1, 513)
    with pytest.raises(UserError, match=r"^texts must be a whole number from 1 to 10, not 11"):
        profile_model(model, 11, 10)
    model.engine.place = dataclasses.replace(model.engine.place, device=None)
    with pytest.raises(UserError, match="has no timestamp-query: it cannot be profiled"):
        profile_model(model, 1, 1)


def test_results_do_not_depend_on_the_clock(device: Device):
    t = ops.l2_normalize(ops.l2_normalize(Tensor(("B", 8), name="x")))
    program = GPUProgram(device, t, lambda _: None, {"B": 3})
    batch = {"x": np.random.default_rng(0).standard_normal((3, 8), dtype=np.float32)}
    expected = program.run(batch)
    for passes in (1, 2):
        clock = Clock(device, passes)
        np.testing.assert_array_equal(program.submit(batch, clock)(), expected)
        assert clock.seconds().shape == (passes,)
        assert (clock.seconds() > 0).all()


def test_ceilings(production_device: Device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.gpu.ceilings.COPIED_BY_SOFTWARE", 1 << 20)
    monkeypatch.setattr("gpt2wgpu.gpu.ceilings.LONG_ENOUGH", 0.001)
    found = measure_ceilings(production_device)
    assert 0.1 < found.gflops < 1e6
    assert 0.1 < found.gbps < 1e5


def test_a_clock_that_is_coarse(production_device: Device, encoder: Callable[..., Encoder], quick: None, monkeypatch):
    """A time of zero gives no rate, and a clock that only ever shows zero is refused."""
    line = ProfileLine("embed", "T=1", "", False, 1, 0.0, 10.0, 10.0)
    assert line.gflops is None and line.gbps is None
    monkeypatch.setattr("gpt2wgpu.gpu.ceilings.COPIED_BY_SOFTWARE", 1 << 16)
    monkeypatch.setattr(Clock, "seconds", lambda self: np.zeros(self.passes))
    with pytest.raises(UserError, match=r"^the clock of .* stands still: it cannot be measured$"):
        measure_ceilings(production_device)
    with pytest.raises(UserError, match=r"^the clock of .* is too coarse for so small a batch: profile more texts or tokens$"):
        profile_model(encoder(), 1, 8)


def test_a_time_of_zero_is_measured_again(production_device: Device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.gpu.ceilings.COPIED_BY_SOFTWARE", 1 << 20)
    monkeypatch.setattr("gpt2wgpu.gpu.ceilings.LONG_ENOUGH", 0.001)
    original, asked = Clock.seconds, []

    def every_second_time(self: Clock) -> np.ndarray:
        asked.append(original(self))
        return asked[-1] * (1 - len(asked) % 2)

    monkeypatch.setattr(Clock, "seconds", every_second_time)
    found = measure_ceilings(production_device)
    assert 0.1 < found.gflops < 1e6
    assert 0.1 < found.gbps < 1e5


# --- the command


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["profile", "--layer", "1", *args])
    assert not caught.value.code
    return capsys.readouterr().out


def test_the_command(encoder: Callable[..., Encoder], capsys: pytest.CaptureFixture[str], quick: None):
    lines = printed(capsys, "--texts", "2", "--tokens", "5").splitlines()
    assert lines[0].endswith("float32, built-in model, layer 1: 2 texts of 5 tokens")
    assert lines[2].split() == ["op", "shape", "tile", "calls", "ms", "share", "GFLOP/s", "GB/s"]
    assert lines[-2].startswith("at best: ")
    assert lines[-1].startswith("a batch: ")
    report = json.loads(printed(capsys, "--texts", "2", "--tokens", "5", "--json"))
    assert len(report["ops"]) == len(lines) - 6
    assert sum(o["share"] for o in report["ops"]) == pytest.approx(1)
    assert 0 <= report["idle"] < 1
    assert report["ceilings"]["gflops"] > 0


def test_a_device_without_a_clock_says_so_in_one_line(device: Device, monkeypatch, capsys: pytest.CaptureFixture[str]):
    adapter = dataclasses.replace(device.adapter, features=device.adapter.features - {"timestamp-query"})
    blind = dataclasses.replace(device, adapter=adapter, granted=device.granted - {"timestamp-query"})
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (blind, ""))
    assert printed(capsys) == f"{adapter} has no timestamp-query: its kernels cannot be timed\n"


def test_numpy_says_so_in_one_line(capsys: pytest.CaptureFixture[str]):
    expected = "profile measures a GPU, and this is numpy (--device gpu takes a software driver)\n"
    assert printed(capsys, "--device", "numpy") == expected


# --- native calls


def chain(device: Device, count: int) -> tuple[GPUProgram, dict[str, np.ndarray]]:
    weights = {"w": np.eye(512, dtype=np.float32), "b": np.zeros(512, np.float32)}
    t = Tensor(("T", 512), name="x")
    for _ in range(count):
        t = ops.linear(t, Tensor((512, 512), name="w"), Tensor((512,), name="b"))
    batch = {"x": np.random.default_rng(0).standard_normal((256, 512), dtype=np.float32)}
    return GPUProgram(device, t, lambda w: weights[w.name], {"T": 256}), batch


def test_submit_does_not_wait_for_the_device(production_device: Device):
    program, batch = chain(production_device, 20)
    expected = program.run(batch)
    start = time.perf_counter()
    wait = program.submit(batch)
    submitted = time.perf_counter()
    np.testing.assert_array_equal(wait(), expected)
    assert submitted - start < 0.5 * (time.perf_counter() - start)


def test_batches_under_way_have_readbacks_of_their_own(production_device: Device):
    program, batch = chain(production_device, 2)
    waits = [program.submit({"x": batch["x"][:n]}) for n in (1, 256, 7)]
    assert program.readbacks == []
    for n, wait in zip((1, 256, 7), waits, strict=True):
        np.testing.assert_array_equal(wait(), batch["x"][:n])
    assert len(program.readbacks) == 3


@pytest.mark.parametrize("checked", [True, False])
def test_a_dispatch_that_is_not_allowed_is_an_error_with_wgpus_text(checked: bool, request: pytest.FixtureRequest):
    """`record_dispatches` has no check of its own; the encoder's finish() raises."""
    device = request.getfixturevalue("device" if checked else "production_device")
    program, _ = chain(device, 1)
    pipeline, bind_group, _ = program._dispatch_list({"T": 1}, program.steps)[0]
    encoder = device.raw.create_command_encoder()
    compute = encoder.begin_compute_pass()
    device.library.record_dispatches(compute, [(pipeline, bind_group, (1 << 20, 1, 1))])
    compute.end()
    with pytest.raises(wgpu.GPUError, match="dispatch group size"):
        encoder.finish()


def test_a_layer_costs_no_new_kind_of_step(device: Device):
    """Grids are worked out once for each kind."""
    program, _ = chain(device, 5)
    assert len(program.steps) == 5
    assert {step.kind for step in program.steps} == {0}


# --- tune


def test_tune_takes_the_matmuls_of_the_model(device: Device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.diagnose.profile.find_device", lambda wanted: (device, "the tests'"))
    monkeypatch.setattr("gpt2wgpu.diagnose.profile.tune_matmuls", lambda device, found: found)
    assert tune_model(None, "gpu", "auto", 1) == (
        device,
        [(384, 1152, "f32"), (384, 1024, "f32"), (1024, 384, "f32"), (384, 384, "f32")],
    )
    assert tune_model(None, "gpu", "auto", 0) == (device, [])
    if device.has_f16:
        assert tune_model(None, "gpu", "float16", 1)[1] == [
            (384, 1152, "f16"),
            (384, 1024, "f16"),
            (1024, 384, "f16"),
            (384, 384, "f16"),
        ]


def test_tune_takes_the_kernel_that_an_encoder_would(device: Device, monkeypatch: pytest.MonkeyPatch):
    with_units = dataclasses.replace(device, matrix_units=MatrixUnits(16, 32))
    monkeypatch.setattr("gpt2wgpu.diagnose.profile.find_device", lambda wanted: (device, "the tests'"))
    monkeypatch.setattr("gpt2wgpu.diagnose.profile.find_matmul", lambda device, dtype: (with_units, "matmul_cooperative"))
    monkeypatch.setattr("gpt2wgpu.diagnose.profile.tune_matmuls", lambda device, found: [device])
    opened, tuned = tune_model(None, "gpu", "auto", 1)
    assert opened is with_units and tuned == [with_units]


def test_tune_needs_a_gpu():
    with pytest.raises(UserError, match=r"^tune measures kernels of a GPU: numpy"):
        tune_model(None, "numpy", "auto", None)


def test_the_command_prints_a_table(device: Device, monkeypatch, capsys: pytest.CaptureFixture[str]):
    found = [Measurement((768, 3072, "f16"), r, t, s) for r, t, s in ((24, Tile(8, 128, 8), 1.0), (24, Tile(16, 128, 16), 0.01))]
    monkeypatch.setattr("gpt2wgpu.diagnose.profile.tune_model", lambda **_: (device, found))
    with pytest.raises(SystemExit) as caught:
        main(["tune"])
    assert not caught.value.code
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["768", "x", "3072", "f16", "24"]
    assert lines[3].split() == ["8x128/8", "0.1"]
    assert lines[4].split() == ["16x128/16", "11.3*"]
    assert lines[-1] == f"cache: {cache_file('tiles')}"
    with pytest.raises(SystemExit):
        main(["tune", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["measured"][1] == {
        "k": 768,
        "n": 3072,
        "dtype": "f16",
        "rows": 24,
        "tile": "16x128/16",
        "gflops": found[1].gflops,
    }
