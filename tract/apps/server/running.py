"""A server from its first to its last moment: the socket, the loop, and what SIGTERM and Ctrl-C do.

At a signal the server answers 503 to whatever is new, finishes what it has begun, and ends with status 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import time
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from tract.apps.server.metrics import DOCS
from tract.apps.server.service import Service
from tract.common.errors import ConfigError
from tract.common.signals import notified

log = logging.getLogger(__name__)

# Between two looks whether the last request is answered.
_LOOK_S = 0.02
_LAST_PORT = 65535
# For answers that are being sent when nothing is waited for any more.
_LAST_ANSWERS_S = 5


def listen(host: str, port: int) -> socket.socket:
    """A socket with this address, 0 for a free port. Nothing connects before ``serve`` listens.

    Raises:
        ConfigError: if there is no such address, or it is taken.
    """
    if not 0 <= port <= _LAST_PORT:
        raise ConfigError(f"--port: {port} is no port; use one from 1 to {_LAST_PORT}, or 0 for a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except OSError:
            found.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        what = "use an address of this machine and a free port"
        raise ConfigError(f"--host, --port: cannot listen at {host}:{port} ({reason}); {what}") from error
    return found


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine can connect."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def address_of(bound: socket.socket) -> str:
    """The URL of a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: FastAPI, bound: socket.socket) -> None:
    """Serves until SIGTERM or Ctrl-C, finishes what it has begun, then closes the judge."""
    service: Service = app.state.service
    with asyncio.Runner() as runner:
        loop, stop = runner.get_loop(), asyncio.Event()
        with notified(lambda: loop.call_soon_threadsafe(stop.set)):
            try:
                runner.run(_serve(app, service, bound, stop))
            finally:
                service.judge.close()
    log.info("stopped")


async def _serve(app: FastAPI, service: Service, bound: socket.socket, stop: asyncio.Event) -> None:
    config = uvicorn.Config(
        app, http="h11", ws="none", loop="asyncio", lifespan="off", log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )  # fmt: skip
    server = _Server(config, f"serving {service.judge.settings.name} at {address_of(bound)} (documentation at {DOCS})")
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
    if waiting.done():
        await _drain(service)
        server.should_exit = True
    waiting.cancel()
    await serving


async def _drain(service: Service) -> None:
    """Waits for what has begun; what takes too long is answered with 503."""
    limit = service.settings.shutdown_timeout_s
    service.draining = True
    log.info("shutting down; requests that are finished first: %d, within %g s", service.in_flight, limit)
    deadline = time.monotonic() + limit
    while service.in_flight and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_S)
    if service.in_flight:
        log.warning("requests that did not end in time: %d", service.in_flight)
        service.broken_off.set()


class _Server(uvicorn.Server):
    """uvicorn's server, which says once where it listens and leaves signals to ``serve``."""

    def __init__(self, config: uvicorn.Config, greeting: str) -> None:
        super().__init__(config)
        self._greeting = greeting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        log.info(self._greeting)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: uvicorn would send itself the signal again at the end, and so end with its status."""
        yield
