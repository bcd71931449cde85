"""Curves as PNG, drawn with matplotlib, which is no dependency of the package but its extra `plot`."""

from collections.abc import Mapping, Sequence
from typing import BinaryIO

from .errors import UserError


def need_matplotlib() -> None:
    """Raises UserError where it is not installed: to be found out before the work, not after it."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UserError("a plot needs matplotlib, which is not installed: pip install matplotlib") from None


def draw_layers(file: BinaryIO, layers: Sequence[int], curves: Mapping[str, Sequence[float]], title: str) -> None:
    """A curve over the layers for each similarity, with its best layer marked."""
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
