"""Histograms as text: a bar for each score of a grid, or for each of a few equal stretches of it. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from itertools import pairwise

BAR_CHARS = 40
# A grid with more scores is shown in stretches.
MOST_BARS = 20
STRETCHES = 10


class Histogram:
    """Counts of numbers.

    Attributes:
        labels: of the bars, from the lowest on. counts: of the numbers in each.
    """

    def __init__(self, labels: Sequence[str], edges: Sequence[float]) -> None:
        """Begins with no number.

        Args:
            labels: of the bars. edges: between them, ascending, one fewer; a number on an edge belongs to the bar below.
        """
        assert len(edges) == len(labels) - 1
        self.labels, self._edges = tuple(labels), tuple(edges)
        self.counts = [0] * len(labels)

    @classmethod
    def over(cls, labels: Sequence[str], values: Sequence[float]) -> Histogram:
        """One over a score grid: each number belongs to the score that is nearest, or to a tenth of the range."""
        if len(labels) <= MOST_BARS:
            return cls(labels, [(low + high) / 2 for low, high in pairwise(values)])
        return cls.between(values[0], values[-1], STRETCHES, "g")

    @classmethod
    def between(cls, low: float, high: float, stretches: int, form: str) -> Histogram:
        """One over ``stretches`` equal stretches of [low, high]; ``form`` is the format specification of their ends."""
        width = (high - low) / stretches
        edges = [low + width * k for k in range(stretches + 1)]
        return cls([f"{start:{form}} to {end:{form}}" for start, end in pairwise(edges)], edges[1:-1])

    def add(self, value: float) -> None:
        """Counts a number."""
        self.counts[bisect.bisect_left(self._edges, value)] += 1

    def lines(self) -> list[str]:
        """A line for each bar; the longest has ``BAR_CHARS``, and no number is no bar."""
        width, most = max(map(len, self.labels)), max(self.counts)
        lines = []
        for label, count in zip(self.labels, self.counts, strict=True):
            bar = "#" * max(1, round(BAR_CHARS * count / most)) + " " if count else ""
            lines.append(f"{label:>{width}} | {bar}{count}")
        return lines
