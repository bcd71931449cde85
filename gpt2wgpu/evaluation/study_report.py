"""A Study -> a table for a terminal, and a page that needs nothing else."""

import html
from collections.abc import Sequence

from .study import Study

COLOURS = ("#2563eb", "#ea580c", "#0d9488", "#7c3aed", "#db2777", "#64748b", "#65a30d", "#a16207")
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem;color:#1f2328;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}table{border-collapse:collapse;font-size:.85rem;margin:.6rem 0}
th,td{padding:.2rem .6rem;border-bottom:1px solid #d8dee4;text-align:right;font-variant-numeric:tabular-nums}
th:first-child,td:first-child{text-align:left}.best{font-weight:700;color:#c2410c}.soft{color:#59636e;font-size:.9rem}
.scroll{overflow-x:auto}svg{width:100%;max-width:46rem;height:auto}svg text{font:11px system-ui,sans-serif;fill:#59636e}
@media(prefers-color-scheme:dark){body{background:#12161c;color:#e6eaef}th,td{border-color:#2f3742}
.soft,svg text{color:#9aa5b1;fill:#9aa5b1}.best{color:#fb923c}}"""
CONVENTIONS = (
    "Layer 0 is the embedding, layer n the state after block n; of a decoder the last one is after its final norm.",
    "Vectors are the pooled states: what a folder has after its pooling is left out.",
    "Post-processing is fitted on other texts than those of the pairs.",
    "The score is Spearman's correlation of the cosine with people's judgements, times 100.",
)


def study_table(study: Study) -> str:
    """For each model the best layer of every pooling and treatment: "81.2 @5" is 81.2 at layer 5."""
    fitted = f"; fitted on {study.texts:,} texts{study.fit and f' of {study.fit}'}" if study.texts else ""
    lines = [f"{study.data}: {study.pairs:,} pairs{fitted}"]
    lines += ["Spearman of the cosine x 100 @ the best layer; * the best of a model", ""]
    treatments = study.values("asked")
    column = max(15, 2 + max(map(len, treatments)))
    for model in study.values("model"):
        width = max(map(len, [model, *study.values("pooling", model)])) + 2
        lines.append(f"{model:{width}}" + "".join(f"{name:>{column}}" for name in treatments))
        best = study.best(model=model)
        for pooling in study.values("pooling", model):
            cells = []
            for asked in treatments:
                row = study.best(model=model, pooling=pooling, asked=asked)
                assert row is not None
                layer = "" if row.layer is None else f" @{row.layer}"
                cells.append(f"{100 * row.spearman:.1f}{layer}{'*' if row == best else ''}")
            lines.append(f"{pooling:{width}}" + "".join(f"{cell:>{column}}" for cell in cells))
        lines.append("")
    return "\n".join([*lines, *study.notes]).rstrip() + "\n"


def study_page(study: Study) -> str:
    """The report as HTML, with a curve for each model and every number in a table. Names are escaped."""
    title = html.escape(f"Where is the meaning? {study.data}")
    fit = study.fit and f" of {html.escape(study.fit)}"
    fitted = f"; post-processing fitted on {study.texts:,} texts{fit}" if study.texts else ""
    parts = [f"<h1>{title}</h1>", f"<p>{study.pairs:,} judged pairs{fitted}.</p><ul class='soft'>"]
    parts += [f"<li>{html.escape(line)}</li>" for line in (*CONVENTIONS, *study.notes)]
    parts.append("</ul>")
    treatments = study.values("asked")
    for model in study.values("model"):
        facts = study.models.get(model, {})
        about = ", ".join(f"{html.escape(str(name))} {html.escape(str(value))}" for name, value in facts.items())
        parts.append(f"<h2>{html.escape(model)}</h2><p class='soft'>{about}</p>")
        poolings = study.values("pooling", model)
        for pooling in poolings:
            lines = {asked: study.curve(model, pooling, asked) for asked in treatments}
            if len(lines[treatments[0]]) > 1:
                parts.append(f"<h3>{html.escape(pooling)}</h3>{curve_figure(lines)}")
        parts.append("<h3>Every number</h3>" + numbers_table(study, model, treatments))
    body = "".join(parts)
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'><title>{title}</title>"
    return f"<!doctype html>\n<html lang='en'><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n"


def numbers_table(study: Study, model: str, treatments: Sequence[str]) -> str:
    """A row for each pooling and layer, a column for each treatment; the best of each column is marked."""
    rows = [row for row in study.rows if row.model == model]
    best = {asked: max(row.spearman for row in rows if row.asked == asked) for asked in treatments}
    cells: dict[tuple[str, int | None], dict[str, float]] = {}
    for row in rows:
        cells.setdefault((row.pooling, row.layer), {})[row.asked] = row.spearman
    head = "".join(f"<th>{html.escape(name)}</th>" for name in treatments)
    lines = []
    for (pooling, layer), found in cells.items():
        name = pooling if layer is None else f"{pooling}, layer {layer}"
        marks = ("<td class='best'>" if found[asked] == best[asked] else "<td>" for asked in treatments)
        values = "".join(f"{mark}{100 * found[asked]:.2f}</td>" for mark, asked in zip(marks, treatments, strict=True))
        lines.append(f"<tr><td>{html.escape(name)}</td>{values}</tr>")
    return f"<div class='scroll'><table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def curve_figure(lines: dict[str, list[tuple[int, float]]]) -> str:
    """Scores over the layers as SVG, a curve for each treatment."""
    width, height, left, right, top, bottom = 720, 260, 44, 130, 10, 34
    values = [100 * score for points in lines.values() for _, score in points]
    low, high = min(values) - 1, max(values) + 1
    numbers = [layer for layer, _ in next(iter(lines.values()))]
    span = max(1, numbers[-1] - numbers[0])

    def x(layer: int) -> float:
        return left + (width - left - right) * (layer - numbers[0]) / span

    def y(score: float) -> float:
        return top + (height - top - bottom) * (1 - (100 * score - low) / (high - low))

    parts = [f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='Spearman over the layers'>"]
    for mark in (low, (low + high) / 2, high):
        at = y(mark / 100)
        parts.append(f"<line x1='{left}' x2='{width - right}' y1='{at:.1f}' y2='{at:.1f}' stroke='#8886'/>")
        parts.append(f"<text x='{left - 6}' y='{at + 4:.1f}' text-anchor='end'>{round(mark)}</text>")
    for layer in numbers[:: -(-len(numbers) // 14)]:
        parts.append(f"<text x='{x(layer):.1f}' y='{height - bottom + 16}' text-anchor='middle'>{layer}</text>")
    parts.append(f"<text x='{left}' y='{height - 4}'>layer</text>")
    for i, (name, points) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{x(layer):.1f},{y(score):.1f}" for layer, score in points)
        best, score = max(points, key=lambda point: point[1])
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts.append(f"<circle cx='{x(best):.1f}' cy='{y(score):.1f}' r='4' fill='{colour}'/>")
        label = f"{html.escape(name)} {100 * score:.1f} at {best}"
        parts.append(f"<text x='{width - right + 10}' y='{top + 14 + 17 * i}' style='fill:{colour}'>{label}</text>")
    return "".join([*parts, "</svg>"])
