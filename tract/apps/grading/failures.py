"""Why rows have no grade, in as few lines as there are reasons: failures that differ in a row's place or a number are one kind."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Kinds that are told apart; more than these are counted together.
MOST_KINDS = 64
# Kinds that are written out.
SHOWN_KINDS = 5
_LONGEST = 300
# What differs between equal failures: where the row stands, ids of requests and objects, numbers.
_PLACE = re.compile(r"^\S+?(:\d+|\[\d+\]): ")
_ID = re.compile(r"\b(?=\w*\d)[\w-]{12,}\b|\d+(\.\d+)?")


@dataclass
class _Kind:
    count: int
    first: str


class Failures:
    """Errors of rows, counted by kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}
        self._others = 0

    def add(self, error: str) -> None:
        """Counts the error of a row."""
        kind = _ID.sub("#", _PLACE.sub("", error))
        if kind in self._kinds:
            self._kinds[kind].count += 1
        elif len(self._kinds) < MOST_KINDS:
            self._kinds[kind] = _Kind(1, error)
        else:
            self._others += 1

    def lines(self) -> list[str]:
        """Each kind with its count and the first error of it, the most frequent first; empty without an error."""
        kinds = sorted(self._kinds.values(), key=lambda kind: -kind.count)
        lines = [f"{kind.count} x {_short_error(kind.first)}" for kind in kinds[:SHOWN_KINDS]]
        rest = sum(kind.count for kind in kinds[SHOWN_KINDS:]) + self._others
        return [*lines, f"{rest} x other errors"] if rest else lines


def _short_error(error: str) -> str:
    line = " ".join(error.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
