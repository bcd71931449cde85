"""The chapters of docs/learn: each runs as it is, its prose states only numbers that its code asserts, and it converts."""

import ast
import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import CHROMIUM, open_browser
from pages import REPOSITORY

LEARN = REPOSITORY / "docs" / "learn"
sys.path.append(str(LEARN))

from cells import asserted_figures, find_chapters, read_cells, unasserted_figures  # noqa: E402
from convert import fill_page  # noqa: E402
from pictures import Picture, bar_chart, heat_map, line_chart, point_map  # noqa: E402

CHAPTERS = pytest.mark.parametrize("chapter", find_chapters(), ids=lambda p: p.stem)


def draw_pictures() -> list[Picture]:
    """One of each kind."""
    return [
        bar_chart({"a <b>": 0.5, "b": -0.25}),
        heat_map([[0.5, -1]], ["row"], ["one", "two"]),
        line_chart({"loss": [3, 2, 1], "short": [3]}, across_name="step"),
        point_map([[0, 1], [1, 0], [1, 0]], ["x", "y", "covers y"]),
    ]


def run_python(*arguments: Path | str, folder: Path, learn: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
    """learn: with docs/learn on the path, as for a chapter that lies there."""
    paths = os.pathsep.join(filter(None, (str(LEARN) if learn else "", str(REPOSITORY), os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": paths, **variables}, capture_output=True, text=True
    )


def list_false_asserts(chapter: Path) -> list[str]:
    """The asserts at the top level of a chapter that do not hold, each with what stands left of its comparison, so that figures
    can be changed at once after a model changed."""
    names: dict[str, Any] = {"__name__": "__main__", "__file__": str(chapter)}
    found = []
    with redirect_stdout(io.StringIO()):
        for statement in ast.parse(chapter.read_text(encoding="utf-8")).body:
            if not isinstance(statement, ast.Assert):
                exec(compile(ast.Module([statement], []), str(chapter), "exec"), names)
                continue
            parts = statement.test.values if isinstance(statement.test, ast.BoolOp) else [statement.test]
            for part in parts:
                if not eval(compile(ast.Expression(part), str(chapter), "eval"), names):
                    left = part.left if isinstance(part, ast.Compare) else part
                    value = eval(compile(ast.Expression(left), str(chapter), "eval"), names)
                    found.append(f"line {statement.lineno}: {ast.unparse(part)}, found {value!r}")
    return found


@CHAPTERS
def test_a_chapter_runs(chapter: Path, tmp_path: Path):
    done = run_python(chapter, folder=tmp_path)
    if "AssertionError" in done.stderr:
        pytest.fail("\n".join([done.stderr, *list_false_asserts(chapter)]))
    assert (done.returncode, done.stderr) == (0, "")
    assert [*tmp_path.iterdir()] == []


@CHAPTERS
def test_the_prose_states_what_the_code_asserts(chapter: Path):
    cells = read_cells(chapter)
    assert unasserted_figures(cells) == []
    links = re.findall(r"\]\(([^)]+)\)", "".join(cell.text for cell in cells if cell.prose))
    assert [link for link in links if "://" not in link and not (LEARN / link).exists()] == []
    assert re.match(rf"# {int(chapter.stem[:2])}\. \w", cells[0].text)
    code = [cell for cell in cells if not cell.prose]
    assert len(set().union(*map(asserted_figures, code))) >= 5  # and no block goes across cells
    assert "__file__" not in chapter.read_text(encoding="utf-8")  # a notebook has none


def write_chapter(folder: Path, prose: str, code: str) -> Path:
    chapter = folder / "99_test.py"
    chapter.write_text(f"# %% [markdown]\n# # 99. Test\n# {prose}\n# %%\n{code}\n", encoding="utf-8")
    return chapter


@pytest.mark.parametrize(
    ("prose", "code", "missing"),
    [
        ("It is 0.123.", "assert round(x, 3) == 0.123", []),
        ("It is -0.123, and 20,480 of 5 are 45 %.", "assert (x, y, z) == (-0.123, 5, 45) and len(v) == 20480", []),
        ("It is 0.124.", "assert round(x, 3) == 0.123", ["0.124"]),
        ("It has 3 digits.", "assert round(x, 3) == 0.123", ["3"]),
        ("It is 7.", "x = 7\nassert 7 == 7", ["7"]),
        ("It is 7.", "x = 7\nassert x", ["7"]),
        ("GPT-2 of 2019, `x[3]`, f16, [chapter 2](02_x.py).", "x = 7", []),
        ("Between 0.1 and 2,048.5.", "assert 0.1 < x < 2048.5", []),
    ],
)
def test_figures_need_an_assert(prose: str, code: str, missing: list[str], tmp_path: Path):
    cells = read_cells(write_chapter(tmp_path, prose, code))
    assert [figure for _, figure in unasserted_figures(cells)] == missing


def test_a_script_prints_the_numbers_of_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Where nobody draws: not here, nor in a notebook or a page."""
    assert [picture.text for picture in draw_pictures()] == [
        f"a <b>   0.500  {'#' * 40}\nb      -0.250  {'#' * 20}",
        "      one    two\nrow  0.50  -1.00",
        "step  loss  short\n0     3.00   3.00\n1     2.00\n2     1.00",
        "x         0.00  1.00\ny         1.00  0.00\ncovers y  1.00  0.00",
    ]
    assert capsys.readouterr().out == ""
    text = "from shared import bar_chart\n\nprint('before')\nbar_chart({'x': 2})"
    chapter = write_chapter(tmp_path, "It is.", text)
    assert run_python(chapter, folder=tmp_path, learn=True).stdout == f"before\nx  2.000  {'#' * 40}\n"


def test_a_chapter_uses_one_thread_of_blas(tmp_path: Path):
    """Also where numpy is imported first and the environment allows more."""
    code = "import numpy\nfrom shared import DATA_SETS\nfrom threadpoolctl import threadpool_info\n"
    code += "print({x['num_threads'] for x in threadpool_info() if x['user_api'] == 'blas'})"
    chapter = write_chapter(tmp_path, "It is.", code)
    many = {"OPENBLAS_NUM_THREADS": "2"}
    assert run_python(chapter, folder=tmp_path, learn=True, **many).stdout == "{1}\n"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("01_tokens", "Write something here", "Cats nap"),
        ("01_tokens", "in range(6):", "in range(9):"),
        ("03_attention", "A kitten is napping on the couch", "The couch was bought by a king"),
    ],
)
def test_a_chapter_runs_after_a_change(name: str, old: str, new: str, tmp_path: Path):
    """What a chapter invites to change can be changed, with -O where asserts are about it."""
    text = (LEARN / f"{name}.py").read_text(encoding="utf-8")
    chapter = tmp_path / f"{name}.py"
    chapter.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert old in text
    invited = old == "Write something here"
    done = run_python(*[] if invited else ["-O"], chapter, folder=tmp_path, learn=True)
    assert (done.returncode, done.stderr) == (0, "")
    if not invited:
        assert "AssertionError" in run_python(chapter, folder=tmp_path, learn=True).stderr


def test_a_false_number_fails(tmp_path: Path):
    """In the code it fails when the chapter runs, which then tells the value."""
    code = "x = 0.12345\nassert round(x, 3) == 0.124"
    chapter = write_chapter(tmp_path, "It is 0.124.", code)
    assert "AssertionError" in run_python(chapter, folder=tmp_path).stderr
    assert list_false_asserts(chapter) == ["line 6: round(x, 3) == 0.124, found 0.123"]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first chapter as a notebook and a page."""
    folder = tmp_path_factory.mktemp("converted")
    done = run_python(LEARN / "convert.py", folder / "out", find_chapters()[0], folder=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {p.name for p in (folder / "out").iterdir()} == {"index.html", "01_tokens.html", "01_tokens.ipynb"}
    return folder / "out"


def test_a_notebook_is_valid_and_runs(converted: Path, tmp_path: Path):
    notebook = nbformat.read(converted / "01_tokens.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = "".join(o.text for cell in code for o in cell.outputs if o.output_type == "stream")
    assert any("image/svg+xml" in o.get("data", {}) for cell in code for o in cell.outputs)
    done = run_python("-c", "\n".join(cell.source for cell in code), folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")


def test_the_contents_keep_what_was_converted_earlier(tmp_path: Path):
    (tmp_path / "03_attention.html").touch()
    done = run_python(LEARN / "convert.py", tmp_path, write_chapter(tmp_path, "It is.", "x = 1"), folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    contents = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<h2><a href="(\w+)\.html"', contents) == ["03_attention", "99_test"]
    assert 'href="03_attention.html"' in (tmp_path / "99_test.html").read_text(encoding="utf-8")


def test_links_lead_to_chapters_that_are_there(converted: Path, tmp_path: Path):
    """Those to other chapters are text, on the page and in the notebook."""
    for path in (converted / "01_tokens.html", converted / "01_tokens.ipynb"):
        text = path.read_text(encoding="utf-8")
        assert "(chapter 2)" in text and "02_embeddings" not in text
    (tmp_path / "02_embeddings.html").touch()
    chapter = write_chapter(tmp_path, "See [two](02_embeddings.py), [three](03_attention.py).", "x = 1")
    assert run_python(LEARN / "convert.py", tmp_path, chapter, folder=tmp_path).returncode == 0
    page = (tmp_path / "99_test.html").read_text(encoding="utf-8")
    assert 'See <a href="02_embeddings.html">two</a>, three.' in page


def test_a_path_that_is_wrong_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    done = run_python(LEARN / "convert.py", tmp_path / "file", folder=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"error: {tmp_path / 'file'}: expected a folder for the pages, found a file\n")
    done = run_python(LEARN / "convert.py", tmp_path / "out", tmp_path / "none.py", folder=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"error: {tmp_path / 'none.py'}: No such file or directory\n")


def test_a_chapter_that_fails_is_named(tmp_path: Path):
    chapter = write_chapter(tmp_path, "It is.", "x = 1\nassert x == 2, 'no'")
    done = run_python(LEARN / "convert.py", tmp_path / "out", chapter, folder=tmp_path)
    hint = "; after a change of yours, python -O leaves the asserts out"
    assert (done.returncode, done.stderr) == (1, f"error: 99_test.py, line 6: AssertionError no{hint}\n")
    assert run_python("-O", LEARN / "convert.py", tmp_path / "changed", chapter, folder=tmp_path).returncode == 0
    assert [*(tmp_path / "out").iterdir()] == []
    for text, problem in {
        "x = 1": ", line 1: expected # %% or # %% [markdown] first, found 'x = 1'",
        "# %%\nx = 1": ": expected a cell of prose with the title first",
        "# %% [markdown]\nx = 1": ", line 2: expected prose after '# ', found 'x = 1'",
    }.items():
        chapter.write_text(text, encoding="utf-8")
        done = run_python(LEARN / "convert.py", tmp_path / "out", chapter, folder=tmp_path)
        assert done.stderr == f"error: 99_test.py{problem}\n"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_pages_in_a_browser(converted: Path, tmp_path: Path):
    """They load nothing, fit a narrow window, and no text of a picture is cut off."""
    kinds = tmp_path / "kinds.html"
    kinds.write_text(fill_page("t", "".join(f"<figure>{p.svg}</figure>" for p in draw_pictures()), ""), encoding="utf-8")
    cut = "[...document.querySelectorAll('svg text')].filter(t => { const b = t.getBBox(), s = t.ownerSVGElement;"
    cut += " return b.x < -1 || b.x + b.width > s.width.baseVal.value + 1 }).map(t => t.textContent)"
    with open_browser() as tab:
        for page, count in ((kinds, 4), (converted / "01_tokens.html", 1), (converted / "index.html", 0)):
            tab.open(page, width=380)
            assert tab.run("document.querySelectorAll('svg').length") == count
            assert tab.run("document.documentElement.scrollWidth") == 380
            assert tab.run(cut) == []
            assert (tab.problems, tab.requests.pop()) == ([], page.as_uri())
            assert not tab.requests
        assert tab.run("document.querySelector('h2 a').textContent") == "1. Tokens"
