"""The rungs of the two ladders: kernels of one op, from the plainest to one on matrix units.

A rung's shader files are the repository's own where it has them; the others lie in rungs/. benchmarks/ladder.py times them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpt2wgpu.devices.selftest import Case, Check, case_arrays, compare_results, run_numpy, stated_tolerance
from gpt2wgpu.gpu import Device, GPUProgram, Kernel, Tile
from gpt2wgpu.gpu.kernels import enable_f16, for_matrix_units, is_tiled, read_shader, set_constants, set_types, specialise_source
from gpt2wgpu.gpu.tiles import BUCKETS, matmul_key
from gpt2wgpu.graph import ops, packing
from gpt2wgpu.graph.tensor import Array, Op, Tensor

from . import HERE
from .wgsl import read_constants

ACTIVATION = ("activation", "is_nan")
KEYS = ("attention_keys", "attention_load")


@dataclass(frozen=True)
class Rung:
    """One kernel of a ladder.

    made_by: the shader file that makes the difference; files: all of them. shared: rows and columns of the outputs, or how many
    queries, share what is loaded from memory. thread: rows and columns of one thread's outputs, of a subgroup's on matrix units.
    tile: of a matmul that has tiles. half: whether it computes in f16, on matrix units. compiled: its name in the tables of
    tests/gpu_compilers, if it is there.
    """

    name: str
    made_by: str
    files: tuple[str, ...]
    shared: tuple[int, int] = (1, 1)
    thread: tuple[int, int] = (1, 1)
    tile: Tile | None = None
    half: bool = False
    compiled: str = ""

    def source(self, t: Tensor, device: Device | None = None) -> str:
        """The WGSL for an output of the ladder's op. device: one that grants matrix units, for a rung that needs them."""
        text = set_types("\n".join(map(read_rung, self.files)), t)
        constants: dict[str, Any] = dict(t.attrs)
        if self.tile is not None:
            constants |= {"tile_t": self.tile.rows, "tile_n": self.tile.columns, "thread_rows": self.tile.thread_rows}
        text = set_constants(text, constants)
        if "coop_mat" in text:
            return text if device is None else for_matrix_units(device, text)
        return enable_f16(text, t)


@dataclass(frozen=True)
class Ladder:
    """Rungs that compute the same op. large: the case that is timed on a GPU; small: on a software driver."""

    name: str
    title: str
    op: Op
    rungs: tuple[Rung, ...]
    large: Case
    small: Case


def read_rung(name: str) -> str:
    """The text of a shader file: one of shaders/, or of rungs/ beside this file."""
    own = HERE / "rungs" / f"{name}.wgsl"
    return own.read_text(encoding="utf-8") if own.exists() else read_shader(name)


def linear_files(*product: str) -> tuple[str, ...]:
    return ("linear", *product, *ACTIVATION)


MATMUL = Ladder(
    "matmul",
    "A matmul, from one thread an output to matrix units",
    ops.linear,
    (
        Rung(
            "one output a thread",
            "scalar_matmul",
            ("linear_scalar", "scalar_matmul", *ACTIVATION),
            compiled="linear_scalar f32 activation=none",
        ),
        Rung("four columns a thread", "linear_fours", linear_files("linear_fours"), (1, 4), (1, 4)),
        Rung("a block in registers", "matmul_registers", linear_files("matmul_registers"), (16, 16), (16, 16), Tile(16, 128, 16)),
        Rung("the loops written out", "matmul_unrolled", linear_files("matmul_unrolled"), (12, 12), (12, 12), Tile(12, 96, 12)),
        Rung(
            "a tile in workgroup memory",
            "matmul_workgroup",
            linear_files("matmul_workgroup", "matmul_order", "k_in_one"),
            (64, 64),
            (8, 8),
            Tile(64, 64, 8),
            compiled="linear f32 activation=none 64x64/8",
        ),
        Rung(
            "matrix units",
            "matmul_cooperative",
            linear_files("matmul_cooperative"),
            (64, 64),
            (32, 32),
            Tile(64, 64, 32),
            half=True,
            compiled="linear f16 activation=none matrix 64x64/32",
        ),
    ),
    Case(ops.linear, {"K": 768, "N": 3072}, (64,) * 32),
    Case(ops.linear, {"K": 768, "N": 768}, (64,) * 2),
)
HEAD = {"head_size": 64, "scale": 0.125, "causal": True}
SOFTMAX = Ladder(
    "softmax",
    "Softmax attention, from three passes to flash tiles",
    ops.attention,
    (
        Rung("three passes", "attention_three_passes", ("attention", "attention_three_passes", *KEYS)),
        Rung("online", "attention_online", ("attention", "attention_online", *KEYS)),
        Rung("keys in workgroup memory", "softmax_attention", ("attention", "softmax_attention", *KEYS), (32, 1)),
        Rung(
            "flash tiles",
            "flash_forward",
            ("attention_flash", "flash_forward", "flash_tile", "attention_keys"),
            (32, 1),
            (4, 4),
            compiled="attention_flash f32 head_size=64 causal=1",
        ),
        Rung(
            "flash tiles on matrix units",
            "attention_cooperative",
            ("attention_cooperative",),
            (32, 1),
            (16, 16),
            half=True,
            compiled="attention_cooperative f16 head_size=64 causal=1 matrix",
        ),
    ),
    Case(ops.attention, {"N": 3 * 768}, (512,) * 8, HEAD),
    Case(ops.attention, {"N": 3 * 256}, (128,) * 2, HEAD),
)
LADDERS = {ladder.name: ladder for ladder in (MATMUL, SOFTMAX)}


