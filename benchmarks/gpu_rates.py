"""The steps of on_a_gpu.py that ask how fast a device is: ceilings, matrix units, latency, models, attention, ops, training.

    python benchmarks/gpu_rates.py STEP OPTIONS           (on_a_gpu.py starts it)

A result is compared with numpy before its time counts.
"""

import cProfile
import pstats
import sys
import time
from pathlib import Path

import inputs
import numpy as np
import train_step
from gpu_step import Rows, Setting, run_step
from work import (
    Model,
    device_seconds,
    expected,
    median,
    op_cases,
    pipelined_seconds,
    prepare,
    relative_error,
    seconds_by_op,
    traffic,
)

from gpt2wgpu import Encoder, gpu
from gpt2wgpu.devices.matrix_units import with_matrix_units
from gpt2wgpu.devices.selftest import Case
from gpt2wgpu.graph import ops, packing
from gpt2wgpu.graph.tensor import Array
from gpt2wgpu.models.gpt2 import GPT2Config
from gpt2wgpu.train import losses
from gpt2wgpu.train.gpu import GPUTrainProgram
from gpt2wgpu.train.gradients import TrainGraph
from gpt2wgpu.train.program import NumpyTrainProgram

TOLERANCE = {"float32": (2e-5, 1e-4), "float16": (2e-3, 2e-2)}  # of an op, of a model
SHAPES = [(1, 24), (128, 128), (32, 512), (32, 24), (8, 128), (384, 128)]  # the most telling first
# K, N of GPT-2 small and of all-MiniLM-L6-v2
MATMULS = ((768, 3072), (3072, 768), (384, 1536), (1536, 384), (768, 2304), (768, 768), (384, 1152), (384, 384))
FEW_ROWS = (1, 8, 24, 64)
SENTENCE = "The quick brown fox jumps over the lazy dog"


def ceilings(s: Setting) -> Rows:
    """What the device can do at most: bare loops of copies, multiply-adds and matrix units."""
    device = s.with_matrices
    top = gpu.measure_ceilings(device)
    yield {"copy, bytes read and written": top.gbps, "unit": "GB/s"}
    yield {"multiply-add, f32": top.gflops / 1e3, "unit": "TFLOP/s"}
    if device.matrix_units:
        units = device.matrix_units
        yield {"matrix units, f16 to f32": top.matrix_gflops / 1e3, "unit": "TFLOP/s", "fragments": units.size}


def matrix_units(s: Setting) -> Rows:
    """Which fragments and subgroups are right, then TFLOP/s of every tile of the matmuls, with matrix units and without."""
    device = s.device
    yield {"granted": sorted(device.granted), "refused": device.refused}
    right = s.with_matrices
    if right.matrix_units:
        yield {"used": f"{right.matrix_units.size} x {right.matrix_units.size}", "lanes": right.matrix_units.lanes}
    if not s.small and device.grants_matrices:
        for units in device.library.matrix_shapes(device.adapter.raw):
            found, why = with_matrix_units(device, [units])
            yield {"fragments": units.size, "lanes": units.lanes, "right": found.matrix_units is not None, "why": why}
    kinds = [(right, "f16")] if device.has_f16 else []
    kinds += [(device, "f16")] if right.matrix_units else []
    kinds += [] if s.brief and kinds else [(device, "f32")]
    for k, n in MATMULS[:1] if s.small else MATMULS:
        for used, dtype in kinds:
            found: dict[int, list[gpu.Measurement]] = {}
            for f in gpu.tune_matmuls(used, [(k, n, dtype)], 2.0 if s.small else 4.0):
                found.setdefault(f.rows, []).append(f)
            for rows, tiles in sorted(found.items()):
                best, *others = sorted(tiles, key=lambda f: f.seconds)
                row = {"matmul": used.matmul(dtype), "dtype": dtype, "k": k, "n": n, "rows": rows, "tile": str(best.tile)}
                row |= {"tflops": best.gflops / 1e3, "us": best.seconds * 1e6}
                row |= {"weight_gb_per_s": k * n * (2 if dtype == "f16" else 4) / best.seconds / 1e9}
                yield row | {"others": {str(f.tile): round(f.gflops / 1e3, 3) for f in others}}


