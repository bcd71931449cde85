"""A server that embedding clients already speak to: OpenAI's, TEI's, Hugging Face's and Ollama's routes on one port.

failures.py    what a request can be refused for
jobs.py        the texts of one request, on their way to vectors
scheduler.py   one thread owns the device; batches across requests
service.py     texts in, vectors out, with admission, prompts and limits
fields.py      fields of requests, the same for all dialects
context.py     what a route knows
openai.py  tei.py  ollama.py    the dialects
search.py      /search over an index
answers.py     vectors as bytes of JSON
guard.py       Host header and keys
access_log.py  notices.py      what is said on stderr
app.py         the ASGI application
run.py         the process: sockets, signals, draining

It needs the extra `serve`.
"""

from typing import Any

from ..errors import UserError

__all__ = ["create_app"]


def create_app(encoder: dict[str, Any] | None = None, **settings: Any) -> Any:
    """An ASGI application for any server, which opens the model when that server starts it (the lifespan).

    encoder: keywords of `Encoder`; settings: fields of `settings.Settings`, such as keys and hosts. Without any, both come from
    the environment: GPT2WGPU_MODEL, GPT2WGPU_DEVICE, GPT2WGPU_DTYPE, GPT2WGPU_API_KEY, GPT2WGPU_ALLOW_HOST (names with commas
    between; * for any), GPT2WGPU_TOKEN_IDS, GPT2WGPU_LOG_FORMAT, GPT2WGPU_INDEX.
    Raises UserError if the extra is not installed or a setting is wrong.
    """
    try:
        from .settings import Settings, settings_from_environment
    except ImportError as error:
        raise UserError(f'{error.name} is not installed: pip install "gpt2wgpu[serve]"') from None
    if encoder is None and not settings:
        return settings_from_environment().application()
    return Settings(encoder or {}, **settings).application()
