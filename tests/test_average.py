"""`train --average`: the moving average of the weights, in numpy and on a device, saved, validated and resumed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from process import Run
from safetensors.numpy import load_file
from test_train_program import batch, in_numpy, on, pull, random_weights, small
from training import SCRATCH, metrics

from gpt2wgpu.gpu import Device
from gpt2wgpu.train.average import average_share


def test_how_far_the_average_moves():
    for steps in (1, 7, 400, 2500):
        shares = {step: share for step in range(1, steps + 1) if (share := average_share(step, steps)) is not None}
        assert max(shares) == steps and len(shares) <= 1000 and min(shares) == -(-steps // 1000)
        assert shares[min(shares)] == 1  # nothing is left of the weights before
        counts, left = {}, 1.0
        for step in sorted(shares, reverse=True):
            counts[step] = left * shares[step]
            left *= 1 - shares[step]
        assert left == 0 and sum(counts.values()) == pytest.approx(1)
        if steps >= 400:
            assert sum(n for step, n in counts.items() if step > steps * 11 / 12) == pytest.approx(0.5, abs=0.02)
            early, late = (min(counts, key=lambda step: abs(step - share * steps)) for share in (0.5, 0.9))
            assert counts[early] / counts[late] == pytest.approx((early / late) ** 7, rel=0.1)


@pytest.mark.parametrize("name", ["numpy", "gpu"])
def test_an_average_and_its_exchange(name: str, request: pytest.FixtureRequest):
    make: Any = in_numpy if name == "numpy" else on(request.getfixturevalue("device"))
    program = make(small(), random_weights, averaged=True, frozen={"wpe.weight"})
    names = [t.name for t in program.graph.trained]
    assert "wpe.weight" not in names
    first = program.state()
    assert all(np.array_equal(first[f"average/{n}"], first[f"weight/{n}"]) for n in names)
    expected = {n: first[f"weight/{n}"].astype(np.float64) for n in names}
    for i, share in enumerate((0.3, 0.05, 0.6)):
        program.gradients(batch(i), pull, i)
        program.step(0.05, weight_decay=0.1, clip=1.0)
        program.move_average(share)
        state = program.state()
        for n in names:
            expected[n] += share * (state[f"weight/{n}"] - expected[n])
            assert np.abs(state[f"average/{n}"] - expected[n]).max() < 1e-6
            assert not np.array_equal(state[f"average/{n}"], state[f"weight/{n}"])
    vectors = program.vectors(batch())
    program.exchange_average()
    exchanged = program.state()
    for n in names:
        assert np.array_equal(exchanged[f"average/{n}"], state[f"weight/{n}"])
        assert np.array_equal(exchanged[f"weight/{n}"], state[f"average/{n}"])
    assert not np.array_equal(program.vectors(batch()), vectors)
    program.exchange_average()
    assert np.array_equal(program.vectors(batch()), vectors)
    again = make(small(), random_weights, averaged=True, frozen={"wpe.weight"})
    again.load_state(state)
    for p in (program, again):
        p.gradients(batch(5), pull, 5)
        p.step(0.05, weight_decay=0.1, clip=1.0)
        p.move_average(0.3)
    assert all(np.array_equal(a, program.state()[n]) for n, a in again.state().items())
    program.move_average(1)
    assert all(np.array_equal(program.state()[f"average/{n}"], program.state()[f"weight/{n}"]) for n in names)
    with pytest.raises(ValueError, match="average/"):
        again.load_state({n: a for n, a in state.items() if not n.startswith("average/")})


def test_an_average_needs_memory():
    without, with_one = (in_numpy(small(), random_weights, averaged=a).graph for a in (False, True))
    sizes = [g.memory_needed({"T": 8, "B": 2, "G": 3}).total for g in (without, with_one)]
    assert sizes[1] - sizes[0] == 4 * sum(int(np.prod(t.shape)) for t in without.trained)


def test_the_average_is_what_is_saved_and_validated(run: Run, data: Path, tmp_path: Path):
    args = ("--data", data / "labels.tsv", "--validation", data / "labels.tsv", *SCRATCH, "--lr", 0.01, "--batch-tokens", 128)
    out = tmp_path / "run"
    code, said, err = run("train", *args, "--epochs", 4, "--average", "-o", out)
    assert code == 0 and "without the average" in err and ", unaveraged_spearman " in said, err
    state = load_file(out / "model/training/state.safetensors")
    saved = load_file(out / "model/model.safetensors")
    assert all(np.array_equal(a, state[f"average/{name}"]) for name, a in saved.items())
    assert not np.array_equal(saved["wte.weight"], state["weight/wte.weight"])
    checks = [line for line in metrics(out) if "spearman" in line]
    assert [*checks[-1]] == ["step", "spearman", "accuracy", "unaveraged_spearman", "unaveraged_accuracy"]
    assert checks[0]["spearman"] == checks[0]["unaveraged_spearman"]
    assert any(line["spearman"] != line["unaveraged_spearman"] for line in checks[1:])
    found = json.loads(run("evaluate", "--data", data / "labels.tsv", "--model", out / "model", "--json")[1])
    assert found["scores"]["cosine"]["spearman"] == pytest.approx(checks[-1]["spearman"], abs=0.01)
    assert run("train", *args, "--epochs", 4, "-o", tmp_path / "plain")[0] == 0
    plain = [line for line in metrics(tmp_path / "plain") if "spearman" in line]
    assert [line["spearman"] for line in plain] == [line["unaveraged_spearman"] for line in checks]  # it changes no step


def test_a_device_averages_like_numpy(device: Device, run: Run, data: Path, tmp_path: Path):
    args = ("--data", data / "labels.tsv", *SCRATCH, "--epochs", 1, "--batch-tokens", 256, "--average")
    for name in ("numpy", device.adapter.index):
        assert run("train", *args, "--device", name, "-o", tmp_path / f"on_{name}")[0] == 0
    here, there = (load_file(tmp_path / f"on_{name}/model/model.safetensors") for name in ("numpy", device.adapter.index))
    assert max(float(np.abs(here[name] - there[name]).max()) for name in here) < 1e-3
