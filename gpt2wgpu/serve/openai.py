"""OpenAI's /v1/embeddings and /v1/models, with the fields of Cohere, Jina and NVIDIA that say query or document."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from . import failures
from .answers import json_bytes, json_response, rows_response
from .context import Context, answer_headers, strip_alias
from .failures import UNKNOWN_MODEL, VALIDATION, Refusal
from .fields import check_direction, read_body, read_role, read_texts_field
from .service import VectorRequest

OPENAI_STATUS = {
    failures.MALFORMED: (400, "invalid_request_error", None),
    failures.EMPTY: (400, "invalid_request_error", None),
    failures.VALIDATION: (400, "invalid_request_error", None),
    failures.WRONG_MODEL: (400, "invalid_request_error", None),
    failures.TOO_LARGE: (413, "invalid_request_error", "request_too_large"),
    failures.UNKNOWN_MODEL: (404, "invalid_request_error", "model_not_found"),
    failures.UNAUTHORIZED: (401, "invalid_request_error", "invalid_api_key"),
    failures.FORBIDDEN: (403, "invalid_request_error", None),
    failures.OVERLOADED: (429, "rate_limit_error", "rate_limit_exceeded"),
    failures.UNAVAILABLE: (503, "server_error", "unavailable"),
    failures.BACKEND: (500, "server_error", None),
}


class Embeddings(msgspec.Struct):
    """The fields of /v1/embeddings."""

    input: Any = None
    model: str | None = None
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None
    prompt_name: str | None = None
    input_type: str | None = None
    task: str | None = None
    truncate: bool | None = None
    truncation_direction: str | None = None
    normalize: bool | None = None


def refuse_openai(refusal: Refusal) -> Response:
    """OpenAI's error, nested under "error"."""
    status, kind, code = OPENAI_STATUS[refusal.kind]
    error = {"message": refusal.message, "type": kind, "param": refusal.param, "code": code}
    return json_response({"error": error}, status, failures.error_headers(refusal))


async def embeddings(_: Request, body: bytes, context: Context) -> Response:
    """POST /v1/embeddings"""
    given = read_body(body, Embeddings)
    alias = context.check_model(given.model)
    as_base64 = given.encoding_format == "base64"
    if given.encoding_format not in (None, "float", "base64"):
        message = f"encoding_format is {given.encoding_format!r}, known are 'float' and 'base64'"
        raise Refusal(VALIDATION, message, param="encoding_format")
    check_direction(given.truncation_direction, context.service.encoder.tokenizer.cuts_left)
    asked = VectorRequest(
        read_texts_field(given.input, "input", context.token_ids),
        prompt_name=given.prompt_name,
        role=read_role(given.input_type, given.task, alias),
        truncate=given.truncate,
        normalize=given.normalize is not False,
        dimensions=given.dimensions,
    )
    found = await context.find(asked)
    usage = json_bytes({"prompt_tokens": found.tokens, "total_tokens": found.tokens})
    after = b'],"model":' + json_bytes(context.service.name) + b',"usage":' + usage + b"}"
    return await rows_response(
        found.vectors,
        b'{"object":"list","data":[',
        after,
        lambda i, row: b'{"object":"embedding","index":%d,"embedding":%b}' % (i, row),
        as_base64=as_base64,
        headers=answer_headers(found),
    )


def describe_openai_model(context: Context, name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": int(context.service.started), "owned_by": "gpt2wgpu"}


async def list_openai_models(_: Request, __: bytes, context: Context) -> Response:
    """GET /v1/models"""
    return json_response({"object": "list", "data": [describe_openai_model(context, name) for name in context.names()]})


async def show_openai_model(request: Request, _: bytes, context: Context) -> Response:
    """GET /v1/models/{id}"""
    name = request.path_params["name"]
    if name not in context.names() and strip_alias(name)[0] != context.service.name:
        raise Refusal(UNKNOWN_MODEL, f"the model {name!r} is not here; {context.service.name!r} is", param="model")
    return json_response(describe_openai_model(context, name))
