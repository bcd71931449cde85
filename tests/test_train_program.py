"""A training step in numpy and on a device: against PyTorch (tests/golden, written by make_golden_gradients.py), and what
must always hold."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from process import environment

from gpt2wgpu import checkpoint
from gpt2wgpu.gpu import Device, read_buffer, write_buffer
from gpt2wgpu.graph import ops, packing
from gpt2wgpu.graph.packing import position_ids
from gpt2wgpu.graph.tensor import Array, Tensor
from gpt2wgpu.models.bert import BertConfig
from gpt2wgpu.models.gpt2 import GPT2Config
from gpt2wgpu.train import ops as train_ops
from gpt2wgpu.train.gpu import GPUTrainProgram
from gpt2wgpu.train.gradients import TrainGraph
from gpt2wgpu.train.program import NumpyTrainProgram

GOLDEN = Path(__file__).parent / "golden"
MODELS = sorted(p.stem for p in (GOLDEN / "gradients").iterdir())
LENGTHS = (5, 1, 33, 7, 2, 20)
TOKENS = sum(LENGTHS)
Make = Callable[..., NumpyTrainProgram | GPUTrainProgram]


BACKENDS = {"gpu": "device", "as a GPU": "as_on_a_gpu"}  # the fixtures of their devices


@pytest.fixture(params=["numpy", "gpu"])
def make(request: pytest.FixtureRequest) -> Make:
    """`make(output, weights)`: a program on either backend."""
    return on(request.getfixturevalue(BACKENDS[request.param])) if request.param in BACKENDS else in_numpy


def in_numpy(output: Tensor, weights: Callable[[Tensor], Array], **options: Any) -> NumpyTrainProgram:
    return NumpyTrainProgram(TrainGraph(output, **options), weights)


def on(device: Device) -> Make:
    capacity = {"T": 256, "B": 16, "G": packing.max_tiles(256, 16)}
    return lambda output, weights, **options: GPUTrainProgram(device, TrainGraph(output, **options), weights, capacity)


def vectors_of(hidden: Tensor, mode: str = "mean") -> Tensor:
    return ops.l2_normalize(ops.pool(hidden, Tensor(("B", 2), "u32", "spans"), Tensor(("B",), "u32", "skip"), mode=mode))


def gradient(program: NumpyTrainProgram | GPUTrainProgram, name: str) -> Array:
    """What has been added up for a weight."""
    t = next(t for t in program.graph.trained if t.name == name)
    if isinstance(program, NumpyTrainProgram):
        return program.total[t].copy()
    shape = [int(d) for d in t.shape]
    return read_buffer(program.device, program.program.kept[program.graph.gradients[t]], int(np.prod(shape))).reshape(shape)


def error(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def small(layers: int = 2) -> Tensor:
    return vectors_of(GPT2Config(layers=layers, heads=2, width=12, inner=20, context=40, vocab=30).hidden(layers))


def random_weights(t: Tensor) -> Array:
    rng = np.random.default_rng(sum(map(ord, t.name)))
    values = 0.3 * rng.standard_normal(t.shape, dtype=np.float32)
    return values + 1 if t.name.endswith("weight") and len(t.shape) == 1 else values


def batch(seed: int = 0, lengths: tuple[int, ...] = LENGTHS) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return packing.pack_batch([rng.integers(30, size=n) for n in lengths], [np.arange(n) for n in lengths], [0] * len(lengths))


def pull(vectors: Array) -> tuple[float, Array]:
    """A loss that is linear in each vector, so that its gradient is a constant."""
    direction = np.random.default_rng(1).standard_normal((64, vectors.shape[1]), dtype=np.float32)[: len(vectors)]
    return float((direction * vectors).sum()), direction


# --- against PyTorch


@pytest.mark.parametrize("make", ["numpy", *BACKENDS], indirect=True)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_a_whole_model_equal_pytorch(name: str, make: Make):
    found = checkpoint.load_checkpoint(GOLDEN / "models" / name)
    with np.load(GOLDEN / "models" / name / "expected.npz") as arrays:
        sequences = np.split(arrays["ids"], np.cumsum(arrays["lengths"])[:-1])
    with np.load(GOLDEN / "gradients" / f"{name}.npz") as arrays:
        expected = dict(arrays)
    doutput = expected.pop("doutput")
    program = make(vectors_of(found.config.hidden(found.config.layers, "f32")), found.weights, frozen=found.absent())
    pad = found.config.pad
    packed = packing.pack_batch(sequences, [position_ids(s, pad) for s in sequences], [0] * len(sequences))
    program.gradients(packed, lambda vectors: (0.0, doutput), 0)
    assert {t.name for t in program.graph.trained} == set(expected)
    errors = {name: error(gradient(program, name), e) for name, e in expected.items()}
    assert max(errors.values()) < 2e-5, errors


def test_adamw_equals_pytorch(make: Make):
    with np.load(GOLDEN / "adamw.npz") as arrays:
        expected = dict(arrays)
    x, matrix, vector = Tensor(("B", 5), name="x"), Tensor((5, 7), name="matrix"), Tensor((7,), name="vector")
    program = make(ops.linear(x, matrix, vector), lambda t: expected[t.name])
    for i, norm in enumerate(expected["norms"]):
        for t in (matrix, vector):
            g = np.float32(10.0**-i) * expected[f"{t.name}_gradients"][i]
            if isinstance(program, NumpyTrainProgram):
                program.total[t] = g
            else:
                write_buffer(program.device, program.program.kept[program.graph.gradients[t]], g)
        program.micro_batches = 1
        assert program.step(0.01, weight_decay=0.1, clip=1.0) == pytest.approx(norm, rel=1e-6)
    for t in (matrix, vector):
        np.testing.assert_allclose(program.state()[f"weight/{t.name}"], expected[f"{t.name}_after"], rtol=2e-6, atol=1e-7)


# --- what must always hold


@pytest.mark.parametrize("mode", ops.POOLINGS)
def test_backends_agree_on_every_pooling(mode: str, device_form: Device):
    config = BertConfig(layers=1, heads=2, width=12, inner=20, context=40, vocab=30)
    programs = [m(vectors_of(config.hidden(1), mode), random_weights) for m in (in_numpy, on(device_form))]
    skipping = batch() | {"skip": np.array([2, 0, 5, 0, 1, 0], np.uint32)}
    losses = [p.gradients(skipping, pull, 0) for p in programs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for t in programs[0].graph.trained:
        assert error(gradient(programs[1], t.name), gradient(programs[0], t.name)) < 1e-4, t.name


def test_dropout_is_the_same_on_both_backends_and_trains(device: Device):
    programs = [m(small(), random_weights, dropout=0.3) for m in (in_numpy, on(device))]
    for p in programs:
        p.gradients(batch(), pull, 123)
    for t in programs[0].graph.trained:
        assert error(gradient(programs[1], t.name), gradient(programs[0], t.name)) < 1e-4, t.name
    x = np.ones((50, 40), np.float32)
    attrs = {"threshold": 3 << 30, "scale": 4.0, "site": 1}
    tokens = np.arange(50, dtype=np.uint32)
    masks = [train_ops.dropout.reference(x, tokens, np.array([seed], np.uint32), **attrs) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert 0.1 < (masks[0] == masks[2]).mean() < 0.7  # of independent masks, 0.625
    assert set(np.unique(masks[0])) == {0, 4}
    assert 0.22 < (masks[0] != 0).mean() < 0.28
    assert abs(masks[0].mean(0) - 1).max() < 1  # no column and no row is kept or dropped as a whole
    assert abs(masks[0].mean(1) - 1).max() < 1


def test_the_same_seed_gives_the_same_bits(make: Make):
    states = []
    for seed in (5, 5, 6):
        program = make(small(), random_weights, dropout=0.2)
        for i in range(2):
            program.gradients(batch(i), pull, seed + i)
            program.step(0.01, weight_decay=0.1, clip=1.0)
        states.append(program.state())
    for name, a in states[0].items():
        assert a.tobytes() == states[1][name].tobytes(), name
    assert any(a.tobytes() != states[2][name].tobytes() for name, a in states[0].items())


def test_micro_batches_add_up(make: Make):
    """For a loss that is a sum over texts: in one micro-batch, or in two that follow a step."""
    whole, parts = make(small(), random_weights), make(small(), random_weights)
    loss = whole.gradients(batch(), pull, 0)
    arrays, spans = batch(), batch()["spans"].tolist()
    parts.gradients(batch(3), pull, 0)
    parts.step(0.0, weight_decay=0.0, clip=1.0)  # what was added before it is gone
    losses = []
    for rows in ([0, 1, 2], [3, 4, 5]):
        cut = {k: [arrays[k][slice(*spans[b])] for b in rows] for k in ("ids", "positions")}
        packed = packing.pack_batch(cut["ids"], cut["positions"], [0] * 3)
        direction = pull(np.zeros((6, 12), np.float32))[1][rows]
        losses.append(parts.gradients(packed, lambda v, d=direction: (float((d * v).sum()), d), 0))
    assert sum(losses) == pytest.approx(loss, abs=1e-5)
    for t in whole.graph.trained:
        assert error(gradient(parts, t.name), gradient(whole, t.name)) < 1e-5, t.name
    norms = [p.step(0.01, weight_decay=0.1, clip=1.0) for p in (whole, parts)]
    assert norms[0] == pytest.approx(2 * norms[1], rel=1e-5)  # a step takes the mean of its micro-batches


def test_the_loss_goes_down_and_vectors_follow(make: Make):
    program = make(small(), random_weights, dropout=0.1)
    before = pull(program.vectors(batch()))[0]
    for i in range(10):
        program.gradients(batch(), pull, i)
        program.step(0.01, weight_decay=0.01, clip=1.0)
    assert pull(program.vectors(batch()))[0] < before - 1
    trained = program.state()
    again = make(small(), lambda t: trained[f"weight/{t.name}"])
    np.testing.assert_array_equal(again.vectors(batch()), program.vectors(batch()))


def test_frozen_weights_do_not_move(make: Make):
    names = [t.name for t in TrainGraph(small()).trained]
    frozen = [n for n in names if n.startswith(("w", "h.0")) or n.endswith("bias")]
    program = make(small(), random_weights, frozen=frozen)
    computed = [t.op.name for t in program.graph.backward if t.op]
    assert "scatter_rows" not in computed and "sum_rows" not in computed
    assert computed.count("linear_dweight") == 4  # and nothing goes below the second block
    assert computed.count("matmul") == 4
    program.gradients(batch(), pull, 0)
    program.step(0.01, weight_decay=0.1, clip=1.0)
    state = program.state()
    assert {n.removeprefix("m/") for n in state if n.startswith("m/")} == set(names) - set(frozen)
    for t in program.graph.weights:
        moved = not np.array_equal(state[f"weight/{t.name}"], random_weights(t))
        assert moved == (t.name not in frozen), t.name


def test_training_continues_from_a_state_bit_for_bit(make: Make):
    def steps(program: NumpyTrainProgram | GPUTrainProgram, which: range) -> None:
        for i in which:
            program.gradients(batch(i), pull, i)
            program.step(0.01, weight_decay=0.1, clip=1.0)

    whole, first, second = (make(small(), w, dropout=0.1) for w in (random_weights, random_weights, lambda t: np.zeros(t.shape)))
    steps(whole, range(4))
    steps(first, range(2))
    second.load_state(first.state())
    steps(first, range(2, 3))  # a state is a copy
    steps(second, range(2, 4))
    for name, a in whole.state().items():
        assert a.tobytes() == second.state()[name].tobytes(), name
    for wrong in ({k: v for k, v in whole.state().items() if k != "m/ln_f.bias"}, whole.state() | {"m/ln_f.bias": np.zeros(3)}):
        with pytest.raises(ValueError, match=r"^m/ln_f.bias must be \(12,\), got (nothing|\(3,\))$"):
            second.load_state(wrong)


def test_a_gradient_that_is_not_finite_changes_nothing(make: Make):
    program = make(small(), random_weights)
    before = program.state()
    program.gradients(batch(), lambda vectors: (float("nan"), np.full_like(vectors, np.nan)), 0)
    assert np.isnan(program.step(0.01, weight_decay=0.1, clip=1.0))
    assert all(a.tobytes() == before[name].tobytes() for name, a in program.state().items())
    program.gradients(batch(), pull, 0)
    assert np.isfinite(program.step(0.01, weight_decay=0.1, clip=1.0))


def test_what_cannot_be_trained_is_refused(make: Make):
    with pytest.raises(ValueError, match=r"^no weight is called 'h.9'$"):
        make(small(), random_weights, frozen=["h.9"])
    with pytest.raises(ValueError, match="every weight is frozen"):
        make(small(), random_weights, frozen=[t.name for t in TrainGraph(small()).trained])
    with pytest.raises(ValueError, match="only a graph in f32 can be trained"):
        make(vectors_of(GPT2Config(layers=1).hidden(1, "f16")), random_weights)


def test_shaders_without_checks_compute_the_same(device: Device, production_device: Device):
    programs = [on(d)(small(), random_weights, dropout=0.1) for d in (device, production_device)]
    for p in programs:
        for i in range(2):
            p.gradients(batch(i), pull, i)
    for t in programs[0].graph.trained:
        assert error(gradient(programs[1], t.name), gradient(programs[0], t.name)) < 1e-5, t.name


# --- numpy's shares


@pytest.mark.parametrize("cores", [1, 2, 3, 8])
def test_shares_change_nothing_but_rounding(cores: int, monkeypatch: pytest.MonkeyPatch):
    """Above all not the dropout, which goes by the micro-batch's tokens."""
    found = []
    for count in (1, cores):
        monkeypatch.setattr("gpt2wgpu.graph.cores.usable_cores", lambda count=count: count)
        program = in_numpy(small(), random_weights, dropout=0.3)
        found.append((program.gradients(batch(), pull, 0), {t.name: gradient(program, t.name) for t in program.graph.trained}))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    for name, expected in found[0][1].items():
        assert error(found[1][1][name], expected) < 1e-5, name


