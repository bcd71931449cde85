"""What a device can do at most: which features it grants, and bare loops of copies, multiply-adds and matrix units.

    python benchmarks/ceilings.py [ADAPTER]          (its number in `gpt2wgpu info`; default 0)

One JSON object per line as it goes. on_a_gpu.py runs this in a process of its own: the experimental feature
"cooperative-matrix" may take the process with it.
"""

import json
import sys
from typing import Any

from gpt2wgpu import gpu
from gpt2wgpu.devices.matrix_units import with_matrix_units

FEATURES = ("shader-f16", "timestamp-query", "subgroup", "cooperative-matrix")


def say(**found: Any) -> None:
    print(json.dumps(found), flush=True)


def main() -> None:
    adapter = gpu.list_adapters()[int(sys.argv[1]) if len(sys.argv) > 1 else 0]
    for feature in FEATURES:
        try:
            device = adapter.raw.request_device_sync(required_features=[feature])
            say(feature=feature, offered=feature in adapter.features, granted=feature in device.features)
        except Exception as e:
            say(feature=feature, offered=feature in adapter.features, granted=False, why=str(e)[:300])
    device = gpu.open_device(adapter)
    top = gpu.measure_ceilings(device)
    say(ceiling="copy, bytes read and written", gb_per_s=top.gbps)
    say(ceiling="multiply-add, f32", tflops=top.gflops / 1e3)
    if device.grants_matrices:  # checked against numpy before their rate counts
        shapes = device.library.matrix_shapes(adapter.raw)  # a software driver compiles large fragments for minutes
        found, why = with_matrix_units(device, [s for s in shapes if s.size == 8 or not adapter.software])
        say(check="matrix units", fragments=found.matrix_units and found.matrix_units.size, why=why)
        if found.matrix_units:
            say(ceiling="matrix units, f16 to f32", tflops=gpu.measure_ceilings(found).matrix_gflops / 1e3)


if __name__ == "__main__":
    main()
