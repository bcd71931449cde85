"""What is known of drivers: versions that are said to compute our kernels wrongly, or to crash."""

import re
from collections.abc import Callable
from typing import NamedTuple

from ..gpu import Adapter

Version = tuple[int, ...]


class KnownDriver(NamedTuple):
    """gpu: in the adapter's name. driver: its version, as numbers in groups. applies: to which versions. note: one clause."""

    gpu: str
    driver: str
    applies: Callable[[Version], bool]
    note: str


KNOWN_DRIVERS = (
    KnownDriver(
        "intel", r"mesa (\d+)\.(\d+)", lambda v: v < (25, 2), "Mesa before 25.2 initialises matrices wrongly (crbug 415828149)"
    ),
    KnownDriver(
        "amd|radeon|radv",
        r"mesa (\d+)\.(\d+)",
        lambda v: v < (25, 3),
        "Mesa before 25.3 can get negations and absolute values wrong: rotary, similarity, activation (crbug 448294721)",
    ),
    KnownDriver(
        "nvidia|geforce|quadro|rtx",
        r"^(\d+)\.(\d+)",
        lambda v: v == (565, 90),
        "NVIDIA 565.90 computes nonsense on matrix units (llama.cpp#10734)",
    ),
    KnownDriver(
        "nvidia|geforce|quadro|rtx",
        r"^(\d+)\.(\d+)",
        lambda v: v == (595, 58),
        "NVIDIA 595.58 can crash over kernels for matrix units (blade#333)",
    ),
)


def driver_note(a: Adapter) -> str:
    """What is known of an adapter's driver, and what to do, on one line; "" if nothing is."""
    for known in KNOWN_DRIVERS:
        version = re.search(known.driver, a.driver, re.IGNORECASE)
        if version and re.search(known.gpu, a.name, re.IGNORECASE) and known.applies(tuple(map(int, version.groups()))):
            return f"{known.note}; this is {a.driver}: update it"
    return ""
