"""What goes wrong on a device, by class: the only place that reads wgpu's error texts."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import wgpu

from ..errors import UserError

GPUError = wgpu.GPUError  # such as a shader that does not compile

LOST = ("device is lost", "device was lost")
NO_MEMORY = ("not enough memory left", "out of memory")  # the first one comes as a GPUValidationError

P = ParamSpec("P")
R = TypeVar("R")


class OutOfDeviceMemory(UserError, MemoryError):
    """A device has no memory for a buffer."""


class DeviceLost(UserError):
    """A device is gone, with all that was on it."""


def named_failures(function: Callable[P, R]) -> Callable[P, R]:
    """Raise OutOfDeviceMemory and DeviceLost in place of wgpu's general errors.

    For functions and methods that call wgpu; the first argument is a Device, or has one as `device`.
    """

    @wraps(function)
    def named(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (GPUError, MemoryError) as error:
            if isinstance(error, UserError):
                raise
            first: Any = args[0]
            found = name_failure(error, getattr(first, "device", first).adapter)
            if found is None:
                raise
            raise found from None

    return named


def name_failure(error: BaseException, adapter: Any) -> UserError | None:
    """The error by its class, None if it is another one."""
    text = str(error).lower()
    if any(words in text for words in LOST):
        return DeviceLost(f"{adapter} was lost: its driver was reset or updated, or the GPU is gone; open the model again")
    if isinstance(error, wgpu.GPUOutOfMemoryError) or any(words in text for words in NO_MEMORY):
        return OutOfDeviceMemory(f"{adapter} has no memory left: use a smaller batch or model, or device='numpy'")
    return None


def first_reason(error: BaseException) -> str:
    """The first line of an error that says why, such as "Shader 'pool' parsing error: ...", without wgpu's frame."""
    lines = [line.strip() for line in str(error).splitlines()]
    frame = ("Validation Error", "Caused by:", "In wgpu")
    return next((line for line in lines if line and not line.startswith(frame)), type(error).__name__)[:300]
