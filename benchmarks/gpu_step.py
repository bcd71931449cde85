"""What the steps of on_a_gpu.py share: a step is a generator of rows, run in a process of its own, one JSON object a line."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import work

from gpt2wgpu import gpu
from gpt2wgpu.devices.choose import find_device, find_matmul

Rows = Iterator[dict[str, Any]]
T = TypeVar("T")


class Setting:
    """The device under test and how much of it is wanted."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.name, self.home = str(options["device"]), Path(options["home"])
        self.until = time.perf_counter() + float(options["seconds"])
        self.spirv = Path(options["spirv"]) if options["spirv"] else None
        opened, self.why = find_device(self.name)
        if opened is None:
            raise SystemExit(f"no GPU for --device {self.name}: {self.why}")
        self.device: gpu.Device = opened
        self.software = opened.adapter.software
        self.small = bool(options["quick"]) or self.software
        self.all, self.brief = bool(options["all"]), bool(options["brief"])
        self.dtypes = ["float32", *(["float16"] if opened.has_f16 else [])]

    @property
    def over(self) -> bool:
        return time.perf_counter() > self.until

    @cached_property
    def with_matrices(self) -> gpu.Device:
        """The device as float16 models use it: with matrix units where they are right."""
        return find_matmul(self.device, "float16")[0] or self.device if self.device.has_f16 else self.device

    def device_for(self, dtype: str) -> gpu.Device:
        """The device that computes a model of this dtype, "float32" or "float16"."""
        return self.with_matrices if dtype == "float16" else self.device

    def folders(self) -> dict[str, Path]:
        """Models by name, the smallest first; on a software adapter without GPT-2, which takes seconds a call there, unless all
        is asked for."""
        skipped = "GPT-2" if self.software and not self.all else "nothing"
        return {name: folder for name, folder in reversed(work.folders(self.home).items()) if not name.startswith(skipped)}

    def share(self, items: Iterable[T]) -> Iterator[tuple[T, Callable[[], bool]]]:
        """The items, each with a function that says whether its equal share of the time that is left is over."""
        left = [*items]
        for i, item in enumerate(left):
            until = time.perf_counter() + max(0.0, self.until - time.perf_counter()) / (len(left) - i)
            yield item, lambda until=until: time.perf_counter() > until  # type: ignore[misc]


def run_step(steps: dict[str, Callable[[Setting], Rows]]) -> None:
    """The main program of a file of steps: `FILE STEP OPTIONS`, options in JSON."""
    setting = Setting(json.loads(sys.argv[2]))
    for row in steps[sys.argv[1]](setting):
        print(json.dumps(row, default=str), flush=True)
        if setting.over:
            print(json.dumps({"cut": "its time was over"}), flush=True)
            break
