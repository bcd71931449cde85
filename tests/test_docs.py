"""README and docs: every command and every Python block runs, links lead somewhere, the pages say what is true."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_hub import Hub
from pages import GUIDES, PAGES, REPOSITORY, Block, environment, prepare_folder, read_blocks, run_command
from process import Run

import gpt2wgpu

# Commands that do not run in this test, and where they do.
ELSEWHERE = {
    r"\.venv/bin/": "the fast loop; .ci/run runs ruff, mypy and pytest",
    r"python3 -m venv ": ".ci/run, in a clone of its own",
    r"bash tests/run": "this very run",
    r"bash tests/registers": ".ci/run",
    r"pip install ": "tests/run installs the extras; a test has no network",
    r"python benchmarks/": "minutes long; tests/test_recipe.py and .ci/run run the short ones",
    r"python (-O )?docs/learn/": "tests/test_learn.py",
    r"python docs/make_api": "test_the_reference_is_made_without_a_warning",
    r"python docs/make_book": "tests/test_book.py",
    r"llm ": "tests/adapters/test_docs.py",
    r"git clone ": ".ci/run, in a clone of its own",
    r"docker ": ".ci/container, without Docker",
    r"gpt2wgpu export web --serve": "tests/test_web.py serves a folder; the command ends with Ctrl-C",
    r"(gpt2wgpu serve|curl)\b": "tests/test_serve.py and tests/clients/test_serve_clients.py",
}
FOR_A_SHELL = r"^(?!gpt2wgpu )|[|&;<>()$`*?~]"  # another program, or what a shell reads
WITH_FRAMEWORKS = "adapters.md"  # its Python blocks run in tests/adapters/test_docs.py


def is_elsewhere(command: str) -> bool:
    return any(re.match(pattern, command) for pattern in ELSEWHERE)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_what_a_page_shows_runs(page: Path, hub: Hub, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    """In the order of the page, in one folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    prepare_folder(folder, hub)
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "page"}
    for block in read_blocks(page):
        if block.language == "bash":
            for command in block.commands():
                if re.search(FOR_A_SHELL, command) and not is_elsewhere(command):
                    run_command(command, block, folder)
                elif not is_elsewhere(command):  # in this process, as a start of Python takes longer than most commands
                    code, out, err = run(*shlex.split(command)[1:])
                    assert code == 0 and "Traceback" not in err, f"{block}: {command}\n{out}\n{err}"
        elif block.language == "python" and page.name != WITH_FRAMEWORKS:
            run_python(block, names)


def run_python(block: Block, names: dict[str, object]) -> None:
    exec(compile("\n" * (block.line - 1) + block.text, str(block.page), "exec"), names)


def test_every_exception_is_needed():
    commands = [c for page in PAGES for b in read_blocks(page) if b.language == "bash" for c in b.commands()]
    assert [p for p in ELSEWHERE if not any(re.match(p, c) for c in commands)] == []


def test_blocks_have_a_language_that_is_tested():
    """A block without a language is output or a picture; anything else would never be run."""
    assert {b.language for page in PAGES for b in read_blocks(page)} <= {"", "bash", "python"}


def test_a_guide_begins_with_a_command_that_works():
    for page in GUIDES:
        assert read_blocks(page)[0].language in ("bash", "python"), page.name


def test_the_readme_shows_what_the_first_command_prints(hub: Hub, tmp_path: Path):
    prepare_folder(tmp_path, hub)
    start, shown = read_blocks(REPOSITORY / "README.md")[:2]
    command = start.commands()[0].rpartition(".venv/bin/")[2]
    assert run_command(command, start, tmp_path).split() == shown.text.split()


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_can_be_reached():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in PAGES[2:] if f"({p.relative_to(REPOSITORY)})" not in readme] == []


def test_the_reference_is_made_without_a_warning(tmp_path: Path):
    command = [sys.executable, "-W", "error", str(REPOSITORY / "docs" / "make_api.py"), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    made = (tmp_path / "gpt2wgpu.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in made for name in gpt2wgpu.__all__)
