"""Whole models on token ids: numpy against `transformers` (tests/golden, written by make_golden.py), the GPU against numpy: in
f32 with the kernels of the tests' device, in f16, which a driver on a CPU takes minutes to compile, with those of a real GPU."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gpt2wgpu import checkpoint
from gpt2wgpu.checkpoint import Checkpoint
from gpt2wgpu.gpu import Device, GPUProgram
from gpt2wgpu.graph import packing, reference
from gpt2wgpu.graph.packing import position_ids
from gpt2wgpu.graph.tensor import Array, Tensor

MODELS = sorted(p.name for p in (Path(__file__).parent / "golden" / "models").iterdir())

# Largest difference over largest value of a layer. numpy and PyTorch add up in different orders: these models are at
# 1e-6 at most, as far as PyTorch itself is from float64. The GPU adds one product at a time, with rounding errors that
# grow with the width.
NUMPY_TOLERANCE = 1e-5
GPU_TOLERANCE = 1e-4
HALF_COSINE = 0.9999  # of each token's row, with weights and operands of matmuls rounded to 11 bits


@dataclass(frozen=True)
class Golden:
    checkpoint: Checkpoint
    sequences: list[Array]
    hidden: Array  # (layers + 1, T, C), what transformers computes

    def batch(self, sequences: list[Array]) -> dict[str, Array]:
        pad = self.checkpoint.config.pad
        return packing.pack_batch(sequences, [position_ids(s, pad) for s in sequences], [0] * len(sequences))

    def numpy(self, layer: int) -> Array:
        return reference.NumpyProgram(self.checkpoint.config.hidden(layer, "f32"), self.checkpoint.weights).run(
            self.batch(self.sequences)
        )

    def gpu(self, device: Device, output: Tensor) -> GPUProgram:
        tokens, count = sum(map(len, self.sequences)), len(self.sequences)
        capacity = {"T": tokens, "B": count, "G": packing.max_tiles(tokens, count)}
        return GPUProgram(device, output, self.checkpoint.weights, capacity)


@cache
def golden(name: str) -> Golden:
    folder = Path(__file__).parent / "golden" / "models" / name
    with np.load(folder / "expected.npz") as expected:
        sequences = np.split(expected["ids"], np.cumsum(expected["lengths"])[:-1])
        return Golden(checkpoint.load_checkpoint(folder), sequences, expected["hidden"])


def error(found: Array, expected: Array) -> float:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def half_or_skip(device: Device) -> None:
    if not device.has_f16:
        pytest.skip(f"{device.adapter.name} has no shader-f16")


@pytest.mark.parametrize("name", MODELS)
def test_numpy_equals_transformers_at_every_layer(name: str):
    g = golden(name)
    assert g.checkpoint.config.layers == len(g.hidden) - 1
    errors = [error(g.numpy(layer), expected) for layer, expected in enumerate(g.hidden)]
    assert max(errors) <= NUMPY_TOLERANCE, errors


@pytest.mark.parametrize("name", MODELS)
def test_gpu_equals_numpy_at_every_layer(name: str, device: Device):
    g = golden(name)
    batch = g.batch(g.sequences)
    errors = [error(g.gpu(device, g.checkpoint.config.hidden(i, "f32")).run(batch), g.numpy(i)) for i in range(len(g.hidden))]
    assert max(errors) <= GPU_TOLERANCE, errors


@pytest.mark.parametrize("name", MODELS)
def test_half_precision_points_the_same_way(name: str, as_on_a_gpu: Device):
    half_or_skip(as_on_a_gpu)
    g = golden(name)
    found = g.gpu(as_on_a_gpu, g.checkpoint.config.hidden(len(g.hidden) - 1, "f16")).run(g.batch(g.sequences)).astype(np.float64)
    expected = g.numpy(len(g.hidden) - 1).astype(np.float64)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() >= HALF_COSINE, (cosines.min(), int(cosines.argmin()))


@pytest.mark.parametrize("half", ["f32", "f16"])
@pytest.mark.parametrize("name", MODELS)
def test_a_sequence_does_not_depend_on_its_batch(name: str, half: str, device: Device, as_on_a_gpu: Device):
    """It has the same bits alone, in a batch and in the reversed batch."""
    if half == "f16":
        half_or_skip(device)
        device = as_on_a_gpu
    g = golden(name)
    program = g.gpu(device, g.checkpoint.config.hidden(len(g.hidden) - 1, half))
    alone = [program.run(g.batch([s])) for s in g.sequences]
    together = program.run(g.batch(g.sequences))
    reversed_order = program.run(g.batch(g.sequences[::-1]))
    assert np.array_equal(together, np.concatenate(alone))
    assert np.array_equal(reversed_order, np.concatenate(alone[::-1]))


def test_a_model_is_cut_after_the_layer_asked_for():
    """Only the blocks that are needed are read: a graph of one layer has no weight of the second."""
    for name in ("gpt2_five_layers_bf16", "bert"):
        whole, cut = (
            reference.NumpyProgram(golden(name).checkpoint.config.hidden(n, "f32"), golden(name).checkpoint.weights)
            for n in (2, 1)
        )
        later = {t.name for t in whole.weights} - {t.name for t in cut.weights}
        assert len(whole.weights) > len(cut.weights)
        assert later
        assert all(".1." in n for n in later)