def latency(s: Setting) -> Rows:
    """One short text: the call, what of it is the device, the tokenizer and the host, and the device's time by op."""
    wanted = [(name, folder, dtype) for name, folder in s.folders().items() for dtype in s.dtypes]
    for (name, folder, dtype), over in s.share(wanted):
        model = Model(folder)
        program = model.program(s.device_for(dtype), dtype == "float16", 512, 1)
        for tokens in FEW_ROWS:
            batch = model.batch(1, tokens)
            device_s = device_seconds(program, batch, 5 if s.small else 15)
            call = median(lambda p=program, b=batch: p.run(b), 0.3, 11)
            row = {"model": name, "dtype": dtype, "tokens": tokens, "call_ms": call * 1e3, "dispatches": len(program.steps)}
            yield row | {"device_ms": device_s and device_s * 1e3, "weights_mb": weight_bytes(model, program) / 1e6}
            if over():
                break
        else:
            by_op = seconds_by_op(program, model.batch(1, 24), 3 if s.small else 9)
            yield {"model": name, "dtype": dtype, "ms_by_op": {op: t * 1e3 for op, t in by_op.items()}}
        program.close()
        if over():
            continue
        with Encoder(folder, device=s.name, dtype=dtype) as encoder:
            encoder.encode(SENTENCE)
            whole = median(lambda e=encoder: e.encode(SENTENCE), 0.3, 15)
            tokenizer = median(lambda e=encoder: e.tokenizer.encode([SENTENCE], 512), 0.1, 15)
        yield {"model": name, "dtype": dtype, "encode_ms": whole * 1e3, "tokenizer_ms": tokenizer * 1e3}


def weight_bytes(model: Model, program: gpu.GPUProgram) -> float:
    """Bytes of the matrices that every text reads: all weights but the tables of embeddings."""
    pieces = [p for t, p in program.weights.items() if "emb" not in t.name and "wte" not in t.name and "wpe" not in t.name]
    return float(sum(buffer.size for p in pieces for _, buffer in p))


def models(s: Setting) -> Rows:
    """Token ids to vectors."""
    wanted = [(name, Model(folder), dtype) for name, folder in s.folders().items() for dtype in s.dtypes]
    references = {name: model.reference() for name, model, _ in wanted}
    for (name, model, dtype), over in s.share(wanted):
        program = model.program(s.device_for(dtype), dtype == "float16", 2048 if s.small else 49152, 1024)
        for texts, tokens in SHAPES[:2] if s.small else SHAPES:
            if not model.fits(tokens) or texts * tokens > program.capacity["T"]:
                continue
            batch = model.batch(texts, tokens)
            first = min(texts, 4 if tokens < 100 else 1)  # numpy computes these alone
            error = relative_error(references[name].submit(model.batch(texts, tokens, first))(), program.run(batch)[:first])
            row = {"model": name, "dtype": dtype, "texts": texts, "tokens": tokens, "error": error}
            if not error < TOLERANCE[dtype][1]:
                yield row | {"ok": False}
                continue
            device_s = device_seconds(program, batch, 3 if s.small else 9)
            alone = median(lambda p=program, b=batch: p.run(b), 0.3, 9)
            row |= {"device_ms": device_s and device_s * 1e3, "call_ms": alone * 1e3}
            seconds = pipelined_seconds(program, batch, 0.3)
            row |= {"pipelined_ms": seconds * 1e3, "tokens_per_s": texts * tokens / seconds}
            row |= {"tflops": model.flops(texts, tokens) / seconds / 1e12}
            row |= {"device_busy": device_s and min(1.0, device_s / seconds)}
            yield row | {"ms_by_op": {op: t * 1e3 for op, t in seconds_by_op(program, batch).items()}}
            if over():
                break
        program.close()


