"""A copy of wgpu-py's own library that grants experimental features, "cooperative-matrix" among them. For measurements only.

    export WGPU_LIB_PATH=$(python benchmarks/experimental_wgpu.py FOLDER)

wgpu asks its caller to say that experimental features are wanted, and wgpu-native 29 never says so: its C interface has
no word for it. So no device of wgpu-py grants matrix units, whatever the hardware. A wgpu-native built with
`ExperimentalFeatures::enabled()` in its src/conv.rs grants them; where none is at hand, this takes the refusal out of a
copy (x86-64): in wgpu-core's Adapter::create_device_and_queue the jump that follows the test of that flag.
"""

import re
import sys
from pathlib import Path

from wgpu.backends.wgpu_native import _ffi

# cmpb $1, flag(descriptor); jne refuse; jmp go_on
TEST = re.compile(rb"(\x41\x80\xbe\x20\x01\x00\x00\x01)\x75.(\xeb.)", re.S)


def main() -> None:
    library = Path(_ffi.get_wgpu_lib_path())
    changed, count = TEST.subn(lambda m: m[1] + b"\x90\x90" + m[2], library.read_bytes())
    if count != 1:
        sys.exit(f"{library}: the test of experimental features was found {count} times, not once: another build or processor")
    copy = Path(sys.argv[1]) / f"experimental-{library.name}"
    copy.write_bytes(changed)
    print(copy)


if __name__ == "__main__":
    main()
