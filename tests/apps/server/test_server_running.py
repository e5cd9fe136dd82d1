"""A server as a process: clients that go away, its end by signals, its address. On 127.0.0.1."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import main_of
from loaded_modules import HEAVY, status_and_modules
from stand_in import BODY, ROOT, StandIn, server

from tract.apps.server import command
from tract.apps.server.app import create_app
from tract.apps.server.command import DEFAULT_TOKEN_ENV
from tract.apps.server.running import _serve, is_loopback, listen
from tract.apps.server.settings import ServerSettings
from tract.common.errors import ConfigError
from tract.judge.judge import Judge

main = main_of(command)

# Signals have handlers already, which would end the process half a second after one, with status 143.
HANDLED = """
from tract.common import signals
signals.PATIENCE_S = 0.5
with signals.handled(lambda number, reason: sys.stderr.write("interrupted\\n"), once=True):
    run()
"""


@pytest.fixture(autouse=True)
def _log_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of the tests stays theirs where the command runs in their process."""
    monkeypatch.setattr("tract.apps.server.command._log_to_stderr", lambda: None)


@pytest.mark.parametrize(
    ("number", "around"), [(signal.SIGTERM, HANDLED), pytest.param(signal.SIGINT, "run()", marks=pytest.mark.slow)], ids=["TERM", "INT"]
)
def test_a_signal_finishes_what_has_begun_refuses_what_is_new_and_ends_with_status_0(number: int, around: str) -> None:
    with server(seconds=1.5, around=around) as (process, url, said), ThreadPoolExecutor() as pool, httpx.Client(base_url=url) as kept:
        assert kept.get("/health").status_code == 200
        begun = pool.submit(httpx.post, f"{url}/v1/grade", json=BODY, timeout=30)
        time.sleep(0.5)
        process.send_signal(number)
        time.sleep(0.2)
        refused = kept.post("/v1/grade", json=BODY)
        health = httpx.get(f"{url}/health")  # also on a connection of its own
        assert (refused.status_code, health.status_code, health.json()["status"]) == (503, 503, "shutting down")
        assert begun.result().json()["status"] == "ok"
    assert process.returncode == 0
    text = "".join(said)
    assert text.count("serving stand-in at http://127.0.0.1:") == 1
    assert "requests that are finished first: 1" in text
    assert text.endswith("closed\n" + text.splitlines(keepends=True)[-2] + "behind\n")
    assert not {"Traceback", "interrupted"} & set(text.split())


@pytest.mark.slow
def test_what_takes_too_long_at_the_end_is_answered_with_503() -> None:
    with server(seconds=60, limits="shutdown_timeout_s=0.3") as (process, url, said), ThreadPoolExecutor() as pool:
        begun = pool.submit(httpx.post, f"{url}/v1/grade", json=BODY, timeout=30)
        time.sleep(0.5)
        told = time.monotonic()
        process.terminate()
        assert begun.result().status_code == 503
        process.wait(20)
        assert time.monotonic() - told < 10
    assert process.returncode == 0
    assert "requests that did not end in time: 1" in "".join(said)


@pytest.mark.slow
def test_told_twice_it_ends_at_once() -> None:
    with server(seconds=60) as (process, url, said), ThreadPoolExecutor() as pool:
        begun = pool.submit(httpx.post, f"{url}/v1/grade", json=BODY, timeout=30)
        time.sleep(0.3)
        process.terminate()
        time.sleep(1.2)
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
        with pytest.raises(httpx.HTTPError):
            begun.result()
    assert "told twice" in "".join(said)


class Served:
    """An application behind a real socket, in a thread."""

    def __init__(self, judge: StandIn, **limits: float) -> None:
        self.judge = judge
        self._app = create_app(judge, ServerSettings(**limits))  # type: ignore[arg-type]
        self._bound = listen("127.0.0.1", 0)
        self.address = self._bound.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self._loop = asyncio.new_event_loop()
        self._told = asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self._loop.run_until_complete(_serve(self._app, self._app.state.service, self._bound, self._told))
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def __enter__(self) -> Served:
        self._thread.start()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.url}/health")
                return self
            except httpx.ConnectError:
                time.sleep(0.02)
        raise AssertionError("it does not listen")

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._told.set)
        self._thread.join(30)
        assert not self._thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_client_that_goes_away_leaves_the_queue() -> None:
    judge = StandIn(held=True)
    with Served(judge) as served:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{served.url}/v1/grade/batch", json={"items": [BODY] * 3}, timeout=0.3)
        until(lambda: judge.cancelled == 3)
        assert judge.pending == 0
        until(lambda: 'tract_requests_total{code="499",path="/v1/grade/batch"} 1.0' in httpx.get(f"{served.url}/metrics").text)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_client_reads_413_while_it_sends_too_much(chunked: bool) -> None:
    with Served(StandIn(), max_body_bytes=10_000) as served:
        part = b" " * 10_000
        content = (part for _ in range(100)) if chunked else part * 100
        answer = httpx.post(f"{served.url}/v1/grade", content=content, timeout=20)
        assert (answer.status_code, answer.headers["connection"]) == (413, "close")
        assert httpx.post(f"{served.url}/v1/grade", json=BODY).status_code == 200


