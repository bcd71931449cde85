"""What both runners of a graph offer: outputs of sequences and of tokens, and giving memory back."""

import gc
import time
import weakref
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest

from gpt2wgpu import UserError
from gpt2wgpu.gpu import Device, GPUProgram
from gpt2wgpu.graph import cores, ops, packing, reference
from gpt2wgpu.graph.program import CompiledGraph
from gpt2wgpu.graph.tensor import Array, Tensor

Compile = Callable[[Tensor], CompiledGraph]
LENGTHS = (7, 1, 33, 2, 20)
RNG = np.random.default_rng(0)
WEIGHTS = {"wte": (50, 12), "wpe": (40, 12), "g": (12,), "b": (12,)}
ARRAYS = {name: RNG.standard_normal(shape, dtype=np.float32) for name, shape in WEIGHTS.items()}


def leaf(name: str) -> Tensor:
    return Tensor(WEIGHTS[name], name=name)


def hidden() -> Tensor:
    """A hidden state of every token, (T, C)."""
    ids, positions = (Tensor(("T",), "u32", name) for name in ("ids", "positions"))
    return ops.layer_norm(ops.embed(ids, positions, leaf("wte"), leaf("wpe")), leaf("g"), leaf("b"))


def pooled() -> Tensor:
    """A vector of every sequence, (B, C)."""
    spans, skip = Tensor(("B", 2), "u32", "spans"), Tensor(("B",), "u32", "skip")
    return ops.pool(hidden(), spans, skip, mode="mean")


def batch(lengths: tuple[int, ...] = LENGTHS) -> dict[str, Array]:
    rng = np.random.default_rng(len(lengths))
    ids = [rng.integers(50, size=n) for n in lengths]
    return packing.pack_batch(ids, [np.arange(n) for n in lengths], [0] * len(lengths))


@pytest.fixture(params=["numpy", "gpu"])
def compiled(request: pytest.FixtureRequest) -> Compile:
    if request.param == "numpy":
        return lambda output: reference.NumpyProgram(output, lambda t: ARRAYS[t.name])
    device: Device = request.getfixturevalue("device")
    return lambda output: GPUProgram(device, output, lambda t: ARRAYS[t.name], {"T": 100, "B": 8, "G": 16})


@pytest.mark.parametrize("count", [1, 2, 3, 64])
def test_an_output_of_tokens_is_in_the_order_of_the_batch(count: int, compiled: Compile, monkeypatch: pytest.MonkeyPatch):
    """However many cores numpy shares it between."""
    monkeypatch.setattr(cores, "usable_cores", lambda: count)
    program = compiled(hidden())
    for lengths in (LENGTHS, (3,), (1, 2)):
        arrays = batch(lengths)
        x = ARRAYS["wte"][arrays["ids"]] + ARRAYS["wpe"][arrays["positions"]]
        expected = ops.layer_norm.reference(x, ARRAYS["g"], ARRAYS["b"])
        found = program.submit(arrays)()
        assert found.shape == (sum(lengths), 12) and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_output_of_sequences_pools_the_output_of_tokens(compiled: Compile):
    arrays = batch()
    tokens, vectors = (compiled(output()).submit(arrays)() for output in (hidden, pooled))
    expected = [tokens[a:b].mean(0) for a, b in arrays["spans"]]
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_closed_program_says_so(compiled: Compile):
    program = compiled(pooled())
    assert np.isfinite(program.run(batch())).all()
    assert program.bytes > 4 * 50 * 12
    program.close()
    program.close()
    for call in (program.run, program.submit):
        with pytest.raises(UserError, match=r"^this model was closed: open it again$"):
            call(batch())


def test_an_error_on_a_core_keeps_nothing(monkeypatch: pytest.MonkeyPatch):
    """The program that failed is freed with its error, without a garbage collection."""
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    program = reference.NumpyProgram(hidden(), lambda t: ARRAYS[t.name])
    arrays = batch()
    arrays["ids"][:] = 1000  # no such row
    gc.collect()
    gc.disable()
    try:
        with suppress(IndexError):
            program.submit(arrays)()
            pytest.fail("is no error")
        left = weakref.ref(program)
        del program
        deadline = time.monotonic() + 30
        while left() is not None and time.monotonic() < deadline:  # the other core may still be in its part
            time.sleep(0.01)
        assert left() is None
    finally:
        gc.enable()
