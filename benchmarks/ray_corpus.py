"""Embeds a Parquet data set with Ray: several workers of this machine, or of a cluster, each with a device of its own.

python benchmarks/ray_corpus.py corpus.parquet vectors --column text --workers 2

The output is a folder of Parquet files: the rows, and a column `embedding` of FixedSizeList<float32>. Without --address a Ray
of its own is started here. The nodes of a cluster are to be started with `--resources='{"wgpu": N}'`, N their number of GPUs.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pyarrow.dataset
import ray

from gpt2wgpu.adapters.ray import Gpt2WgpuEmbedder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="a Parquet file or a folder of them")
    parser.add_argument("output", type=Path, help="a folder that is not there yet")
    parser.add_argument("--column", default="text")
    parser.add_argument("--model", help="default: the built-in model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--address", help="of a Ray that is running")
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"{args.output} exists")

    if args.address:
        ray.init(args.address)
    else:
        ray.init(resources={"wgpu": args.workers}, include_dashboard=False)
    start = time.perf_counter()
    ray.data.read_parquet(str(args.corpus.resolve())).map_batches(
        Gpt2WgpuEmbedder,
        fn_constructor_kwargs={"model": args.model, "column": args.column, "device": args.device},
        batch_size=args.batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=args.workers),
        resources={"wgpu": 1},
        num_cpus=0,  # else the workers keep CPUs for themselves, and with too few of them nobody reads
    ).write_parquet(str(args.output.resolve()))
    seconds = time.perf_counter() - start
    texts = pyarrow.dataset.dataset(args.output).count_rows()
    print(f"{texts} texts, {args.workers} workers: {seconds:.1f} s, {texts / seconds:.0f} texts/s")


if __name__ == "__main__":
    main()
