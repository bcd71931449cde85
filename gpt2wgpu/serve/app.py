"""The ASGI application: routes of all dialects on one port, bodies, errors in the dialect's shape, callers that leave.

uvicorn --factory gpt2wgpu.serve:create_app           (or any other ASGI server)
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from ..errors import UserError
from . import ollama, openai, tei
from .access_log import log_request
from .context import TIMEOUT, Context, Server
from .failures import BACKEND, MALFORMED, TOO_LARGE, VALIDATION, Refusal
from .guard import check_host, check_key
from .metrics import DROPPED, Metrics
from .notices import say_traceback
from .openapi import describe_api
from .search import search_route
from .service import Service

BODY_SECONDS = 30.0  # that a body may take to arrive
LEFT = 499  # the status in the log of a caller that left

Handler = Callable[[Request, bytes, Context], Awaitable[Response]]
Dialect = Callable[[Refusal], Response]  # makes a refusal in the dialect's own shape


OPENAI, TEI, OLLAMA = openai.refuse_openai, tei.refuse_tei, ollama.refuse_ollama


class Gone(Exception):
    """The caller closed the connection."""


async def say_running(_: Request, __: bytes, ___: Context) -> Response:
    """GET /, /ping"""
    return PlainTextResponse("gpt2wgpu is running")


async def live(_: Request, __: bytes, context: Context) -> Response:
    """GET /health: 200 unless the process should be restarted."""
    why = context.service.why_dead()
    return PlainTextResponse(why or "ok", 503 if why else 200)


async def ready(_: Request, __: bytes, context: Context) -> Response:
    """GET /health/ready: 200 if requests are welcome."""
    why = context.service.why_unready()
    return PlainTextResponse(why or "ready", 503 if why else 200)


async def show_metrics(_: Request, __: bytes, context: Context) -> Response:
    """GET /metrics"""
    return PlainTextResponse(context.server.metrics.text(context.service), media_type="text/plain; version=0.0.4")


async def show_api(_: Request, __: bytes, ___: Context) -> Response:
    """GET /openapi.json"""
    return Response(describe_api(), media_type="application/json")


POST: dict[str, tuple[Dialect, Handler]] = {
    "/v1/embeddings": (OPENAI, openai.embeddings),
    "/embeddings": (OPENAI, openai.embeddings),
    "/embed": (TEI, tei.tei_embed),
    "/embed_all": (TEI, tei.embed_all),
    "/similarity": (TEI, tei.similarity),
    "/search": (TEI, search_route),
    "/tokenize": (TEI, tei.tokenize),
    "/decode": (TEI, tei.decode),
    "/": (TEI, tei.root),
    "/invocations": (TEI, tei.root),
    "/rerank": (TEI, tei.other_model),
    "/predict": (TEI, tei.other_model),
    "/embed_sparse": (TEI, tei.other_model),
    "/api/embed": (OLLAMA, ollama.ollama_embed),
    "/api/embeddings": (OLLAMA, ollama.old_embed),
    "/api/show": (OLLAMA, ollama.show_ollama_model),
    "/api/pull": (OLLAMA, ollama.pull_model),
}
GET: dict[str, tuple[Dialect, Handler]] = {
    "/": (TEI, say_running),
    "/ping": (TEI, say_running),
    "/health": (TEI, live),
    "/health/ready": (TEI, ready),
    "/metrics": (TEI, show_metrics),
    "/openapi.json": (TEI, show_api),
    "/info": (TEI, tei.info),
    "/v1/models": (OPENAI, openai.list_openai_models),
    "/models": (OPENAI, openai.list_openai_models),
    "/api/tags": (OLLAMA, ollama.list_tags),
    "/api/ps": (OLLAMA, ollama.list_running),
    "/api/version": (OLLAMA, ollama.show_version),
}
MODEL_PREFIX = "/v1/models/"


class Application:
    """The server as ASGI. make_server: opens the model; called once, when the server starts."""

    def __init__(self, make_server: Callable[[Metrics], Server]) -> None:
        self._make_server = make_server
        self.metrics = Metrics()
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        assert self._server is not None, "the ASGI server did not run the lifespan's start"
        return self._server

    @property
    def service(self) -> Service:
        return self.server.service

    def open(self) -> None:
        """Open the model, unless it is open. Raises UserError."""
        if self._server is None:
            self._server = self._make_server(self.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(Request({**scope, "path": plain_path(scope["path"])}, receive), send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            self.open()
            await self.service.warm_up()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.server.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, request: Request, send: Send) -> None:
        context = Context(self.server, request.headers.get(TIMEOUT))
        request_id = request.headers.get("x-request-id", "")[:200] or uuid.uuid4().hex
        status = LEFT
        try:
            response = await self._answer(request, context)
            response.headers["x-request-id"] = request_id
            status = response.status_code
            if request.method == "HEAD":
                response = Response(None, status, dict(response.headers))
            await response(request.scope, request.receive, send)
        except (Gone, ClientDisconnect, OSError):
            status = LEFT
            self.metrics.note_failure(DROPPED)
        finally:
            log_request(request, context, status, request_id)

    async def _answer(self, request: Request, context: Context) -> Response:
        """The response of a route; every failure in the shape of its dialect. Raises Gone."""
        dialect, handler, methods = self._find(request)
        try:
            check_host(request, self.server)
            check_key(request, self.server)
            if handler is None:
                return self._no_route(request, dialect, methods)
            return await self._handle(request, handler, context)
        except (Refusal, UserError) as error:
            refusal = error if isinstance(error, Refusal) else Refusal(VALIDATION, str(error))
            self._note_failure(context, refusal.kind)
            return dialect(refusal)
        except (Gone, ClientDisconnect, asyncio.CancelledError):
            raise
        except Exception as error:
            say_traceback(error)
            self._note_failure(context, BACKEND)
            return dialect(Refusal(BACKEND, f"an error inside the server: {type(error).__name__}"))

    def _note_failure(self, context: Context, kind: str) -> None:
        self.metrics.note_failure(kind)
        if not context.texts:
            self.metrics.note_arrival(1)

    def _find(self, request: Request) -> tuple[Dialect, Handler | None, list[str]]:
        """The route's dialect, its handler if the method is right, and the methods that the path has."""
        path = request.url.path
        reads = request.method in ("GET", "HEAD")
        if path.startswith(MODEL_PREFIX):
            request.scope["path_params"] = {"name": path[len(MODEL_PREFIX) :]}
            return OPENAI, openai.show_openai_model if reads else None, ["GET", "HEAD"]
        methods = [*(["GET", "HEAD"] if path in GET else []), *(["POST"] if path in POST else [])]
        dialect, handler = (GET if reads else POST).get(path) or GET.get(path) or POST.get(path) or (dialect_of(path), None)
        return dialect, handler if request.method in methods else None, methods

    def _no_route(self, request: Request, dialect: Dialect, methods: list[str]) -> Response:
        if not methods:
            response = dialect(Refusal(MALFORMED, f"there is no {request.url.path[:200]} here; /openapi.json has the routes"))
            response.status_code = 404
            return response
        response = dialect(Refusal(MALFORMED, f"{request.url.path} takes {' and '.join(methods)}, not {request.method}"))
        response.status_code = 405
        response.headers["allow"] = ", ".join(methods)
        return response

    async def _handle(self, request: Request, handler: Handler, context: Context) -> Response:
        service = context.service
        if (packed := request.headers.get("content-encoding", "identity")) != "identity":
            raise Refusal(MALFORMED, f"the body is packed ({packed[:100]}): send it plain, without Content-Encoding")
        limit = service.limits.body_bytes
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > limit:
            raise refuse_large(int(declared), limit)
        held = 0
        try:
            parts: list[bytes] = []
            if request.method == "POST":
                async with asyncio.timeout(BODY_SECONDS):
                    async for part in request.stream():
                        if held + len(part) > limit:
                            raise refuse_large(held + len(part), limit)
                        service.take_bytes(len(part))
                        held += len(part)
                        parts.append(part)
            body = b"".join(parts)
            parts.clear()
            return await until_gone(request, handler(request, body, context))
        except TimeoutError:
            raise Refusal(
                MALFORMED, f"the body did not arrive in {BODY_SECONDS:.0f} s", headers={"connection": "close"}
            ) from None
        finally:
            service.bytes -= held


def plain_path(path: str) -> str:
    """A path without doubled and trailing slashes, which come of a base address that ends in one."""
    return "/" + "/".join(part for part in path.split("/") if part)


def dialect_of(path: str) -> Dialect:
    """The dialect in which an unknown path is refused."""
    return OLLAMA if path.startswith("/api/") else OPENAI if path.startswith("/v1/") else TEI


def refuse_large(found: int, limit: int) -> Refusal:
    message = f"the body has {found:,} bytes or more, {limit:,} are taken: send the texts in parts"
    return Refusal(TOO_LARGE, message, headers={"connection": "close"})


async def until_gone(request: Request, work: Any) -> Response:
    """The result of `work`, unless the caller leaves: then it is cancelled, and Gone raised."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(wait_until_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Gone
    finally:
        for other in (task, gone):
            if not other.done():
                other.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await other


async def wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
