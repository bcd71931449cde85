"""TEI's routes, and Hugging Face's root POST, which huggingface_hub and SageMaker use."""

from typing import Any

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from .. import __version__
from ..checkpoint import Pooling
from ..errors import show
from . import failures
from .answers import json_response, rows_response
from .context import Context, answer_headers
from .failures import EMPTY, MALFORMED, WRONG_MODEL, Refusal
from .fields import check_direction, describe_kind, is_id, read_body, read_role, read_texts_field
from .service import VectorRequest

TEI_STATUS = {
    failures.MALFORMED: (422, "Validation"),
    failures.EMPTY: (400, "Empty"),
    failures.VALIDATION: (422, "Validation"),
    failures.WRONG_MODEL: (424, "Backend"),
    failures.TOO_LARGE: (413, "Validation"),
    failures.UNKNOWN_MODEL: (404, "Validation"),
    failures.UNAUTHORIZED: (401, "Unauthorized"),
    failures.FORBIDDEN: (403, "Forbidden"),
    failures.OVERLOADED: (429, "Overloaded"),
    failures.UNAVAILABLE: (503, "Unhealthy"),
    failures.BACKEND: (424, "Backend"),
}
OTHER_MODELS = {"/rerank": "a re-ranker", "/predict": "a classifier", "/embed_sparse": "a SPLADE model"}


class Options(msgspec.Struct):
    """How /embed, /embed_all and the root embed."""

    truncate: bool | None = None
    truncation_direction: str | None = None
    prompt_name: str | None = None
    normalize: bool | None = None
    dimensions: int | None = None
    input_type: str | None = None
    task: str | None = None


class TEIEmbed(Options):
    """The fields of /embed, /embed_all and the root. parameters: the options of clients of Hugging Face that put them there."""

    inputs: Any = None
    parameters: Options | None = None


class Sources(msgspec.Struct):
    """`inputs` of /similarity."""

    source_sentence: str
    sentences: list[str]


class Parameters(msgspec.Struct):
    """`parameters` of /similarity."""

    truncate: bool | None = None
    truncation_direction: str | None = None
    prompt_name: str | None = None


class Similarity(msgspec.Struct):
    """The fields of /similarity."""

    inputs: Sources
    parameters: Parameters | None = None


class Tokenize(msgspec.Struct):
    """The fields of /tokenize."""

    inputs: Any = None
    add_special_tokens: bool | None = None
    prompt_name: str | None = None


class Decode(msgspec.Struct):
    """The fields of /decode."""

    ids: Any = None
    skip_special_tokens: bool | None = None


def refuse_tei(refusal: Refusal) -> Response:
    """TEI's error."""
    status, kind = TEI_STATUS[refusal.kind]
    return json_response({"error": refusal.message, "error_type": kind}, status, failures.error_headers(refusal))


def read_asked(body: bytes, context: Context) -> VectorRequest:
    given = read_body(body, TEIEmbed)
    for name in Options.__struct_fields__ if given.parameters else ():
        if getattr(given, name) is None:
            setattr(given, name, getattr(given.parameters, name))
    check_direction(given.truncation_direction, context.service.encoder.tokenizer.cuts_left)
    return VectorRequest(
        read_texts_field(given.inputs, "inputs", context.token_ids),
        prompt_name=given.prompt_name,
        role=read_role(given.input_type, given.task, None),
        truncate=given.truncate,
        normalize=given.normalize is not False,
        dimensions=given.dimensions,
    )


async def tei_embed(_: Request, body: bytes, context: Context) -> Response:
    """POST /embed: a list of vectors, for one text too."""
    found = await context.find(read_asked(body, context))
    return await rows_response(found.vectors, b"[", b"]", headers=answer_headers(found))


async def embed_all(_: Request, body: bytes, context: Context) -> Response:
    """POST /embed_all: for each text the hidden states of its tokens."""
    asked = read_asked(body, context)
    asked.states, asked.normalize, asked.dimensions = True, False, None
    found = await context.find(asked)
    return await rows_response(found.vectors, b"[", b"]", headers=answer_headers(found))


