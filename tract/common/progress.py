"""How far long work is, as a line now and then: a bar does not fit into the logs of a batch system."""

from __future__ import annotations

import time
from collections.abc import Callable

# The horizontal axes of logged curves.
STEP_AXIS = "trainer/global_step"  # as Lightning's loggers call it: optimizer steps
EXAMPLES_AXIS, TOKENS_AXIS = "progress/examples", "progress/trained_tokens"
JOB_LOG = "TRACT_JOB_LOG"  # environment variable: the file to which the processes of a multirun's job write their log


class Progress:
    """Says how much of some work is done, how fast it goes and how long it takes from here.

    Rate and time left come from what this process did, not from what was done before. Batches come longest first, so the
    rate grows and the time left is rather over- than underrated.
    """

    def __init__(
        self,
        what: str,
        unit: str,
        total: int,
        done: int,
        log: Callable[[str], None],
        *,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins to count the time.

        Args:
            what: name of the work, the first word of each line. unit: what is counted, in the plural.
            total: units of the whole work. done: those that are done already.
            log: is given each line. every_s: seconds between two lines, at least. clock: seconds, from any origin.
        """
        self._what, self._unit = what, unit
        self._total, self._done, self._done_before = total, done, done
        self._log = log
        self._every_s = every_s
        self._clock = clock
        self._begun = self._logged = clock()

    def advance(self, count: int) -> None:
        """Adds ``count`` units that were done; logs a line if it is time for one, and always at the end."""
        self._done += count
        now = self._clock()
        if self._done >= self._total or now - self._logged >= self._every_s:
            self._logged = now
            self._log(self._line(now - self._begun))

    def _line(self, elapsed_s: float) -> str:
        share = 100 * self._done // self._total if self._total else 100  # rounded down: 100 % is the end
        parts = [f"{self._what}: {self._done} of {self._total} {self._unit} ({share} %)"]
        here = self._done - self._done_before
        if here and elapsed_s > 0:  # else there is no rate
            rate = here / elapsed_s
            parts.append(_speed(rate, self._unit))
            if self._done < self._total:
                parts.append(f"{duration((self._total - self._done) / rate)} left")
        if self._done >= self._total:
            parts.append(f"done after {duration(elapsed_s)}")
        return ", ".join(parts)


def _speed(per_s: float, unit: str) -> str:
    """The rate per s, min or h, so that it has a digit that says something."""
    for name, seconds in (("s", 1), ("min", 60)):
        if per_s * seconds >= 0.1:
            return f"{per_s * seconds:.1f} {unit}/{name}"
    return f"{per_s * 3600:.1f} {unit}/h"


def duration(seconds: float) -> str:
    """A time in words: "35 s", "12 min" or "3.4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
