"""`gpt2wgpu serve`."""

import math
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from .options import encoder_options, model_options, vector_options, with_options

LISTEN, LIMITS, SAFETY = "Listening", "Limits", "Safety"


@with_options(model_options, vector_options)
def serve_command(
    ctx: typer.Context,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all.", rich_help_panel=LISTEN)
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.", rich_help_panel=LISTEN)] = 8080,
    uds: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Listen on a Unix socket instead.", rich_help_panel=LISTEN)
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate chain (PEM).", rich_help_panel=LISTEN)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key (PEM).", rich_help_panel=LISTEN)] = None,
    served_model_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the model in answers.", rich_help_panel=LISTEN)
    ] = None,
    strict_model: Annotated[
        bool, typer.Option("--strict-model", help="Refuse requests for another model.", rich_help_panel=LISTEN)
    ] = False,
    token_ids: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="What token ids in a request are: refuse; model: this model's; cl100k: OpenAI's, decoded with tiktoken.",
            rich_help_panel=LISTEN,
        ),
    ] = "refuse",
    index: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Answer /search from this index, which `gpt2wgpu search --index` made."),
    ] = None,
    no_truncate: Annotated[
        bool, typer.Option("--no-truncate", help="Refuse texts that are too long, unless a request asks for a cut.")
    ] = False,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Keys, one a line; the environment's GPT2WGPU_API_KEY counts too.", rich_help_panel=SAFETY
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Answer to this Host header as well; * for any.", rich_help_panel=SAFETY),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Let web pages of this origin ask.", rich_help_panel=SAFETY),
    ] = None,
    max_requests: Annotated[
        int, typer.Option(min=1, help="Requests that wait or are computed; more get a 429.", rich_help_panel=LIMITS)
    ] = 512,
    max_texts: Annotated[int, typer.Option(min=1, help="Texts in a request.", rich_help_panel=LIMITS)] = 1 << 16,
    max_body_mb: Annotated[int, typer.Option(min=1, help="Size of a request in MB.", rich_help_panel=LIMITS)] = 16,
    max_waiting_batches: Annotated[
        int, typer.Option(min=1, help="Full batches of tokens that may wait; more get a 429.", rich_help_panel=LIMITS)
    ] = 64,
    queue_timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="Longest wait for the first batch.", rich_help_panel=LIMITS)
    ] = 60.0,
    drain_pause: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Serve on for so long after SIGTERM.", rich_help_panel=LIMITS)
    ] = 2.0,
    drain: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Time to finish what is under way.", rich_help_panel=LIMITS)
    ] = 6.0,
    log_format: Annotated[str, typer.Option(metavar="FORM", help="Access log: text or json.")] = "text",
    check: Annotated[
        str | None, typer.Option(metavar="URL", help="Start nothing: exit with 0 if the server at this address is alive.")
    ] = None,
) -> None:
    """Serve vectors over HTTP, to clients of OpenAI, TEI, Hugging Face and Ollama. Needs the extra `serve`."""
    try:
        from ..serve.run import Listen, check_health, serve
        from ..serve.service import Limits
        from ..serve.settings import Settings, allowed_hosts, read_keys
    except ImportError as error:
        raise UserError(f'serve needs {error.name}: pip install "gpt2wgpu[serve]"') from None
    if check is not None:
        raise typer.Exit(check_health(check))
    for name, seconds in (("queue-timeout", queue_timeout), ("drain-pause", drain_pause), ("drain", drain)):
        if not math.isfinite(seconds):
            raise UserError(f"--{name} takes a number of seconds, not {seconds}")
    keys = read_keys(api_key_file)
    hosts = allowed_hosts(allow_host or [], "127.0.0.1" if uds else host)
    limits = Limits(
        body_bytes=max_body_mb << 20,
        waiting_bytes=max(128, 8 * max_body_mb) << 20,
        requests=max_requests,
        texts=max_texts,
        waiting_batches=max_waiting_batches,
        queue_seconds=queue_timeout,
    )
    settings = Settings(
        encoder_options(ctx),
        limits,
        name=served_model_name,
        strict_model=strict_model,
        token_ids=token_ids,
        auto_truncate=not no_truncate,
        keys=keys,
        hosts=hosts,
        log_format=log_format,
        index=index,
    )
    listen = Listen(host, port, uds, tls_certificate, tls_key, tuple(cors_origin or ()), drain_pause, drain)
    raise typer.Exit(serve(settings.application(), listen, open_to_all=not keys))
