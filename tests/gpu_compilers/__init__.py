"""What the compilers of real GPUs make of the kernels, on a machine without a GPU: the command `tests/registers`.

Mesa's drivers compile for any GPU of theirs on a "no-op" driver of the kernel, which Debian has as mesa-drm-shim: it answers
as if the GPU were there, and nothing runs. What comes back are the registers, the spills and the waves of every kernel.

gpus.py      the GPUs, and the environment in which a process sees one
packages.py  Debian's packages, unpacked into a folder of their own
intel.py     builds the no-op driver for Intel's GPUs, which no package has
kernels.py   compiles every kernel on the GPU that its process sees
vulkan.py    asks a Vulkan driver for the statistics of a shader
tables.py    the checked-in tables, and the comparison with new ones
page.py      the tables of docs/registers.md
__main__.py  the command line
"""
