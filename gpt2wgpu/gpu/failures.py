"""Errors of a device, by class. Only this file reads the texts of errors of wgpu and Dawn."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import wgpu

from ..errors import UserError

GPUError = wgpu.GPUError  # such as a shader that does not compile

LOST = ("device is lost", "device was lost", "[device] is lost")  # the last one is Dawn's
NO_MEMORY = ("not enough memory left", "out of memory")  # the first one comes as a GPUValidationError

P = ParamSpec("P")
R = TypeVar("R")


class OutOfDeviceMemory(UserError, MemoryError):
    """The device has no memory left for a buffer."""


class DeviceLost(UserError):
    """The device is gone, with everything on it."""


def named_failures(function: Callable[P, R]) -> Callable[P, R]:
    """Raise OutOfDeviceMemory and DeviceLost in place of wgpu's general errors.

    For functions and methods that call wgpu; the first argument is a Device, or has one as `device`.
    """

    @wraps(function)
    def named(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except GPUError as error:
            first: Any = args[0]
            raise name_failure(error, getattr(first, "device", first).adapter) or error from None

    return named


def name_failure(error: BaseException, adapter: Any) -> UserError | None:
    """DeviceLost or OutOfDeviceMemory if that is what an error of wgpu means; else None."""
    text = str(error).lower()
    lost = any(words in text for words in LOST)
    if not lost and not isinstance(error, wgpu.GPUOutOfMemoryError) and not any(words in text for words in NO_MEMORY):
        return None
    error.__traceback__ = None  # wgpu's frame holds the error: this cycle would keep everything alive until a garbage collection
    if lost:
        return DeviceLost(
            f"{adapter} was lost: its driver was reset or updated, or the GPU is gone; open the model again (Encoder.reopen)"
        )
    return OutOfDeviceMemory(f"{adapter} has no memory left: use a smaller batch or model, or device='numpy'")


def last_cause(error: BaseException) -> str:
    """The last cause that an error names, else all of its text, on one line."""
    return " ".join(str(error).split("Caused by:")[-1].split())[:200]


def first_reason(error: BaseException) -> str:
    """The first line of an error that gives the reason, such as "Shader 'pool' parsing error: ..."."""
    lines = [line.strip() for line in str(error).splitlines()]
    frame = ("Validation Error", "Caused by:", "In wgpu", "Error matching shader requirements")
    return next((line for line in lines if line and not line.startswith(frame)), type(error).__name__)[:300]
