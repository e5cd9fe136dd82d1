"""From a request's JSON to grades: checked, submitted all or none, waited for, and given up when nobody waits any more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from concurrent.futures import Future

from starlette.requests import Request

from tract.apps.server.bodies import GradeBody, RubricBody
from tract.apps.server.errors import CLIENT_GONE, RequestRefusedError, shutting_down, too_busy
from tract.apps.server.service import Service
from tract.common.errors import DataError, GenerationError, TractError
from tract.judge.grades import ERROR, Grade, failed
from tract.judge.requests import GradeRequest

# How a score is written where a rubric may bring its own grid; one way for each number, so that none is described twice.
LABEL = re.compile(r"^(0|-?[1-9][0-9]{0,5}|-?(0|[1-9][0-9]{0,5})\.[0-9]{0,3}[1-9])$")


def request_of(body: GradeBody, service: Service, place: str = "") -> GradeRequest:
    """The judge's request of a body.

    Args:
        place: of the item in its batch, for messages, e.g. "items[3].".

    Raises:
        RequestRefusedError: 422 if it cannot be used.
    """
    most = service.settings.max_n_cot
    if body.n_cot is not None and body.n_cot > most:
        raise RequestRefusedError(422, f"{place}n_cot: {body.n_cot} is more than the {most} that this server accepts; ask for fewer")
    if isinstance(body.rubric, RubricBody):
        _check_labels(body.rubric, service, place)
    try:
        return GradeRequest.of(body.model_dump())
    except DataError as error:
        raise RequestRefusedError(422, f"{place}{error}") from None


def _check_labels(rubric: RubricBody, service: Service, place: str) -> None:
    labels = service.judge.grid.labels
    fixed = service.judge.settings.fixed_grid
    for label in rubric.descriptions:
        if not (label in labels if fixed else LABEL.match(label)):
            accepted = f"the judge's scores are {', '.join(labels)}" if fixed else "scores are written as 4 or 4.5"
            raise RequestRefusedError(422, f"{place}rubric.descriptions: {label!r} is no score that can be described; {accepted}")


async def grades_of(service: Service, requests: Sequence[GradeRequest], asked: Request) -> list[Grade]:
    """The grades of all requests, in their order.

    Raises:
        RequestRefusedError: 429 if they do not fit into the queue, 503 if the server ends, 504 if they take too long; ``CLIENT_GONE``
            if the client went away. Then nothing of them is left in the queue.
    """
    futures = await _submitted(service, requests)
    waiting = [asyncio.wrap_future(future) for future in futures]
    graded = asyncio.gather(*waiting, return_exceptions=True)
    gone = asyncio.create_task(_gone(asked))
    limit = service.settings.request_timeout_s
    try:
        await service.wait(graded, gone, timeout_s=limit)
        if graded.done():
            return _settled(service, requests, graded.result())
        if gone.done():
            raise RequestRefusedError(CLIENT_GONE, "the client went away")
        raise RequestRefusedError(504, f"no grade within {limit:g} s; send fewer items at a time, or fewer CoTs (n_cot)")
    finally:
        gone.cancel()
        _give_up(futures, waiting)


async def _submitted(service: Service, requests: Sequence[GradeRequest]) -> list[Future[Grade]]:
    """The futures of all requests; where they do not all fit, or one is not taken, none of them stays in the queue."""
    taken, most = service.judge.pending + service.submitting, service.settings.max_queue
    if taken + len(requests) > most:
        raise too_busy(f"the queue holds {taken} of {most} items, so {len(requests)} more do not fit; try again later")
    service.submitting += len(requests)
    futures: list[Future[Grade]] = []
    try:
        for request in requests:
            # In a thread, since prompts are tokenised there, and others are to be answered meanwhile.
            futures.append(await asyncio.to_thread(service.judge.submit, request))
            service.submitting -= 1
    except BaseException as error:
        service.submitting -= len(requests) - len(futures)
        _give_up(futures)
        if isinstance(error, GenerationError):  # the judge was closed
            raise shutting_down() from None
        if isinstance(error, TractError):
            raise RequestRefusedError(422, str(error)) from None
        raise
    return futures


def _give_up(futures: Sequence[Future[Grade]], waiting: Sequence[asyncio.Future[Grade]] = ()) -> None:
    """What waits leaves the judge's queue, and nothing waits for what is being graded; both do not mind if it is done."""
    for future in futures:
        future.cancel()
    for each in waiting:
        each.cancel()


def _settled(service: Service, requests: Sequence[GradeRequest], results: Sequence[Grade | BaseException]) -> list[Grade]:
    """The grades, counted; an item whose future failed is one with status "error"."""
    if any(isinstance(result, asyncio.CancelledError) for result in results):
        raise shutting_down()  # the judge was closed while they were waiting
    grades = [
        result if isinstance(result, Grade) else failed(request.shown_id, ERROR, f"the judge failed ({type(result).__name__})")
        for request, result in zip(requests, results, strict=True)
    ]
    service.metrics.grades(grades)
    return grades


async def _gone(asked: Request) -> None:
    """Ends when the client goes away."""
    while (await asked.receive())["type"] != "http.disconnect":
        pass
