"""The commands that look at a device: `info`, `doctor`, `tune` and `profile`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import table
from .options import Json, encoder_options, model_options, vector_options, with_options
from .shader import check_reader_shader

if TYPE_CHECKING:
    from ..devices.selftest import Check
    from ..encoder import Encoder
    from ..gpu import Device

FEATURES = ("shader-f16", "subgroup", "timestamp-query")
LIMITS = (
    "max-buffer-size",
    "max-storage-buffer-binding-size",
    "max-storage-buffers-per-shader-stage",
    "max-compute-workgroup-storage-size",
    "max-compute-invocations-per-workgroup",
    "max-compute-workgroups-per-dimension",
)


@with_options(model_options, vector_options)
def info_command(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the GPUs found, the device chosen and why, and the model's card."""
    from ..diagnose.doctor import describe_adapter
    from ..encoder import Encoder
    from ..gpu import list_adapters

    encoder = Encoder(**encoder_options(ctx))
    opened = encoder.engine.place.device
    found = list_adapters() if opened is None else list_adapters(opened.library)
    chosen = next((a for a in found if str(a) == encoder.device), None)
    limits = {} if chosen is None else {k: v for k, v in chosen.limits.items() if k in LIMITS}
    wanted = () if chosen is None else (*FEATURES, chosen.library.matrix_features[0])
    features = {} if chosen is None else {name: any(name in f for f in chosen.features) for name in wanted}
    reason = encoder.engine.place.reason
    if as_json:
        device = {"name": encoder.device, "reason": reason, "features": features, "limits": limits}
        report = {"adapters": [*map(describe_adapter, found)], "device": device, "model": encoder.info()}
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return
    print("adapters")
    for a in found:
        print(f"  {a.index}: {a}" + (f", {a.driver}" if a.driver else ""))
    if not found:
        print("  none")
    print("\ndevice")
    table({"chosen": encoder.device, "because": reason})
    table({name: "yes" if there else "no" for name, there in features.items()})
    table(limits)
    print("\nmodel")
    table(encoder.info())


