"""The book of kernels: its prose (kernels/, ladders/), and what makes pages of it and of the sources. See docs/make_book.py."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
for folder in (REPOSITORY, REPOSITORY / "tests"):  # the package, and the tables of tests/gpu_compilers
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
