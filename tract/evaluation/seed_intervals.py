"""Means over seeds and what they are worth: Student's t over seeds, resampled questions over test items. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from tract.evaluation.scored import Estimate

# What an interval covers.
SEEDS, QUESTIONS, NONE = "seeds", "questions", ""
# With two, the interval is 12.7 standard errors to each side at 95 %, of a standard error that is itself known from one difference.
MIN_SEEDS = 3


@dataclass(frozen=True, slots=True)
class SeedMean:
    """The mean over seeds of a metric.

    Attributes:
        estimate: with its interval. kind: what this covers: ``SEEDS``, ``QUESTIONS`` or, without an interval, ``NONE``.
        seeds: those with a value. runs: all of them, those where the metric is not defined included.
    """

    estimate: Estimate
    kind: str
    seeds: int
    runs: int


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean over seeds of this judge minus the reference of the same seed.

    Attributes:
        over_seeds: with the t-interval over seeds. over_questions: the same mean, with a bootstrap interval over questions.
        seeds: pairs with a value. pairs: all of them, those where the metric is not defined on either side included.
    """

    over_seeds: Estimate
    over_questions: Estimate
    seeds: int
    pairs: int

    @property
    def shown(self) -> tuple[Estimate, str]:
        """(estimate, what its interval covers): over seeds where there are ``MIN_SEEDS``, else over questions."""
        if self.over_seeds.low is not None:
            return self.over_seeds, SEEDS
        return self.over_questions, NONE if self.over_questions.low is None else QUESTIONS


def t_interval(values: Sequence[float], confidence: float) -> Estimate:
    """The mean of values with Student's t-interval of n - 1 degrees of freedom.

    Args:
        values: one for each seed. With fewer than ``MIN_SEEDS`` there is no interval, without any no mean. confidence: in (0, 1).
    """
    if not values:
        return Estimate(None)
    mean = float(np.mean(values))
    if len(values) < MIN_SEEDS:
        return Estimate(mean)
    half = float(stdtrit(len(values) - 1, (1 + confidence) / 2) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, mean - half, mean + half)


def mean_of(
    values: Sequence[float | None], confidence: float, of_one: Callable[[int], Estimate], limits: tuple[float, float] | None = None
) -> SeedMean:
    """The mean over seeds.

    Args:
        values: one for each seed; None where the metric is not defined.
        limits: what the metric can be at all; the interval over seeds, which does not know it, is cut there.
        of_one: number of a seed -> its value with the interval over questions; asked where only one seed has a value.
    """
    defined = [k for k, value in enumerate(values) if value is not None]
    if len(defined) == 1:
        estimate = of_one(defined[0])
        return SeedMean(estimate, NONE if estimate.low is None else QUESTIONS, 1, len(values))
    estimate = t_interval([value for value in values if value is not None], confidence)
    if limits is not None and estimate.interval is not None:
        estimate = Estimate(estimate.value, max(estimate.interval[0], limits[0]), min(estimate.interval[1], limits[1]))
    return SeedMean(estimate, NONE if estimate.low is None else SEEDS, len(defined), len(values))