@with_options(model_options, vector_options)
def doctor_command(
    ctx: typer.Context,
    shader: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Check this kernel in WGSL only: is it right, and how fast? See docs/doctor.md."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare every kernel, the model and a step of training on the device with numpy.

    A kernel that the driver cannot compile is one failed check. The exit code is 1 if a check failed. --json prints a report
    to send with a question: the machine, the versions, the adapters and every check.
    """
    if shader is not None:
        return check_reader_shader(ctx, shader, as_json)
    from ..devices.choose import find_device
    from ..diagnose.doctor import describe_adapter, describe_check, describe_machine
    from ..diagnose.driver_notes import driver_note
    from ..encoder import Encoder
    from ..gpu import list_adapters

    options = encoder_options(ctx)
    twin = Encoder(**{**options, "device": "numpy", "dtype": "int8" if options["dtype"] == "int8" else "auto"})
    device, reason = find_device(options["device"])
    name = "numpy" if device is None else str(device.adapter)
    note = "" if device is None else driver_note(device.adapter)
    checks = iter(()) if device is None else all_checks(device, options, twin)
    if as_json:
        found = [*map(describe_check, checks)]
        adapters = list_adapters() if device is None else list_adapters(device.library)
        report = {**describe_machine(), "adapters": [*map(describe_adapter, adapters)]}
        report |= {"device": {"name": name, "reason": reason, "note": note}, "model": twin.model}
        report |= {"dtype": options["dtype"], "checks": found}
        passed = all(c["ok"] for c in found) if found else None  # null: nothing was checked
        print(json.dumps(report | {"ok": passed}, indent=2, ensure_ascii=False))
        failed = sum(not c["ok"] for c in found)
    else:
        print(f"device: {name} ({reason})")
        if note:
            print(f"note: {note}")
        if device is None:
            print("numpy is what devices are compared with: there is nothing to check (--device gpu takes a software driver)")
            return
        failed = print_checks(checks)
    if failed:
        raise typer.Exit(1)


def all_checks(device: "Device", options: dict[str, Any], twin: "Encoder") -> "Iterator[Check]":
    """Check the kernels of inference and training, then the model."""
    from ..diagnose.doctor import check_kernels, check_model, failed_model
    from ..encoder import Encoder
    from ..errors import UserError
    from ..gpu import GPUError
    from ..train.selftest import check_training

    yield from chain(check_kernels(device), check_training(device))
    try:
        yield from check_model(Encoder(**options), twin)
    except (UserError, GPUError) as error:
        yield failed_model(options, error)


def print_checks(checks: "Iterator[Check]") -> int:
    """Print each check as it is done. Returns how many failed."""
    failed = total = 0
    print(f"\n{'':7}{'error':>8}  {'tolerance':>9}  kernel")
    for check in checks:
        total += 1
        failed += not check.ok
        verdict = "ok" if check.ok else "FAILED" if check.failure else "BAD"
        error = f"{'-':>8}" if check.failure else f"{check.error:8.1e}"
        why = f": {check.failure}" if check.failure else ""
        print(f"{verdict:7}{error}  {check.tolerance:9.0e}  {check.name:<18}  {check.shape}{why}", flush=True)
    print(f"\n{total - failed} of {total} within tolerance")
    return failed


@with_options(model_options)
def tune_command(ctx: typer.Context, as_json: Json = False) -> None:
    """Measure the tile shapes of a model's matmuls on a GPU, and remember the fastest.

    A new GPU is measured on first use, for two seconds at most; this measures every matmul again, without a time limit.
    Software drivers are measured only by this command. The choice changes speed, never a result.
    """
    from ..diagnose.profile import tune_model
    from ..gpu.device_cache import cache_file

    opened, found = tune_model(**encoder_options(ctx))
    if as_json:
        measured = [
            {"k": f.matmul[0], "n": f.matmul[1], "dtype": f.matmul[2], "rows": f.rows, "tile": str(f.tile), "gflops": f.gflops}
            for f in found
        ]
        print(json.dumps({"device": str(opened.adapter), "cache": str(cache_file("tiles")), "measured": measured}, indent=2))
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
    print(f"\ncache: {cache_file('tiles')}")


@with_options(model_options)
def profile_command(
    ctx: typer.Context,
    texts: Annotated[int, typer.Option(metavar="N", min=1, help="Texts of the batch.")] = 32,
    tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of each text.")] = 24,
    as_json: Json = False,
) -> None:
    """Show where a batch's time goes on a GPU, per op, next to the highest rates that the device can reach."""
    from ..diagnose.profile import profile_model
    from ..encoder import Encoder

    encoder = Encoder(**encoder_options(ctx), max_tokens=texts * tokens)
    opened = encoder.engine.place.device
    if opened is None:
        print("profile measures a GPU, and this is numpy (--device gpu takes a software driver)")
        return
    if not opened.clock:
        print(f"{encoder.device} has no timestamp-query: its kernels cannot be timed")
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
        flops = f"{line.gflops:9,.1f} {line.gflops / most:5.0%}" if line.flops and line.gflops else f"{'':15}"
        moved = f"{line.gbps:8,.2f} {line.gbps / top.gbps:5.0%}" if line.gbps else ""
        print(
            f"{line.op:<13} {line.shape:<{wide}} {line.tile:<8} {line.calls:5} {1e3 * line.seconds:9.3f} "
            f"{line.seconds / total:6.1%} {flops} {moved}".rstrip()
        )
    matrix = f"{top.matrix_gflops:,.1f} on matrix units, " if top.matrix_gflops else ""
    best = f"{top.gflops:,.1f} GFLOP/s in a loop of fma, {matrix}{top.gbps:,.1f} GB/s in a copy"
    print(f"\nat best: {best}; the percentages are of these")
    print(
        f"a batch: {1e3 * p.wall:.2f} ms, {texts * tokens / p.wall:,.0f} tokens/s with two under way; "
        f"the device computes for {1e3 * p.busy:.2f} ms of it and is idle for {p.idle:.1%}"
    )
