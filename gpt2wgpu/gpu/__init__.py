"""Run a graph on the GPU. The only package that imports wgpu.

device.py   adapters, and opening one
kernels.py  an op and its sizes -> WGSL source -> compute pipeline
program.py  a graph and its weights -> buffers, bind groups, dispatches
"""

from .device import Adapter, Device, adapters, choose, open_device
from .program import Program, fitting_tokens

__all__ = ["Adapter", "Device", "Program", "adapters", "choose", "fitting_tokens", "open_device"]