def test_a_half_sent_request_does_not_stop_the_others_or_the_end() -> None:
    with Served(StandIn(), body_timeout_s=60, shutdown_timeout_s=0.2) as served:
        half = socket.create_connection(served.address)
        half.sendall(b"POST /v1/grade HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{")
        for garbage in (b"\x00\xff\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/grade HTTP/1.1\r\nContent-Length: -1\r\n\r\n"):
            with socket.create_connection(served.address) as other:
                other.sendall(garbage)
                assert other.recv(100).startswith(b"HTTP/1.1 4")
        assert httpx.post(f"{served.url}/v1/grade", json=BODY).status_code == 200
    assert half.recv(100).startswith(b"HTTP/1.1 503")
    half.close()


def test_no_more_requests_are_read_at_a_time_than_the_queue_holds() -> None:
    with Served(StandIn(), max_queue=2, max_batch_items=1) as served:
        head = b"POST /v1/grade HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"
        slow = [socket.create_connection(served.address) for _ in range(2)]
        for connection in slow:
            connection.sendall(head)
        until(lambda: httpx.post(f"{served.url}/v1/grade", json=BODY).status_code == 429)
        assert httpx.get(f"{served.url}/metrics").status_code == 200
        for connection in slow:
            connection.close()
        until(lambda: httpx.post(f"{served.url}/v1/grade", json=BODY).status_code == 200)


def test_an_address_that_is_taken_is_told_before_the_judge_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as bound:
        bound.listen()
        port = bound.getsockname()[1]
        with pytest.raises(SystemExit) as end:
            main(["--judge", "nowhere", "--port", str(port)])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: --host, --port: cannot listen at 127.0.0.1:{port} (Address already in use)")


def test_loopback_is_told_from_the_rest() -> None:
    with listen("localhost", 0) as local, listen("0.0.0.0", 0) as all_of_them:
        assert (is_loopback(local), is_loopback(all_of_them)) == (True, False)
    with pytest.raises(ConfigError, match="cannot listen at no.such.host.invalid:0"):
        listen("no.such.host.invalid", 0)
    with pytest.raises(ConfigError, match="--port: 99999 is no port"):
        listen("127.0.0.1", 99999)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-queue", "0"], "error: --max-queue: 0 is not a whole number >= 1"),
        (["--token-env", "NOT_SET_ANYWHERE"], "error: --token-env: the environment variable NOT_SET_ANYWHERE is not set"),
    ],
)
def test_an_option_that_cannot_be_used_is_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--judge", "nowhere", *options])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tract.apps.server.command._PACKAGES", ("no_such_package",))
    with pytest.raises(SystemExit):
        main(["--judge", "nowhere"])
    assert capsys.readouterr().err == (
        "error: the package no_such_package is missing; run `pip install -c constraints.txt -e '.[serve]'`\n"
    )


@pytest.mark.parametrize(("host", "token", "warned"), [("0.0.0.0", None, True), ("0.0.0.0", "t0ken", False), ("127.0.0.1", None, False)])
def test_it_warns_where_everyone_can_reach_it_without_a_token(
    host: str, token: str | None, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(DEFAULT_TOKEN_ENV, raising=False)
    if token:
        monkeypatch.setenv(DEFAULT_TOKEN_ENV, token)

    def none(*arguments: Any, **options: Any) -> None:
        raise ConfigError("there is no judge")

    monkeypatch.setattr(Judge, "from_pretrained", none)
    with pytest.raises(SystemExit) as end:
        main(["--judge", str(tmp_path), "--port", "0", "--host", host])
    assert end.value.code == 2
    assert ("can use the judge without a token" in caplog.text) == warned


def test_help_loads_nothing_heavy() -> None:
    status, modules = status_and_modules(str(ROOT / "tract" / "__main__.py"), "serve", "--help")
    assert status == 0
    assert modules & {*HEAVY, "fastapi", "uvicorn", "pydantic", "prometheus_client"} == set()