def time_case(s: Setting, device: gpu.Device, case: Case, work: float) -> dict[str, object]:
    """One op: its error against numpy, then its time and rates."""
    program, values, output = prepare(device, case)
    _, wanted = expected(output, values)
    found = program.run(values)
    dtype = "float16" if case.half else "float32"
    row: dict[str, object] = {"op": case.op.name, "shape": str(case), "dtype": dtype, "error": relative_error(wanted, found)}
    if not relative_error(wanted, found) < TOLERANCE[dtype][0]:
        return row | {"ok": False}
    by_clock = device_seconds(program, values)
    seconds = by_clock or median(lambda: program.run(values), 0.2)
    program.close()
    row |= {"ms": seconds * 1e3, "by_device_clock": bool(by_clock)}
    return row | {"tflops": work / seconds / 1e12, "gb_per_s": traffic(values, found) / seconds / 1e9}


def attention(s: Setting) -> Rows:
    """Attention by the length of the texts, 12 heads of 64 in both directions and causal, then 16 of 128."""
    lengths = (64, 256) if s.small else (128, 512, 24, 2048, 64, 256, 1024, 4096)
    for head_size, heads, causal in ((64, 12, False), (64, 12, True), (128, 16, False), (128, 16, True)):
        for tokens in lengths:
            for dtype in s.dtypes[::-1]:
                total = tokens if s.small else max(4096, tokens)
                flops = (2.0 if causal else 4.0) * total * tokens * heads * head_size
                attrs = {"head_size": head_size, "scale": head_size**-0.5, "causal": causal}
                case = Case(ops.attention, {"N": 3 * heads * head_size}, (tokens,) * (total // tokens), attrs, dtype == "float16")
                yield {"tokens": tokens, "head": head_size} | time_case(s, s.device_for(dtype), case, flops)


def encoders(s: Setting) -> Rows:
    """Texts to vectors, and how much of it the tokenizer takes."""
    wanted = [(name, folder, dtype) for name, folder in s.folders().items() if name != "built-in" for dtype in s.dtypes[::-1]]
    for (name, folder, dtype), over in s.share(wanted):
        words = inputs.Words(folder)
        shapes = [(1, 24), (8, 24)] if s.small else [(128, 128), (32, 512), (1, 24), (2048, 128)]
        with Encoder(folder, device=s.name, dtype=dtype, max_seq_length=inputs.MAX_TOKENS) as encoder:
            for workload, shape in [*((f"{n} × {t}", [n, t]) for n, t in shapes), ("mixed", [])]:
                texts = words.texts(*shape) if shape else words.mixed(32 if s.small else 5000)
                encoder.encode(texts)
                seconds = median(lambda e=encoder, t=texts: e.encode(t), 0.5, 15)
                start = time.perf_counter()
                _, counts = encoder.tokenizer.encode(texts, inputs.MAX_TOKENS)
                tokenising = time.perf_counter() - start
                row = {"model": name, "folder": str(folder), "dtype": dtype, "workload": workload, "shape": shape}
                row |= {"ms": seconds * 1e3, "texts_per_s": len(texts) / seconds, "tokens_per_s": sum(counts) / seconds}
                yield row | {"tokenizer_ms": tokenising * 1e3}
                if over():
                    break
            texts = words.mixed(32 if s.small else 20000)
            yield {"model": name, "dtype": dtype, "ms_by_function": host_functions(encoder, texts)}


def host_functions(encoder: Encoder, texts: list[str]) -> dict[str, float]:
    """Milliseconds of the thread that calls, by function, most first, while texts stream through. Waiting counts as a lock's
    `acquire` or the library's call; a profiled Python function takes about twice as long as others."""
    profile = cProfile.Profile()
    profile.runcall(lambda: sum(1 for _ in encoder.encode_stream(texts)))
    found = pstats.Stats(profile).get_stats_profile().func_profiles
    largest = sorted(found.items(), key=lambda item: -item[1].tottime)[:16]
    return {f"{Path(f.file_name).name} {name}": f.tottime * 1e3 for name, f in largest}


def time_ops(s: Setting) -> Rows:
    for tokens in (512,) if s.small else (512, 16384, 4096):
        for dtype in s.dtypes:
            device = s.device_for(dtype)
            for case, work in op_cases(dtype == "float16", tokens):
                yield time_case(s, device, case, work)


def registers(s: Setting) -> Rows:
    """What the real driver's compiler says of our kernels: registers, spills, whatever statistics it has."""
    if s.spirv is None:
        yield {"why": "no folder of SPIR-V was given (--spirv)"}
        return
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from gpu_compilers.vulkan import Vulkan

    driver = Vulkan()
    for file in sorted(s.spirv.glob("*.spv")):
        yield {"kernel": file.stem} | driver.statistics(file.read_bytes())


def training(s: Setting) -> Rows:
    """A step of a small model: the losses of three against numpy, then its time; on a real GPU also one of a large batch."""
    small = train_step.CONFIG
    yield from time_steps(s, small, texts=8 if s.small else 256, tokens=24, steps=3)
    if not s.small:
        large = GPT2Config(layers=6, heads=6, width=384, inner=1536, context=512, vocab=20480)
        yield from time_steps(s, large, texts=819, tokens=20, steps=1)


def time_steps(s: Setting, config: GPT2Config, texts: int, tokens: int, steps: int) -> Rows:
    """Distillation of random vectors: the losses and norms of some steps against numpy, then the time of a step, what of it
    the host spends in the loss, and the device's time by op."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(config.vocab, size=tokens) for _ in range(texts)]
    batch = packing.pack_batch(ids, [np.arange(tokens)] * texts, [0] * texts)
    teacher = rng.standard_normal((texts, config.width), dtype=np.float32)
    count = texts * tokens
    capacity = {"T": count, "B": texts, "G": packing.max_tiles(count, texts)}
    graph = TrainGraph(train_step.graph(config))
    losing: list[float] = []  # seconds in the loss

    def loss(vectors: Array) -> tuple[float, Array]:
        start = time.perf_counter()
        found = losses.distillation(vectors, teacher)
        losing.append(time.perf_counter() - start)
        return found

    def step(program: NumpyTrainProgram | GPUTrainProgram) -> tuple[float, float]:
        value = float(program.gradients(batch, loss, 0))
        return value, program.step(1e-4, weight_decay=0.01, clip=1.0)

    in_numpy = NumpyTrainProgram(graph, train_step.weights)
    right = np.array([step(in_numpy) for _ in range(steps)])
    del in_numpy
    program = GPUTrainProgram(s.device, graph, train_step.weights, capacity)
    found = np.array([step(program) for _ in range(steps)])
    error = float(np.abs(found / right - 1).max())
    falls = bool((np.diff(found[:, 0]) < 0).all())
    row = {"width": config.width, "texts": texts, "tokens": tokens}
    yield row | {"losses": found[:, 0].tolist(), "error": error, "tolerance": 1e-3, "ok": error < 1e-3 and falls}
    losing.clear()
    seconds = median(lambda: step(program), 1.0, 9)
    row |= {"ms": seconds * 1e3, "loss_ms": 1e3 * float(np.median(losing)), "tokens_per_s": count / seconds}
    arrays = graph.arrays(batch, 0, np.arange(count)) | {graph.seed.name: teacher}
    by_op = seconds_by_op(program.program, arrays, ONTO=0)
    yield row | {"device_ms": 1e3 * sum(by_op.values()), "ms_by_op": {op: t * 1e3 for op, t in by_op.items()}}


if __name__ == "__main__":
    run_step(
        {
            "ceilings": ceilings,
            "matrix units": matrix_units,
            "latency": latency,
            "models": models,
            "attention": attention,
            "encoders": encoders,
            "ops": time_ops,
            "registers": registers,
            "training": training,
        }
    )
