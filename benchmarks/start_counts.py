"""What a second start costs a GPU, counted: pipelines, buffers, bind groups, dispatches, bytes up and down.

A software adapter is opened as if it were a GPU, so that it gets a GPU's kernels, dtype and checks; counts, unlike seconds, are
then those of a GPU. A first start, not counted, tests the kernels; tiles count as measured, as they are from then on.

    python benchmarks/start_counts.py [--kind IntegratedGPU] [--dtype float32] [FOLDER...]   (default: the models of inputs.py)
"""

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import work

from gpt2wgpu import Encoder, gpu
from gpt2wgpu.gpu import native, program
from gpt2wgpu.gpu.library import Library

TEXT = "The quick brown fox jumps over the lazy dog"
COLUMNS = ("pipelines", "buffers", "bytes in buffers", "bind groups", "submissions", "dispatches", "bytes up", "bytes down")


class Counts:
    """Counts calls of wgpu from here on; `take` gives what was counted since the last time."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()

    def take(self) -> dict[str, int]:
        found = {name: self.found[name] for name in COLUMNS}
        self.found.clear()
        return found

    def watch(self, owner: Any, name: str, note: Callable[..., dict[str, int]]) -> None:
        """Let `note` say what a call of owner.name counts as, from its arguments and its result."""
        before = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            result = before(*args, **options)
            self.found.update(note(result, *args, **options))
            return result

        setattr(owner, name, counted)


def watch_wgpu(device: gpu.Device) -> Counts:
    counts, raw, queue = Counts(), type(device.raw), type(device.raw.queue)
    counts.watch(raw, "create_compute_pipeline", lambda *_, **__: {"pipelines": 1})
    counts.watch(raw, "create_bind_group", lambda *_, **__: {"bind groups": 1})
    counts.watch(raw, "create_buffer", lambda made, *_, **__: {"buffers": 1, "bytes in buffers": made.size})
    counts.watch(queue, "submit", lambda *_, **__: {"submissions": 1})
    counts.watch(native.NativeReadback, "submit", lambda *_: {"submissions": 1})
    counts.watch(native.NativeReadback, "wait", lambda data, *_: {"bytes down": len(data)})
    counts.watch(queue, "read_buffer", lambda data, *_, **__: {"bytes down": len(data), "submissions": 1})
    counts.watch(queue, "write_buffer", lambda _, __, ___, ____, data, *_____: {"bytes up": memoryview(data).nbytes})
    counts.watch(Library, "record_dispatches", lambda _, __, ___, dispatches: {"dispatches": len(dispatches)})
    return counts


def count_start(folder: Path, counts: Counts, dtype: str) -> dict[str, dict[str, int]]:
    """What loading the model for the second time and its first two texts take."""
    Encoder(folder, device="gpu", dtype=dtype).close()
    counts.take()
    encoder = Encoder(folder, device="gpu", dtype=dtype)
    found = {"start": counts.take()}
    encoder.encode(TEXT)
    found["first text"] = counts.take()
    encoder.encode(TEXT.upper())
    found["second text"] = counts.take()
    print(f"{folder.name}, {encoder.dtype}, {encoder.checkpoint.parameters:,} parameters")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--kind", default="DiscreteGPU", choices=["DiscreteGPU", "IntegratedGPU"])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "gpt2wgpu-benchmarks", help="keeps the models")
    given = parser.parse_args()
    chosen = gpu.choose_adapter("gpu")
    assert chosen is not None
    adapter = replace(chosen, kind=given.kind)
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
    gpu.choose_adapter = lambda wanted: adapter
    program.prepare_tiles = lambda *_: None
    counts = watch_wgpu(gpu.open_device(adapter))
    for folder in given.folders or work.folders(given.home).values():
        for step, found in count_start(folder, counts, given.dtype).items():
            print(f"  {step:12}" + ", ".join(f"{found[name]:,} {name}" for name in COLUMNS))


if __name__ == "__main__":
    main()
