"""Run a graph on the GPU. The only package that imports wgpu, and wgpudawn.

device.py    adapters, and opening one
backends.py  which backends can be asked for adapters without a crash
child_process.py  runs what might crash in a process of its own
paper.py     the kernels of a GPU that is not there
kernels.py   an op and its sizes -> WGSL source -> compute pipeline
tiles.py     which tile shape a matmul gets on this adapter
tuning.py    measures the tile shapes
device_cache.py  what is known of each adapter, in files of the user's cache folder
limits.py    refuses a device whose grids are too small for a graph
program.py   a graph and its weights -> buffers, bind groups, dispatches
buffers.py   a program's buffers: made, filled with weights, counted, destroyed
results.py   the buffers that steps write to, which grow with the batches
upload.py    a batch's arrays and uniform values, in one write
pace.py      how much is submitted at a time
inplace.py   kernels outside any graph that update buffers in place, for training
failures.py  wgpu's errors -> DeviceLost, OutOfDeviceMemory
clock.py     the device's timestamps
trial.py     one kernel that may be wrong, on marked buffers
ceilings.py  the highest rates that the device can reach
library.py   what is asked of a WebGPU library
native.py    wgpu-native, the default, and its calls that wgpu-py lacks or makes slowly
dawn.py      Dawn, for devices named "dawn:..."; matrix_words.py puts shaders on matrix units in its words
"""

from .ceilings import Ceilings, measure_ceilings
from .clock import Clock
from .device import Adapter, Device, choose_adapter, find_library, list_adapters, open_device
from .device_cache import adapter_key, read_entries, save_entries
from .failures import DeviceLost, GPUError, OutOfDeviceMemory, first_reason
from .inplace import Dispatch, InPlace, copy_buffer, new_buffer, read_buffer, write_buffer
from .kernels import Kernel, Tile, read_shader, uniform_bits
from .library import MatrixUnits
from .limits import check_grids, distinct_results
from .pace import Pace
from .paper import paper_device, paper_kernels
from .program import GPUProgram, fitting_tokens
from .tiles import default_kernel
from .tuning import Measurement, graph_matmuls, tune_matmuls

__all__ = [
    "Adapter",
    "Ceilings",
    "Clock",
    "Device",
    "DeviceLost",
    "Dispatch",
    "GPUError",
    "GPUProgram",
    "InPlace",
    "Kernel",
    "MatrixUnits",
    "Measurement",
    "OutOfDeviceMemory",
    "Pace",
    "Tile",
    "adapter_key",
    "check_grids",
    "choose_adapter",
    "copy_buffer",
    "default_kernel",
    "distinct_results",
    "find_library",
    "first_reason",
    "fitting_tokens",
    "graph_matmuls",
    "list_adapters",
    "measure_ceilings",
    "new_buffer",
    "open_device",
    "paper_device",
    "paper_kernels",
    "read_buffer",
    "read_entries",
    "read_shader",
    "save_entries",
    "tune_matmuls",
    "uniform_bits",
    "write_buffer",
]
