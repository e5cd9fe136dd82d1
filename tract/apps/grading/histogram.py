"""Histograms as text: a bar for each score of a grid, or for each of a few equal stretches of it. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

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
            return cls(labels, [(low + high) / 2 for low, high in zip(values, values[1:], strict=False)])
        width = (values[-1] - values[0]) / STRETCHES
        edges = [values[0] + width * k for k in range(STRETCHES + 1)]
        return cls([f"{low:g} to {high:g}" for low, high in zip(edges, edges[1:], strict=False)], edges[1:-1])

    def add(self, value: float) -> None:
        """Counts a number."""
        self.counts[bisect.bisect_left(self._edges, value)] += 1

    def lines(self) -> list[str]:
        """A line for each bar; the longest has ``BAR_CHARS``, and no number is no bar."""
        return bars(zip(self.labels, self.counts, strict=True))


def bars(counts: Iterable[tuple[str, int]]) -> list[str]:
    """A line for each (label, count): the label, a bar, the count."""
    counts = list(counts)
    width, most = max(len(label) for label, _ in counts), max(count for _, count in counts)
    lengths = [max(1, round(BAR_CHARS * count / most)) if count else 0 for _, count in counts]
    return [
        f"{label:>{width}} | {'#' * length}{' ' if length else ''}{count}" for (label, count), length in zip(counts, lengths, strict=True)
    ]
