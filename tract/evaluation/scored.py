"""Scores of one judge on one benchmark, and a number with its interval: what all statistics take and give. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """What one judge says about the n items of one benchmark, in the benchmark's order; the same rows for every predictor.

    Attributes:
        benchmark: its name.
        ids: [n] item ids. questions: [n] question ids; intervals are clustered by them.
        targets: [n] true scores, in points.
        response_words: [n] words of the response, for the length baseline.
        scores: predictor -> [n] points, finite; an item's failed draws count with the declared score.
        failures: predictor -> [n] share of the item's draws that failed, in [0, 1].
        score_mass: predictor -> [n] probability of the whole grid where the predictor reads it, mean over the item's draws.
    """

    benchmark: str
    ids: tuple[str, ...]
    questions: tuple[str, ...]
    targets: Array
    response_words: Array
    scores: Mapping[str, Array]
    failures: Mapping[str, Array]
    score_mass: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval; None where it is not defined (a correlation with constant predictions, say)."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high); None without an interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def to_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}

    @classmethod
    def from_dict(cls, content: Mapping[str, float | None]) -> Estimate:
        """The estimate in an object that ``to_dict`` made.

        Raises:
            KeyError: if it lacks one of the three numbers.
        """
        return cls(content["value"], content["low"], content["high"])
