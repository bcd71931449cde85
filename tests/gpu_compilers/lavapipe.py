"""Run Python with the lavapipe of a Debian suite in place of this machine's drivers.

    python -m gpu_compilers.lavapipe SUITE ARGUMENTS...

Dawn refuses the lavapipe of Debian 12 (Mesa 22.3): it lacks a dynamic indexing of Vulkan. bookworm-backports (25.0) runs with
this machine's libc; sid brings its own, and has matrix units.
"""

import os
import sys
import tempfile
from pathlib import Path

from .__main__ import UNPACKED
from .gpus import python_command, write_icd
from .packages import refusal, unpack_packages


def main() -> None:
    suite, *arguments = sys.argv[1:]
    if why := refusal(suite):
        print(f"lavapipe of {suite}: not run: {why}")
        sys.exit(1 if os.environ.get("CI") else 0)
    root = unpack_packages(UNPACKED, suite)
    icd = str(write_icd(root, "lvp", Path(tempfile.mkdtemp())))  # small, and needed until the end of what is run
    command, added = python_command(suite, root)
    added |= {"VK_DRIVER_FILES": icd, "VK_ICD_FILENAMES": icd, "NODEVICE_SELECT": "1"}
    os.execve(command[0], [*command, *arguments], os.environ | added)


if __name__ == "__main__":
    main()
