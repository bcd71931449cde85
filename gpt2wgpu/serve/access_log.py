"""One line per request on stderr, as text or JSON."""

import json
import time
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request

from .context import Context
from .notices import say


def log_request(request: Request, context: Context, status: int, request_id: str) -> None:
    """Say what was asked, what came of it and how long it took."""
    found = context.found
    line: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "client": request.client.host if request.client else "-",
        "method": request.method,
        "path": request.url.path,
        "status": status,
        "ms": round((time.monotonic() - context.begin) * 1e3, 1),
        "id": request_id,
    }
    if context.texts:
        line["texts"] = context.texts
    if found:
        line |= {"tokens": sum(f.tokens for f in found), "cut": sum(f.cut for f in found)}
        line |= {"queue_ms": round(found[0].queued * 1e3, 1), "compute_ms": round(found[0].computed * 1e3, 1)}
        if found[0].prompt:
            line["prompt"] = found[0].prompt
    if trace := request.headers.get("traceparent"):
        line["traceparent"] = trace[:100]
    if context.server.log_format == "json":
        text = json.dumps(line)
    else:
        head = [line.pop(name) for name in ("time", "client", "method", "path", "status")]
        text = " ".join([*map(str, head), *(f"{name}={value}" for name, value in line.items())])
    say(text)
