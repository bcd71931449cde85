"""Which tile shape a matmul gets: the fastest on this adapter for its sizes K and N, its dtype and its bucket of rows.

Every shape gives the same bits (k ascending in one accumulator, in fixed parts where it is long), so the choice changes only
speed.
"""

import math
from contextlib import suppress

from ..errors import UserError
from ..graph.tensor import Tensor
from .device import Device
from .device_cache import adapter_key, read_entries, save_entries
from .kernels import Kernel, Tile, find_kernel, is_tiled, operand_types

# For shaders/matmul_workgroup.wgsl. Small tiles give a batch more workgroups; large tiles load less.
GPU_TILES = (
    Tile(64, 64, 8),
    Tile(128, 128, 8),
    Tile(128, 64, 8),
    Tile(32, 64, 4),
    Tile(64, 64, 4),
)
# For shaders/matmul_short.wgsl, on the same devices, for batches of up to SHORTEST rows.
SHORT_TILES = (Tile(8, 16), Tile(32, 16), Tile(32, 32), Tile(8, 8))
SHORTEST = 128
SOFTWARE_TILES = {
    "matmul_registers": (Tile(24, 128, 24), Tile(16, 128, 16), Tile(12, 128, 12), Tile(8, 128, 8)),
    "matmul_unrolled": (Tile(12, 96, 12),),
}
# For shaders/matmul_cooperative.wgsl with fragments of 16 x 16; halved for 8 x 8. The first one compiles fast.
MATRIX_TILES = (Tile(64, 64, 32), Tile(128, 128, 64), Tile(32, 64, 32), Tile(64, 128, 32), Tile(128, 64, 64))
BUCKETS = (8, 32, 64, 128, 512, math.inf)  # the most rows T in each bucket
# The tile of each bucket on a GPU where nothing has been measured
UNMEASURED = (Tile(8, 16), Tile(32, 32), Tile(32, 32), Tile(32, 32), Tile(64, 64, 8), Tile(64, 64, 8))

Matmul = tuple[int, int, str]  # K, N and the dtype of its operands
Choice = tuple[Tile | None, ...]  # a tile for each of BUCKETS; None if not measured
TileTable = dict[Matmul, Choice]


def matmul_key(t: Tensor) -> Matmul:
    return int(t.dims["K"]), int(t.dims["N"]), operand_types(t)


def tile_candidates(device: Device, dtype: str) -> list[Tile]:
    """The shapes of a matmul with operands of a dtype that fit the device, the default one first. Raises UserError if none do."""
    kind = device.matmul(dtype)
    if kind in SOFTWARE_TILES:
        return list(SOFTWARE_TILES[kind])
    found: tuple[Tile, ...] = GPU_TILES + SHORT_TILES
    if device.matrix_units and kind == "matmul_cooperative":
        part = device.matrix_units.size / 16
        found = tuple(Tile(*(int(part * n) for n in tile)) for tile in MATRIX_TILES)
    limits = device.adapter.limits
    memory, lanes = limits["max-compute-workgroup-storage-size"], limits["max-compute-invocations-per-workgroup"]
    needs = {tile: tile_needs(device, kind, tile) for tile in found}
    fitting = [tile for tile, (bytes_needed, threads) in needs.items() if bytes_needed <= memory and threads <= lanes]
    if not fitting:
        least = " and ".join(map(str, min(needs.values())))
        allowed = f"{memory} bytes of workgroup memory and {lanes} threads in a workgroup"
        raise UserError(f"{device.adapter} allows {allowed}, a matrix product needs {least}: use device='numpy'")
    return fitting


def default_tiles(device: Device, dtype: str) -> Choice:
    """The tile of each bucket where nothing has been measured: the first of the candidates, on a GPU one that suits the rows."""
    candidates = tile_candidates(device, dtype)
    if device.matmul(dtype) != "matmul_workgroup":
        return (candidates[0],) * len(BUCKETS)
    return tuple(tile if tile in candidates else candidates[0] for tile in UNMEASURED)


def suits_rows(tile: Tile, rows: int) -> bool:
    """Whether a tile may be the fastest for a batch of so many rows, so that it is worth measuring."""
    return rows <= SHORTEST if tile.short else tile.rows < 2 * max(rows, 32)


