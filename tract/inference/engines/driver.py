"""One event loop for one engine (vLLM, a server): the loop runs in a thread of its own, requests come from any other thread."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from tract.inference.worker import CLOSE_TIMEOUT_S, ClosedError

T = TypeVar("T")

# An engine finds a request waiting whenever one ends, if an eighth more than it takes at a time are sent to it.
_WAITING_SHARE = 8
# Coroutines that close an engine from its own thread: a loop holds its tasks weakly.
_CLOSING: set[asyncio.Task[None]] = set()


class EngineDriver:
    """Starts an engine and runs coroutines that ask it.

    Args:
        start: starts the engine or connects to it; called at once, in the loop.

    Attributes:
        engine: what ``start`` returned.

    Raises:
        ConfigError: if the engine does not start.
    """

    def __init__(self, start: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tract-judge", daemon=True)
        self._thread.start()
        try:
            self.engine = asyncio.run_coroutine_threadsafe(start(), self._loop).result()
        except BaseException:
            _stop_loop(self._loop, self._thread)
            raise
        # Also when the last user forgets to close it.
        self._finalizer = weakref.finalize(self, _close_engine, self.engine, self._loop, self._thread)

    def submit(self, coroutine: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> Future[T]:
        """The future result of ``coroutine(*arguments)``.

        Raises:
            ClosedError: if the driver was closed.
        """
        if not self._finalizer.alive:
            raise ClosedError
        return asyncio.run_coroutine_threadsafe(coroutine(*arguments), self._loop)

    def run(self, coroutine: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """The result of ``coroutine(*arguments)``; the coroutine is cancelled if the wait for it is interrupted.

        Raises:
            ClosedError: if the driver was closed.
        """
        future = self.submit(coroutine, *arguments)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancels what is running, closes the engine and ends the thread."""
        self._finalizer()


def requests_in_flight(rows: int) -> int:
    """How many judgements are under way at a time, for an engine that takes ``rows`` sequences at a time."""
    return rows + max(1, rows // _WAITING_SHARE)


def _close_engine(engine: Any, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    async def close() -> None:
        running = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await engine.close()

    if threading.current_thread() is thread:  # closed by a callback, or collected there: nobody could wait for it
        closing = loop.create_task(close())
        _CLOSING.add(closing)
        closing.add_done_callback(lambda _: loop.stop())
        closing.add_done_callback(_CLOSING.discard)
        return
    try:
        asyncio.run_coroutine_threadsafe(close(), loop).result()
    finally:
        _stop_loop(loop, thread)


def _stop_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join(CLOSE_TIMEOUT_S)
    if not thread.is_alive():
        loop.close()
