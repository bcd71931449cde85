"""Every field of a sentence-transformers folder against sentence-transformers (golden/settings.json): the same vectors, or
a refusal."""

import json
import shutil
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import one_line

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.graph.tensor import Array

GOLDEN = Path(__file__).parent / "golden"
# refused though these vectors stay: other calls change, or a later version may read the field
CAUTIOUS = {"query_length", "document_length", "config_args", "a_field_of_tomorrow", "module_output_name"}


@cache
def golden() -> dict[str, Any]:
    return json.loads((GOLDEN / "settings.json").read_text(encoding="utf-8"))


def vectors(folder: Path) -> Array:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # texts are cut
        return Encoder(folder, device="numpy").encode(golden()["texts"])


@pytest.mark.parametrize("name", sorted(golden()["folders"]))
def test_every_setting_does_what_it_does_there_or_is_refused(name: str, tmp_path: Path):
    folder, expected = tmp_path / name, golden()["folders"][name]
    shutil.copytree(GOLDEN / "sentence_models" / name, folder)
    np.testing.assert_allclose(vectors(folder), expected["base"], atol=2e-5)
    wrong, refused = [], []
    for file, change, want in expected["cases"]:
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        before = path.read_bytes() if path.exists() else None
        path.write_text(json.dumps({**json.loads(before or "{}"), **change}), encoding="utf-8")
        try:
            found = vectors(folder)
        except UserError as e:
            one_line(e)
            if want == "same" and not change.keys() & CAUTIOUS:
                refused.append((file, change, str(e)))
        else:
            want = expected["base"] if want == "same" else want
            if want != "error" and (np.shape(want) != found.shape or not np.allclose(found, want, atol=2e-5)):
                wrong.append((file, change))
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)
    assert not wrong
    assert not refused
