"""A stage's judge whose model an engine runs: as many CoTs under way as the engine takes, judgements handed over as they end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from tract.inference.engines.driver import EngineDriver, requests_in_flight
from tract.inference.engines.engine import Engine, EngineRequests
from tract.inference.judgement import DIRECT, GivenCots, Judgement, Prompt
from tract.inference.sampling import Sampling
from tract.inference.worker import ClosedError
from tract.text.layout import SequenceLayout

# A judgement to be made, when its turn comes.
_Job = Callable[[EngineRequests], Coroutine[Any, Any, Judgement]]
# Judgements are handed over, and written to the disk, when there are so many or so much time has passed.
_KEPT_AT_ONCE, _KEPT_AFTER_S = 64, 5.0


class EngineJudge:
    """A judge whose model an engine runs.

    Args:
        start: starts the engine, or connects to it; called when the first judgement is wanted, so never where nothing is left to do.
        layout: cue, grid and end of turn; what the judge was trained with.
        sampling: how CoTs are drawn. seed: of the run; with example and sample it fixes every draw.
        ranks_per_judge: processes of the stage for each engine.
    """

    independent = True

    def __init__(
        self,
        start: Callable[[], Coroutine[Any, Any, Engine]],
        layout: SequenceLayout,
        sampling: Sampling,
        seed: int,
        ranks_per_judge: int = 1,
    ) -> None:
        self.layout = layout
        self.sampling = sampling
        self.seed = seed
        self.ranks_per_judge = ranks_per_judge
        self._start = start
        self._driver: EngineDriver | None = None

    def judge_parts(
        self,
        parts: Sequence[Sequence[Prompt]],
        n_cot: int,
        *,
        rows: int,
        without_cot: bool,
        free: bool,
        progress: Callable[[int], None],
    ) -> Iterator[list[Judgement]]:
        """See ``JudgeBackend``; ``progress`` is called in the engine's thread, while the caller waits."""
        jobs: Iterator[_Job] = (
            partial(EngineRequests.given, prompt=prompt, sample=sample, ids=())
            if sample == DIRECT
            else partial(EngineRequests.sampled, prompt=prompt, sample=sample, free=free)
            for part in parts
            for prompt in part
            for sample in (*([DIRECT] if without_cot else []), *range(n_cot))
        )
        yield from self._judged(jobs, rows, progress)

    def read_parts(
        self, parts: Sequence[Sequence[tuple[Prompt, GivenCots]]], *, rows: int, progress: Callable[[int], None]
    ) -> Iterator[list[Judgement]]:
        """See ``JudgeBackend`` and ``judge_parts``."""
        jobs: Iterator[_Job] = (
            partial(EngineRequests.given, prompt=prompt, sample=sample, ids=ids)
            for part in parts
            for prompt, given in part
            for sample, ids in given
        )
        yield from self._judged(jobs, rows, progress)

    def close(self) -> None:
        """Ends the engine."""
        if self._driver is not None:
            self._driver.close()

    def _judged(self, jobs: Iterator[_Job], rows: int, progress: Callable[[int], None]) -> Iterator[list[Judgement]]:
        """Keeps the engine busy until all jobs are done."""
        if (first := next(jobs, None)) is None:
            return
        if self._driver is None:
            self._driver = EngineDriver(self._start)
        jobs = chain([first], jobs)
        requests = EngineRequests(self._driver.engine, self.layout, self.sampling, self.seed)
        running: set[asyncio.Task[Judgement]] = set()
        try:
            while judgements := self._driver.run(_next_judgements, jobs, requests, running, requests_in_flight(rows), progress):
                yield judgements
        finally:  # after an error, or where nobody wants the rest
            with contextlib.suppress(ClosedError):  # closing has cancelled them
                self._driver.run(_cancel, running)


async def _next_judgements(
    jobs: Iterator[_Job], requests: EngineRequests, running: set[asyncio.Task[Judgement]], most: int, progress: Callable[[int], None]
) -> list[Judgement]:
    """The next judgements that end; none when there are no more. ``running``: those that are being made, at most ``most``."""
    judgements: list[Judgement] = []
    began = time.monotonic()
    while len(judgements) < _KEPT_AT_ONCE and (not judgements or time.monotonic() - began < _KEPT_AFTER_S):
        while len(running) < most and (job := next(jobs, None)) is not None:
            running.add(asyncio.create_task(job(requests)))
        if not running:
            break
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        judgements += [task.result() for task in done]
        running -= done  # not before: where several fail at once, none is left unheard
        progress(len(done))
    return judgements


async def _cancel(running: set[asyncio.Task[Judgement]]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
