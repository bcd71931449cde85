"""What the chapters share: pictures, the folder of the data sets, and one thread for numpy's products."""

from pathlib import Path

from pictures import COLOURS, Picture, bar_chart, heat_map, line_chart, point_map, rectangle, text_at

from gpt2wgpu.graph.cores import ONE_THREAD_BLAS

__all__ = [
    "COLOURS",
    "DATA_SETS",
    "Picture",
    "bar_chart",
    "heat_map",
    "line_chart",
    "point_map",
    "rectangle",
    "text_at",
]

DATA_SETS = Path(__file__).resolve().parents[2] / "data_sets"
ONE_THREAD_BLAS.__enter__()  # to the end: a chapter's products are small, and a BLAS's threads would wait spinning
