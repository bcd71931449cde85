"""The steps of on_a_gpu.py that ask whether a device is right: kernels, tiles, families of models, invariance.

python benchmarks/gpu_correctness.py STEP OPTIONS           (on_a_gpu.py starts it)
"""

import math
import shutil
import subprocess
import time
import warnings
from pathlib import Path

import numpy as np
from gpu_step import Rows, Setting, run_step
from work import Model, relative_error

from gpt2wgpu import Encoder, gpu
from gpt2wgpu.devices.choose import find_matmul
from gpt2wgpu.devices.selftest import check_op, forward_cases
from gpt2wgpu.diagnose.doctor import check_model
from gpt2wgpu.gpu.tiles import tile_candidates
from gpt2wgpu.gpu.tuning import Bench
from gpt2wgpu.graph import packing

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "models"
MODEL_TOLERANCE = {"float32": 1e-4, "float16": 2e-2}  # of the largest value of a model's vectors
MATMULS = ((384, 1536), (1536, 384), (768, 3072), (3072, 768), (100, 132))  # K, N
TEXT = "the a cat sleeps runs quick brown fox over lazy river matrices warm windows 12 °C 東京 electroencephalography über"
WORDS = TEXT.split()


def describe(s: Setting) -> Rows:
    """The adapter, its driver, features and limits; what nvidia-smi says."""
    a = s.device.adapter
    yield {"adapter": str(a), "backend": a.backend, "driver": a.driver, "why": s.why, "granted": sorted(s.device.granted)}
    yield {"features": sorted(a.features), "limits": a.limits}
    if s.device.has_f16:
        yield {"float16 matmuls": find_matmul(s.device, "float16")[1]}
    if shutil.which("nvidia-smi"):
        query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit"
        done = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True)
        yield {"nvidia-smi": done.stdout.strip()}


def kernels(s: Setting) -> Rows:
    """Every op against numpy, with the library's bounds checks on, and as it is used."""
    for checked in (False,) if s.brief else (False, True):
        opened = gpu.open_device(s.device.adapter, checked=checked)
        device = find_matmul(opened, "float16")[0] or opened if opened.has_f16 else opened
        for case in forward_cases(device.has_f16):
            c = check_op(device, case)
            row = {"op": c.name, "shape": c.shape, "checked": checked, "error": c.error, "tolerance": c.tolerance}
            yield row | {"ok": c.ok} | ({"failure": c.failure} if c.failure else {})


def tiles(s: Setting) -> Rows:
    """Whether every tile shape compiles and gives the bits of the first one."""
    dtypes = ["f32", "i8", *(["f16", "i8f16"] if s.device.has_f16 else [])]
    for dtype in dtypes:
        device = s.with_matrices if dtype.endswith("f16") else s.device
        for k, n in MATMULS[-1:] if s.small else MATMULS:
            start = time.perf_counter()
            bench = Bench(device, (k, n, dtype), math.inf)
            wanted, right = tile_candidates(device, dtype), [*bench.kernels]
            row = {"k": k, "n": n, "dtype": dtype, "kernel": device.matmul(dtype), "tiles": len(wanted)}
            yield row | {"left out": [str(t) for t in wanted if t not in right], "seconds": time.perf_counter() - start}


def families(s: Setting) -> Rows:
    """A small model of every family against numpy, in one dtype after the other, and between them the whole ones. In brief:
    every third family, float16 first, as it alone runs on matrix units."""
    small = sorted(GOLDEN.iterdir())[:: 3 if s.brief else 1] if GOLDEN.is_dir() else []
    dtypes = s.dtypes[::-1] if s.brief else s.dtypes
    for dtype in dtypes:
        for folder in small:
            model = Model(folder)
            expected = np.load(folder / "expected.npz")
            ids = np.split(expected["ids"], np.cumsum(expected["lengths"].astype(int))[:-1])
            pad = model.checkpoint.config.pad
            batch = packing.pack_batch(ids, [packing.position_ids(i, pad) for i in ids], [0] * len(ids))
            program = model.program(s.device_for(dtype), dtype == "float16", int(expected["lengths"].sum()), len(ids))
            error = relative_error(model.reference().run(batch), program.run(batch))
            ok = error < MODEL_TOLERANCE[dtype]
            yield {"model": folder.name, "dtype": dtype, "error": error, "tolerance": MODEL_TOLERANCE[dtype], "ok": ok}
            program.close()
        if dtype == dtypes[0]:
            yield from whole_models(s)


def whole_models(s: Setting) -> Rows:
    """The models of the benchmarks against numpy in every dtype, the smallest first."""
    for name, folder in s.folders().items():
        for dtype in (*s.dtypes, "int8"):
            with Encoder(folder, device=s.name, dtype=dtype) as encoder:
                for c in check_model(encoder, Encoder(folder, device="numpy", dtype="int8" if dtype == "int8" else "float32")):
                    check = c.name.replace(encoder.model, "").strip()
                    row = {"model": name, "dtype": dtype, "check": check, "error": c.error, "tolerance": c.tolerance}
                    yield row | {"ok": c.ok}


def invariance(s: Setting) -> Rows:
    """500 texts alone, shuffled, and under other token budgets: the same bits."""
    count = 60 if s.small else 500
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, n)) for n in 1 + (60 * rng.random(count) ** 3).astype(int)]
    warnings.simplefilter("ignore", UserWarning)  # some texts are too long for the model
    for name, folder in s.folders().items() if s.all or not s.software else [("built-in", None)]:
        for dtype in (*s.dtypes, "int8"):
            with Encoder(folder, device=s.name, dtype=dtype) as encoder:
                expected = encoder.encode(texts)
                some = rng.permutation(count)[: count // 4].tolist()
                alone = np.stack([encoder.encode([texts[i]])[0] for i in some])
                shuffled = rng.permutation(count).tolist()
                mixed = encoder.encode([texts[i] for i in shuffled], batch_size=37)
            with Encoder(folder, device=s.name, dtype=dtype, max_tokens=512) as encoder:
                budget = encoder.encode(texts)
            same = {
                "alone": np.array_equal(alone, expected[some]),
                "shuffled": np.array_equal(mixed, expected[shuffled]),
                "in batches of 512 tokens": np.array_equal(budget, expected),
            }
            yield {"model": name, "dtype": dtype, "texts": count, **same, "ok": all(same.values())}


if __name__ == "__main__":
    run_step({"machine": describe, "kernels": kernels, "tiles": tiles, "families": families, "invariance": invariance})
