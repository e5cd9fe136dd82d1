"""Why a request is not answered: a status code and one line."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

# nginx's code for a client that went away before its answer; nobody receives it, only the metrics show it.
CLIENT_GONE = 499
# Seconds after which a refused request may come again.
RETRY_AFTER_S = 1
_LONGEST = 400


class RequestRefusedError(Exception):
    """The request is answered with this code and line.

    Attributes:
        code: HTTP status. message: what was found, what is accepted, what to do. headers: further ones.
    """

    def __init__(self, code: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


def too_busy(message: str) -> RequestRefusedError:
    """429, to be tried again."""
    return RequestRefusedError(429, message, {"Retry-After": str(RETRY_AFTER_S)})


def shutting_down() -> RequestRefusedError:
    """503, for whatever comes while the server ends; the connection ends with it."""
    return RequestRefusedError(503, "the server is shutting down; ask another one, or again later", {"Connection": "close"})


def error_response(code: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer of an error. Its JSON is always valid: a message may quote a key of the request, which may be half a surrogate pair."""
    line = " ".join(message.encode("utf-8", "backslashreplace").decode().split())
    body = json.dumps({"error": line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."}, ensure_ascii=False)
    return Response(body, code, headers, media_type="application/json")
