"""The page about other frameworks: its blocks run against the real packages."""

import warnings
from pathlib import Path

import pytest
from loopback_hub import Hub
from pages import REPOSITORY, Block, prepare_folder, read_blocks, run_command

BLOCKS = read_blocks(REPOSITORY / "docs" / "adapters.md")


@pytest.fixture
def folder(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prepare_folder(tmp_path, hub)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    return tmp_path


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=lambda b: str(b.line))
def test_python_blocks_run(block: Block, folder: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        exec(compile("\n" * (block.line - 1) + block.text, str(block.page), "exec"), {"__name__": "page"})


def test_commands_of_llm_run(folder: Path):
    commands = [(c, b) for b in BLOCKS if b.language == "bash" for c in b.commands() if c.startswith("llm ")]
    assert commands
    for command, block in commands:
        run_command(command, block, folder)
