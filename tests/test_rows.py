"""Kernels whose lanes share a row, or the tokens of a text: how they divide the work, and that it changes no bit of a text."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from gpt2wgpu.devices.selftest import Case, case_arrays, check_op
from gpt2wgpu.gpu import Device, GPUProgram
from gpt2wgpu.gpu.kernels import read_shader, specialise_source
from gpt2wgpu.gpu.rows import LANES, held_row
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.tensor import Tensor, schedule
from gpt2wgpu.models.qwen3 import Qwen3Config
from gpt2wgpu.train import ops as train_ops
from gpt2wgpu.train import selftest as train_checks


@pytest.mark.parametrize("wide", [1, 4])
def test_a_row_fits_the_registers_of_its_lanes(wide: int):
    for columns in range(wide, 8193, wide):
        found = held_row(columns, wide, software=False)
        lanes, held = found["lanes"], found["held"]
        assert lanes in (64, 128, 256)  # WebGPU promises no larger workgroup
        assert lanes * (held - 1) < columns // wide <= lanes * held
        assert held * wide <= (16 if columns <= 4096 else 32)
        assert lanes == 64 or columns > lanes // 2 * 16  # no more lanes than it takes


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Case(ops.layer_norm, {"C": 384}), {"LANES": 64, "PARTS": 8, "HELD": 2, "WIDE": 4}),
        (Case(ops.layer_norm, {"C": 1026}), {"LANES": 128, "HELD": 9, "WIDE": 1}),
        (Case(ops.norm_rotary, {"N": 512, "K": 384, "S": 2, "D": 128}), {"HEADS": 4, "HEAD_LANES": 16, "HELD": 1, "WIDE": 4}),
        (Case(ops.pool, {"C": 384}, attrs={"mode": "mean"}), {"COLUMN_LANES": 4, "TOKEN_LANES": 64, "WIDE": 4}),
        (Case(ops.pool, {"C": 33}, attrs={"mode": "mean"}), {"COLUMN_LANES": 16, "TOKEN_LANES": 16, "WIDE": 1}),
        (Case(ops.similarity, {"M": 2, "N": 2, "C": 4}, attrs={"metric": "dot"}), {"PAIRS": 32, "SLICE": 16}),
        (Case(train_ops.transpose, {"K": 8, "N": 8}), {"TILE": 32}),
        # 256 bytes of a row, and four tokens a lane in the shortest part
        (Case(train_ops.sum_rows, {"C": 8}, attrs={"P": 1}), {"COLUMN_LANES": 16, "TOKEN_LANES": 16, "SHORTEST_PART": 64}),
        (Case(train_ops.sum_rows, {"C": 9}, attrs={"P": 1}), {"COLUMN_LANES": 64, "TOKEN_LANES": 4, "WIDE": 1}),
        (Case(train_ops.sum_vectors, {"P": 2, "C": 8}, attrs={"T": 1}), {"TOKEN_LANES": 16, "WIDE": 4, "SHORTEST_PART": 64}),
        (
            Case(train_ops.linear_dweight, {"K": 8, "N": 8}, attrs={"P": 1}),
            {"TILE_K": 64, "TILE_N": 64, "THREAD_ROWS": 8, "SHORTEST_PART": 256},
        ),
        (Case(train_ops.scatter_rows, {"V": 512, "C": 8}), {"COLUMNS": 32, "LINES": 8, "TOKEN_LANES": 8}),
        (Case(train_ops.scatter_rows, {"V": 513, "C": 8}), {"COLUMNS": 32, "LINES": 8, "TOKEN_LANES": 1}),
    ],
    ids=lambda v: v.op.name if isinstance(v, Case) else "",
)
def test_constants_of_a_gpus_kernel(case: Case, expected: dict[str, int], as_on_a_gpu: Device):
    """A change to them must be meant: with others most kernels are right, but not fast."""
    given = {name: np.zeros(1) for name in ("order", "rows")} if case.op is train_ops.scatter_rows else {}
    source = specialise_source(as_on_a_gpu, case_arrays(replace(case, given=given))[0])
    found = {name: int(value) for name, value in re.findall(r"^const (\w+): u32 = (\d+)u;", source, re.M)}
    assert expected.items() <= found.items()


def test_shaders_say_what_a_gpu_gets():
    """gpu/rows.py sets these constants; a reader of the file alone must not be misled."""
    for name, constants in {
        "row_sum": {"LANES": LANES, "PARTS": 8},
        "token_lanes": {"COLUMN_LANES": 4, "TOKEN_LANES": 64},
        "norm_rotary": {"HEADS": 4, "HEAD_LANES": 16},
        "scatter_rows": {"TOKEN_LANES": 1},
    }.items():
        for constant, value in constants.items():
            assert f"const {constant}: u32 = {value}u;" in read_shader(name)


WRITTEN = [
    Case(ops.layer_norm, {"C": 132}),
    Case(ops.rms_norm, {"C": 65}),
    Case(ops.norm_rotary, {"N": 120, "K": 72, "S": 40, "D": 24}),
    Case(ops.norm_rotary, {"N": 1152, "K": 1024, "S": 40, "D": 128}),
    Case(ops.rotary, {"N": 132, "S": 40, "D": 16}, attrs={"heads": 6}),
    Case(ops.pool, {"C": 20}, attrs={"mode": "mean"}),
    Case(ops.l2_normalize, {"C": 132}),
    Case(ops.similarity, {"M": 34, "N": 33, "C": 17}, attrs={"metric": "dot"}),
    Case(ops.nearest_rows, {"M": 3, "N": 33, "C": 36}, attrs={"keep": 10}),
    Case(train_ops.l2_normalize_dx, {"C": 132}),
    train_checks.layer_norm_case(132)[1],
    Case(train_ops.pool_dx, {"C": 20}, attrs={"mode": "mean"}),
    *(Case(o, {"K": 36, "N": 36}) for o in (ops.linear_int8, train_ops.matmul)),  # the others are in tests/test_tiles.py
    # a thread per element: the first one that a row has no column for
    Case(ops.embed, {"V": 77, "C": 52, "S": 40}),
    Case(ops.embed_int8, {"V": 77, "C": 70, "S": 40}),
    Case(ops.glu, {"N": 67}, attrs={"activation": "silu"}),
    Case(ops.concat, {"J": 70, "K": 3}),
    *(Case(o, {"K": 30, "N": 33}) for o in (ops.linear, ops.linear_add, ops.linear_int8, ops.linear_add_int8, train_ops.matmul)),
    Case(train_ops.add, {"C": 70}),
    Case(train_ops.activate, {"C": 70}, attrs={"activation": "relu"}),
    train_checks.activate_dx_case("relu", 70),
    train_checks.dropout_case(70),
    Case(train_ops.columns, {"N": 70}, attrs={"M": 33, "first": 36}),
]


@pytest.mark.parametrize("case", WRITTEN, ids=lambda case: f"{case.op.name} {case}")
def test_nothing_is_written_past_the_last_row(case: Case, each_form: Callable[[Tensor], list[Device]]):
    output, values = case_arrays(case)
    for device in each_form(output):
        check = check_op(device, case)
        assert check.ok, check
        program = GPUProgram(device, output, lambda t: values[t.name], {"T": 128, "B": 128, "M": 128})
        program.run(values)
        device.raw.queue.write_buffer(program.result, 0, np.full(program.result.size, 0xFF, np.uint8))
        size = program.run(values).nbytes
        after = np.frombuffer(device.raw.queue.read_buffer(program.result), np.uint8)[size:]
        assert len(after) and (after == 0xFF).all()


@pytest.mark.parametrize(
    "case",
    [train_checks.vector_cases(20, 4, (200,))[0], train_checks.layer_norm_case(20, (200,))[2]],
    ids=lambda case: case.op.name,
)
def test_a_sum_over_tokens_ends_with_the_batch(case: Case, each_form: Callable[[Tensor], list[Device]]):
    """The rows of an earlier, larger batch lie behind it. Its sums over parts that have no tokens now are left as they were."""
    output, values = case_arrays(case)
    assert output.op is not None
    for device in each_form(output):
        program = GPUProgram(device, output, lambda t: values[t.name], {"T": 200})
        before = program.run(values)
        for count, parts in ((199, 4), (193, 4), (192, 3), (129, 3), (64, 1), (63, 1), (1, 1)):
            part = {name: array[:count] for name, array in values.items()}
            expected = output.op.reference(*(part[name] for name, _, _ in output.op.args[:-1]), P=4)
            found = program.run(part)
            np.testing.assert_allclose(found[:parts], expected[:parts], rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(found[parts:], before[parts:])
            before = found


@pytest.mark.parametrize("mode", ops.POOLINGS)
def test_a_text_is_pooled_alike_in_every_batch(mode: str, each_form: Callable[[Tensor], list[Device]]):
    """Its tokens fall on the same lanes wherever it lies: lengths around the 64 lanes and their multiples."""
    lengths = (63, 1, 130, 64, 65, 2, 200)
    output, values = case_arrays(Case(ops.pool, {"C": 20}, lengths, {"mode": mode}))
    for device in each_form(output):
        program = GPUProgram(device, output, lambda t: values[t.name], {"T": sum(lengths), "B": len(lengths)})
        together = program.run(values)
        for b, (start, end) in enumerate(values["spans"].tolist()):
            alone = {"x": values["x"][start:end], "spans": np.array([[0, end - start]], np.uint32)}
            np.testing.assert_array_equal(program.run(alone | {"skip": values["skip"][b : b + 1]})[0], together[b])


@pytest.mark.parametrize("mode", ["mean", "max", "weighted_mean"])
def test_nan_on_any_lane_reaches_the_pooled_row(mode: str, each_form: Callable[[Tensor], list[Device]]):
    output, values = case_arrays(Case(ops.pool, {"C": 20}, (130,), {"mode": mode}, given={"skip": np.zeros(1, np.uint32)}))
    for device in each_form(output):
        program = GPUProgram(device, output, lambda t: values[t.name], {"T": 130, "B": 1})
        for token in (0, 63, 64, 129):
            x = values["x"].copy()
            x[token, 7] = np.nan
            found = program.run(values | {"x": x})[0]
            assert np.isnan(found[7]) and np.isfinite(np.delete(found, 7)).all()


def test_the_largest_of_infinite_numbers(each_form: Callable[[Tensor], list[Device]]):
    """-inf beside inf is no NaN."""
    given = {"skip": np.zeros(1, np.uint32), "x": np.full((70, 4), -np.inf, np.float32)}
    given["x"][69, 1], given["x"][3, 2] = np.inf, 5
    output, values = case_arrays(Case(ops.pool, {"C": 4}, (70,), {"mode": "max"}, given=given))
    for device in each_form(output):
        program = GPUProgram(device, output, lambda t: values[t.name], {"T": 70, "B": 1})
        np.testing.assert_array_equal(program.run(values)[0], [-np.inf, np.inf, 5, -np.inf])


def test_qwen3_takes_nine_dispatches_a_layer():
    """Norm of heads and rotary positions are one. Qwen3-0.6B: 255 with the pooling; they were 283."""
    tensors = schedule(Qwen3Config(layers=28, heads=16, kv_heads=8, width=1024, inner=3072).hidden(28))
    assert sum(t.op is not None for t in tensors) == 1 + 28 * 9 + 1
