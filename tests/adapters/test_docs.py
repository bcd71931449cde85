"""The page about other frameworks: its blocks run against the real packages."""

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
    """In a process of its own: Ray stays where it was started."""
    (folder / "block.py").write_text(block.text, encoding="utf-8")
    run_command("python -W default block.py", block, folder)


def test_commands_of_llm_run(folder: Path):
    commands = [(c, b) for b in BLOCKS if b.language == "bash" for c in b.commands() if c.startswith("llm ")]
    assert commands
    for command, block in commands:
        run_command(command, block, folder)
