"""What the parts of one server share: the judge, the limits, the counters, and whether it is ending."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from tract.apps.server.metrics import Metrics
from tract.apps.server.settings import ServerSettings
from tract.artifacts.judge_settings import JudgeSettings
from tract.judge.grades import Grade
from tract.judge.requests import GradeRequest
from tract.text.score_grid import ScoreGrid


class ServedJudge(Protocol):
    """What a server asks of a judge; ``tract.Judge`` is one."""

    @property
    def settings(self) -> JudgeSettings:
        """How it works."""

    @property
    def grid(self) -> ScoreGrid:
        """The scores that it gives."""

    @property
    def pending(self) -> int:
        """Requests that were submitted and have not ended."""

    def submit(self, request: GradeRequest) -> Future[Grade]:
        """The grade to come; does not wait for the model."""

    def close(self) -> None:
        """Ends what works for it."""


@dataclass
class Service:
    """One server at work; used by the event loop's thread alone.

    Attributes:
        judge, settings, metrics: as they say.
        draining: whether the server is ending, so that nothing new is taken.
        in_flight: requests that were taken and are not answered yet.
        submitting: items that have a place in the queue and are on their way to it.
        broken_off: whether nothing that has begun is waited for any more.
    """

    judge: ServedJudge
    settings: ServerSettings
    metrics: Metrics
    draining: bool = False
    in_flight: int = 0
    submitting: int = 0
    broken_off: bool = False
    _waiting: set[asyncio.Future[None]] = field(default_factory=set)

    @contextmanager
    def until_broken_off(self) -> Iterator[asyncio.Future[None]]:
        """A future that is done when ``break_off`` was called, for the time of the block."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.broken_off:
            told.set_result(None)
        self._waiting.add(told)
        try:
            yield told
        finally:
            self._waiting.discard(told)

    def break_off(self) -> None:
        """Lets every request that is still read, or waits for grades, be answered with 503."""
        self.broken_off = True
        for told in self._waiting:
            if not told.done():
                told.set_result(None)
