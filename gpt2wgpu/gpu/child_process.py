"""Runs what might crash a driver in a process of its own, so that Python survives it."""

import json
import os
import signal
import subprocess
import sys
from typing import Any, NamedTuple

CODE = (
    "import importlib, json, os, sys\n"
    "sys.path[:], module, function, arguments = json.loads(sys.argv[1])\n"
    "found = getattr(importlib.import_module(module), function)(*arguments)\n"
    "print(json.dumps([found]), flush=True)\n"
    "os._exit(0)"  # a driver may crash while it unloads, too
)


class ChildResult(NamedTuple):
    """value: what the function returned. failure: why there is none, "" if there is; crashed: whether the process died."""

    value: Any
    failure: str = ""
    crashed: bool = False


def run_in_child(module: str, function: str, *arguments: Any, seconds: float) -> ChildResult:
    """Call a function of a module in a new Python process, with arguments and a result that JSON can hold.

    seconds: after which the process is ended; it counts as crashed.
    """
    if getattr(sys, "frozen", False) or not sys.executable:  # sys.executable may be the user's own program
        return ChildResult(None, "this program cannot start a Python process to try it in")
    given = json.dumps([sys.path, module, function, arguments])
    try:
        done = subprocess.run(
            [sys.executable, "-c", CODE, given],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            env={**os.environ, "PYTHONFAULTHANDLER": ""},
            check=False,
        )
    except OSError as error:
        return ChildResult(None, f"no process could be started to try it in: {error.strerror}")
    except subprocess.TimeoutExpired:
        return ChildResult(None, f"was not done after {seconds:.0f} seconds", crashed=True)
    if done.returncode:
        return ChildResult(None, describe_exit(done.returncode, done.stderr), crashed=was_crash(done.returncode))
    try:
        [value] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return ChildResult(None, "gave no answer", crashed=True)
    return ChildResult(value)


def was_crash(code: int) -> bool:
    """Whether an exit code is a signal's, or on Windows an exception's, such as 0xC0000005. Python's own errors exit with 1."""
    return code < 0 or code > 0xFFFF


def describe_exit(code: int, errors: bytes) -> str:
    """Why a process ended: the signal, or the last line that it printed."""
    if code < 0:
        names = {int(s): s.name for s in signal.Signals}
        return f"crashed with {names.get(-code, f'signal {-code}')}"
    if was_crash(code):
        return f"crashed with {code:#x}"
    lines = errors.decode(errors="replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), f"ended with exit code {code}")
