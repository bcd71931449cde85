"""Which tile shape a matmul gets: the fastest on this adapter for its sizes K and N, its dtype and its bucket of rows.

Every shape gives the same bits (k ascending, one accumulator), so the choice changes only speed.
"""

import json
import math
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import __version__
from ..graph.tensor import Tensor
from ..progress import notice
from .device import Device
from .kernels import Tile, is_tiled, operand_types

# For shaders/matmul_workgroup.wgsl. Small tiles give a small batch more workgroups; large tiles load less.
GPU_TILES = (
    Tile(64, 64, 8),
    Tile(32, 32, 4),
    Tile(128, 128, 8),
    Tile(128, 64, 8),
    Tile(32, 64, 4),
    Tile(64, 128, 8),
    Tile(16, 64, 2),
    Tile(64, 64, 4),
)
SOFTWARE_TILES = {
    "matmul_registers": (Tile(24, 128, 24), Tile(16, 128, 16), Tile(12, 128, 12), Tile(8, 128, 8)),
    "matmul_unrolled": (Tile(12, 96, 12),),
}
# For shaders/matmul_cooperative.wgsl with fragments of 16 x 16; halved for 8 x 8. The first one compiles fast.
MATRIX_TILES = (Tile(64, 64, 32), Tile(128, 128, 64), Tile(32, 64, 32), Tile(64, 128, 32), Tile(128, 64, 64))
BUCKETS = (32, 128, 512, math.inf)  # the most rows T in each bucket

Matmul = tuple[int, int, str]  # K, N and the dtype of its operands
Choice = tuple[Tile | None, ...]  # a tile for each of BUCKETS; None if not measured
TileTable = dict[Matmul, Choice]


def matmul_key(t: Tensor) -> Matmul:
    return int(t.dims["K"]), int(t.dims["N"]), operand_types(t)


def tile_candidates(device: Device, dtype: str) -> list[Tile]:
    """The shapes of a matmul with operands of a dtype that fit the device, the default one first."""
    kind = device.matmul(dtype)
    if kind in SOFTWARE_TILES:
        return list(SOFTWARE_TILES[kind])
    found: tuple[Tile, ...] = GPU_TILES
    if device.matrix_units and kind == "matmul_cooperative":
        part = device.matrix_units.size / 16
        found = tuple(Tile(*(int(part * n) for n in tile)) for tile in MATRIX_TILES)
    limits = device.adapter.limits
    return [
        tile
        for tile, (memory, lanes) in ((tile, tile_needs(device, kind, tile)) for tile in found)
        if memory <= limits["max-compute-workgroup-storage-size"] and lanes <= limits["max-compute-invocations-per-workgroup"]
    ]


def tile_needs(device: Device, kind: str, tile: Tile) -> tuple[int, int]:
    """Bytes of workgroup memory and number of threads of a shape, as its shader declares them."""
    if kind == "matmul_workgroup":
        return 16 * (4 * (tile.rows + 1) + 4 * tile.columns), tile.rows // tile.thread_rows * tile.columns // 8
    assert device.matrix_units is not None
    size, lanes = device.matrix_units
    parts = tile.rows // tile.thread_rows * tile.columns // tile.thread_rows
    return 2 * (40 * tile.rows + 32 * (tile.columns + 8)) + 4 * parts * 2 * size * size, parts * lanes


def tile_ladder(device: Device, t: Tensor) -> tuple[tuple[float, Tile | None], ...]:
    """(most rows T, the tile for them), ascending; the tile is None for an op that has no tiles."""
    if not is_tiled(t):
        return ((math.inf, None),)
    m = matmul_key(t)
    default = tile_candidates(device, m[2])[0]
    choice = [tile or default for tile in chosen_tiles(device).get(m, (None,) * len(BUCKETS))]
    above = (*choice[1:], None)
    return tuple((most, tile) for most, tile, next_one in zip(BUCKETS, choice, above, strict=True) if tile != next_one)


def chosen_tiles(device: Device) -> TileTable:
    """The tiles measured on this adapter, by this process or an earlier one. tuning.py adds to them."""
    if "tiles" not in device.tuned:
        device.tuned["tiles"] = load_tiles(device)
    return device.tuned["tiles"]


# --- the cache: one JSON file, {"version": ..., "adapters": {adapter: {"768x3072 f16 matmul_workgroup": ["16x64/2", null, ...]}}}


def cache_file() -> Path:
    """Where measurements are kept, in the user's cache folder. Raises FileNotFoundError if there is none."""
    home = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("LOCALAPPDATA") if os.name == "nt" else None
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or home or "~/.cache").expanduser()
    except RuntimeError:  # neither HOME nor an entry in passwd
        raise FileNotFoundError("there is no home folder to keep what is measured: set HOME or XDG_CACHE_HOME") from None
    return folder / "gpt2wgpu" / "tiles.json"


def read_cache() -> dict[str, Any]:
    """The entries of the file by adapter; {} if it is missing, broken or of another version."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(cache_file().read_text("utf-8"))
        if isinstance(found, dict) and found.get("version") == __version__ and isinstance(found.get("adapters"), dict):
            return found["adapters"]
    return {}


def adapter_key(device: Device) -> str:
    a = device.adapter
    return f"{a.name} | {a.driver} | {a.backend}"


def entry_name(device: Device, m: Matmul) -> str:
    """The name of a matmul in the file; it includes the kernel, as a device may be opened with matrix units or without."""
    k, n, dtype = m
    return f"{k}x{n} {dtype} {device.matmul(dtype)}"


def load_tiles(device: Device) -> TileTable:
    """This adapter's choices in the cache, for the kernels that this device uses. Unknown entries are ignored."""
    entries = read_cache().get(adapter_key(device))
    found: TileTable = {}
    for name, tiles in entries.items() if isinstance(entries, dict) else ():
        with suppress(ValueError, TypeError, KeyError):
            sizes, dtype, _ = name.split(" ")
            k, n = map(int, sizes.split("x"))
            if name != entry_name(device, (k, n, dtype)):
                continue
            known = {str(tile): tile for tile in tile_candidates(device, dtype)}
            choice = tuple(None if tile is None else known[tile] for tile in tiles)
            if len(choice) == len(BUCKETS):
                found[k, n, dtype] = choice
    return found


def save_tiles(device: Device) -> None:
    """Add this device's choices to the file, atomically. Choices for other kernels and adapters stay.

    If the file cannot be written, a notice says so, and the next process measures again.
    """
    adapters, key = read_cache(), adapter_key(device)
    old = adapters.get(key)
    new = {
        entry_name(device, m): [tile and str(tile) for tile in choice]
        for m, choice in chosen_tiles(device).items()
        if any(choice)
    }
    adapters[key] = {**(old if isinstance(old, dict) else {}), **new}
    temporary = None
    try:
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".json", delete=False) as file:
            temporary = Path(file.name)
            json.dump({"version": __version__, "adapters": adapters}, file, indent=1)
        temporary.replace(path)
    except OSError as e:
        why = f"{e.filename}: {e.strerror}" if e.filename else e
        notice(f"what was measured of {device.adapter.name} cannot be kept and is measured again next time ({why})")
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
