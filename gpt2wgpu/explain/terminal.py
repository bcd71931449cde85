"""An Explanation -> lines for a terminal."""

from collections.abc import Iterable
from textwrap import wrap

from ..errors import one_line
from ..graph.tensor import Array
from .result import Explanation, TextTrace

MOST_ROWS = 12  # of a list of shares


def write_text(e: Explanation, width: int) -> str:
    """A summary of what the page shows."""
    pair = len(e.texts) == 2
    lines = [f"{e.model['model']}: {e.model['architecture']}, {len(e.texts[0].attention)} blocks, width {e.model['width']}", ""]
    for name, t in zip("AB", e.texts, strict=False):
        tokens = wrap(" ".join(f"{one_line(k.name)}[{k.id}]" for k in t.tokens), width - 3)
        lines += [f"{name}  {one_line(t.text)}", *(f"   {line}" for line in tokens), *describe_words_cut(t), ""]
    lines += [f"cosine {e.cosine:.4f}" if pair else "shares of the vector's own length", ""]
    s = e.shares
    for name, t, shares, constant in zip("AB", e.texts, (s.tokens_a, s.tokens_b), (s.constant_a, s.constant_b), strict=False):
        rows = [(token.name, float(x)) for token, x in zip(t.tokens, shares, strict=True)]
        rows += [("(constant)", constant)] if constant else []
        lines += [f"tokens of {name}{held_note(s.held_tokens)}", *share_rows(rows), ""]
    if pair:
        flat = sorted(((float(x), i, j) for (i, row) in enumerate(s.pairs) for j, x in enumerate(row)), reverse=True)[:5]
        names = [(f"{e.texts[0].tokens[i].name} x {e.texts[1].tokens[j].name}", x) for x, i, j in flat]
        lines += ["largest pairs of tokens", *(f"  {x:+8.4f}  {one_line(name)}" for name, x in names), ""]
    parts = s.parts
    rows = [("embedding", float(parts.layers[0])), *((f"block {i}", float(x)) for i, x in enumerate(parts.layers[1:], 1))]
    rows += [("final norm's bias", parts.final_norm)] if parts.final_norm else []
    rows += [("(constant)", parts.constant)] if parts.constant else []
    lines += [f"parts of the model{held_note(s.held_parts)}", *share_rows(rows, keep_order=True), ""]
    if len(parts.heads):
        lines += ["heads, then the MLP", *head_rows(parts.heads, parts.mlps), ""]
    order = sorted(enumerate(s.dimensions.tolist()), key=lambda item: -abs(item[1]))
    lines += ["dimensions", *share_rows([(f"dimension {i}", x) for i, x in order]), ""]
    if e.layer_cosines is not None:
        curve = " ".join(f"{x:.2f}" for x in e.layer_cosines)
        last = " (the last after the final norm)" if e.has_final_norm else ""
        lines += [f"cosine after 0, 1, ... blocks: {curve}{last}", ""]
    lines += wrap(f"{len(e.dispatches)} dispatches: " + ", ".join(count_ops(d.op for d in e.dispatches)), width)
    if e.timed:
        lines.append(f"{1e3 * sum(d.seconds or 0 for d in e.dispatches):.2f} ms on {e.model['device']}")
    return "\n".join(lines) + "\n"


def describe_words_cut(t: TextTrace) -> list[str]:
    """The words that became several tokens."""
    return [f"   {one_line(''.join(w.steps[-1]))}: {one_line(' + '.join(w.steps[-1]))}" for w in t.words if w.count > 1]


def held_note(held: tuple[str, ...]) -> str:
    return f" (exact, with {', '.join(held)} held)" if held else " (exact)"


def share_rows(rows: list[tuple[str, float]], keep_order: bool = False) -> list[str]:
    """A line for each share, and their sum; of long lists only the largest."""
    shown = rows if keep_order or len(rows) <= MOST_ROWS else sorted(rows, key=lambda row: -abs(row[1]))[:MOST_ROWS]
    largest = max((abs(x) for _, x in rows), default=0) or 1
    lines = [f"  {x:+8.4f}  {'#' * round(20 * abs(x) / largest):20}  {one_line(name)}" for name, x in shown]
    if len(shown) < len(rows):
        others = sum(x for _, x in rows) - sum(x for _, x in shown)
        lines.append(f"  {others:+8.4f}  {'':20}  {len(rows) - len(shown)} others")
    return [*lines, f"  {sum(x for _, x in rows):+8.4f}  in all"]


def head_rows(heads: Array, mlps: Array) -> list[str]:
    return [
        f"  block {i:<3}" + "".join(f"{x:+8.3f}" for x in row) + f"  |{mlp:+8.3f}"
        for i, (row, mlp) in enumerate(zip(heads.tolist(), mlps.tolist(), strict=True), 1)
    ]


def count_ops(names: Iterable[str]) -> list[str]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return [f"{count} {name}" for name, count in found.items()]
