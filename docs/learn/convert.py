"""Write chapters as notebooks and as pages that need nothing else: python docs/learn/convert.py FOLDER [CHAPTER.py ...]

Each chapter is run, and what it prints and draws is put under its cells. Needs the extra "docs" (Markdown, colours of code).
"""

import html
import json
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from cells import Cell, Output, find_chapters, read_cells, run_cells

try:
    from markdown2 import markdown
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
except ImportError as error:
    sys.exit(f'error: pages need {error.name}: pip install ".[docs]" in the checkout')

HERE = Path(__file__).resolve().parent
EXTRAS = ("tables", "fenced-code-blocks", "break-on-newline-off", "markdown-in-html")
CODE_COLOURS = (
    HtmlFormatter(style="friendly", nobackground=True),
    HtmlFormatter(style="github-dark", nobackground=True),
)


def chapter_title(cells: Sequence[Cell]) -> str:
    """The first heading of a chapter."""
    return cells[0].text.splitlines()[0].lstrip("# ")


def make_notebook(
    cells: Sequence[Cell], outputs: Sequence[Output | None], known: Collection[str]
) -> dict[str, Any]:
    """A notebook in format 4.5, with outputs. Its first cell finds shared.py, which stays where it is.

    known: see link_chapters.
    """
    find = f"import sys\n\nsys.path.insert(0, {str(HERE)!r})  # for shared.py"
    found = [notebook_code("find-shared", find, Output("", ""), 1)]
    for i, (cell, output) in enumerate(zip(cells, outputs, strict=True)):
        if output is None:
            found.append(
                {
                    "id": f"cell-{i}",
                    "cell_type": "markdown",
                    "metadata": {},
                    "source": link_chapters(cell.text, "ipynb", known),
                }
            )
        else:
            count = 2 + sum(o is not None for o in outputs[:i])
            found.append(notebook_code(f"cell-{i}", cell.text, output, count))
    about = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": about, "cells": found}


def notebook_code(name: str, source: str, output: Output, count: int) -> dict[str, Any]:
    shown: list[dict[str, Any]] = []
    if output.printed:
        shown.append({"output_type": "stream", "name": "stdout", "text": output.printed})
    if output.picture:
        data = {"image/svg+xml": output.picture, "text/plain": "a picture"}
        shown.append(
            {
                "output_type": "execute_result",
                "metadata": {},
                "data": data,
                "execution_count": count,
            }
        )
    about = {"cell_type": "code", "metadata": {}, "source": source, "execution_count": count}
    return {"id": name, **about, "outputs": shown}


def make_page(
    cells: Sequence[Cell], outputs: Sequence[Output | None], ways: str, known: Collection[str]
) -> str:
    """A page in one file: prose, coloured code, and under it what it prints and draws.

    ways: links to the chapters beside it. known: see link_chapters.
    """
    body = []
    for cell, output in zip(cells, outputs, strict=True):
        if output is None:
            prose = markdown(link_chapters(cell.text, "html", known), extras=[*EXTRAS])
            body.append(f"<section>{prose}</section>")
            continue
        body.append(highlight(cell.text, PythonLexer(), CODE_COLOURS[0]))
        if output.printed:
            body.append(f'<pre class="printed">{html.escape(output.printed)}</pre>')
        if output.picture:
            body.append(f"<figure>{output.picture}</figure>")
    return fill_page(chapter_title(cells), "\n".join(body), ways)


def make_contents(chapters: dict[str, list[Cell]]) -> str:
    """The page that lists the chapters, each with its first paragraph: name of the file -> cells."""
    body = "# How a sentence becomes a vector\n\n"
    for name, cells in chapters.items():
        paragraph = "".join(cells[0].text.split("\n\n")[1:2])
        body += f"## [{chapter_title(cells)}]({name}.py)\n\n{paragraph}\n\n"
    return fill_page(
        "How a sentence becomes a vector",
        markdown(link_chapters(body, "html", chapters), extras=[*EXTRAS]),
        "",
    )


def fill_page(title: str, body: str, ways: str) -> str:
    light, dark = (colours.get_style_defs(".highlight") for colours in CODE_COLOURS)
    style = f"{(HERE / 'page.css').read_text(encoding='utf-8')}{light}\n@media (prefers-color-scheme: dark) {{{dark}}}"
    head = '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    about = f"<title>{html.escape(title)}</title><style>{style}</style></head>"
    return f"{head}{about}<body><main>{ways}{body}{ways}</main></body></html>\n"


def link_chapters(text: str, suffix: str, known: Collection[str]) -> str:
    """Links to chapters (NN_name.py) as links to what they are converted to; to those not known, as their text alone."""

    def link_chapter(found: re.Match[str]) -> str:
        words, name = found.groups()
        return f"[{words}]({name}.{suffix})" if name in known else words

    return re.sub(r"\[([^\]]*)\]\((\d\d_\w+)\.py\)", link_chapter, text)


def chapter_ways(name: str, titles: dict[str, str]) -> str:
    """Links from a chapter to the one before it, the contents and the one after it."""
    names = [*titles]
    i = names.index(name)
    before = (
        f'<a href="{names[i - 1]}.html">← {html.escape(titles[names[i - 1]])}</a>' if i else "<span></span>"
    )
    after = (
        f'<a href="{names[i + 1]}.html">{html.escape(titles[names[i + 1]])} →</a>'
        if i + 1 < len(names)
        else "<span></span>"
    )
    return f'<nav>{before}<a href="index.html">Contents</a>{after}</nav>'


def convert_chapters(folder: Path, chapters: Sequence[Path]) -> None:
    """Write NAME.html and NAME.ipynb for each chapter, and index.html, which lists those converted earlier, too.

    Raises ValueError or OSError. A chapter that fails leaves no file.
    """
    earlier = [c for c in find_chapters() if c not in chapters and (folder / f"{c.stem}.html").exists()]
    cells = {
        chapter.stem: read_cells(chapter) for chapter in sorted([*earlier, *chapters], key=lambda c: c.name)
    }
    titles = {name: chapter_title(found) for name, found in cells.items()}
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder for the pages, found a file")
    folder.mkdir(parents=True, exist_ok=True)
    for chapter in chapters:
        outputs = [*run_cells(chapter, cells[chapter.stem])]
        page = make_page(cells[chapter.stem], outputs, chapter_ways(chapter.stem, titles), titles)
        made = make_notebook(cells[chapter.stem], outputs, titles)
        notebook = json.dumps(made, ensure_ascii=False, indent=1)
        (folder / f"{chapter.stem}.html").write_text(page, encoding="utf-8")
        (folder / f"{chapter.stem}.ipynb").write_text(notebook + "\n", encoding="utf-8")
    (folder / "index.html").write_text(make_contents(cells), encoding="utf-8")


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python docs/learn/convert.py FOLDER [CHAPTER.py ...]")
    try:
        convert_chapters(
            Path(sys.argv[1]), [Path(name).resolve() for name in sys.argv[2:]] or find_chapters()
        )
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
