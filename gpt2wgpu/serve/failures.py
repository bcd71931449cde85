"""What a request can be refused for. Each dialect says it in its own words and with its own status code."""

import math
from dataclasses import dataclass, field


@dataclass
class Refusal(Exception):
    """kind: one of the names below. retry_after: seconds after which the same request may succeed. param: the field at fault."""

    kind: str
    message: str
    retry_after: float | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message


MALFORMED = "malformed"  # not JSON, or a field of the wrong type
EMPTY = "empty"  # no texts
VALIDATION = "validation"  # a value that this model or server cannot use
TOO_LARGE = "too_large"  # it can never fit
UNKNOWN_MODEL = "unknown_model"
WRONG_MODEL = "wrong_model"  # the route needs another kind of model
UNAUTHORIZED = "unauthorized"
FORBIDDEN = "forbidden"  # the Host header
OVERLOADED = "overloaded"  # later, see retry_after
UNAVAILABLE = "unavailable"  # draining, or the device was lost
BACKEND = "backend"  # the vector is not finite, or a bug


def is_device_lost(error: Exception) -> bool:
    """By its name, as a server in numpy does without the package `gpu`."""
    return type(error).__name__ == "DeviceLost"


def error_headers(refusal: Refusal) -> dict[str, str]:
    """When to try again, for clients that obey: Retry-After in whole seconds, retry-after-ms for OpenAI's clients."""
    headers = dict(refusal.headers)
    if refusal.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(refusal.retry_after)))
        headers["retry-after-ms"] = str(max(1, math.ceil(refusal.retry_after * 1e3)))
    if refusal.kind == UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return headers
