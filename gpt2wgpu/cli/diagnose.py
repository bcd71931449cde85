"""The commands that measure: `tune` and `profile`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from .options import Json, encoder_options, model_options, with_options


@with_options(model_options)
def tune_command(ctx: typer.Context, as_json: Json = False) -> None:
    """Measure the tile shapes of a model's matmuls on a GPU, and remember the fastest.

    A GPU that is new here is measured by itself, for two seconds at most; this does it again and in full.
    Software drivers are measured only here. The choice changes speed, never a result.
    """
    from ..diagnose.profile import tune_model
    from ..gpu.tiles import cache_file

    opened, found = tune_model(**encoder_options(ctx))
    if as_json:
        measured = [
            {"k": f.matmul[0], "n": f.matmul[1], "dtype": f.matmul[2], "rows": f.rows, "tile": str(f.tile), "gflops": f.gflops}
            for f in found
        ]
        print(json.dumps({"device": str(opened.adapter), "cache": str(cache_file()), "measured": measured}, indent=2))
        return
    print(f"{opened.adapter}: GFLOP/s by rows of the batch, * the fastest; a tile is rows x columns / rows of a thread")
    for k, n, d in dict.fromkeys(f.matmul for f in found):
        here = [f for f in found if f.matmul == (k, n, d)]
        best = {f.rows: f for f in sorted(here, key=lambda f: f.gflops)}  # the last one of each stays
        print(f"\n{f'{k} x {n} {d}':<16}" + "".join(f"{rows:>11,}" for rows in sorted(best)))
        for tile in dict.fromkeys(f.tile for f in here):
            cells = [f for f in sorted(here, key=lambda f: f.rows) if f.tile == tile]
            print(f"{tile!s:<16}" + "".join(f"{f.gflops:10,.1f}{'*' if best[f.rows] is f else ' '}" for f in cells))
    if not found:
        print("none of its matmuls is large enough to measure")
    print(f"\nkept in {cache_file()}")


@with_options(model_options)
def profile_command(
    ctx: typer.Context,
    texts: Annotated[int, typer.Option(metavar="N", min=1, help="Texts of the batch.")] = 32,
    tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of each text.")] = 24,
    as_json: Json = False,
) -> None:
    """Show where a batch's time goes on a GPU: per op, beside what the device can do at best."""
    from ..diagnose.profile import profile_model
    from ..encoder import Encoder

    encoder = Encoder(**encoder_options(ctx), max_tokens=texts * tokens)
    opened = encoder.engine.place.device
    if opened is None:
        print("profile measures a GPU, this is numpy (--device gpu takes a software driver)")
        return
    if not opened.clock:
        print(f"{encoder.device} has no timestamp-query: it cannot say what its kernels take")
        return
    p = profile_model(encoder, texts, tokens)
    top, total = p.ceilings, sum(line.seconds for line in p.lines)
    if as_json:
        ops = [{**asdict(line), "share": line.seconds / total, "gflops": line.gflops, "gbps": line.gbps} for line in p.lines]
        report = {"device": encoder.device, "dtype": encoder.dtype, "model": encoder.model, "layer": encoder.layer}
        report |= {"texts": texts, "tokens": tokens, "wall": p.wall, "busy": p.busy, "idle": p.idle}
        print(json.dumps({**report, "ceilings": asdict(top), "ops": ops}, indent=2))
        return
    print(f"{encoder.device}, {encoder.dtype}, {encoder.model} model, layer {encoder.layer}: {texts} texts of {tokens} tokens\n")
    wide = max(len(line.shape) for line in p.lines)
    print(f"{'op':<13} {'shape':<{wide}} {'tile':<8} {'calls':>5} {'ms':>9} {'share':>6} {'GFLOP/s':>9} {'':>5} {'GB/s':>8}")
    for line in p.lines:
        most = top.matrix_gflops if line.matrix else top.gflops
        flops = f"{line.gflops:9,.1f} {line.gflops / most:5.0%}" if line.flops else f"{'':15}"
        print(
            f"{line.op:<13} {line.shape:<{wide}} {line.tile:<8} {line.calls:5} {1e3 * line.seconds:9.3f} "
            f"{line.seconds / total:6.1%} {flops} {line.gbps:8,.2f} {line.gbps / top.gbps:5.0%}"
        )
    matrix = f"{top.matrix_gflops:,.1f} on matrix units, " if top.matrix_gflops else ""
    best = f"{top.gflops:,.1f} GFLOP/s in a loop of fma, {matrix}{top.gbps:,.1f} GB/s in a copy"
    print(f"\nat best: {best}; the percentages are of these")
    print(
        f"a batch: {1e3 * p.wall:.2f} ms, {texts * tokens / p.wall:,.0f} tokens/s with two under way; "
        f"the device computes for {1e3 * p.busy:.2f} ms of it and is idle for {p.idle:.1%}"
    )
