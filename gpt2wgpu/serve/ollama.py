"""Ollama's routes: /api/embed, the old /api/embeddings, and what its clients ask to find the model."""

import math
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from .. import __version__
from . import failures
from .answers import encode_row, json_bytes, json_response, rows_response
from .context import Context, answer_headers
from .failures import EMPTY, Refusal
from .fields import read_body, read_texts_field
from .service import VectorRequest

OLLAMA_STATUS = {
    failures.MALFORMED: 400,
    failures.EMPTY: 400,
    failures.VALIDATION: 400,
    failures.WRONG_MODEL: 400,
    failures.TOO_LARGE: 413,
    failures.UNKNOWN_MODEL: 404,
    failures.UNAUTHORIZED: 401,
    failures.FORBIDDEN: 403,
    failures.OVERLOADED: 429,
    failures.UNAVAILABLE: 503,
    failures.BACKEND: 500,
}


class OllamaEmbed(msgspec.Struct):
    """The fields of /api/embed."""

    model: str | None = None
    input: Any = None
    truncate: bool | None = None
    dimensions: int | None = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class OldEmbed(msgspec.Struct):
    """The fields of /api/embeddings."""

    model: str | None = None
    prompt: str | None = None
    input: Any = None  # only of /api/embed
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class OllamaShow(msgspec.Struct):
    """The fields of /api/show and /api/pull."""

    model: str | None = None
    name: str | None = None


def refuse_ollama(refusal: Refusal) -> Response:
    """Ollama's error."""
    return json_response({"error": refusal.message}, OLLAMA_STATUS[refusal.kind], failures.error_headers(refusal))


async def ollama_embed(_: Request, body: bytes, context: Context) -> Response:
    """POST /api/embed: vectors of unit length; an empty list of texts gives no vectors."""
    given = read_body(body, OllamaEmbed)
    alias = context.check_model(given.model)
    begin = time.monotonic_ns()
    name = json_bytes(given.model or context.service.name)
    if given.input == []:
        return json_response({"model": given.model or context.service.name, "embeddings": []})
    texts = read_texts_field(given.input, "input", context.token_ids)
    asked = VectorRequest(texts, role=alias, truncate=given.truncate, dimensions=given.dimensions or None)
    found = await context.find(asked)
    counts = {"total_duration": time.monotonic_ns() - begin, "load_duration": 0, "prompt_eval_count": found.tokens}
    after = b"]," + json_bytes(counts)[1:]
    return await rows_response(found.vectors, b'{"model":' + name + b',"embeddings":[', after, headers=answer_headers(found))


async def old_embed(_: Request, body: bytes, context: Context) -> Response:
    """POST /api/embeddings: one text; its vector is as the model gives it, not scaled to unit length."""
    given = read_body(body, OldEmbed)
    alias = context.check_model(given.model)
    if not given.prompt:  # asks only for the model to be loaded
        if given.input is not None:
            raise Refusal(EMPTY, "prompt is missing: /api/embeddings takes one text as prompt, /api/embed takes input")
        return json_response({"embedding": []})
    found = await context.find(VectorRequest([given.prompt], role=alias, normalize=False))
    vector = encode_row(np.asarray(found.vectors[0]), as_base64=False)
    return Response(b'{"embedding":' + vector + b"}", 200, answer_headers(found), "application/json")


def describe_details(context: Context) -> dict[str, Any]:
    encoder = context.service.encoder
    family = encoder.checkpoint.config.title
    count = sum(math.prod(map(int, t.shape)) for t in encoder.engine.program.weights)
    size = f"{count / 1e6:.0f}M" if count >= 1e6 else f"{count / 1e3:.0f}K"
    names = {"float32": "F32", "float16": "F16", "int8": "Q8_0"}
    details = {"parent_model": "", "format": "safetensors", "family": family, "families": [family], "parameter_size": size}
    return {**details, "quantization_level": names[encoder.dtype]}


def describe_ollama_model(context: Context, name: str) -> dict[str, Any]:
    """The name has a tag, as every name in Ollama's list: Open WebUI adds ":latest" to one without and then looks for it."""
    name = name if ":" in name else f"{name}:latest"
    when = datetime.fromtimestamp(context.service.started, UTC).isoformat()
    found = {"name": name, "model": name, "modified_at": when, "size": context.service.encoder.engine.program.bytes}
    return {**found, "digest": context.server.digest, "details": describe_details(context)}


def digest_model(files: Iterable[Path]) -> str:
    """Tells a model's files from others by their names, sizes and times: reading them would take too long at the start.
    `ollama list` shows the first twelve digits, and panics where there are fewer."""
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return sha256(repr(facts).encode()).hexdigest()


async def list_tags(_: Request, __: bytes, context: Context) -> Response:
    """GET /api/tags"""
    return json_response({"models": [describe_ollama_model(context, name) for name in context.names()]})


async def show_ollama_model(_: Request, body: bytes, context: Context) -> Response:
    """POST /api/show"""
    given = read_body(body, OllamaShow)
    context.check_model(given.model or given.name)
    encoder = context.service.encoder
    kind = encoder.checkpoint.config.tokenizer
    facts = {"general.architecture": kind, f"{kind}.context_length": encoder.max_seq_length}
    facts |= {f"{kind}.embedding_length": encoder.dimensions, f"{kind}.block_count": encoder.layers}
    found = {"modelfile": "", "parameters": "", "template": "", "details": describe_details(context), "model_info": facts}
    return json_response({**found, "capabilities": ["embedding"]})


async def pull_model(_: Request, body: bytes, context: Context) -> Response:
    """POST /api/pull: nothing to do. Clients pull a name that is not in the list, and stop if they cannot."""
    given = read_body(body, OllamaShow)
    context.check_model(given.model or given.name)
    return json_response({"status": "success"})


async def list_running(_: Request, __: bytes, context: Context) -> Response:
    """GET /api/ps"""
    model = describe_ollama_model(context, context.service.name)
    forever = "9999-12-31T23:59:59Z"
    return json_response({"models": [{**model, "expires_at": forever, "size_vram": model["size"]}]})


async def show_version(_: Request, __: bytes, ___: Context) -> Response:
    """GET /api/version"""
    return json_response({"version": __version__})
