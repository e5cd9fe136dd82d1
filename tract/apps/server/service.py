"""What the parts of one server share: the judge, the limits, the counters, and whether it is ending."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from tract.apps.server.errors import shutting_down
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
        broken_off: set when nothing that has begun is waited for any more; what is still read, or waits for grades, is answered with 503.
    """

    judge: ServedJudge
    settings: ServerSettings
    metrics: Metrics
    draining: bool = False
    in_flight: int = 0
    submitting: int = 0
    broken_off: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, *work: asyncio.Future[Any], timeout_s: float) -> None:
        """Waits until one of these futures is done, at most so long.

        Raises:
            RequestRefusedError: 503 if ``broken_off`` was set before.
        """
        broken_off = asyncio.create_task(self.broken_off.wait())
        try:
            await asyncio.wait((*work, broken_off), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            broken_off.cancel()
        if self.broken_off.is_set() and not any(future.done() for future in work):
            raise shutting_down()
