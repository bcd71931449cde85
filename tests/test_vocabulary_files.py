"""The tokenizers that are made of vocabulary files, against `transformers` (tests/golden/tokenizers, by make_golden.py)."""

import json
from pathlib import Path

import pytest

from gpt2wgpu.models import ARCHITECTURES
from gpt2wgpu.models.fields import read_fields
from gpt2wgpu.tokenizer import Tokenizer

FOLDERS = sorted((Path(__file__).parent / "golden" / "tokenizers").iterdir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_ids_equal_those_of_transformers(folder: Path):
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    kind = ARCHITECTURES[read_fields(folder / "config.json").text("model_type")].tokenizer
    tokenizer = Tokenizer(folder, kind=kind, vocab=expected["vocab"], lower_case=False)
    ids = {text: ids for text, ids in expected["ids"].items() if ids}  # GPT-Neo has none for an empty text
    assert len(ids) >= len(expected["ids"]) - 1 > 10
    found = [found.tolist() for found in tokenizer.encode([*ids], 1 << 20)[0]]
    assert dict(zip(ids, found, strict=True)) == ids
