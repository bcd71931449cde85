"""What a program that uses the package sees of it: names that resolve, and types that a strict checker knows."""

import os
import subprocess
import sys
from pathlib import Path

import gpt2wgpu

PROGRAM = """
import numpy as np
from numpy.typing import NDArray
from gpt2wgpu import Encoder, UserError, cosine_similarity, quantize_embeddings

model = Encoder("folder", device="cpu", prompts={"query": "q: ", "document": None})
vectors: NDArray[np.float32] = model.encode(["a", "b"], normalize_embeddings=True, batch_size=2)
query: NDArray[np.float32] = model.encode_query("a", truncate_dim=2)
alike: float = cosine_similarity(vectors[0], query)
bits = quantize_embeddings([row for row in model.encode_stream(iter(["a"]))], "binary").dtype
"""


def check_types(program: str, folder: Path) -> str:
    """What mypy says of a program, on stdout."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--no-incremental",
        "--no-error-summary",
        "program.py",
    ]
    place = Path(gpt2wgpu.__file__).parents[1]
    environment = {**os.environ, "MYPYPATH": "" if place.name == "site-packages" else str(place)}  # mypy looks there itself
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stdout


def test_a_strict_program(tmp_path: Path):
    assert check_types(PROGRAM, tmp_path) == ""


def test_a_wrong_program(tmp_path: Path):
    """Types are not Any: a mistake is found."""
    wrong = ["model.encode(5)", "model.encode('a', normalise=True)", "model.encode('a').nope", "UserError().nope"]
    found = check_types(PROGRAM + "\n".join(wrong), tmp_path)
    first = PROGRAM.count("\n") + 1
    for line in range(first, first + len(wrong)):
        assert f"program.py:{line}: error: " in found


def test_names():
    namespace: dict[str, object] = {}
    exec("from gpt2wgpu import *", namespace)
    names = namespace.keys() - {"__builtins__"}
    assert names == set(gpt2wgpu.__all__) < set(dir(gpt2wgpu))
    assert not hasattr(gpt2wgpu, "Any") and not hasattr(gpt2wgpu, "TYPE_CHECKING")
    for name in names:
        assert getattr(gpt2wgpu, name).__name__ == name
    assert (Path(gpt2wgpu.__file__).parent / "py.typed").exists()
