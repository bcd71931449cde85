"""Signatures, shapes and errors of the graph; the numpy runner."""

import numpy as np
import pytest

from gpt2wgpu.graph import ops, reference
from gpt2wgpu.graph.tensor import Tensor, op, schedule
from gpt2wgpu.models import ARCHITECTURES, Architecture


def test_symbols_and_sizes_go_through():
    x = Tensor(("T", 8), name="x")
    y = ops.linear(x, Tensor((8, 12), name="w"), Tensor((12,), name="b"), activation="relu", out="f16")
    assert y.shape == ("T", 12) and y.dtype == "f16"
    assert y.dims == {"T": "T", "K": 8, "N": 12} and y.types == {"X": "f32", "W": "f32", "O": "f16"}
    assert schedule(y)[-1] is y


def test_multiples_and_sums_of_dimensions():
    qkv, spans, tiles = Tensor(("T", 24)), Tensor(("B", 2), "u32"), Tensor(("G", 2), "u32")
    assert ops.attention(qkv, spans, tiles, head_size=4, scale=1.0, causal=True).shape == ("T", 8)
    assert ops.concat(Tensor(("B", 3)), Tensor(("B", 5))).shape == ("B", 8)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((Tensor(("T", 8)), Tensor((7, 12)), Tensor((12,))), r"linear: weight must be W\[K,N\], got f32\[7, 12\] where K=8"),
        ((Tensor(("T", 8), "u32"), Tensor((8, 12)), Tensor((12,), "u32")), "linear: bias must be f32"),
        ((Tensor(("T",)), Tensor((8, 12)), Tensor((12,))), r"linear: x must be X\[T,K\], got f32\['T'\]"),
    ],
)
def test_a_mismatch_is_named(inputs: tuple[Tensor, ...], message: str):
    with pytest.raises(ValueError, match=message):
        ops.linear(*inputs)


def test_numbers_and_multiples_in_a_signature():
    with pytest.raises(ValueError, match=r"^pool: spans must be u32\[B,2\], got u32\['B', 3\]$"):
        ops.pool(Tensor(("T", 8)), Tensor(("B", 3), "u32"), Tensor(("B",), "u32"), mode="mean")
    with pytest.raises(ValueError, match=r"^glu: x must be X\[T,2N\], got f32\['T', 7\]$"):
        ops.glu(Tensor(("T", 7)), activation="silu")
    assert ops.glu(Tensor(("T", 8)), activation="silu").shape == ("T", 4)


def test_not_a_multiple():
    with pytest.raises(ValueError, match=r"qkv must be X\[T,3HD\], got 25 columns where head_size D=4"):
        ops.attention(Tensor(("T", 25)), Tensor(("B", 2), "u32"), Tensor(("G", 2), "u32"), head_size=4, scale=1.0, causal=True)
    with pytest.raises(ValueError, match="a dimension is"):
        op("x[T,c] -> out[T]", grid=lambda p: (1, 1, 1))(lambda x: x)(Tensor(("T", 3)))


def test_an_input_used_twice_and_freed():
    x = Tensor(("B", 3), name="x")
    y = ops.concat(ops.l2_normalize(x), ops.concat(x, x))
    a = np.array([[3, 0, 4]], np.float32)
    found = reference.NumpyProgram(y, lambda t: a).run({"x": a})
    np.testing.assert_allclose(found, [[0.6, 0, 0.8, 3, 0, 4, 3, 0, 4]], rtol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_every_default_configuration_has_a_graph(architecture: type[Architecture]):
    config = architecture()
    for layer in (0, config.layers):
        assert config.hidden(layer).shape == ("T", config.width)
