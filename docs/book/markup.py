"""Markdown and code to HTML, and the frame of a page: one file, which loads nothing."""

import html
import re
from collections.abc import Sequence

import markdown2
from gpu_compilers.gpus import Gpu
from gpu_compilers.tables import Row
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from . import HERE

LANGUAGES = ("python", "wgsl", "bash", "diff")
REGISTER_HEAD = ("GPU", "registers a thread", "fit on a unit at once")
REGISTERS_LINK = '<a href="index.html#registers">what registers and waves are</a>'
# by Mesa's driver: what a register holds, and what is counted that fits (docs/registers.md)
REGISTER_UNITS = {
    "radeon": ("of 32 bits", "waves of 32 threads"),
    "nouveau": ("of 32 bits", "waves of 32 threads"),
    "asahi": ("of 16 bits", "threads"),
    "freedreno": ("of 4 × 32 bits", "waves of 128 threads"),
    "intel": ("of 32 bytes, for a wave", "threads in a wave"),
}
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
FORMATTER = HtmlFormatter(nowrap=True)


def show_code(text: str, language: str) -> str:
    """Coloured code in a box that scrolls."""
    return f'<pre tabindex="0"><code>{highlight(text, get_lexer_by_name(language), FORMATTER)}</code></pre>'


def show_block(text: str, language: str, source: str) -> str:
    """A fenced block: code, a formula, or a quotation from `source`, a file of the repository."""
    if language in LANGUAGES:
        return show_code(text, language)
    if language == "formula":
        return f'<pre class="formula" tabindex="0">{html.escape(text.rstrip())}</pre>'
    quoted = html.escape(text.rstrip())
    return f'<pre class="quotation" tabindex="0">{quoted}<cite>{html.escape(source)}</cite></pre>'


def show_markdown(text: str) -> str:
    """HTML of Markdown; its tables scroll by themselves where the screen is narrow."""
    plain, *rest = re.split(r"^```(\w+) ?(\S*)\n(.*?)^```$", text, flags=re.M | re.S)
    parts = [show_prose(plain)]
    for i in range(0, len(rest), 4):
        language, source, block, plain = rest[i : i + 4]
        parts += [show_block(block, language, source), show_prose(plain)]
    return "".join(parts)


def show_prose(text: str) -> str:
    made = markdown2.markdown(text, extras=["tables", "code-friendly", "cuddled-lists"])
    return made.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """A table of cells that are HTML already. numbers: all columns but the first are set right."""
    kind = ' class="numbers"' if numbers else ""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def register_cells(gpu: Gpu, row: Row) -> list[str]:
    """The cells of REGISTER_HEAD: what a compiler made of a kernel for a GPU, in that GPU's units."""
    holds, counted = REGISTER_UNITS[gpu.driver]
    registers = "–" if row.registers is None else f"{row.registers} {holds}"
    return [html.escape(gpu.title), registers, "–" if row.waves is None else f"{row.waves:,} {counted}"]


def figure(picture: str, words: str) -> str:
    return f"<figure>{picture}<figcaption>{words}</figcaption></figure>"


def code_word(text: object) -> str:
    return f"<code>{html.escape(str(text))}</code>"


def frame(title: str, body: str, links: Sequence[tuple[str, str]]) -> str:
    """A whole page. links: (words, file) at its top and its end."""
    style = (HERE / "book.css").read_text(encoding="utf-8") + code_colours()
    ways = "".join(f'<a href="{file}">{html.escape(words)}</a>' for words, file in links)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"<nav>{ways}</nav>\n<main>\n{body}\n</main>\n<nav>{ways}</nav>\n</body>\n</html>\n"
    )


def code_colours() -> str:
    """The colours of code, light and dark, as variables of book.css name them."""
    kinds = {"c": "note", "c1": "note", "cm": "note", "k": "word", "kd": "word", "kt": "type", "kc": "word", "ow": "word"}
    kinds |= {"nf": "name", "nb": "type", "bp": "type", "nd": "name", "s": "quoted", "s1": "quoted", "s2": "quoted", "sd": "note"}
    kinds |= dict.fromkeys(("mi", "mf", "mh", "il"), "number")
    return "".join(f"pre .{short} {{ color: var(--{colour}); }}\n" for short, colour in kinds.items())
