"""One training step in numpy, its matmuls alone, and PyTorch, in turns; and where numpy's time goes.

    python benchmarks/train_step.py [--texts 64] [--tokens 24] [--rounds 15] [--device gpu] [--python VENV/bin/python]

The model is small (6 layers, width 256, 4 heads, vocabulary 12,288) and has random weights, the loss is
distillation, the optimiser AdamW with clipping. "matmuls": the step's matrix products alone, three for each linear layer,
on all cores with one thread of BLAS each. PyTorch runs eager on as many threads, in the Python of --python (needs torch
and transformers). Every round times each of them once; ratios are medians of the rounds' own ratios, so that they hold
on a machine whose speed wanders. The breakdown is processor time of the threads, which waiting does not count towards.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from statistics import median

import numpy as np
from report import machine, table

from gpt2wgpu import gpu
from gpt2wgpu.graph import cores, ops, packing
from gpt2wgpu.graph.tensor import Array, Tensor
from gpt2wgpu.models.gpt2 import GPT2Config
from gpt2wgpu.train import losses
from gpt2wgpu.train.gpu import GPUTrainProgram
from gpt2wgpu.train.gradients import TrainGraph
from gpt2wgpu.train.program import NumpyTrainProgram

CONFIG = GPT2Config(layers=6, heads=4, width=256, inner=1024, context=128, vocab=12288)
PYTORCH = """
import sys, time, torch
from torch.nn.functional import normalize
from transformers import GPT2Config, GPT2Model
texts, tokens, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
model = GPT2Model(GPT2Config(vocab_size=12288, n_positions=128, n_embd=256, n_layer=6, n_head=4, attn_pdrop=0.0,
                             resid_pdrop=0.0, embd_pdrop=0.0)).train()
ids, targets = torch.randint(0, 12288, (texts, tokens)), normalize(torch.randn(texts, 256), dim=1)
decayed, others = ([p for p in model.parameters() if (p.dim() == 2) == d] for d in (True, False))
groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
optimiser = torch.optim.AdamW(groups, lr=1e-4)
for line in sys.stdin:
    start = time.perf_counter()
    units = normalize(model(input_ids=ids, use_cache=False).last_hidden_state.mean(1), dim=1)
    loss = (1 - (units * targets).sum(1)).mean() + ((units @ units.T - targets @ targets.T) ** 2).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()
    print(time.perf_counter() - start, flush=True)
