"""A server on this machine that speaks OpenAI's chat protocol, for tests: what it answers is up to the test."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tract import Judge

# A request -> (HTTP status, content: text or JSON[, headers]).
Answer = Callable[[dict[str, Any]], tuple[Any, ...]]


@contextmanager
def hosted(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(address, requests) of a server on this machine that knows chats alone."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def do_POST(self) -> None:  # noqa: N802
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(request)
            wrong = (404, {"error": {"message": self.path}})
            status, content, *headers = wrong if self.path != "/v1/chat/completions" else answer(request)
            body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if isinstance(content, str) else "application/json")
            for name, value in (headers[0] if headers else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        request_queue_size = 256  # of connections at a time: with the default of 5, some of 40 are reset

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def said(
    text: str | None, finish: str = "stop", tokens: list[tuple[str, dict[str, float]]] | None = None, **message: Any
) -> tuple[int, Any]:
    """An answer; tokens: (text, alternative -> probability)."""
    content = None
    if tokens is not None:
        content = [
            {"token": token, "logprob": 0.0, "bytes": None,
             "top_logprobs": [{"token": other, "logprob": math.log(p), "bytes": None} for other, p in others.items()]}
            for token, others in tokens
        ]  # fmt: skip
    message = {"role": "assistant", "content": text, **message}
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": content and {"content": content}}
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


def judge_at(url: str, **options: Any) -> Judge:
    """A judge that asks it."""
    return Judge.from_pretrained("some-model", "openai", api="chat", base_url=url, **{"max_retries": 0, **options})
