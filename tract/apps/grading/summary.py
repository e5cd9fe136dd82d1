"""What a graded file holds, in a few lines: rows by status, mean score, score mass, a histogram. Memory stays flat."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from tract.apps.grading.failures import Failures
from tract.apps.grading.scales import Scale, normalized, scale_of, shown_scale
from tract.common.counts import GRADES
from tract.evaluation.cells import name_value_lines
from tract.evaluation.text_histogram import Histogram
from tract.judge.grades import STATUSES
from tract.text.score_grid import ScoreGrid

# Scales that are shown; of further ones the rows are counted.
MOST_SCALES = 8


class RunningMean:
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


class _OnScale:
    """The scores on one scale: their mean in points and their histogram."""

    def __init__(self, scale: Scale) -> None:
        self.scores = RunningMean()
        self.histogram = Histogram.over([f"{value:g}" for value in scale], scale)

    def add(self, score: float) -> None:
        self.scores.add(score)
        self.histogram.add(score)

    def mean(self) -> str:
        mean, std = self.scores.mean, self.scores.std
        if mean is None:
            return "none: no row got a score"
        return f"{mean:.3f}" if std is None else f"{mean:.3f} (standard deviation {std:.3f})"


class Summary:
    """Counts of graded rows. Scores on several scales have a mean each, and none over all but one of normalized scores.

    Attributes:
        statuses: status -> rows. scores: of the rows that have one, (score - lowest) / (highest - lowest) of their scale.
        scales: scale -> its scores. mass: score mass where it was read.
        shortened: rows of which a field was shortened. failures: why rows have no grade.
        not_finite, unreadable: values of the input that the output shows as null.
    """

    def __init__(self, grid: ScoreGrid) -> None:
        """Begins with no row; ``grid`` is that of the judge, for scores without a distribution."""
        self.statuses: Counter[str] = Counter()
        self.scores, self.mass = RunningMean(), RunningMean()
        self.scales: dict[Scale, _OnScale] = {}
        self._own = grid.values
        self._scale_of = lru_cache(maxsize=1024)(scale_of)  # rows have few scales
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
        if (score := record["judge_score"]) is not None:
            scale = self._scale_of(tuple(record["judge_distribution"])) or self._own
            if scale not in self.scales:
                self.scales[scale] = _OnScale(scale)
            self.scales[scale].add(score)
            self.scores.add(normalized(score, scale))
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
        rows += [(f"  {name}", self._status(name)) for name in STATUSES if self.statuses[name] or name == "ok"]
        rows += [("with a score", _share(self.scores.count, self.rows)), *self._means()]
        mass = self.mass.mean
        rows += [("mean score mass", "none was read" if mass is None else f"{mass:.3f}")]
        rows += [("shortened", _share(self.shortened, self.rows)), ("time", seconds)]
        if self.not_finite:
            rows.append(("NaN or infinity in the input", f"{self.not_finite}, null in the output"))
        if self.unreadable:
            rows.append(("unreadable cells in the input", f"{self.unreadable}, null in the output"))
        rows += [("" if number else "errors", line) for number, line in enumerate(self.failures.lines())]
        table = name_value_lines(rows)
        for scale, own in self._most_frequent():
            on = f" of {shown_scale(scale)}" if len(self.scales) > 1 else ""
            table += ["", f"scores{on}, each counted at the nearest of the grid", *own.histogram.lines()]
        return table

    def _status(self, name: str) -> str:
        share = _share(self.statuses[name], self.rows)
        return f"{share}: {GRADES[name]}" if name in GRADES else share

    def _most_frequent(self) -> list[tuple[Scale, _OnScale]]:
        """The scales with the most rows, those first."""
        return sorted(self.scales.items(), key=lambda item: (-item[1].scores.count, item[0]))[:MOST_SCALES]

    def _means(self) -> list[tuple[str, str]]:
        """(name, value) of the mean score, or of each scale's and of the normalized scores'."""
        if len(self.scales) <= 1:
            own = next(iter(self.scales.values()), None)
            return [("mean score", own.mean() if own else "none: no row got a score")]
        rows = [("mean score", f"none over {len(self.scales)} scales; of each:")]
        rows += [(f"  of {shown_scale(scale)}", f"{own.mean()}, rows: {own.scores.count}") for scale, own in self._most_frequent()]
        if hidden := len(self.scales) - MOST_SCALES:
            counted = self.scores.count - sum(own.scores.count for _, own in self._most_frequent())
            rows += [("  of further scales", f"{hidden} scales, rows: {counted}")] if hidden > 0 else []
        return [*rows, ("  normalized", f"{self.scores.mean:.3f}, 0 the lowest and 1 the highest score of each row's scale")]


def _share(count: int, rows: int) -> str:
    return f"{count} ({100 * count / rows:.1f} %)" if rows else str(count)