def compile_rung(rung: Rung, device: Device, case: Case) -> tuple[GPUProgram, dict[str, Array]]:
    """The case as a program of its own whose kernel is the rung's, and its inputs. Raises GPUError if it does not compile."""
    case = replace(case, half=rung.half)
    output, values = case_arrays(case)
    return compile_source(device, case, output, values, rung.source(output, device), rung.tile), values


def compile_source(
    device: Device, case: Case, output: Tensor, values: Mapping[str, Array], source: str, tile: Tile | None = None
) -> GPUProgram:
    """The case as a program whose kernel has this source, in the place of the one that the device would choose."""
    tuned: dict[str, Any] = {}
    if is_tiled(output):
        chosen = tile or Tile(16, 128, 16)
        tuned = {"tiles": {matmul_key(output): (chosen,) * len(BUCKETS)}, "tried": {}}
        tile = chosen
    mine = replace(device, kernels={}, tuned=tuned)
    mine.kernels[specialise_source(mine, output, tile)] = Kernel(output, source)
    counts = {"T": sum(case.lengths), "B": len(case.lengths), "M": case.sizes.get("M", 1)}
    counts["G"] = packing.max_tiles(counts["T"], counts["B"])
    return GPUProgram(mine, output, lambda t: values[t.name], counts)


def check_rung(rung: Rung, device: Device, case: Case) -> Check:
    """A rung against numpy on one case."""
    case = replace(case, half=rung.half)
    output, values = case_arrays(case)
    program = compile_source(device, case, output, values, rung.source(output, device), rung.tile)
    found = program.run(values)
    program.close()
    return compare_results(rung.name, str(case), run_numpy(output, values), found, stated_tolerance(device, output))


# --- what a rung loads


def matmul_bytes(rung: Rung, K: int) -> float:
    """Bytes that a rung of the matmuls loads from memory for each output: K of x and K of the weights, shared with others."""
    rows, columns = rung.shared
    return (2 if rung.half else 4) * K * (1 / rows + 1 / columns)


def softmax_bytes(rung: Rung, head_size: int) -> float:
    """Bytes that a rung of softmax loads from memory for each pair of a query and a key of one head."""
    queries, width = rung.shared[0], (2 if rung.half else 4) * head_size
    if rung.name == "three passes":  # q and k in each, then v
        return 7 * width
    if rung.name == "flash tiles":  # the tile's queries are staged again for each block of keys
        return 2 * width / queries + width / block_keys(rung)
    return 2 * width / queries


def softmax_operations(rung: Rung, head_size: int) -> float:
    """Multiplications and additions for each pair, but those of exp: two products, and what passes and rescaling add."""
    if rung.name == "three passes":
        return 8 * head_size
    return (4 + 1 / block_keys(rung)) * head_size


def block_keys(rung: Rung) -> int:
    """The keys between two rescalings."""
    text = "\n".join(map(read_rung, rung.files))
    return int(read_constants(text).get("KEYS", 1))
