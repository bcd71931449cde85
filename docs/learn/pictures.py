"""Small pictures, which a notebook or a page shows; a chapter that runs as a script prints their numbers."""

import html
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

COLOURS = (
    "#c2410c",
    "#1d5fb8",
    "#0f766e",
    "#6d28d9",
    "#b45309",
    "#6b7280",
)  # the first two: positive, negative
LETTER = 7.2  # width of a letter in pixels
ROWS = 12  # of the table of a line chart


class Picture:
    """An SVG that a notebook, or the page of a chapter, shows where it is the last expression of a cell.

    text: what it says, in lines. Where nobody draws, making a picture prints them.
    """

    def __init__(self, width: float, height: float, parts: Sequence[str], text: str) -> None:
        style = 'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12" fill="currentColor"'
        size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
        self.text = text
        self.svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{"".join(parts)}</svg>'
        if runs_as_script():
            print(text)

    def _repr_svg_(self) -> str:
        return self.svg


def runs_as_script() -> bool:
    """Whether the program is a chapter, not a notebook or a converter: then nobody draws."""
    program = getattr(sys.modules["__main__"], "__file__", None)
    return program is not None and re.match(r"\d\d_", Path(program).name) is not None


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def text_at(x: float, y: float, text: str, anchor: str = "start") -> str:
    """An SVG text whose middle is at height y."""
    return f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}" xml:space="preserve">{html.escape(text)}</text>'


def rectangle(x: float, y: float, width: float, height: float, colour: str, opacity: float = 1) -> str:
    size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {size} fill="{colour}" fill-opacity="{opacity:.3f}"/>'


def bar_chart(bars: Mapping[str, float] | Sequence[tuple[str, float]], digits: int = 3) -> Picture:
    """Horizontal bars, positive and negative in two colours, each with its number. Names may repeat in a list of pairs."""
    pairs = [*bars.items()] if isinstance(bars, Mapping) else [*bars]
    values = [float(value) for _, value in pairs]
    left = max(len(name) for name, _ in pairs) * LETTER + 12
    number = (digits + 4) * LETTER
    negative, positive = max(0.0, -min(values)), max(0.0, *values)
    scale = 300 / ((negative + positive) or 1)
    zero = left + number * (negative > 0) + negative * scale
    parts = []
    for i, (name, value) in enumerate(pairs):
        y, length = 22 * i, abs(value) * scale
        start, colour = (zero, COLOURS[0]) if value >= 0 else (zero - length, COLOURS[1])
        parts.append(text_at(left - 8, y + 11, name, "end"))
        parts.append(rectangle(start, y + 2, length, 18, colour))
        end, anchor = (zero + length + 5, "start") if value >= 0 else (zero - length - 5, "end")
        parts.append(text_at(end, y + 11, f"{value:.{digits}f}", anchor))
    largest = max(map(abs, values)) or 1.0
    numbers = text_table([(name, f"{value:.{digits}f}") for name, value in pairs]).splitlines()
    marks = ("#" * round(40 * abs(value) / largest) for value in values)
    text = "\n".join(f"{line}  {mark}".rstrip() for line, mark in zip(numbers, marks, strict=True))
    return Picture(zero + positive * scale + number, 22 * len(pairs), parts, text)


def heat_map(values: ArrayLike, rows: Sequence[str], columns: Sequence[str], digits: int = 2) -> Picture:
    """A table of numbers whose shade is the size of each, positive and negative in two colours."""
    table = np.asarray(values, np.float64)
    largest = float(np.abs(table).max()) or 1.0
    wide = max(digits + 3 + (table.min() < 0), *map(len, columns)) * LETTER + 8
    left = max(map(len, rows)) * LETTER + 12
    parts = [text_at(left + wide * (j + 0.5), 11, name, "middle") for j, name in enumerate(columns)]
    for i, name in enumerate(rows):
        y = 24 + 24 * i
        parts.append(text_at(left - 8, y + 12, name, "end"))
        for j, value in enumerate(table[i]):
            shade = 0.75 * abs(float(value)) / largest
            parts.append(rectangle(left + wide * j + 1, y + 1, wide - 2, 22, COLOURS[bool(value < 0)], shade))
            parts.append(text_at(left + wide * (j + 0.5), y + 12, f"{value:.{digits}f}", "middle"))
    numbers = [
        [name, *(f"{value:.{digits}f}" for value in row)] for name, row in zip(rows, table, strict=True)
    ]
    text = text_table([["", *columns], *numbers])
    return Picture(left + wide * len(columns), 24 + 24 * len(rows), parts, text)


