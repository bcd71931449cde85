"""Every field of a tokenizer's files against `transformers` (tests/golden/tokenizer_fields, by golden_tokenizer_fields.py)."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from vocabularies import refusal

from gpt2wgpu.models import ARCHITECTURES
from gpt2wgpu.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "golden" / "tokenizer_fields"
CASES = json.loads((GOLDEN / "cases.json").read_text("utf-8"))


def open_case(folder: Path, case: dict[str, Any]) -> Tokenizer:
    shutil.copy(GOLDEN / f"{case['base']}.json", folder / "tokenizer.json")
    for name, value in {"config": {}, **case["files"]}.items():
        tiny.write_json(folder / f"{name}.json", {"model_type": case["model_type"], **value} if name == "config" else value)
    return Tokenizer(folder, kind=ARCHITECTURES[case["model_type"]].tokenizer, vocab=1 << 31, lower_case=False)


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_a_field_changes_ids_as_in_transformers(tmp_path: Path, case: dict[str, Any]):
    tokenizer = open_case(tmp_path, case)
    found = [ids.tolist() for limit in (8, 1 << 20) for ids in tokenizer.encode(CASES["texts"], limit)[0]]
    assert found == CASES["ids"][case["ids"]]


@pytest.mark.parametrize("case", CASES["refused"], ids=lambda case: case["name"])
def test_a_field_that_is_not_supported_is_refused_by_name(tmp_path: Path, case: dict[str, Any]):
    refusal(lambda: open_case(tmp_path, case), case["name"], tmp_path)
