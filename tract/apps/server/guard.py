"""What every request passes first: the token, the size of bodies, the number of requests, the end of the server, and counting.

Plain ASGI: a request is judged by its head before a byte of its body is read, and its body is counted as it arrives.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect, Request

from tract.apps.server.errors import CLIENT_GONE, RequestRefusedError, error_response, shutting_down, too_busy
from tract.apps.server.metrics import HEALTH, OTHER, PATHS
from tract.apps.server.service import Service

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Longer lengths are beyond every limit.
_DIGITS = 15


class Guard:
    """ASGI middleware around the application of one service."""

    def __init__(self, app: App, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or lets the application answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        begun = time.perf_counter()
        try:
            await self._guarded(scope, receive, answer)
        except RequestRefusedError as refused:
            await answer.refuse(scope, receive, refused)
        except ClientDisconnect:  # before its request was whole
            answer.code = answer.code or CLIENT_GONE
        except Exception as error:  # whatever it is, the client gets an answer and the log says where
            log.error("%s %s: %s", scope["method"], scope["path"] if scope["path"] in PATHS else OTHER, _place(error))
            await answer.refuse(scope, receive, RequestRefusedError(500, "a fault of the server; its log says where"))
        finally:
            self._service.metrics.request(scope["path"], answer.code or CLIENT_GONE, time.perf_counter() - begun)

    async def _guarded(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        service = self._service
        if scope["path"] != HEALTH:
            self._check_token(scope)
            if service.draining:
                raise shutting_down()
        if scope["method"] != "POST":  # its body, if there is one, is read by nobody
            await self._app(scope, receive, answer)
            return
        if service.in_flight >= service.settings.max_queue:
            raise too_busy(f"{service.in_flight} requests are at work, as many as the server takes; try again later")
        service.in_flight += 1
        try:
            await self._app(scope, _with_body(await self._body_in_time(scope, receive), receive), answer)
        finally:
            service.in_flight -= 1

    def _check_token(self, scope: Scope) -> None:
        token = self._service.settings.token
        if token is None:
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, value = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        # Compared in whole, so that the time taken does not say how much of a guess is right.
        if not hmac.compare_digest(value.strip(), token.encode()) or scheme.lower() != b"bearer":
            raise RequestRefusedError(
                401, "give the server's token in the header: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
            )

    async def _body_in_time(self, scope: Scope, receive: Receive) -> bytes:
        reading = asyncio.ensure_future(self._body(scope, receive))
        try:
            await self._service.wait(reading, timeout_s=self._service.settings.body_timeout_s)
            if reading.done():
                return reading.result()
            raise RequestRefusedError(408, "the body did not arrive in time; send it faster", {"Connection": "close"})
        finally:
            reading.cancel()

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The body, read up to the limit.

        Raises:
            RequestRefusedError: 413 if there is more, or a client says so before it sends any.
        """
        limit = self._service.settings.max_body_bytes
        too_large = RequestRefusedError(413, f"the body is larger than {limit} bytes; send fewer or shorter items", {"Connection": "close"})
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if length.isdigit() and (len(length) > _DIGITS or int(length) > limit):
            raise too_large
        body = bytearray()
        async for part in Request(scope, receive).stream():
            body += part
            if len(body) > limit:
                raise too_large
        return bytes(body)


class _Answer:
    """Sends, and knows the status that was sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.code = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.code = message["status"]
        await self._send(message)

    async def refuse(self, scope: Scope, receive: Receive, refused: RequestRefusedError) -> None:
        """Answers with an error, unless an answer has begun."""
        if not self.code:
            await error_response(refused.code, refused.message, refused.headers)(scope, receive, self)


def _with_body(body: bytes, receive: Receive) -> Receive:
    """What the application receives: the whole body, then what follows, which is that the client went away."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


def _place(error: BaseException) -> str:
    """Kind and places of an error. Not its message, which may quote the texts of a request."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return f"{type(error).__name__} at " + " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))
