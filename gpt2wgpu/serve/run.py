"""The process that serves: its sockets and signals, and how it ends.

SIGTERM: readiness is 503 at once, requests are served for a pause so that a load balancer can look away, then no more are
accepted and those under way are finished, for a bounded time. SIGINT, SIGHUP: the same without the pause. If the
device cannot be used any more the process ends with code 3, so that a supervisor starts it again.
"""

import asyncio
import signal
import socket
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.middleware.cors import CORSMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import UserError, show
from .app import Application
from .notices import drop_unwritten, say
from .settings import LOCAL

HEADER_SECONDS = 20.0  # that the head of a request may take to arrive
CONNECTIONS = 4096
FATAL_CODE = 3


@dataclass(frozen=True)
class Listen:
    """Where to listen, and how to end. Times in seconds."""

    host: str = "127.0.0.1"
    port: int = 8080
    uds: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    origins: tuple[str, ...] = ()
    pause: float = 2.0
    drain: float = 6.0


class PatientH11(H11Protocol):
    """HTTP/1.1 that closes a connection whose request head does not arrive in time."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect_head()
        else:
            self._head_arrived()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_arrived()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """For bytes that are not HTTP. If they belong to a request, this is its answer, and the application sends none. Where an
        answer has begun, as before the body of a refused request, or where it must not have a body, only close."""
        bodiless = False
        if self.cycle is not None and not self.cycle.response_complete:
            bodiless = self.cycle.scope["method"] == "HEAD"
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not bodiless:
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEADER_SECONDS, self._close_slow)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close_slow(self) -> None:
        self._head_timer = None
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()


class DrainingServer(uvicorn.Server):
    """uvicorn's server with our way to end."""

    def __init__(self, config: uvicorn.Config, application: Application, pause: float) -> None:
        super().__init__(config)
        self.application, self.pause = application, pause
        self.fatal = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn's handler of SIGINT and SIGTERM. A second signal shortens the pause, a third ends at once."""
        service = self.application.service
        if service.draining or sig != signal.SIGTERM or not self.pause:
            self.force_exit = self.should_exit
            service.draining = self.should_exit = True
            return
        service.draining = True
        say(f"SIGTERM: not ready any more; serving for {self.pause:g} s, then finishing what is under way")
        asyncio.get_running_loop().call_later(self.pause, self._stop)

    def _stop(self) -> None:
        self.should_exit = True

    async def main_loop(self) -> None:
        watch = asyncio.ensure_future(self._end_if_fatal())
        try:
            await super().main_loop()
        finally:
            watch.cancel()

    async def _end_if_fatal(self) -> None:
        await self.application.service.ended.wait()
        self.fatal = self.should_exit = True


def handle_hang_up(server: DrainingServer) -> None:
    """SIGHUP, of a terminal that closes, ends the server like SIGINT. Under nohup it stays ignored."""
    number = getattr(signal, "SIGHUP", None)
    if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
        signal.signal(number, server.handle_exit)


def bind_socket(listen: Listen) -> socket.socket:
    """A listening socket. Raises UserError if the address is in use or not this machine's."""
    where = str(listen.uds) if listen.uds else f"{listen.host}:{listen.port}"
    try:
        if listen.uds is not None:
            return bind_unix_socket(listen.uds)
        family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        found = socket.create_server((listen.host, listen.port), family=family, backlog=2048)
        # connections inherit it; without it an answer's body waits some 40 ms for the acknowledgement of its head
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"cannot listen on {where}: {why}; choose another with --port, --host or --uds") from None
    return found


def bind_unix_socket(path: Path) -> socket.socket:
    """A Unix socket at a path; one that no server answers on is replaced. Raises OSError."""
    found = socket.socket(socket.AF_UNIX)
    if path.is_socket():
        try:
            found.connect(str(path))
        except OSError:
            path.unlink()
        else:
            raise OSError(98, "another server listens there")
        finally:
            found.close()
        found = socket.socket(socket.AF_UNIX)
    found.bind(str(path))
    found.listen(2048)
    return found


def check_tls(listen: Listen) -> None:
    """Raise UserError unless both TLS files are given or none, and they are a certificate and its key."""
    if (listen.certificate is None) != (listen.key is None):
        raise UserError("TLS needs both files: --tls-certificate and --tls-key")
    if listen.certificate is None or listen.key is None:
        return
    for path, option, kind in (
        (listen.certificate, "--tls-certificate", "CERTIFICATE"),
        (listen.key, "--tls-key", "PRIVATE KEY"),
    ):
        if not path.is_file():
            raise UserError(f"{show(path)} is not a file: give TLS files in PEM form")
        try:
            found = f"{kind}-----".encode() in path.read_bytes()
        except OSError as error:
            raise UserError(f"{show(path)} cannot be read: {error.strerror}") from None
        if not found:
            raise UserError(f"{show(path)} holds no '-----BEGIN {kind}-----': {option} takes a {kind.lower()} in PEM form")

    def refuse_password() -> str:
        raise UserError(f"{show(listen.key)} is locked with a password: write it without one (openssl pkey -in FILE -out NEW)")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(listen.certificate, listen.key, refuse_password)
    except OSError as error:
        both = f"{show(listen.certificate)} and {show(listen.key)}"
        why = "the key is not the certificate's" if "KEY_VALUES_MISMATCH" in str(error) else str(error)
        raise UserError(f"{both} cannot be used for TLS: {why}") from None


def serve(application: Application, listen: Listen, *, open_to_all: bool) -> int:
    """Serve until a signal; returns the exit code. open_to_all: whether no key is needed.

    Raises UserError if the model, the address or the TLS files cannot be used.
    """
    check_tls(listen)
    sock = bind_socket(listen)
    try:
        application.open()
        wrapped: Any = application
        if listen.origins:
            wrapped = CORSMiddleware(
                application,
                allow_origins=[*listen.origins],
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["x-request-id", "x-truncated", "x-prompt-name", "retry-after", "retry-after-ms"],
            )
        config = uvicorn.Config(
            wrapped,
            http=PatientH11,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=max(1, round(listen.drain)),
            limit_concurrency=CONNECTIONS,
            ssl_certfile=listen.certificate,
            ssl_keyfile=listen.key,
        )
        config.load()
        server = DrainingServer(config, application, listen.pause)
        scheme = "https" if listen.certificate else "http"
        where = f"unix:{listen.uds}" if listen.uds else f"{scheme}://{format_address(sock)}"
        service = application.service
        if open_to_all and listen.uds is None and listen.host not in LOCAL:
            say(f"warning: whoever reaches {listen.host} can use this server, as it has no key (GPT2WGPU_API_KEY)")
        say(f"{service.name} on {service.encoder.engine.place}, {where}")
        handle_hang_up(server)
        asyncio.run(server.serve(sockets=[sock]))
    finally:
        sock.close()
        if listen.uds is not None:
            listen.uds.unlink(missing_ok=True)
    if server.fatal:
        say(f"error: {application.service.scheduler.fatal}")
    drop_unwritten()
    return FATAL_CODE if server.fatal else 0


def format_address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_health(url: str, seconds: float = 5.0) -> int:
    """For a container's HEALTHCHECK: 0 if the server at this address is alive, else 1, with one line on stderr."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=seconds) as answer:
            return 0 if answer.status == 200 else 1
    except (OSError, urllib.error.URLError, ValueError) as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1
