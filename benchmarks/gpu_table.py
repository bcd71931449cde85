"""What on_a_gpu.py found, as one table: each line a finding, with the ceiling beside a rate where there is one."""

from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]


def find_rows(result: Row, step: str) -> Iterator[tuple[str, Row]]:
    """(library, row) of a step, of each library that ran it."""
    for name, rows in result["steps"].items():
        title, _, library = name.partition(", ")
        if title == step:
            yield from ((library, row) for row in rows)


def count_right(result: Row) -> Iterator[tuple[str, str]]:
    for step in ("kernels", "families", "invariance", "training"):
        for library in dict.fromkeys(library for library, _ in find_rows(result, step)):
            checked = [row for found, row in find_rows(result, step) if found == library and "ok" in row]
            yield f"{step}, {library}", f"{sum(row['ok'] for row in checked)} of {len(checked)} right"


def find_ceilings(result: Row, library: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for own, row in find_rows(result, "ceilings"):
        if own == library:
            found |= {name: value for name, value in row.items() if isinstance(value, float)}
    return found


def describe_rates(result: Row) -> Iterator[tuple[str, str]]:
    for library in dict.fromkeys(library for library, _ in find_rows(result, "ceilings")):
        for name, value in find_ceilings(result, library).items():
            yield f"ceiling, {library}: {name}", f"{value:.4g}"
    for library, row in find_rows(result, "matrix units"):
        if "tflops" not in row:
            continue
        kind, tops = row["matmul"], find_ceilings(result, library)
        top = next((v for name, v in tops.items() if name.startswith("matrix" if "cooperative" in kind else "multiply")), None)
        share = f", {row['tflops'] / top:.0%} of its ceiling" if top else ""
        rate = f"{row['tflops']:.3g} TFLOP/s{share}, weights at {row['weight_gb_per_s']:.3g} GB/s, tile {row['tile']}"
        yield f"{kind} {row['dtype']}, {library}: {row['rows']} × {row['k']} × {row['n']}", rate
    for library, row in find_rows(result, "latency"):
        if "call_ms" in row:
            device = f"{row['device_ms']:.3g} ms on the device, " if row["device_ms"] else ""
            of = f"{row['dispatches']} dispatches, {row['weights_mb']:.0f} MB of weights"
            yield f"{row['model']} {row['dtype']}, {library}: 1 × {row['tokens']}", f"{row['call_ms']:.3g} ms, {device}{of}"
        elif "encode_ms" in row:
            found = f"{row['encode_ms']:.3g} ms, tokenizer {row['tokenizer_ms']:.3g} ms"
            yield f"{row['model']} {row['dtype']}, {library}: encode of a sentence", found
    for library, row in find_rows(result, "models"):
        if "tokens_per_s" in row:
            name = f"{row['model']} {row['dtype']}, {library}: {row['texts']} × {row['tokens']}"
            yield name, f"{row['pipelined_ms']:.3g} ms, {row['tokens_per_s']:.4g} tokens/s, {row['tflops']:.3g} TFLOP/s"
    for library, row in find_rows(result, "attention"):
        if "tflops" in row:
            yield f"attention, {library}: {row['shape']}", f"{row['ms']:.3g} ms, {row['tflops']:.3g} TFLOP/s"
    for library, row in find_rows(result, "encoders"):
        if "workload" in row:
            name = f"{row['model']} {row['dtype']}, {library}: texts, {row['workload']}"
            yield name, f"{row['texts_per_s']:.4g} texts/s, tokenizer {row['tokenizer_ms'] / row['ms']:.0%} of the time"
    for _, row in find_rows(result, "peers"):
        found = f"{row['texts_per_s']:.4g} texts/s" if "ms" in row else row["why"]
        yield f"{row['model']}, {row['engine']}: {row.get('workload', '')}", found
    for library, row in find_rows(result, "training"):
        if "ms" in row:
            name = f"training step of width {row['width']}, {library}: {row['texts']} × {row['tokens']}"
            parts = f"{row['device_ms']:.3g} on the device, {row['loss_ms']:.3g} in the loss"
            yield name, f"{row['ms']:.3g} ms, {parts}, {row['tokens_per_s']:.4g} tokens/s"


def print_table(result: Row) -> None:
    """Print every finding, then what is wrong and what failed."""
    lines = [*count_right(result), *describe_rates(result)]
    width = max((len(name) for name, _ in lines), default=0)
    print()
    for name, value in lines:
        print(f"{name:{width}}  {value}")
    for row in result["wrong"]:
        print("WRONG:", "  ".join(f"{k} {v}" for k, v in row.items()))
    for row in result["failed"]:
        print("FAILED:", row["step"], row["why"])
