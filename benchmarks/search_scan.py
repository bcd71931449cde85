"""A million vectors of 384 searched in numpy, beside reading their bytes once: python benchmarks/search_scan.py [--rows N]

Prints milliseconds, the least and the median of interleaved runs, and the ratio to reading.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from gpt2wgpu.graph.crew import Crew
from gpt2wgpu.vectors.coarse import FACTS_OF_ROW, CoarseRows, make_coarse
from gpt2wgpu.vectors.top_k import top_k

PIECE = 1 << 21  # bytes read at a time
MADE_TOGETHER = 20_000


def make_rows(n: int, width: int) -> tuple[np.ndarray, CoarseRows]:
    rng = np.random.default_rng(0)
    rows = np.empty((n, width), np.float32)
    coarse = CoarseRows(np.empty((n, width), np.int8), np.empty(n, FACTS_OF_ROW))
    for i in range(0, n, MADE_TOGETHER):
        block = rng.standard_normal((min(MADE_TOGETHER, n - i), width), np.float32)
        rows[i : i + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
        for whole, part in zip(coarse, make_coarse(rows[i : i + len(block)]), strict=True):
            whole[i : i + len(block)] = part
    return rows, coarse


def read_once(rows: np.ndarray) -> None:
    """Add up all bytes as float64, which takes no longer than reading them."""
    numbers = rows.reshape(-1).view(np.float64)
    step = PIECE // 8
    with Crew() as crew:
        crew.share(lambda i: numbers[i * step : (i + 1) * step].sum() and None, -(-len(numbers) // step))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--repeat", type=int, default=9)
    given = parser.parse_args()
    rows, coarse = make_rows(given.rows, given.width)
    one, eight = rows[777:778].copy(), rows[777:785].copy()
    runs: dict[str, Callable[[], object]] = {
        "read": lambda: read_once(rows),
        "1 query, rows of length 1 (an index)": lambda: top_k(one, rows, 10, cosine=False, longest=1.00001),
        "1 query, cosine (semantic_search)": lambda: top_k(one, rows, 10, cosine=True),
        "1 query, int8 first": lambda: top_k(one, rows, 10, cosine=False, longest=1.00001, coarse=coarse),
        "8 queries, rows of length 1": lambda: top_k(eight, rows, 10, cosine=False, longest=1.00001),
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(given.repeat):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            taken[name].append(1e3 * (time.perf_counter() - begin))
    for name, ms in taken.items():
        ratio = min(ms) / min(taken["read"])
        print(f"{name:40} {min(ms):8.0f} {statistics.median(ms):8.0f} ms, least {ratio:.2f} times reading")


if __name__ == "__main__":
    main()
