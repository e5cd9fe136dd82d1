"""What a graded file holds, in a few lines: rows by status, mean score, score mass, a histogram. Memory stays flat."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tract.grading.failures import Failures
from tract.grading.histogram import Histogram
from tract.judge.grades import STATUSES
from tract.score_grid import ScoreGrid


class Mean:
    """Mean and standard deviation of numbers that come one by one (Welford)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._squares = 0.0

    def add(self, value: float) -> None:
        """Counts a number."""
        self.count += 1
        before = value - self._mean
        self._mean += before / self.count
        self._squares += before * (value - self._mean)

    @property
    def mean(self) -> float | None:
        """None without a number."""
        return self._mean if self.count else None

    @property
    def std(self) -> float | None:
        """The standard deviation of a sample (n - 1); None with fewer than two."""
        return math.sqrt(self._squares / (self.count - 1)) if self.count > 1 else None


class Summary:
    """Counts of graded rows.

    Attributes:
        statuses: status -> rows. scores: of the rows that have one. mass: score mass where it was read.
        shortened: rows of which a field was shortened. failures: why rows have no grade.
        not_finite, unreadable: values of the input that the output shows as null.
    """

    def __init__(self, grid: ScoreGrid) -> None:
        """Begins with no row; ``grid`` is that of the histogram."""
        self.statuses: Counter[str] = Counter()
        self.scores, self.mass = Mean(), Mean()
        self.histogram = Histogram.over(grid.labels, grid.values)
        self.shortened = self.not_finite = self.unreadable = 0
        self.failures = Failures()

    def counted(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same records, counted as they go by."""
        for record in records:
            self.add(record)
            yield record

    def add(self, record: dict[str, Any]) -> None:
        """Counts the graded columns of a row."""
        self.statuses[record["judge_status"]] += 1
        self.shortened += bool(record["judge_shortened"])
        if record["judge_error"]:
            self.failures.add(record["judge_error"])
        if record["judge_score"] is not None:
            self.scores.add(record["judge_score"])
            self.histogram.add(record["judge_score"])
        if record["judge_score_mass"] is not None:
            self.mass.add(record["judge_score_mass"])

    @property
    def rows(self) -> int:
        """All rows."""
        return self.statuses.total()

    def lines(self, seconds: str) -> list[str]:
        """The table, then the histogram.

        Args:
            seconds: how long it took, in words.
        """
        rows = [("rows", str(self.rows))]
        rows += [(f"  {name}", _share(self.statuses[name], self.rows)) for name in STATUSES if self.statuses[name] or name == "ok"]
        rows += [("with a score", _share(self.scores.count, self.rows)), ("mean score", self._mean_score())]
        mass = self.mass.mean
        rows += [("mean score mass", "none was read" if mass is None else f"{mass:.3f}")]
        rows += [("shortened", _share(self.shortened, self.rows)), ("time", seconds)]
        if self.not_finite:
            rows.append(("NaN or infinity in the input", f"{self.not_finite}, null in the output"))
        if self.unreadable:
            rows.append(("unreadable cells in the input", f"{self.unreadable}, null in the output"))
        rows += [("" if number else "errors", line) for number, line in enumerate(self.failures.lines())]
        width = max(len(name) for name, _ in rows)
        table = [f"{name:<{width}}  {value}" for name, value in rows]
        return [*table, "", "scores, each counted at the nearest of the grid", *self.histogram.lines()] if self.scores.count else table

    def _mean_score(self) -> str:
        mean, std = self.scores.mean, self.scores.std
        if mean is None:
            return "none: no row got a score"
        return f"{mean:.3f}" if std is None else f"{mean:.3f} (standard deviation {std:.3f})"


def _share(count: int, rows: int) -> str:
    return f"{count} ({100 * count / rows:.1f} %)" if rows else str(count)
