"""What a route knows: the service, how the server was started, and what it notes about a request for log and metrics."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .failures import UNKNOWN_MODEL, Refusal
from .fields import read_timeout
from .metrics import Metrics
from .service import Found, Service, VectorRequest

if TYPE_CHECKING:
    from .search import IndexSearch

TIMEOUT = "x-request-timeout-ms"
ALIASES = ("query", "document")


def strip_alias(name: str) -> tuple[str, str | None]:
    """ "name:query" -> ("name", "query"); another name is returned as it is, without an alias."""
    head, colon, tail = name.rpartition(":")
    return (head, tail) if colon and tail in ALIASES else (name, None)


@dataclass
class Server:
    """How the server was started. token_ids: "refuse", "model" or "cl100k". keys: any of these lets a request in; none: all.
    search: over its index; None without one."""

    service: Service
    metrics: Metrics
    digest: str  # of the model's files
    token_ids: str = "refuse"
    strict_model: bool = False
    keys: tuple[bytes, ...] = ()
    hosts: tuple[str, ...] | None = None  # names that the Host header may have; None: any
    log_format: str = "text"
    search: "IndexSearch | None" = None

    def close(self) -> None:
        """End the threads and free the device."""
        if self.search is not None:
            self.search.close()
        self.service.close()


@dataclass
class Context:
    """One request. timeout: the header TIMEOUT. found: what was computed for it, all together."""

    server: Server
    timeout: str | None = None
    begin: float = field(default_factory=time.monotonic)
    found: list[Found] = field(default_factory=list)
    texts: int = 0

    @property
    def service(self) -> Service:
        return self.server.service

    @property
    def token_ids(self) -> str:
        return self.server.token_ids

    async def find(self, asked: VectorRequest) -> Found:
        """`Service.find_vectors`, noted, for as long as the caller waits."""
        asked.timeout = read_timeout(self.timeout)
        self.texts += len(asked.texts)
        self.server.metrics.note_arrival(len(asked.texts))
        found = await self.service.find_vectors(asked)
        self.found.append(found)
        self.server.metrics.note_answer(found, len(asked.texts), time.monotonic() - self.begin)
        return found

    def names(self) -> list[str]:
        """The model's names; those with an alias choose a prompt, for clients that can only choose a model."""
        return [self.service.name, *(f"{self.service.name}:{alias}" for alias in ALIASES)]

    def check_model(self, name: str | None) -> str | None:
        """The alias that a model's name ends in, if any. Raises Refusal for another model if the server is strict."""
        if not name:
            return None
        plain, alias = strip_alias(name)
        if self.server.strict_model and plain not in (self.service.name, f"{self.service.name}:latest"):
            raise Refusal(UNKNOWN_MODEL, f"the model {name!r} is not here; {self.service.name!r} is", param="model")
        return alias


def answer_headers(found: Found) -> dict[str, str]:
    """What the answer says about its texts: how many were cut, which prompt was used; TEI's times, in whole milliseconds."""
    headers = {
        "x-truncated": str(found.cut),
        "x-compute-tokens": str(found.tokens),
        "x-compute-characters": str(found.characters),
        "x-tokenization-time": str(round(found.tokenized * 1e3)),
        "x-queue-time": str(round(found.queued * 1e3)),
        "x-inference-time": str(round(found.computed * 1e3)),
    }
    if found.prompt:
        headers["x-prompt-name"] = "".join(c if c.isascii() and c.isprintable() else "?" for c in found.prompt)
    return headers
