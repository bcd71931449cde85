"""Command lines as processes of their own."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import gpt2wgpu

ROOT = Path(gpt2wgpu.__file__).parent.parent
Run = Callable[..., tuple[int, str, str]]  # of the fixture `run`: exit code, stdout, stderr


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "gpt2wgpu", *map(str, args)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "GPT2WGPU_DEVICE": "numpy", "PYTHONIOENCODING": "ascii"}
