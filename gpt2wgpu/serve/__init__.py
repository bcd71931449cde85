"""A server that embedding clients already speak to: OpenAI's, TEI's, Hugging Face's and Ollama's routes on one port.

failures.py    what a request can be refused for
jobs.py        the texts of one request, on their way to vectors
scheduler.py   one thread owns the device; batches across requests
service.py     texts in, vectors out, with admission, prompts and limits
fields.py      fields of requests, the same for all dialects
context.py     what a route knows
openai.py  tei.py  ollama.py    the dialects
answers.py     vectors as bytes of JSON
guard.py       Host header and keys
app.py         the ASGI application
run.py         the process: sockets, signals, draining

It needs the extra `serve`.
"""

from typing import Any

from ..errors import UserError

__all__ = ["create_app"]


def create_app() -> Any:
    """An ASGI application for any server; its model and options come from the environment (see docs/serve.md)."""
    try:
        from .settings import app_from_environment
    except ImportError as error:
        raise UserError(f'{error.name} is not installed: pip install "gpt2wgpu[serve]"') from None
    return app_from_environment()
