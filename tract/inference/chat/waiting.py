"""Waiting for a server that is busy: as long as it asks, else longer each time."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from tract.common.errors import GenerationError

log = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds. Waits that a server does not ask for double from the first to the longest. What it asks for is waited up to the last.
_FIRST_S, _LONGEST_S, _MOST_ASKED_S = 0.5, 8.0, 3600.0


class BusyError(GenerationError):
    """A server that may answer later.

    Attributes:
        wait_s: for how long it asks to be left alone; None if it does not say.
    """

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that the headers of an answer ask to wait (``retry-after-ms``, or ``Retry-After`` in seconds or as a date); None for none."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            date = email.utils.parsedate_tz(value)
            seconds = math.nan if date is None else email.utils.mktime_tz(date) - time.time()
        if not math.isnan(seconds):
            return max(0.0, seconds)
    return None


async def with_retries(ask: Callable[[], Awaitable[T]], max_retries: int, who: str, warned: set[str]) -> T:
    """The answer to a request, asked again while the server is busy.

    Args:
        ask: makes the request. max_retries: times that it is made again. who: the model, for the log.
        warned: what the log has been told already, so that it is told once.

    Raises:
        GenerationError: if there is no answer. Of a busy server with the number of tries.
    """
    tries = 0
    while True:
        try:
            return await ask()
        except BusyError as error:
            tries += 1
            if error.wait_s is not None and error.wait_s > _MOST_ASKED_S:
                raise GenerationError(
                    f"{error} (it asks for a wait of {error.wait_s:.0f} s; the longest is {_MOST_ASKED_S:.0f} s)"
                ) from error
            if tries > max_retries:
                raise GenerationError(f"{error} ({_times(tries)})") from error
            if "busy" not in warned:
                warned.add("busy")
                log.warning("%s: %s; requests wait%s and are retried", who, error, " as it asks" if error.wait_s else "")
            step = min(_FIRST_S * 2 ** min(tries - 1, 30), _LONGEST_S)
            # Requests that are put off together do not all come back together.
            await asyncio.sleep(error.wait_s + step * random.random() if error.wait_s else step * random.uniform(0.75, 1.0))


def _times(tries: int) -> str:
    return "1 attempt" if tries == 1 else f"{tries} attempts"
