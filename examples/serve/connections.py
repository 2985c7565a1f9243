"""The web server: its socket, its connections, its end."""

from __future__ import annotations

import signal
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from fairseq_switchdec.errors import UserError

#: Seconds in which a new connection must have sent the head of a request: uvicorn itself waits for ever.
HEAD_SECONDS = 20.0
#: Seconds that open requests have to end after a signal.
LAST_SECONDS = 10


class Connection(H11Protocol):
    """uvicorn's, closed if no request comes."""

    def connection_made(self, transport: Any) -> None:
        """A client is there."""
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self.close_unused)

    def close_unused(self) -> None:
        """Too late for a first request."""
        if self.cycle is None:
            self.transport.close()


def bind(host: str, port: int) -> socket.socket:
    """A socket that does not listen yet: found out before a model is loaded.

    Raises:
        UserError: the address is taken, or is not this machine's.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror}: choose another") from None
    return found


def address_of(listener: socket.socket) -> str:
    """Where clients find a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def interruptible() -> None:
    """SIGTERM does what Ctrl-C does: uvicorn lets open requests end, then raises KeyboardInterrupt."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def server(app: FastAPI) -> uvicorn.Server:
    """uvicorn, which runs until a signal comes."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,  # uvicorn's own would close every handler that there is
        log_level="warning",
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    return uvicorn.Server(config)