async def similarity(_: Request, body: bytes, context: Context) -> Response:
    """POST /similarity: the cosine of one sentence with each of several."""
    given = read_body(body, Similarity)
    options = given.parameters or Parameters()
    check_direction(options.truncation_direction, context.service.encoder.tokenizer.cuts_left)
    if not given.inputs.sentences:
        raise Refusal(EMPTY, "inputs.sentences is empty: give the texts to compare with", param="inputs")
    texts = [given.inputs.source_sentence, *given.inputs.sentences]
    asked = VectorRequest(texts, prompt_name=options.prompt_name, truncate=options.truncate)
    found = await context.find(asked)
    cosines = np.ascontiguousarray(found.vectors[1:] @ found.vectors[0])
    return json_response(cosines, headers=answer_headers(found))


async def root(request: Request, body: bytes, context: Context) -> Response:
    """POST / and /invocations: similarity if `inputs` is an object with a source_sentence, else embed."""
    given = read_body(body, TEIEmbed)
    return await (similarity if isinstance(given.inputs, dict) else tei_embed)(request, body, context)


async def tokenize(_: Request, body: bytes, context: Context) -> Response:
    """POST /tokenize: the tokens of each text, with the characters that they stand for."""
    given = read_body(body, Tokenize)
    encoder = context.service.encoder
    texts = read_texts_field(given.inputs, "inputs", "refuse")
    context.service.check_prompt_name(given.prompt_name)
    prompt = encoder.options(given.prompt_name).prompt
    prompted = [prompt + str(t) for t in texts]
    return json_response(
        await context.service.on_thread(encoder.tokenizer.describe, prompted, given.add_special_tokens is not False)
    )


async def decode(_: Request, body: bytes, context: Context) -> Response:
    """POST /decode: the texts of token ids."""
    given = read_body(body, Decode)
    rows = [given.ids] if isinstance(given.ids, list) and given.ids and is_id(given.ids[0]) else given.ids
    if not isinstance(rows, list) or not rows:
        raise Refusal(EMPTY, "ids is missing: give a list of token ids, or several", param="ids")
    vocab = context.service.encoder.checkpoint.config.vocab
    for i, row in enumerate(rows):
        if not isinstance(row, list) or not all(is_id(n) and 0 <= n < vocab for n in row):
            expected = f"a list of token ids from 0 to {vocab - 1}"
            wrong = [n for n in row if not (is_id(n) and 0 <= n < vocab)][:1] if isinstance(row, list) else []
            found = f"it holds {show(wrong[0], 40)}" if wrong else f"not {describe_kind(row)}"
            raise Refusal(MALFORMED, f"item {i} of ids must be {expected}, {found}", param="ids")
    decode_rows = context.service.encoder.tokenizer.decode
    return json_response(await context.service.on_thread(decode_rows, rows, given.skip_special_tokens is not False))


async def other_model(request: Request, _: bytes, context: Context) -> Response:
    """POST /rerank, /predict, /embed_sparse: this model cannot."""
    wanted = OTHER_MODELS[request.url.path]
    raise Refusal(WRONG_MODEL, f"{request.url.path} needs {wanted}; {context.service.name} is an embedding model")


async def info(_: Request, __: bytes, context: Context) -> Response:
    """GET /info"""
    service = context.service
    encoder, limits = service.encoder, service.limits
    pooling = next((m.modes[0] for m in encoder.modules if isinstance(m, Pooling)), "mean")
    return json_response(
        {
            "model_id": encoder.model,
            "model_sha": None,
            "model_dtype": encoder.dtype,
            "served_model_name": service.name,
            "model_type": {"embedding": {"pooling": pooling}},
            "max_concurrent_requests": limits.requests,
            "max_input_length": encoder.max_seq_length,
            "max_batch_tokens": encoder.engine.max_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": min(2048, limits.texts),
            "auto_truncate": service.auto_truncate,
            "tokenization_workers": service.token_threads,
            "version": __version__,
            "sha": None,
            "docker_label": None,
            "dimensions": encoder.dimensions,
            "prompts": [name for name, text in encoder.prompts.items() if text],
            "device": encoder.device,
            "same_bits_in_any_batch": service.scheduler.mixes,
        }
    )
