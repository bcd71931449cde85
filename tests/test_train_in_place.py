"""The kernels outside any graph, which update weights in place: against numpy, on lengths around their lanes and chunks, with
other numbers behind the last one."""

from collections.abc import Sequence

import numpy as np
import pytest

from gpt2wgpu.gpu import Device, Dispatch, InPlace, new_buffer, read_buffer, write_buffer
from gpt2wgpu.graph.ops.blocks import cdiv
from gpt2wgpu.graph.tensor import Array
from gpt2wgpu.train.adamw import Update, adamw
from gpt2wgpu.train.gpu import CHUNK

LENGTHS = (1, 255, 257, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 300)
PAST = 600  # more than a workgroup's lanes


def numbers(count: int, length: int) -> list[Array]:
    """Arrays of positive numbers; those past `length` are large, so that reading one of them is noticed."""
    arrays = np.random.default_rng(length).uniform(0.5, 1, (count, length + PAST)).astype(np.float32)
    arrays[:, length:] = 1e4
    return [*arrays]


def filled(device: Device, arrays: Sequence[Array]) -> list[object]:
    buffers = [new_buffer(device, "numbers", len(a)) for a in arrays]
    for buffer, array in zip(buffers, arrays, strict=True):
        write_buffer(device, buffer, array)
    return buffers


def test_adamw_equals_numpy(device: Device):
    step = Update(factor=0.7, rate=0.3, eps=0.2, decay=0.9)
    given = {n: numbers(4, n) for n in LENGTHS}  # gradient, weight, m, v
    buffers = {n: filled(device, given[n]) for n in LENGTHS}
    InPlace(device, ["adamw"], [Dispatch(b, {"N": n}, (cdiv(n, CHUNK), 1, 1)) for n, b in buffers.items()], 3).run(**vars(step))
    for n, (gradient, weight, m, v) in given.items():
        adamw(weight[:n], m[:n], v[:n], gradient[:n], step, True, np.empty(n, np.float32))
        for expected, buffer in zip((weight, m, v), buffers[n][1:], strict=True):
            found = read_buffer(device, buffer, len(expected))
            np.testing.assert_allclose(found[:n], expected[:n], rtol=1e-6, atol=1e-7)
            np.testing.assert_array_equal(found[n:], expected[n:])


def test_sums_of_squares_equal_numpy(device: Device):
    """One for each chunk; those of the lengths lie one apart."""
    given = {n: numbers(1, n)[0] for n in LENGTHS}
    sums = filled(device, [np.full(20, -1, np.float32)])[0]
    expected, dispatches = [], []
    for n, x in given.items():
        chunks = [x[at : min(at + CHUNK, n)].astype(np.float64) for at in range(0, n, CHUNK)]
        dispatches.append(Dispatch([*filled(device, [x]), sums], {"N": n, "first": len(expected)}, (len(chunks), 1, 1)))
        expected += [*((chunk**2).sum() for chunk in chunks), -1]
    InPlace(device, ["square_sum", "row_sum"], dispatches, 1).run()
    np.testing.assert_allclose(read_buffer(device, sums, len(expected)), expected, rtol=1e-6)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_moving_average_equals_numpy(share: float, device: Device):
    given = {n: numbers(2, n) for n in LENGTHS}
    for _, average in given.values():
        average *= np.float32(1e8)  # a share of 1 leaves nothing of it
    buffers = {n: filled(device, given[n]) for n in LENGTHS}
    dispatches = [Dispatch(b, {"N": n}, (cdiv(n, CHUNK), 1, 1)) for n, b in buffers.items()]
    InPlace(device, ["average"], dispatches, 1).run(share=share)
    for n, (weight, average) in given.items():
        expected = weight if share == 1 else average + np.float32(share) * (weight - average)
        found = read_buffer(device, buffers[n][1], n + PAST)
        np.testing.assert_allclose(found[:n], expected[:n], rtol=0 if share == 1 else 1e-6)
        np.testing.assert_array_equal(found[n:], average[n:])
