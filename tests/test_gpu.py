"""gpu.GPUProgram: what it refuses, and that nothing left in its buffers reaches a result."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import wgpu
from forms import has_rare_activation

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.devices.selftest import Case, case_arrays, forward_cases
from gpt2wgpu.gpu import Device, GPUProgram, fitting_tokens, kernels
from gpt2wgpu.graph import ops, reference
from gpt2wgpu.graph.tensor import Array, Tensor


class Poisoned(GPUProgram):
    """A program whose result buffers can be filled with NaN."""

    def poison(self) -> None:
        """NaN in every result buffer, in f32 and in f16."""
        for buffer in self.results.made:
            self.device.raw.queue.write_buffer(buffer, 0, np.full(buffer.size, 0xFF, np.uint8))


def limited(device: Device, **limits: int) -> Device:
    """The same device, saying that it allows less."""
    names = {name.replace("_", "-"): value for name, value in limits.items()}
    return dataclasses.replace(device, adapter=dataclasses.replace(device.adapter, limits={**device.adapter.limits, **names}))


def two_layers() -> tuple[Tensor, dict[str, Array]]:
    """A chain of five ops, and its weights."""
    rng = np.random.default_rng(0)
    values = {}

    def weight(name: str, *shape: int) -> Tensor:
        values[name] = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[0]))
        return Tensor(shape, "f32", name)

    x = Tensor(("T", 20), name="x")
    h = ops.layer_norm(x, weight("g", 20), weight("b", 20))
    h = ops.linear(h, weight("w1", 20, 36), weight("b1", 36), activation="gelu_erf")
    h = ops.linear_add(h, weight("w2", 36, 20), weight("b2", 20), x)
    h = ops.layer_norm(h, weight("g2", 20), weight("bb2", 20))
    return ops.linear(h, weight("w3", 20, 20), weight("b3", 20)), values


def rows(count: int, seed: int = 1) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 20), dtype=np.float32)}


@pytest.fixture
def chain(device: Device) -> tuple[Poisoned, Callable[[Mapping[str, Array]], Array]]:
    output, values = two_layers()
    expected = reference.NumpyProgram(output, lambda t: values[t.name])
    return Poisoned(device, output, lambda t: values[t.name], {"T": 70}), expected.run


def test_result_buffers_are_reused(chain):
    program, expected = chain
    assert len(program.results.made) < len(program.steps) == 5
    np.testing.assert_allclose(program.run(rows(70)), expected(rows(70)), atol=2e-5)


def test_a_small_batch_after_a_large_one(chain):
    program, _ = chain
    first = program.run(rows(1, seed=2))
    for count in (70, 1, 69, 17):
        program.run(rows(count))
        np.testing.assert_array_equal(program.run(rows(1, seed=2)), first)


def test_batches_in_flight_may_be_waited_for_in_any_order(chain):
    program, expected = chain
    batches = [rows(70, seed=5), rows(3, seed=6), rows(33, seed=7)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        waits = [program.submit(batch) for batch in batches]
        found = {i: waits[i]() for i in order}
        for i, batch in enumerate(batches):
            np.testing.assert_allclose(found[i], expected(batch), atol=2e-5)
    assert len(program.readbacks) <= len(batches)


def test_a_result_is_the_callers_own(chain):
    """The next batch does not write into it."""
    program, _ = chain
    first = program.run(rows(5, seed=1))
    kept = first.copy()
    program.run(rows(5, seed=2))
    np.testing.assert_array_equal(first, kept)


def test_the_callers_array_may_change_after_submit(chain):
    program, expected = chain
    batch = rows(9)
    want = expected(batch)
    wait = program.submit(batch)
    batch["x"][:] = np.nan
    np.testing.assert_allclose(wait(), want, atol=2e-5)


def test_what_lies_in_the_buffers_reaches_no_result(chain):
    program, _ = chain
    expected = program.run(rows(37))
    for _ in range(2):
        program.poison()
        np.testing.assert_array_equal(program.run(rows(37)), expected)


@pytest.mark.parametrize(
    "case",
    [
        c
        for half in (False, True)
        for c in forward_cases(half)
        if c.half == half and not c.nan and not has_rare_activation(c.op, c.attrs)
    ],
    ids=lambda c: f"{c.op.name} {c}",
)
def test_a_kernel_writes_every_element(case: Case, device: Device):
    """Into a buffer full of NaN."""
    if case.half and not device.has_f16:
        pytest.skip("the device has no shader-f16")
    output, values = case_arrays(case)
    program = Poisoned(device, output, lambda t: values[t.name], {"T": sum(case.lengths), "B": 3, "G": 6, "M": 40})
    program.poison()
    assert np.isfinite(program.run(values)).all()


def test_a_wrong_batch_is_refused_and_the_next_one_is_right(device: Device):
    output, values = case_arrays(Case(ops.pool, {"C": 20}, attrs={"mode": "mean"}))
    program = GPUProgram(device, output, lambda t: values[t.name], {"T": 100, "B": 3})
    expected = program.run(values)
    over = 129 - len(values["x"])  # capacities are rounded up to 128
    wrong = {
        r"x: T is 129, over the program's capacity of 128": {"x": np.pad(values["x"], ((0, over), (0, 0)))},
        r"x: 20 is 21": {"x": np.pad(values["x"], ((0, 0), (0, 1)))},
        r"spans: 2 is 3": {"spans": np.pad(values["spans"], ((0, 0), (0, 1)))},
        r"B is 2 here, 3 elsewhere": {"skip": values["skip"][:2]},
        r"zip|dimension|shape": {"x": values["x"][0]},
    }
    for message, change in wrong.items():
        with pytest.raises(ValueError, match=message):
            program.submit(values | change)
        np.testing.assert_array_equal(program.run(values), expected)


# --- limits


@pytest.mark.parametrize(("half", "pieces"), [(False, 3), (True, 2)])
def test_a_table_over_the_limit_of_a_binding_comes_in_pieces(half: bool, pieces: int, device: Device):
    """Ids on both sides of every seam."""
    if half and not device.has_f16:
        pytest.skip("the device has no shader-f16")
    output, values = case_arrays(Case(ops.embed, {"V": 1000, "C": 12, "S": 40}, half=half))
    seams = (16384 - 256) // (12 * (2 if half else 4)) * np.arange(pieces)
    values["ids"][:10] = np.resize([0, 999, *seams, *(seams[1:] - 1)], 10)
    capacity = {"T": len(values["ids"])}
    whole = GPUProgram(device, output, lambda t: values[t.name], capacity)
    small = limited(device, max_storage_buffer_binding_size=16384)
    cut = Poisoned(small, output, lambda t: values[t.name], capacity)
    assert (len(whole.steps), len(cut.steps)) == (1, pieces)
    cut.poison()
    np.testing.assert_array_equal(cut.run(values), whole.run(values))
    np.testing.assert_allclose(
        cut.run(values), values["wte"][values["ids"]].astype("f") + values["wpe"][values["positions"]], atol=1e-6
    )


def test_an_encoder_whose_vocabulary_comes_in_pieces(device: Device, monkeypatch: pytest.MonkeyPatch):
    texts = ["The cat is sleeping on the windowsill", "", "Über den Wolken: 12 °C, 東京, 🙂", "electroencephalography"]
    found = []
    for d in (device, limited(device, max_storage_buffer_binding_size=3 << 20)):  # the table has 29 MiB, the next largest 1.7
        monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted, d=d: (d, ""))
        model = Encoder(device="gpu", dtype="float32", layer=1)
        found.append(model.encode(texts))
    assert len([s for s in model.engine.program.steps if s.tensor.op is ops.embed]) == 10
    assert model.engine.max_tokens == 640  # 4.5 KiB a token for queries, keys and values
    np.testing.assert_array_equal(*found)


def test_a_matrix_over_the_limit_of_a_binding_is_refused(device: Device):
    small = limited(device, max_storage_buffer_binding_size=16384)
    for case in (Case(ops.linear, {"K": 1024, "N": 16}, (1,)), Case(ops.embed, {"V": 3, "C": 12, "S": 900}, (1,))):
        output, values = case_arrays(case)
        with pytest.raises(UserError, match=r"^\w+ needs 0 MiB in one piece, .* binds 0: use a smaller dtype") as caught:
            GPUProgram(small, output, lambda t, values=values: values[t.name], {"T": 1})
        assert "\n" not in str(caught.value)


def test_a_result_over_the_limit_is_refused(device: Device):
    output, values = two_layers()
    with pytest.raises(UserError, match=r"^result of \w+ needs 3 MiB in one piece, .* allows 2: use a smaller max_tokens"):
        GPUProgram(limited(device, max_storage_buffer_binding_size=2 << 20), output, lambda t: values[t.name], {"T": 22000})
    with pytest.raises(UserError, match="in one piece"):
        GPUProgram(limited(device, max_buffer_size=2 << 20), output, lambda t: values[t.name], {"T": 22000})


def test_fitting_tokens_are_what_a_program_can_have(device: Device):
    output, values = two_layers()
    for limit in (20000, 100000, 1 << 20):
        small = limited(device, max_storage_buffer_binding_size=limit)
        tokens = fitting_tokens(small, output, 1 << 24)
        assert tokens % 128 == 0
        assert tokens == limit // (36 * 4) // 128 * 128
        GPUProgram(small, output, lambda t: values[t.name], {"T": tokens})
        with pytest.raises(UserError):
            GPUProgram(small, output, lambda t: values[t.name], {"T": tokens + 1})
        assert fitting_tokens(small, output, 128) == 128


def test_no_batch_has_more_rows_than_a_grid_may(device: Device):
    """Norms and the embedding have one workgroup a row; WebGPU allows 65535."""
    output, values = two_layers()
    tokens = fitting_tokens(device, output, 1 << 17)
    program = GPUProgram(device, output, lambda t: values[t.name], {"T": tokens})
    assert np.isfinite(program.run(rows(tokens))).all()


# --- never a silent wrong answer


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(("wrong", "complaint"), [("p.C / WIDE", "invalid field accessor"), ("let norm", "nonsense")])
def test_a_broken_shader_is_an_error_with_wgpus_text(wrong: str, complaint: str, checked: bool, request, monkeypatch):
    device = request.getfixturevalue("device" if checked else "production_device")
    replaced = {"p.C / WIDE": "p.Q / WIDE", "let norm": "nonsense"}[wrong]
    monkeypatch.setattr(kernels, "read_shader", lambda name, read=kernels.read_shader: read(name).replace(wrong, replaced))
    x = Tensor(("B", 4), name="x")
    with pytest.raises(wgpu.GPUError, match=complaint) as caught:
        GPUProgram(device, ops.l2_normalize(x), lambda t: None, {"B": 1})
    assert "'l2_normalize'" in str(caught.value)


@pytest.mark.parametrize("activation", [*ops.ACTIVATIONS])
@pytest.mark.parametrize("k", [4, 5])
def test_nan_passes_through_every_activation(activation: str, k: int, device: Device):
    """max() and clamp() of a GPU may turn it into a number, and a vector that should be refused into one that is not."""
    weights = {"w": np.eye(k, dtype=np.float32), "b": np.zeros(k, np.float32)}
    x, w, b = Tensor(("T", k), name="x"), Tensor((k, k), name="w"), Tensor((k,), name="b")
    program = GPUProgram(device, ops.linear(x, w, b, activation=activation), lambda t: weights[t.name], {"T": 2})
    found = program.run({"x": np.array([[np.nan] * k, [1] * k], np.float32)})
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


@pytest.mark.parametrize("mode", ops.POOLINGS)
def test_nan_passes_through_every_pooling(mode: str, device: Device):
    """From wherever the pooling looks."""
    x, spans, skip = Tensor(("T", 3), name="x"), Tensor(("B", 2), "u32", "spans"), Tensor(("B",), "u32", "skip")
    program = GPUProgram(device, ops.pool(x, spans, skip, mode=mode), lambda t: None, {"T": 5, "B": 1})
    for at in {"cls": [0], "last": [4]}.get(mode, [0, 2, 4]):
        values = np.ones((5, 3), np.float32)
        values[at] = np.nan
        found = program.run({"x": values, "spans": np.array([[0, 5]]), "skip": np.array([0])})
        assert np.isnan(found).all(), at


def test_nan_passes_through_norms_and_attention(device: Device):
    bad = np.array([[1, np.nan, 2, 3], [1, 4, 2, 3]], np.float32)
    ones = Tensor((4,), name="ones")
    x = Tensor(("T", 4), name="x")
    norm = GPUProgram(device, ops.layer_norm(x, ones, ones), lambda t: np.ones(4, np.float32), {"T": 2}).run({"x": bad})
    assert np.isnan(norm[0]).all()
    assert np.isfinite(norm[1]).all()
    y = Tensor(("B", 4), name="y")
    assert np.isnan(GPUProgram(device, ops.l2_normalize(y), lambda t: None, {"B": 2}).run({"y": bad})[0]).any()

    qkv, spans, tiles = Tensor(("T", 12), name="qkv"), Tensor(("B", 2), "u32", "spans"), Tensor(("G", 2), "u32", "tiles")
    output = ops.attention(qkv, spans, tiles, head_size=4, scale=1.0, causal=False)
    program = GPUProgram(device, output, lambda t: None, {"T": 5, "B": 2, "G": 2})
    batch = {"spans": np.array([[0, 3], [3, 5]]), "tiles": np.array([[0, 0], [1, 0]])}
    for part in range(3):  # of a query, a key, a value of the second token
        values = np.ones((5, 12), np.float32)
        values[1, 4 * part] = np.nan
        found = program.run({"qkv": values, **batch})
        assert np.isnan(found[1]).any()
        np.testing.assert_array_equal(found[3:], 1)  # the other sequence knows nothing of it


# --- uniform values


def test_a_whole_number_for_a_float_attribute_reaches_the_kernel_as_a_float(device: Device):
    """As JSON writes "layer_norm_epsilon": 1. The type that the shader declares decides."""
    rng = np.random.default_rng(0)
    x, weight, bias = Tensor(("T", 8), name="x"), Tensor((8,), name="w"), Tensor((8,), name="b")
    values = {name: rng.standard_normal(8, dtype=np.float32) for name in "wb"}
    batch = {"x": rng.standard_normal((3, 8), dtype=np.float32)}
    for eps in (1, 1.0, np.int64(1), np.float64(1)):
        output = ops.layer_norm(x, weight, bias, eps=eps)
        found = GPUProgram(device, output, lambda t: values[t.name], {"T": 3}).run(batch)
        np.testing.assert_allclose(found, ops.layer_norm.reference(batch["x"], values["w"], values["b"], eps=1.0), atol=1e-6)
