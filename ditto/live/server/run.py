"""Runs the server of `ditto serve`: address, socket, signals, shutdown."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import signal
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ditto.errors import InputError
from ditto.live.server.access import check_token, is_loopback
from ditto.live.server.limits import END_SECONDS, MAX_CONNECTIONS, MAX_MESSAGE_BYTES, SILENCE_SECONDS, STOP_SECONDS
from ditto.machine import leave_out_of_collections

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Server

logger = logging.getLogger(__name__)

AUTO = "auto"
PACKAGES = ("fastapi", "uvicorn", "websockets", "aiortc")


@dataclass(frozen=True)
class Address:
    """Where the server listens. Checked before anything is loaded.

    `drain_seconds`: on SIGTERM, open conversations may go on for so long; new ones are refused.

    Raises:
        InputError: a token as `check_token` refuses; a certificate without its key, or files that are not these.
    """

    host: str = "127.0.0.1"
    port: int = 8400
    token: str = ""
    certificate: Path | None = None
    key: Path | None = None
    drain_seconds: float = 0.0
    made_token: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        if self.token == AUTO:
            object.__setattr__(self, "token", secrets.token_urlsafe(24))
            object.__setattr__(self, "made_token", True)
        check_token(self.host, self.token)
        if (self.certificate is None) != (self.key is None):
            raise InputError("expected --certificate and --key together, got one of them; give both")
        if self.certificate is not None:
            try:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.certificate, self.key)
            except OSError as error:  # ssl's own errors among them
                reason = error.strerror or error
                raise InputError(
                    f"expected a certificate and its key in PEM, got {self.certificate} and {self.key}: {reason}; check both"
                ) from None

    def url_of(self, listening: socket.socket) -> str:
        """The URL of this socket; with the token if the server made it, so that nobody has to type it."""
        name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        name = f"[{name}]" if ":" in name else name
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://{name}:{listening.getsockname()[1]}/" + (f"?token={self.token}" if self.made_token else "")

    @property
    def notes(self) -> list[str]:
        """Notes for the person who starts the server."""
        if is_loopback(self.host):
            return ["This machine only. Ctrl-C stops it."]
        notes = ["Whoever has the token can connect. Ctrl-C stops it."]
        if self.certificate is None:
            notes.append("Browsers give no microphone to http pages of other machines; --certificate and --key help.")
        return notes


def missing_packages() -> list[str]:
    """The packages of `ditto serve` that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def listen(address: Address) -> socket.socket:
    """A socket that listens at the address. TCP keep-alive detects a client that has vanished within seconds.

    Raises:
        InputError: the address is in use, or not of this machine.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, where = found[0]
        listening = socket.create_server(where[:2], family=family, backlog=256)
    except OSError as error:
        todo = "choose another --port" if error.errno == errno.EADDRINUSE else "check --host and --port"
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or error
        raise InputError(f"{address.host}, port {address.port} cannot be listened at: {reason}; {todo}") from None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", SILENCE_SECONDS / 2),
        ("TCP_KEEPINTVL", SILENCE_SECONDS / 4),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", 1000 * SILENCE_SECONDS),
    ):
        if (option := getattr(socket, name, None)) is not None:  # not every system has all
            listening.setsockopt(socket.IPPROTO_TCP, option, round(value))
    return listening


def serve(app: FastAPI, address: Address, listening: socket.socket) -> None:
    """Serve until SIGINT (Ctrl-C) or SIGTERM, then close every connection. A second signal ends the process at once."""
    server = server_of(app, address)
    leave_out_of_collections()
    for number in (signal.SIGINT, signal.SIGTERM):  # before and after the server handles them
        signal.signal(number, signal.SIG_DFL)
    close_socket = getattr(signal, "SIGHUP", None)
    if close_socket is not None and signal.getsignal(close_socket) is not signal.SIG_IGN:
        signal.signal(close_socket, server.handle_exit)
    server.run([listening])


def end_process() -> None:
    """End the process, even if threads of it still run."""
    logger.error("the server did not end within %g s; the process ends now", STOP_SECONDS)
    os._exit(1)


def server_of(app: FastAPI, address: Address) -> Server:
    """The server, not running yet.

    With `drain_seconds`, SIGTERM lets the conversations go on: new ones are refused, `/readyz` says so, and the server shuts
    down when the last one has ended or the time is over.

    It shuts down in this order, each step with a time limit: stop listening; send every client "closed" and close its
    session; close the connections and the WebRTC peers. If that takes too long, `end_process` ends the process.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=round(END_SECONDS),
        # No pings: the server answers them only while it reads, and it stops reading while too much speech is queued.
        # TCP keep-alive finds clients that vanish (see `listen`); a send that takes too long finds readers that stop.
        ws_ping_interval=None,
        ws_max_size=4 * MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        server_header=False,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )

    class Serving(uvicorn.Server):
        signalled = False
        drained_at: float | None = None  # when draining ends

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if sig == signal.SIGTERM and address.drain_seconds > 0 and self.drained_at is None and not self.signalled:
                app.state.clients.draining = True
                self.drained_at = time.monotonic() + address.drain_seconds
                return
            if self.signalled:
                signal.signal(sig, signal.SIG_DFL)
                signal.raise_signal(sig)
            self.signalled = self.should_exit = True

        async def on_tick(self, counter: int) -> bool:  # ten times a second
            until = self.drained_at
            if until is not None and (not len(app.state.clients) or time.monotonic() > until):
                self.signalled = self.should_exit = True
            return await super().on_tick(counter)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if self.signalled:  # the signal ends this process; otherwise other code runs in it
                limit = threading.Timer(STOP_SECONDS, end_process)
                limit.daemon = True
                limit.start()
            for listening in (*self.servers, *(sockets or ())):
                listening.close()
            await app.state.clients.end()  # before their connections close
            await super().shutdown(sockets)

    return Serving(config)