def test_a_failure_in_one_share_ends_the_step(monkeypatch: pytest.MonkeyPatch):
    """The next share does not wait for its turn."""
    program = in_numpy(small(), random_weights)
    monkeypatch.setattr("gpt2wgpu.graph.cores.usable_cores", lambda: 2)
    calls = []
    original = train_ops.row_sums

    def fail_once(*args: Array) -> tuple[Array, Array]:
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError("no room")
        return original(*args)

    monkeypatch.setattr(train_ops, "row_sums", fail_once)
    with pytest.raises(MemoryError, match="no room"):
        program.gradients(batch(), pull, 0)


FORK = """
import os, signal
import numpy as np
import test_train_program as tests
from gpt2wgpu import UserError
from gpt2wgpu.gpu import choose_adapter, open_device

device = open_device(choose_adapter(os.environ.get("GPT2WGPU_TEST_DEVICE", "gpu")))
programs = [make(tests.small(), tests.random_weights) for make in (tests.in_numpy, tests.on(device))]
for p in programs:
    p.gradients(tests.batch(), tests.pull, 0)
if child := os.fork():
    numpy, gpu = (p.step(0.01, weight_decay=0.1, clip=1.0) for p in programs)
    assert abs(numpy - gpu) < 1e-4 * numpy
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(60)  # ends it if it waits for ever
numpy, gpu = programs
assert numpy.step(0.01, weight_decay=0.1, clip=1.0) > 0 and np.isfinite(numpy.gradients(tests.batch(), tests.pull, 0))
calls = [
    lambda: gpu.gradients(tests.batch(), tests.pull, 0),
    lambda: gpu.vectors(tests.batch()),
    lambda: gpu.step(0.01, weight_decay=0.1, clip=1.0),
    gpu.state,
    lambda: gpu.load_state(numpy.state()),
]
for call in calls:
    try:
        call()
    except UserError as error:
        assert str(error).startswith("this process was forked from one that uses a GPU"), error
    else:
        raise AssertionError("no error")
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child(device: Device):
    """It trains in numpy; on a device one line says that the device stayed behind."""
    env = environment()
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), env["PYTHONPATH"]])
    done = subprocess.run([sys.executable, "-c", FORK], env=env, timeout=180, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()
