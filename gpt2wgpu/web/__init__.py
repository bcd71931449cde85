"""A model as a folder for browsers: everything that a page needs to compute vectors itself, with WebGPU or without.

export.py  an Encoder -> the folder
forms.py   a graph -> JSON with its kernels
grids.py   dispatch grids -> small expressions
serve.py   a folder -> a page on this machine
static/    the JavaScript that replays the graph, copied as it is
"""

from .export import export_web
from .serve import folder_server, serve_forever

__all__ = ["export_web", "folder_server", "serve_forever"]