"""


def graph(config: GPT2Config = CONFIG) -> Tensor:
    hidden = config.hidden(config.layers)
    return ops.l2_normalize(ops.pool(hidden, Tensor(("B", 2), "u32", "spans"), Tensor(("B",), "u32", "skip"), mode="mean"))


def weights(t: Tensor) -> Array:
    if len(t.shape) == 2:
        return 0.02 * np.random.default_rng(len(t.name)).standard_normal(t.shape, dtype=np.float32)
    return np.full(t.shape, "ln" in t.name and t.name.endswith("weight"), np.float32)


def matmuls(tokens: int) -> tuple[Callable[[], None], float]:
    """The matrix products of a step, each core with its share of the tokens; and how many operations they are."""
    C, share = CONFIG.width, tokens // cores.usable_cores()
    rng = np.random.default_rng(0)

    def operands(_: int) -> list[tuple[Array, ...]]:
        shapes = [(C, 3 * C), (C, C), (C, 4 * C), (4 * C, C)]
        sizes = [[(share, k), (k, n), (share, n)] for k, n in shapes]
        return [tuple(rng.standard_normal(s, dtype=np.float32) for s in (*three, *three)) for three in sizes]

    def work(layer: list[tuple[Array, ...]]) -> None:
        for _ in range(CONFIG.layers):
            for x, w, d, dx, dw, out in layer:
                np.matmul(x, w, out=out)
                np.matmul(d, w.T, out=dx)
                np.matmul(x.T, d, out=dw)

    shares = [operands(i) for i in range(cores.usable_cores())]

    def run() -> None:
        with cores.ONE_THREAD_BLAS:
            list(cores.core_threads().map(work, shares))

    return run, 3 * CONFIG.layers * 2.0 * share * len(shares) * 12 * C * C


def timed(work: Callable[[], None]) -> Callable[[], float]:
    def seconds() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return seconds


def breakdown(program: NumpyTrainProgram, step: Callable[[], None], rounds: int) -> str:
    """Milliseconds of a step by op: processor time over cores."""
    spent: Counter[str] = Counter()
    for t in (*program.graph.forward, *program.graph.backward):
        if t.op is not None and not hasattr(t.op.reference, "counted"):

            def count(*inputs: Array, f: Callable[..., Array] = t.op.reference, name: str = t.op.name, **attrs: object) -> Array:
                start = time.thread_time()
                result = f(*inputs, **attrs)
                spent[name] += time.thread_time() - start  # a race may lose a little, not more
                return result

            count.counted = True  # type: ignore[attr-defined]
            object.__setattr__(t.op, "reference", count)
    start = time.process_time()
    for _ in range(rounds):
        step()
    whole = time.process_time() - start
    spent["everything else"] = whole - sum(spent.values())
    scale = 1e3 / rounds / cores.usable_cores()
    rows = [[name, f"{s * scale:.1f}", f"{s / whole:.1%}"] for name, s in spent.most_common()]
    return table(["op", "ms", "share"], [*rows, ["step", f"{whole * scale:.1f}", ""]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", help="also time this device")
    parser.add_argument("--python", help="the Python that has PyTorch")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    ids = [rng.integers(CONFIG.vocab, size=args.tokens) for _ in range(args.texts)]
    batch = packing.pack_batch(ids, [np.arange(args.tokens)] * args.texts, [0] * args.texts)
    teacher = rng.standard_normal((args.texts, CONFIG.width), dtype=np.float32)

    def steps(program: NumpyTrainProgram | GPUTrainProgram) -> Callable[[], None]:
        def step() -> None:
            program.gradients(batch, lambda vectors: losses.distillation(vectors, teacher), 0)
            program.step(1e-4, weight_decay=0.01, clip=1.0)

        return step

    program = NumpyTrainProgram(TrainGraph(graph()), weights)
    products, flops = matmuls(args.texts * args.tokens)
    clocks = {"matmuls": timed(products), "numpy": timed(steps(program))}
    if args.device:
        adapter = gpu.choose_adapter(args.device)
        if adapter is None:
            sys.exit("no real GPU: name a device, such as --device gpu")
        count = args.texts * args.tokens
        capacity = {"T": count, "B": args.texts, "G": packing.max_tiles(count, args.texts)}
        on_device = steps(GPUTrainProgram(gpu.open_device(adapter), TrainGraph(graph()), weights, capacity))
        clocks[adapter.name] = timed(on_device)
    if args.python:
        command = [args.python, "-c", PYTORCH, *map(str, (args.texts, args.tokens, cores.usable_cores()))]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        pipes = process.stdin, process.stdout
        assert pipes[0] and pipes[1]

        def pytorch() -> float:
            print(file=pipes[0], flush=True)
            return float(pipes[1].readline())

        clocks["PyTorch eager"] = pytorch

    print(machine())
    for _ in range(2):
        for clock in clocks.values():
            clock()
    rounds = [{name: clock() for name, clock in clocks.items()} for _ in range(args.rounds)]
    rows = []
    for name in clocks:
        seconds, ratio = median(r[name] for r in rounds), median(r[name] / r["matmuls"] for r in rounds)
        fastest = min(r[name] for r in rounds)
        rows.append([name, f"{seconds * 1e3:.0f}", f"{fastest * 1e3:.0f}", f"{ratio:.2f}", f"{args.texts / seconds:.0f}"])
    print(table(["", "ms", "fastest", "to matmuls", "texts/s"], rows))
    print(f"matmuls: {flops / median(r['matmuls'] for r in rounds) / 1e9:.0f} GFLOP/s\n")
    print(breakdown(program, steps(program), args.rounds))
    print("load average after:", machine()["load"])


if __name__ == "__main__":
    main()
