"""A judge that an engine runs (vLLM, a server): requests from a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from tract.inference.chat.engine import ChatEngine, chat_judgement
from tract.inference.engines.engine import Engine, EngineRequests
from tract.inference.judgement import DIRECT, Judgement
from tract.judge.worker import END_S, ClosedError, ReadoutConfig, Work

# An engine finds a request waiting whenever one ends, if an eighth more than it takes at a time are sent to it.
_WAITING_SHARE = 8
# One judgement: the work, the number of the CoT.
Asking = Callable[[Work, int], Coroutine[Any, Any, Judgement]]


def by_token_ids(engine: Engine, seed: int) -> Asking:
    """Asks an engine with token ids."""
    requests: weakref.WeakKeyDictionary[ReadoutConfig, EngineRequests] = weakref.WeakKeyDictionary()

    async def ask(work: Work, sample: int) -> Judgement:
        reading = work.reading
        own = requests.get(reading)
        if own is None:
            own = requests[reading] = EngineRequests(engine, reading.layout, reading.sampling, seed)
        if sample == DIRECT:
            return await own.given(work.prompt, DIRECT, ())
        return await own.sampled(work.prompt, sample, reading.free)

    return ask


def by_text(engine: ChatEngine, seed: int) -> Asking:
    """Asks a hosted chat model with texts."""

    async def ask(work: Work, sample: int) -> Judgement:
        layout, texts = work.reading.layout, (work.text.system, work.text.user)
        return await chat_judgement(engine, work.prompt, texts, sample, layout.cue, layout.grid, work.reading.sampling, seed)

    return ask


class EngineWorker:
    """Requests to an engine, from a loop in a thread of its own.

    Args:
        start: starts the engine or connects to it; done at once. seed: of all draws. rows: CoTs that the engine takes at a time.
        asking: how the engine is asked, from the engine and the seed.

    Raises:
        ConfigError: if the engine does not start.
    """

    def __init__(
        self,
        start: Callable[[], Coroutine[Any, Any, Any]],
        *,
        seed: int,
        rows: int,
        asking: Callable[[Any, int], Asking] = by_token_ids,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tract-judge", daemon=True)
        self._thread.start()
        self._state: _EngineState | None = None
        try:
            self._engine = asyncio.run_coroutine_threadsafe(start(), self._loop).result()
        except BaseException:
            _end_loop(self._loop, self._thread)
            raise
        self._state = _EngineState(asking(self._engine, seed), rows + max(1, rows // _WAITING_SHARE))
        # Also when the last user forgets to close it.
        self._finalizer = weakref.finalize(self, _end_engine, self._engine, self._loop, self._thread)

    def submit(self, work: Work) -> Future[list[Judgement]]:
        """See ``Worker``."""
        if not self._finalizer.alive:
            raise ClosedError
        assert self._state is not None
        return asyncio.run_coroutine_threadsafe(self._state.judged(work), self._loop)

    def close(self) -> None:
        """See ``Worker``."""
        self._finalizer()


class _EngineState:
    """What the coroutines share; it does not know the worker, so that this can go."""

    def __init__(self, ask: Asking, window: int) -> None:
        self._ask = ask
        self._places = asyncio.Semaphore(window)

    async def judged(self, work: Work) -> list[Judgement]:
        """The judgements of a work; where one of its CoTs fails, the others are given up."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._one(work, sample)) for sample in (range(work.n_cot) if work.n_cot else (DIRECT,))]
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _one(self, work: Work, sample: int) -> Judgement:
        async with self._places:
            return await self._ask(work, sample)


# Loops hold their tasks weakly.
_ENDING: set[asyncio.Task[None]] = set()


def _end_engine(engine: Any, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    async def end() -> None:
        going = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        await engine.close()

    if threading.current_thread() is thread:  # closed by a callback, or collected there: nobody could wait for it
        ending = loop.create_task(end())
        _ENDING.add(ending)
        ending.add_done_callback(lambda _: loop.stop())
        ending.add_done_callback(_ENDING.discard)
        return
    try:
        asyncio.run_coroutine_threadsafe(end(), loop).result()
    finally:
        _end_loop(loop, thread)


def _end_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join(END_S)
    if not thread.is_alive():
        loop.close()
