"""How a server is started: from the command line, or from the environment for other ASGI servers."""

import os
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..encoder import Encoder
from ..errors import UserError, one_line, show
from .app import Application
from .context import Server
from .metrics import Metrics
from .ollama import digest_model
from .search import IndexSearch
from .service import Limits, Service

TOKEN_ID_KINDS = ("refuse", "model", "cl100k")
LOCAL = ("localhost", "127.0.0.1", "::1")
KEY = "GPT2WGPU_API_KEY"


@dataclass(frozen=True)
class Settings:
    """encoder: keywords of `Encoder`. hosts: names that the Host header may have besides loopback's; None: any."""

    encoder: dict[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    name: str | None = None
    strict_model: bool = False
    token_ids: str = "refuse"
    auto_truncate: bool = True
    keys: tuple[bytes, ...] = ()
    hosts: tuple[str, ...] | None = LOCAL
    log_format: str = "text"
    index: Path | None = None  # what /search looks in

    def __post_init__(self) -> None:
        if self.token_ids not in TOKEN_ID_KINDS:
            raise UserError(f"token_ids must be {', '.join(TOKEN_ID_KINDS)}, not {show(self.token_ids)}")
        if self.token_ids == "cl100k":
            load_cl100k()
        if self.log_format not in ("text", "json"):
            raise UserError(f"log_format must be text or json, not {show(self.log_format)}")

    def make_server(self, metrics: Metrics) -> Server:
        """Open the model. Raises UserError."""
        encoder = Encoder(**self.encoder)
        given = self.encoder.get("model")
        name = self.name or ("built-in" if given is None else Path(str(given)).name if Path(str(given)).exists() else str(given))
        search = None if self.index is None else IndexSearch(encoder, self.index, metrics, most=self.limits.requests)
        service = Service(encoder, self.limits, name=name, auto_truncate=self.auto_truncate, on_batch=metrics.note_batch)
        return Server(
            service,
            metrics,
            digest_model(encoder.checkpoint.files_read),
            token_ids=self.token_ids,
            strict_model=self.strict_model,
            keys=self.keys,
            hosts=self.hosts,
            log_format=self.log_format,
            search=search,
        )

    def application(self) -> Application:
        return Application(self.make_server)


def load_cl100k() -> None:
    """Load tiktoken's table, so that requests only read it. Raises UserError if that cannot be done."""
    if not find_spec("tiktoken"):
        raise UserError("token_ids cl100k decodes with tiktoken, which is not installed: pip install tiktoken")
    import tiktoken

    try:
        tiktoken.get_encoding("cl100k_base")
    except (OSError, ValueError) as error:
        advice = "it is downloaded once, and kept in TIKTOKEN_CACHE_DIR"
        raise UserError(
            f"token_ids cl100k: tiktoken cannot load its table cl100k_base, {advice}: {one_line(str(error))}"
        ) from None


def read_keys(file: Path | None) -> tuple[bytes, ...]:
    """The keys of a file, one a line, and of the environment variable GPT2WGPU_API_KEY, with commas between.

    Raises UserError if the file has none, or a key is not printable ASCII without spaces.
    """
    found = [key.strip() for key in os.environ.get(KEY, "").split(",") if key.strip()]
    if file is not None:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the file of keys {show(file)} cannot be read: {error}") from None
        in_file = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not in_file:
            raise UserError(f"the file of keys {show(file)} holds none: write one a line")
        found += in_file
    for key in found:
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UserError("a key must be printable ASCII without spaces: make one with `openssl rand -hex 32`")
    return tuple(key.encode() for key in found)


def settings_from_environment() -> Settings:
    """The settings for another ASGI server, see `create_app`. Raises UserError."""
    encoder: dict[str, Any] = {}
    for name in ("model", "dtype"):
        if value := os.environ.get(f"GPT2WGPU_{name.upper()}"):
            encoder[name] = value
    return Settings(
        encoder,
        keys=read_keys(None),
        hosts=allowed_hosts(os.environ.get("GPT2WGPU_ALLOW_HOST", "").split(","), "127.0.0.1"),
        token_ids=os.environ.get("GPT2WGPU_TOKEN_IDS") or "refuse",
        log_format=os.environ.get("GPT2WGPU_LOG_FORMAT") or "text",
        index=Path(index) if (index := os.environ.get("GPT2WGPU_INDEX")) else None,
    )


def allowed_hosts(names: list[str], listens_on: str) -> tuple[str, ...] | None:
    """The names that the Host header may have. None: any; so for "*", and beyond loopback if none is named."""
    given = [name.strip().lower() for name in names if name.strip()]
    if "*" in given or (not given and listens_on not in LOCAL):
        return None
    return (*LOCAL, *given)
