"""`doctor --shader FILE`: what it prints."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import UserError, one_line

if TYPE_CHECKING:
    from ..diagnose.shader_check import ShaderReport
    from ..gpu import Device

OWN_OPTIONS = ("shader", "device", "as_json")


def check_reader_shader(ctx: typer.Context, file: str, as_json: bool) -> None:
    """Check one file, and print the verdict. The exit code is 1 if it is wrong."""
    from ..devices.selftest import forward_cases
    from ..diagnose.puzzles import PUZZLE_CASES
    from ..diagnose.shader_check import check_shader
    from ..train.ops import linear_dweight
    from ..train.selftest import backward_cases

    others = [name for name in ctx.params if name not in OWN_OPTIONS and given_by_user(ctx, name)]
    if others:
        raise typer.BadParameter(f"--shader checks a kernel, not a model: leave out {', '.join(map(option_name, others))}")
    device = open_for_shader(ctx.params["device"])
    # linear_dweight leaves parts of its output unwritten that nothing reads
    backward = [case for case in backward_cases() if case.op is not linear_dweight]
    report = check_shader(Path(file), device, [*PUZZLE_CASES, *forward_cases(device.has_f16), *backward])
    if as_json:
        print(json.dumps(describe_shader(file, device, report), indent=2, ensure_ascii=False))
    else:
        print_shader(file, device, report)
    if not report.ok:
        raise typer.Exit(1)


def given_by_user(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def option_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def open_for_shader(name: str) -> "Device":
    """The device, with bounds checks in its shaders; a software driver if there is no GPU. Raises UserError."""
    from ..devices.choose import device_name
    from ..gpu import choose_adapter, open_device

    name = device_name(name)
    if name == "numpy":
        raise UserError("numpy cannot run a shader: --device gpu takes a GPU, or a software driver if there is none")
    adapter = choose_adapter({"auto": "gpu", "dawn:auto": "dawn:gpu"}.get(name, name))
    assert adapter is not None  # only "auto" may find none without an error
    return open_device(adapter, checked=True)


def describe_shader(file: str, device: "Device", report: "ShaderReport") -> dict[str, Any]:
    """The report for JSON."""
    from ..diagnose.doctor import describe_check

    return {
        "shader": file,
        "ops": report.signatures,
        "device": str(device.adapter),
        "kernels_of": report.forms,
        "workgroups": report.workgroups,
        "lane_orders": report.orders,
        "checks": [*map(describe_check, report.checks)],
        "wrong": None if report.finding is None else asdict(report.finding),
        "times": None if report.times is None else asdict(report.times),
        "ok": report.ok,
    }


def print_shader(file: str, device: "Device", report: "ShaderReport") -> None:
    """What was checked, then the verdict: right and how fast, or the first thing that is wrong."""
    names = list(report.signatures)
    what = f"{names[0]}: {report.signatures[names[0]]}" if len(names) == 1 else f"part of {', '.join(names)}"
    print(f"{one_line(file)}: {what}")
    others = [form for form in report.forms if form != device.adapter.name]
    alone = "too" if device.adapter.name in report.forms else "only"
    print(f"device: {device.adapter}" + (f", in the form for {others[0]}s {alone}" if others else ""))
    if report.finding is not None:
        print_finding(report)
        return
    orders = f", in {report.orders} orders of the lanes" if report.orders > 1 else ""
    print(f"right: {len(report.checks)} cases, up to {report.workgroups:,} workgroups, the same bits twice{orders}")
    if report.times is not None:
        print_times(report)


def print_finding(report: "ShaderReport") -> None:
    finding = report.finding
    assert finding is not None
    print(f"wrong: {finding.problem}")
    if finding.details:
        print(f"\n{finding.details}\n")
    print(f"case: {finding.case}")
    if finding.hint:
        print(f"hint: {finding.hint}")


def print_times(report: "ShaderReport") -> None:
    times = report.times
    assert times is not None
    line = f"time: {1e3 * times.seconds:.3f} ms ({times.shape})"
    if times.engine is not None and times.ratio is not None:
        line += f"; the engine's kernel {1e3 * times.engine:.3f} ms: {times.ratio:.2f} times as long"
    print(line)
