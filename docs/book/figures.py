"""Pictures as inline SVG, computed from the numbers of a kernel. All are 400 wide, so that a telephone shows them readable."""

import html
from collections.abc import Iterator, Sequence

from .facts import Axis, KernelFacts, find_axes

WIDTH = 400
LEFT, TOP = 52, 34  # room for labels
MOST_HIGH = 250
MOST_UNIT = 22  # pixels of one row or column, at most
THUMB_HIGH = 120
FEW_GROUPS = 40  # whose places past the edge are drawn one by one


def svg(height: float, body: str, label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{html.escape(label)}">{body}</svg>'


def rect(x: float, y: float, width: float, height: float, kind: str, tip: str = "") -> str:
    inside = f"<title>{html.escape(tip)}</title>" if tip else ""
    size = f'width="{max(width, 0.5):.1f}" height="{max(height, 0.5):.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} class="{kind}">{inside}</rect>'


def text(x: float, y: float, words: str, kind: str = "", turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{turn}>{html.escape(words)}</text>'


# --- the grid of a dispatch


def grid_axes(facts: KernelFacts) -> tuple[Axis | None, Axis | None]:
    """The axes that run over the rows and over the columns of the output; None where a workgroup has all of them."""
    rows_letter = facts.op.args[-1].dims[0]
    rows = columns = None
    for axis in find_axes(facts):
        if axis.letter in (rows_letter, "G"):
            rows = axis
        else:
            columns = axis
    return rows, columns


def row_groups(facts: KernelFacts, axis: Axis | None, total: int) -> list[tuple[int, int]]:
    """(first row, one past the last) of each workgroup; the last one may reach past the end."""
    if axis is None:
        return [(0, total)]
    if axis.letter == "G":  # the work list of attention: a sequence, and the first query of a tile in it
        spans, tiles = facts.values["spans"].tolist(), facts.values["tiles"].tolist()
        high = facts.kernel.constants["QUERIES"]
        return [(spans[text][0] + first, min(spans[text][0] + first + high, spans[text][1])) for text, first in tiles]
    return [(i * axis.extent, (i + 1) * axis.extent) for i in range(axis.groups)]


def grid_picture(facts: KernelFacts, words: bool = True) -> str:
    """The output, cut into what each workgroup computes. What lies past its edges are threads with nothing to do. words: whether
    it has labels, or is small."""
    rows, columns = picture_size(facts)
    row_axis, column_axis = grid_axes(facts)
    down = row_groups(facts, row_axis, rows)
    across = column_groups(column_axis, columns)
    wide, high = max(across[-1][1], columns), max(down[-1][1], rows)
    left, top = (LEFT, TOP) if words else (1, 1)
    across_unit = min((WIDTH - left - 8) / wide, MOST_UNIT if words else WIDTH)
    down_unit = min((MOST_HIGH if words else THUMB_HIGH) / high, MOST_UNIT if words else THUMB_HIGH)
    few = len(down) * len(across) <= FEW_GROUPS
    parts = [] if few else [rect(left, top, wide * across_unit, high * down_unit, "idle")]
    for j, (begin, end) in enumerate(down):
        for i, (first, past) in enumerate(across):
            x, y = left + first * across_unit, top + begin * down_unit
            if few and (past > columns or end > rows):
                parts.append(rect(x, y, (past - first) * across_unit, (end - begin) * down_unit, "idle"))
            inside = min(past, columns) - first, min(end, rows) - begin
            kind = "first" if i == j == 0 else "odd" if (i + j) % 2 else "even"
            place = f"rows {begin} to {begin + inside[1] - 1}, columns {first} to {first + inside[0] - 1}"
            tip = f"{order_name(i, j, row_axis, column_axis)}: {place}"
            parts.append(rect(x, y, inside[0] * across_unit, inside[1] * down_unit, kind, tip))
    parts.append(rect(left, top, columns * across_unit, rows * down_unit, "edge"))
    end = top + high * down_unit
    if words:
        if shows_texts(facts):
            parts += text_marks(facts.case.lengths, down_unit)
        parts.append(text(LEFT, TOP - 9, "→ " + axis_words(column_axis, columns, "columns", facts)))
        below = axis_words(row_axis, rows, "rows", facts)
        turned = high * down_unit >= 200
        parts.append(text(14, end, below, turned=True) if turned else text(LEFT, end + 18, "↓ " + below))
    return svg(end + (26 if words else 1), "".join(parts), f"the grid of {facts.op.name}")


def picture_size(facts: KernelFacts) -> tuple[int, int]:
    """Rows and columns of what the grid cuts: the output, or where that has other columns what they are chosen from."""
    rows, columns = facts.shape
    column_axis = grid_axes(facts)[1]
    if column_axis is not None and column_axis.letter not in "".join(facts.op.args[-1].dims):
        columns = facts.sizes[column_axis.letter]
    return rows, columns


def column_groups(axis: Axis | None, total: int) -> list[tuple[int, int]]:
    """(first column, one past the last) of each workgroup; the last one may reach past the end."""
    return [(0, total)] if axis is None else [(i * axis.extent, (i + 1) * axis.extent) for i in range(axis.groups)]


def shows_texts(facts: KernelFacts) -> bool:
    """Whether the kernel knows where texts begin, and its rows are tokens."""
    return any(a.name == "spans" for a in facts.op.args) and facts.shape[0] == sum(facts.case.lengths)


def order_name(i: int, j: int, rows: Axis | None, columns: Axis | None) -> str:
    """The workgroup's number as its shader sees it: x, y."""
    place = {"x": 0, "y": 0}
    if rows is not None:
        place[rows.name] = j
    if columns is not None:
        place[columns.name] = i
    return f"workgroup ({place['x']}, {place['y']})"


def axis_words(axis: Axis | None, total: int, what: str, facts: KernelFacts) -> str:
    """Such as "N = 68 columns, 32 a workgroup (x)"."""
    if axis is None:
        letter = facts.op.args[-1].dims[0 if what == "rows" else 1]
        return f"{letter if letter.isalpha() else ''}{' = ' if letter.isalpha() else ''}{total} {what}, all in one workgroup"
    if axis.letter == "G":
        return f"T = {total} rows, in G = {axis.groups} tiles of one text ({axis.name})"
    return f"{axis.letter} = {total} {what}, {axis.extent} a workgroup ({axis.name})"


def text_marks(lengths: Sequence[int], unit: float) -> Iterator[str]:
    """Where each text begins and ends, at the left of its rows."""
    start = 0
    for i, length in enumerate(lengths):
        y, high = TOP + start * unit, length * unit
        yield rect(LEFT - 10, y + 0.5, 4, high - 1, "text", f"text {i}: {length} tokens")
        if high > 14:
            yield text(LEFT - 14, y + high / 2 + 4, f"{length}", "end soft")
        start += length


# --- a matmul: x at the left, the weights above, the output between them


SIDE = 128  # rows and columns of the output that is drawn
DEPTH = 88  # of k
UNIT = 1.45
GAP = 12


def matmul_picture(
    shared: tuple[int, int],
    thread: tuple[int, int],
    spread: tuple[int, int],
    owner: str = "thread",
    names: tuple[str, str] = ("x", "weight"),
) -> str:
    """What the first workgroup or thread loads and computes.

    shared: rows and columns of outputs that share loads. thread: of one thread's outputs, in groups of four columns. spread: how
    far apart its rows lie, and its groups of columns. owner: "thread", or "subgroup" where that has the outputs. names: of
    the two matrices.
    """
    x0, y0 = LEFT, TOP + DEPTH * UNIT + GAP
    out_x = x0 + DEPTH * UNIT + GAP
    size, deep = SIDE * UNIT, DEPTH * UNIT
    rows, columns = shared
    parts = [
        rect(x0, y0, deep, size, "even", names[0]),
        rect(out_x, TOP, size, deep, "even", names[1]),
        rect(out_x, y0, size, size, "even", "out"),
        rect(x0, y0, deep, max(rows * UNIT, 2), "load", f"{rows} rows of {names[0]}"),
        rect(out_x, TOP, max(columns * UNIT, 2), deep, "load", f"{columns} columns of {names[1]}"),
        rect(out_x, y0, max(columns * UNIT, 2), max(rows * UNIT, 2), "tile", f"{rows} x {columns} outputs share them"),
    ]
    fours = max(thread[1] // 4, 1)
    for r in range(thread[0]):
        for c in range(fours):
            y, x = y0 + r * spread[0] * UNIT, out_x + c * 4 * spread[1] * UNIT
            parts.append(
                rect(
                    x,
                    y,
                    max(min(thread[1], 4) * UNIT, 3),
                    max(UNIT, 1.6 if thread[0] > 1 else 3),
                    "first",
                    f"outputs of one {owner}",
                )
            )
    parts += [
        text(x0 + deep - 4, y0 + size - 8, names[0], "end"),
        text(out_x + size - 8, TOP + 16, names[1], "end"),
        text(out_x + size - 8, y0 + size - 8, "out", "end"),
        text(x0, TOP + 14, "shared by", "soft"),
        text(x0, TOP + 30, f"{rows} × {columns}"),
        text(x0, TOP + 46, "outputs", "soft"),
        text(x0, TOP + 76, f"of a {owner}", "soft"),
        text(x0, TOP + 92, f"{thread[0]} × {thread[1]}"),
    ]
    return svg(y0 + size + 10, "".join(parts), f"a matmul whose loads are shared by {rows} x {columns} outputs")


# --- attention: queries down, keys across


SCORES = 96  # tokens of the text that is drawn
SCORE_UNIT = 3.3


def scores_picture(queries: int, keys: int, own: tuple[int, int], passes: int) -> str:
    """The scores of a causal text, as a kernel goes through them: blocks of queries x keys, those that nobody sees left out.
    own: queries x keys of one thread at a time."""
    side, now = SCORES * SCORE_UNIT, 64  # the first query of the workgroup that is shown
    parts = [rect(LEFT, TOP, side, side, "idle", "scores that the mask hides")]
    for q in range(0, SCORES, queries):
        for k in range(0, min(q + queries, SCORES), keys if queries > 1 else SCORES):
            wide = keys if queries > 1 else q + 1
            masked = queries > 1 and k + keys > q + 1
            kind = ("masked now" if masked else "load") if q == now else "masked" if masked else "even"
            tip = f"queries {q} to {q + queries - 1}, keys {k} to {k + wide - 1}" + (": masked" if masked else "")
            parts.append(score_block(q, k, queries, wide, kind, tip))
    if queries > 1:
        parts.append(score_block(now, 0, *own, "first", "scores of one thread"))
    y = TOP + (now + (queries / 2 if queries > 1 else 4)) * SCORE_UNIT
    end = LEFT + min(now + queries, SCORES) * SCORE_UNIT
    for i in range(passes):
        parts.append(f'<path d="M{LEFT + 2} {y + 9 * i:.1f}H{end:.1f}m-6 -4l6 4l-6 4" class="way"/>')
    at_a_time = f", {keys} at a time" if queries > 1 else ""
    mine = f"{queries} a workgroup" if queries > 1 else "one a thread"
    parts += [
        text(LEFT, TOP - 9, f"→ {SCORES} keys{at_a_time}"),
        text(14, TOP + side, f"{SCORES} queries, {mine}", turned=True),
        text(LEFT + side - 8, TOP + 20, "hidden by the mask", "end soft"),
    ]
    return svg(TOP + side + 10, "".join(parts), f"scores in blocks of {queries} x {keys}")


def score_block(query: int, key: int, high: int, wide: int, kind: str, tip: str) -> str:
    return rect(LEFT + key * SCORE_UNIT, TOP + query * SCORE_UNIT, wide * SCORE_UNIT, high * SCORE_UNIT, kind, tip)


# --- the lanes of a workgroup that holds a row


LANES_A_LINE = 32


def lanes_picture(lanes: int, groups: int, wide: int) -> str:
    """Which groups of `wide` columns each lane holds of a row: lane i has the groups i, i + lanes, and so on."""
    unit = (WIDTH - 8) / LANES_A_LINE
    parts = []
    for lane in range(lanes):
        held = list(range(lane, groups, lanes))
        x, y = 4 + lane % LANES_A_LINE * unit, 24 + lane // LANES_A_LINE * (unit + 4)
        columns = ", ".join(f"{g * wide} to {g * wide + wide - 1}" if wide > 1 else str(g) for g in held)
        tip = f"lane {lane}: " + (f"columns {columns}" if held else "none")
        parts.append(rect(x, y, unit - 1.5, unit - 1.5, "odd" if held else "idle", tip))
    busy = min(lanes, groups)
    parts.append(text(4, 14, f"{groups} groups of {wide} columns on {lanes} lanes: {busy} hold some"))
    return svg(28 + -(-lanes // LANES_A_LINE) * (unit + 4), "".join(parts), f"{groups} groups of columns on {lanes} lanes")


def tokens_picture(column_lanes: int, token_lanes: int, tokens: int, skipped: int) -> str:
    """Which lanes of a workgroup take a token of a text after its first `skipped`: `token_lanes` side by side, for each of
    `column_lanes` columns."""
    unit = (WIDTH - 8) / token_lanes
    parts = [text(4, 14, f"{tokens - skipped} tokens → on {token_lanes} lanes, for each of {column_lanes} groups of columns ↓")]
    for column in range(column_lanes):
        for lane in range(token_lanes):
            own = range(skipped + lane, tokens, token_lanes)
            tip = f"lane {lane * column_lanes + column}: " + (f"tokens {', '.join(map(str, own))}" if own else "no token")
            x, y = 4 + lane * unit, 24 + column * 14
            parts.append(rect(x, y, unit - 1.2, 11, "odd" if own else "idle", tip))
    return svg(28 + column_lanes * 14, "".join(parts), f"{tokens - skipped} tokens on {token_lanes} lanes")


# --- measured figures


def bar_chart(bars: Sequence[tuple[str, float, str]]) -> str:
    """Bars with a name above each: (name, value, what is written beside it)."""
    largest = max(value for _, value, _ in bars)
    parts = []
    for i, (name, value, words) in enumerate(bars):
        y = 6 + i * 36
        parts += [
            text(2, y + 10, name),
            rect(2, y + 15, max(value / largest * (WIDTH - 130), 1.5), 13, "first", words),
            text(2 + max(value / largest * (WIDTH - 130), 1.5) + 6, y + 26, words, "soft"),
        ]
    return svg(6 + 36 * len(bars), "".join(parts), "measured figures")
