"""Every field of config.json against `transformers` (golden/fields.json): computed as there, or refused."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import PUBLISHED
from refusals import one_line

from gpt2wgpu.checkpoint import load_checkpoint
from gpt2wgpu.errors import UserError
from gpt2wgpu.graph import packing, reference
from gpt2wgpu.graph.packing import position_ids
from gpt2wgpu.graph.tensor import Array
from gpt2wgpu.models import ARCHITECTURES, read_config
from gpt2wgpu.models.fields import Fields
from gpt2wgpu.models.unused import UNUSED

GOLDEN = Path(__file__).parent / "golden"


@cache
def golden() -> dict[str, Any]:
    return json.loads((GOLDEN / "fields.json").read_text(encoding="utf-8"))["models"]


def state_of(folder: Path, ids: list[int]) -> Array:
    """The last hidden state of one sequence: its mean and its last token, side by side."""
    c = load_checkpoint(folder)
    sequence = np.array(ids, np.uint32)
    batch = packing.pack_batch([sequence], [position_ids(sequence, c.config.pad)], [0])
    hidden = reference.NumpyProgram(c.config.hidden(c.config.layers), c.weights).run(batch)
    return np.concatenate([hidden.mean(0), hidden[-1]])


def error(found: Array, expected: list[float]) -> float:
    return float(np.abs(found - np.array(expected)).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", sorted(golden()))
def test_every_field_does_what_it_does_in_transformers_or_is_refused(name: str, tmp_path: Path):
    model = golden()[name]
    folder = tmp_path / name
    shutil.copytree(GOLDEN / "models" / name, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert error(state_of(folder, model["ids"]), model["base"]) <= 1e-5
    wrong, refused = [], []
    for change, expected, is_own in model["cases"]:
        (folder / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
        try:
            found = state_of(folder, model["ids"])
        except UserError as e:
            one_line(e)
            if expected == "same" and is_own:
                refused.append((change, str(e)))
            continue
        want = model["base"] if expected == "same" else expected
        if expected != "error" and error(found, want) > 1e-5:
            wrong.append((change, error(found, want)))
    assert not wrong
    assert not refused  # a field that the class itself has, with a value that changes nothing
    tried = {field for change, _, _ in model["cases"] for field in change}
    claimed = UNUSED.union(ARCHITECTURES[config["model_type"]].unused)
    assert claimed - config.keys() - {"model_type"} <= tried


@pytest.mark.parametrize("version", ["4.57.1", "5.24.0"])
def test_every_field_that_transformers_writes_is_known(version: str):
    configs = json.loads((GOLDEN / "configs.json").read_text(encoding="utf-8"))[version]
    for name, values in configs.items():
        assert read_config(Fields(Path(f"{name}/config.json"), values))[0] == name


@pytest.mark.parametrize("name", PUBLISHED)
def test_fields_of_published_models_are_known(name: str):
    assert read_config(Fields(Path(f"{name}/config.json"), PUBLISHED[name]))[1].layers > 1


def test_a_field_that_nobody_knows_is_refused():
    fields = Fields(Path("config.json"), {"model_type": "bert", "expert_count": 8, "unknown_and_null": None})
    with pytest.raises(UserError) as caught:
        read_config(fields)
    one_line(caught.value, "config.json: 'expert_count' is 8", "may change vectors", "remove it if it does not")