def line_chart(
    lines: Mapping[str, ArrayLike],
    across: ArrayLike | None = None,
    across_name: str = "",
    digits: int = 2,
) -> Picture:
    """One line for each name, over the numbers `across` (by default 0, 1, ...), from the smallest to the largest value."""
    ys = {name: np.asarray(y, np.float64) for name, y in lines.items()}
    longest = max(len(y) for y in ys.values())
    x = np.arange(longest) if across is None else np.asarray(across, np.float64)
    low, high = (float(f([f(y) for y in ys.values()])) for f in (np.min, np.max))
    right, bottom, left = 480.0, 200.0, 60.0
    at_x = left + (right - left) * (x - x[0]) / ((x[-1] - x[0]) or 1)
    parts = [f'<path d="M{left} 10V{bottom}H{right}" fill="none" stroke="currentColor" stroke-opacity=".5"/>']
    parts += [text_at(left - 6, y, f"{value:.{digits}f}", "end") for y, value in ((10, high), (bottom, low))]
    parts += [
        text_at(at, bottom + 14, f"{value:g}", "middle") for at, value in ((left, x[0]), (right, x[-1]))
    ]
    parts.append(text_at((left + right) / 2, bottom + 14, across_name, "middle"))
    for i, (name, y) in enumerate(ys.items()):
        at_y = bottom - (bottom - 10) * (y - low) / ((high - low) or 1)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(at_x, at_y, strict=False))
        colour = COLOURS[i % len(COLOURS)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(rectangle(right + 14, 12 + 20 * i, 10, 10, colour))
        parts.append(text_at(right + 30, 17 + 20 * i, name))
    some = np.unique(np.linspace(0, longest - 1, ROWS).round().astype(int))
    numbers = [
        [f"{x[i]:g}", *(f"{y[i]:.{digits}f}" if i < len(y) else "" for y in ys.values())] for i in some
    ]
    text = text_table([[across_name, *ys], *numbers])
    return Picture(right + 40 + max(map(len, ys)) * LETTER, bottom + 26, parts, text)


def point_map(points: ArrayLike, names: Sequence[str], groups: Sequence[int] | None = None) -> Picture:
    """Named points (n, 2) on a plane, by default in one colour; `groups` gives each the number of its colour."""
    xy = np.asarray(points, np.float64)
    low, size = xy.min(0), np.ptp(xy, axis=0)
    size[size == 0] = 1
    at = (xy - low) / size * (540, 300) + (12, 12)
    at[:, 1] = 324 - at[:, 1]
    dots, texts = [], []
    labels: list[tuple[float, float, float]] = []  # left, right and height of each
    for i in np.argsort(at[:, 1]):
        (x, y), colour = at[i], COLOURS[(groups[i] if groups else 1) % len(COLOURS)]
        left, right, height = x + 7, x + 14 + LETTER * len(names[i]), y
        while any(a < right and left < b and abs(h - height) < 12 for a, b, h in labels):
            height += 3  # down, until it covers no other label
        labels.append((left, right, height))
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}" fill-opacity=".6"/>')
        texts.append(text_at(left, height, names[i]))
    width, height = (max(label[k] for label in labels) for k in (1, 2))
    text = text_table([(name, f"{a:.2f}", f"{b:.2f}") for name, (a, b) in zip(names, xy, strict=True)])
    return Picture(width, max(height, 324) + 10, dots + texts, text)