def tile_needs(device: Device, kind: str, tile: Tile) -> tuple[int, int]:
    """Bytes of workgroup memory and number of threads of a shape, as its shader declares them."""
    if tile.short:
        return 16 * (512 // max(tile.rows, tile.columns)) * (tile.rows + tile.columns), 128
    if kind == "matmul_workgroup":
        return 16 * (4 * (tile.rows + 4) + 4 * tile.columns), tile.rows // tile.thread_rows * tile.columns // 8
    assert device.matrix_units is not None
    size, lanes = device.matrix_units
    parts = tile.rows // tile.thread_rows * tile.columns // tile.thread_rows
    return 2 * (40 * tile.rows + 32 * (tile.columns + 8)) + 4 * parts * 2 * size * size, parts * lanes


def tile_ladder(device: Device, t: Tensor) -> tuple[tuple[float, Tile | None], ...]:
    """(most rows T, the tile for them), ascending; the tile is None for an op that has no tiles."""
    if not is_tiled(t):
        return ((math.inf, None),)
    m = matmul_key(t)
    measured = chosen_tiles(device).get(m, (None,) * len(BUCKETS))
    choice = [tile or default for tile, default in zip(measured, default_tiles(device, m[2]), strict=True)]
    above = (*choice[1:], None)
    return tuple((most, tile) for most, tile, next_one in zip(BUCKETS, choice, above, strict=True) if tile != next_one)


def default_kernel(device: Device, t: Tensor, rows: int) -> Kernel:
    """The kernel of an op for a batch of so many rows before anything is measured.

    tuning.py compares those of all other tiles with one of them, bit by bit.
    """
    if not is_tiled(t):
        return find_kernel(device, t)
    ladder = zip(BUCKETS, default_tiles(device, operand_types(t)), strict=True)
    return find_kernel(device, t, next(tile for most, tile in ladder if rows <= most))


def chosen_tiles(device: Device) -> TileTable:
    """The tiles measured on this adapter, by this process or an earlier one. tuning.py adds to them."""
    if "tiles" not in device.tuned:
        device.tuned["tiles"], device.tuned["tried"] = load_tiles(device)
    return device.tuned["tiles"]


def tried_tiles(device: Device) -> TileTable:
    """For matmuls whose shapes could not all be tried in time: those among which the fastest were chosen so far."""
    chosen_tiles(device)
    return device.tuned.setdefault("tried", {})


# --- kept in tiles.json for each adapter: {"768x3072 f16 matmul_workgroup": ["16x64/2", null, ...]}, or, as long as some shapes
# have not been tried, {"tiles": ["16x64/2", null, ...], "tried": ["64x64/8", "16x64/2"]}


def entry_name(device: Device, m: Matmul) -> str:
    """The name of a matmul in the file; it includes the kernel, as a device may be opened with matrix units or without."""
    k, n, dtype = m
    return f"{k}x{n} {dtype} {device.matmul(dtype)}"


def load_tiles(device: Device) -> tuple[TileTable, TileTable]:
    """This adapter's choices in the cache, for the kernels that this device uses, and the shapes tried where these are not
    all. Unknown entries are ignored."""
    found: TileTable = {}
    tried: TileTable = {}
    for name, entry in read_entries("tiles", adapter_key(device.adapter)).items():
        with suppress(ValueError, TypeError, KeyError):
            sizes, dtype, _ = name.split(" ")
            k, n = map(int, sizes.split("x"))
            if name != entry_name(device, (k, n, dtype)):
                continue
            known = {str(tile): tile for tile in tile_candidates(device, dtype)}
            some = tuple(known[tile] for tile in entry["tried"]) if isinstance(entry, dict) else ()
            choice = tuple(None if tile is None else known[tile] for tile in (entry["tiles"] if some else entry))
            if len(choice) == len(BUCKETS):
                found[k, n, dtype] = choice
                tried |= {(k, n, dtype): some} if some else {}
    return found, tried


def save_tiles(device: Device) -> None:
    """Add this device's choices to the file. Choices for other kernels and adapters stay."""
    new: dict[str, object] = {}
    for m, choice in chosen_tiles(device).items():
        if any(choice):
            names = [tile and str(tile) for tile in choice]
            tried = [*map(str, tried_tiles(device).get(m, ()))]
            new[entry_name(device, m)] = {"tiles": names, "tried": tried} if tried else names
    lost = f"what was measured of {device.adapter.name} cannot be kept and is measured again next time"
    save_entries("tiles", adapter_key(device.adapter), new, lost)
