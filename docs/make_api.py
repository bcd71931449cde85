"""Write the API reference as pages, from the docstrings of the public names: python docs/make_api.py FOLDER"""

import sys
from pathlib import Path

import pdoc

import gpt2wgpu

for name in gpt2wgpu.__all__:  # pdoc looks for them in the module's namespace, where they come on first use
    setattr(gpt2wgpu, name, getattr(gpt2wgpu, name))
pdoc.pdoc("gpt2wgpu", output_directory=Path(sys.argv[1]))
