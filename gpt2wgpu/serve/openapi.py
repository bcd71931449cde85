"""The description of all routes, for /openapi.json: schemas from the structs that read the requests."""

from functools import cache
from typing import Any

import msgspec

from .. import __version__
from . import ollama, openai, search, tei
from .answers import json_bytes

NUMBERS = {"type": "array", "items": {"type": "number"}}
VECTORS = {"type": "array", "items": NUMBERS}
TEXT_OR_LIST = {
    "oneOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
    ]
}
POST_ROUTES: dict[str, tuple[type[msgspec.Struct], str, dict[str, Any]]] = {
    "/v1/embeddings": (openai.Embeddings, "input", {"type": "object", "required": ["object", "data", "model", "usage"]}),
    "/embeddings": (openai.Embeddings, "input", {"type": "object", "required": ["object", "data", "model", "usage"]}),
    "/embed": (tei.TEIEmbed, "inputs", VECTORS),
    "/embed_all": (tei.TEIEmbed, "inputs", {"type": "array", "items": VECTORS}),
    "/similarity": (tei.Similarity, "", NUMBERS),
    "/search": (search.SearchRequest, "", {"type": "object", "required": ["mode", "passages", "hits"]}),
    "/tokenize": (tei.Tokenize, "inputs", {"type": "array", "items": {"type": "array", "items": {"type": "object"}}}),
    "/decode": (tei.Decode, "", {"type": "array", "items": {"type": "string"}}),
    "/invocations": (tei.TEIEmbed, "inputs", VECTORS),
    "/": (tei.TEIEmbed, "inputs", VECTORS),
    "/api/embed": (ollama.OllamaEmbed, "input", {"type": "object", "required": ["model", "embeddings"]}),
    "/api/embeddings": (ollama.OldEmbed, "", {"type": "object", "required": ["embedding"]}),
    "/api/show": (ollama.OllamaShow, "", {"type": "object"}),
    "/api/pull": (ollama.OllamaShow, "", {"type": "object", "required": ["status"]}),
}
GET_ROUTES: dict[str, dict[str, Any]] = {
    "/info": {"type": "object"},
    "/v1/models": {"type": "object", "required": ["object", "data"]},
    "/models": {"type": "object", "required": ["object", "data"]},
    "/api/tags": {"type": "object", "required": ["models"]},
    "/api/ps": {"type": "object", "required": ["models"]},
    "/api/version": {"type": "object", "required": ["version"]},
}
TEXT_ROUTES = ("/", "/ping", "/health", "/health/ready", "/metrics")
REFUSALS = {
    "400": "the request cannot be read, or a value cannot be used",
    "401": "no key, or one that is not known",
    "403": "a Host header that this server does not answer to",
    "404": "no such model",
    "413": "it can never fit",
    "422": "a value cannot be used (TEI's routes)",
    "424": "another kind of model is needed, or a vector is not finite (TEI's routes)",
    "429": "too much waits; Retry-After says how long",
    "500": "a vector is not finite, or an error inside the server",
    "503": "not ready, draining, or the device was lost",
}


def answers(schema: dict[str, Any] | None) -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}} if schema is None else {"application/json": {"schema": schema}}
    refusals = {code: {"description": meaning} for code, meaning in REFUSALS.items()}
    return {"200": {"description": "the answer", "content": content}, **refusals}


@cache
def describe_api() -> bytes:
    """OpenAPI 3.1 in JSON."""
    forms = list(dict.fromkeys(form for form, _, _ in POST_ROUTES.values()))
    names: dict[type, str] = {}
    components: dict[str, Any] = {}
    for form in forms:
        (own,), found = msgspec.json.schema_components([form], ref_template="#/components/schemas/{name}")
        prefix = form.__module__.rpartition(".")[2].title()
        for name, value in found.items():
            components[name if name in ("Sources", "Parameters", "Options") else prefix + name] = value
        names[form] = prefix + form.__name__ if "$ref" in own else form.__name__
    paths: dict[str, Any] = {}
    for path, (form, field, schema) in POST_ROUTES.items():
        if field:
            components[names[form]]["properties"][field] = TEXT_OR_LIST
            components[names[form]]["required"] = [field]
        body = {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{names[form]}"}}}}
        paths[path] = {"post": {"requestBody": body, "responses": answers(schema)}}
    for path, answer in GET_ROUTES.items():
        paths[path] = {"get": {"responses": answers(answer)}}
    for path in TEXT_ROUTES:
        paths.setdefault(path, {})["get"] = {"responses": answers(None)}
    parameter = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    paths["/v1/models/{name}"] = {"get": {"parameters": [parameter], "responses": answers({"type": "object"})}}
    info = {"title": "gpt2wgpu", "version": __version__, "description": "Texts in, embeddings out."}
    return json_bytes({"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": components}})
