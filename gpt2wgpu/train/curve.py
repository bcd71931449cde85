"""RUN/loss.png from RUN/metrics.jsonl."""

from pathlib import Path

from .. import files
from ..errors import UserError
from ..evaluation import plots
from .loop import read_metrics


def draw_curve(folder: Path) -> str | None:
    """Draw it; or say in one line why not."""
    try:
        plots.need_matplotlib()
    except UserError as error:
        return f"no loss.png: {error}"
    lines = read_metrics(folder)
    with files.open_output(str(folder / "loss.png"), {".png": plots.draw_training}) as (file, draw_training):
        draw_training(file, [line for line in lines if "loss" in line], [line for line in lines if "spearman" in line])
    return None
