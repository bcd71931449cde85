"""Curves as PNG files, drawn with matplotlib, which is optional (the extra `plot`)."""

import itertools
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from ..errors import UserError


def need_matplotlib() -> None:
    """Raises UserError if matplotlib is not installed. Call it before the work whose result is to be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UserError("a plot needs matplotlib, which is not installed: pip install matplotlib") from None


def draw_layers(file: BinaryIO, layers: Sequence[int], curves: Mapping[str, Sequence[float]], title: str) -> None:
    """Spearman's correlation over the layers, a curve for each similarity, with its best layer marked.

    curves: by similarity, a value for each of `layers`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for (name, values), style in zip(curves.items(), ("-", "--", "-.", ":"), strict=False):  # they may coincide
        best = max(range(len(layers)), key=lambda i: values[i])
        axes.plot(layers, values, style, marker="o", markevery=[best], label=f"{name}: {values[best]:.4f} at {layers[best]}")
    axes.set(title=title, xlabel="layer (0: the embeddings)", ylabel="Spearman")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, format="png")


def draw_study(file: BinaryIO, panels: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]], title: str) -> None:
    """Spearman's correlation over the layers: a panel for each model and pooling, a curve for each treatment.

    panels: by the panel's title, the curves by name; a curve is a list of (layer, score).
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(6 * columns, 3.6 * rows), dpi=110, layout="constrained")
    places = [*figure.subplots(rows, columns, squeeze=False).flat]
    for axes in places[len(panels) :]:
        axes.remove()
    for axes, (name, curves) in zip(places, panels.items(), strict=False):
        for label, points in curves.items():
            best = max(range(len(points)), key=lambda i: points[i][1])
            layer, score = points[best]
            name_at_best = f"{label} {score:.3f} @{layer}"
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, markevery=[best], label=name_at_best)
        axes.set_title(name, fontsize="medium")
        axes.set(xlabel="layer (0: the embeddings)", ylabel="Spearman")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))  # beside the panel, where it hides no curve
    figure.suptitle(title)
    figure.savefig(file, format="png")


def draw_training(file: BinaryIO, metrics: Sequence[Mapping[str, float]]) -> None:
    """The loss of every step and its running mean, and on the right axis the scores of the validations.

    metrics: the lines of a run's metrics.jsonl; those of steps have a "loss", those of validations a "spearman".
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    steps = [line for line in metrics if "loss" in line]
    validations = [line for line in metrics if "spearman" in line]
    at, losses = [line["step"] for line in steps], [line["loss"] for line in steps]
    axes.plot(at, losses, color="tab:blue", alpha=0.3, linewidth=0.8)
    axes.plot(at, running_mean(losses, max(1, len(losses) // 50)), color="tab:blue", label="loss")
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    lines = axes.get_lines()[1:]
    if validations:
        right = axes.twinx()
        for name, colour in (("spearman", "tab:red"), ("accuracy", "tab:green")):
            points = [(line["step"], line[name]) for line in validations if name in line]
            if points:
                lines += right.plot(*zip(*points, strict=True), color=colour, marker=".", label=f"validation {name}")
        right.set_ylabel("validation, by cosine")
    axes.legend(handles=lines)
    figure.savefig(file, format="png")


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and the `window` - 1 before it, or as many as there are."""
    sums = [0.0, *itertools.accumulate(values)]
    return [(sums[i + 1] - sums[max(0, i + 1 - window)]) / min(i + 1, window) for i in range(len(values))]
