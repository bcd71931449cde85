"""Who may ask: the Host header, and keys."""

import hmac

from starlette.requests import Request

from .context import Server
from .failures import FORBIDDEN, UNAUTHORIZED, Refusal

OPEN = ("/", "/health", "/health/ready", "/ping", "/metrics")  # GET needs no key: probes and scrapers have none


def check_host(request: Request, server: Server) -> None:
    """Refuse names that this server does not have: a web page must not reach it by a name of its own (DNS rebinding)."""
    if server.hosts is None:
        return
    host = request.headers.get("host", "")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    if name.strip("[]").lower() not in server.hosts:
        advice = "name it with --allow-host"
        raise Refusal(FORBIDDEN, f"the Host header is {host[:100]!r}, this server answers to {', '.join(server.hosts)}: {advice}")


def check_key(request: Request, server: Server) -> None:
    """Refuse a request without one of the server's keys. Every key is compared, in constant time."""
    if not server.keys or (request.method in ("GET", "HEAD") and request.url.path in OPEN):
        return
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    key = given.strip().encode() if kind.lower() == "bearer" else b""
    matches = [hmac.compare_digest(key, known) for known in server.keys]
    if not any(matches):
        said = "has a key that is not known" if key else "has no key"
        raise Refusal(UNAUTHORIZED, f"the request {said}: send the header 'Authorization: Bearer KEY'")
