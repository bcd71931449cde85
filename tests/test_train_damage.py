"""A checkpoint that is damaged is refused in one line, whatever is wrong with it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from process import Run
from safetensors.numpy import load_file, save_file
from training import SCRATCH

WRONG = (None, True, -1, 1.5, "x", [], [1], {}, {"a": 1}, 10**400)

OPTIONAL = ("validation", "model", "tokenizer", "teacher", "layers", "heads", "width", "context", "vocab", "warmup")
OPTIONAL += ("max_seq_length", "limit_train", "limit_validation")


@pytest.fixture
def checkpoint(run: Run, data: Path, tmp_path: Path) -> Path:
    """The folder of a finished run."""
    args = ("--data", data / "labels.tsv", "--validation", data / "labels.tsv", *SCRATCH, "--epochs", 1, "-o", tmp_path / "run")
    assert run("train", *args)[0] == 0
    return tmp_path / "run"


def refused(run: Run, folder: Path, *words: str) -> None:
    code, out, err = run("train", "--resume", "-o", folder)
    assert (code, out) == (1, "") and "Traceback" not in err, err
    last = err.splitlines()[-1]
    assert last.startswith("error: ") and len(last) < 1000 and all(word in last for word in words), err


def test_every_field_of_the_wrong_type(run: Run, checkpoint: Path):
    path = checkpoint / "model/training/state.json"
    good = json.loads(path.read_text())
    fields = [(good["settings"], name) for name in good["settings"]]
    fields += [(good, name) for name in ("step", "epoch", "batch", "settings", "scores", "digest", "state")]
    seen = 0
    for place, name in fields:
        kept = place[name]
        for value in WRONG:
            if type(value) is type(kept) or (name in OPTIONAL and not isinstance(value, bool | dict)):
                continue  # it may be right
            place[name] = value
            path.write_text(json.dumps(good))
            refused(run, checkpoint)
            seen += 1
        place[name] = kept
    assert seen > 150
    for name in ("step", "epoch", "batch", "settings", "scores", "digest", "device", "state"):
        path.write_text(json.dumps({k: v for k, v in good.items() if k != name}))
        refused(run, checkpoint, "state.json", "start a new run in another folder")
    for text in ("", "[]", "{", "null"):
        path.write_text(text)
        refused(run, checkpoint, "state.json")


def test_a_position_behind_the_end_of_an_epoch(run: Run, checkpoint: Path):
    path = checkpoint / "model/training/state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"epoch": 1, "batch": 7}))
    refused(run, checkpoint, "batch 7 of epoch 1, which has 1: it is damaged")


def test_a_flipped_byte_in_the_state(run: Run, checkpoint: Path):
    path = checkpoint / "model/training/state.safetensors"
    good = bytearray(path.read_bytes())
    for at in (3, 100, len(good) // 2, len(good) - 1):
        bad = good.copy()
        bad[at] ^= 1
        path.write_bytes(bad)
        refused(run, checkpoint, "state.safetensors cannot be read (its contents changed)")
    path.unlink()
    refused(run, checkpoint, "state.safetensors cannot be read")


def test_the_state_of_another_model(run: Run, checkpoint: Path, tmp_path: Path):
    """Its model has a narrower position table."""
    model = checkpoint / "model"
    shutil.copytree(model, tmp_path / "kept")
    weights = load_file(model / "model.safetensors")
    weights["wpe.weight"] = np.ascontiguousarray(weights["wpe.weight"][:20])
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"n_positions": 20}))
    refused(run, checkpoint, "holds the state of another model (weight/wpe.weight must be (20, 16), got (24, 16))")
