"""What the tests of checkpoints share."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from gpt2wgpu.checkpoint import Checkpoint, load_checkpoint
from gpt2wgpu.errors import UserError
from gpt2wgpu.graph.tensor import Tensor, schedule


def refusal(path: Path, *words: object) -> str:
    """The one line with which a folder is refused; it holds all the words."""
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    return one_line(caught.value, *words)


def one_line(error: UserError, *words: object) -> str:
    message = str(error)
    assert "\n" not in message
    assert len(message) < 600
    assert "Error" not in message and "Traceback" not in message, message
    for word in words:
        assert str(word) in message, message
    return message


def leaves(c: Checkpoint, half: str = "f32") -> dict[str, Tensor]:
    return {t.name: t for t in schedule(c.config.hidden(c.config.layers, half)) if t.is_weight}


def bf16(a: np.ndarray) -> np.ndarray:
    return (a.view(np.uint32) & 0xFFFF0000).view(np.float32)


def save_raw(path: Path, header: object, data: bytes = b"") -> None:
    """A safetensors file with any header, lies included."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
