"""A worker whose model an engine runs (vLLM, a server): each CoT is a coroutine in the loop of the engine's driver."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from tract.inference.engines.driver import EngineDriver, requests_in_flight
from tract.inference.engines.engine import Engine, EngineRequests
from tract.inference.judgement import DIRECT, Judgement
from tract.inference.worker import ReadoutConfig, Work

# Makes one judgement: of the work, the CoT with this number.
MakeJudgement = Callable[[Work, int], Coroutine[Any, Any, Judgement]]


def by_token_ids(engine: Engine, seed: int) -> MakeJudgement:
    """Judges by requests of token ids."""
    requests: weakref.WeakKeyDictionary[ReadoutConfig, EngineRequests] = weakref.WeakKeyDictionary()

    async def judge(work: Work, sample: int) -> Judgement:
        reading = work.reading
        own = requests.get(reading)
        if own is None:
            own = requests[reading] = EngineRequests(engine, reading.layout, reading.sampling, seed)
        if sample == DIRECT:
            return await own.given(work.prompt, DIRECT, ())
        return await own.sampled(work.prompt, sample, reading.free)

    return judge


class EngineWorker:
    """Judges with an engine; see ``Worker``.

    Args:
        start: starts the engine or connects to it; called at once. seed: of all draws. rows: CoTs that the engine takes at a time.
        judge_with: how the engine is asked, from the engine and the seed.

    Raises:
        ConfigError: if the engine does not start.
    """

    def __init__(
        self,
        start: Callable[[], Coroutine[Any, Any, Any]],
        *,
        seed: int,
        rows: int,
        judge_with: Callable[[Any, int], MakeJudgement] = by_token_ids,
    ) -> None:
        self._driver = EngineDriver(start)
        self._judge = judge_with(self._driver.engine, seed)
        self._places = asyncio.Semaphore(requests_in_flight(rows))

    def submit(self, work: Work) -> Future[list[Judgement]]:
        """See ``Worker``."""
        return self._driver.submit(_judgements, self._judge, self._places, work)

    def close(self) -> None:
        """See ``Worker``."""
        self._driver.close()


async def _judgements(judge: MakeJudgement, places: asyncio.Semaphore, work: Work) -> list[Judgement]:
    """The judgements of a work; where one of its CoTs fails, the others are given up."""

    async def one(sample: int) -> Judgement:
        async with places:
            return await judge(work, sample)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(sample)) for sample in (range(work.n_cot) if work.n_cot else (DIRECT,))]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    return [task.result() for task in tasks]
