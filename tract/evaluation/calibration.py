"""Calibration of scores on validation data: a temperature of the score distribution, or a monotone map of the expected score. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tract.common.errors import ConfigError, DataError

METHODS = ("temperature", "isotonic")
# Temperatures that are tried; beyond them a distribution is a point or flat.
_TEMPERATURES = (0.05, 20.0)
# Items below which a fit says more about chance than about the judge.
LEAST_ITEMS = 10

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What was fitted.

    Attributes:
        method: one of ``METHODS``.
        temperature: probabilities are raised to 1 / temperature and normalised over the grid; for "temperature".
        raw, calibrated: knots of the map from expected scores to scores, both ascending, in points; for "isotonic".
        margin: by how many points an interval is widened on both sides, so that it holds the true score as often as it says.
        fitted_on: facts for people: file, its fingerprint, items, error before and after.
    """

    method: str
    temperature: float | None
    raw: tuple[float, ...]
    calibrated: tuple[float, ...]
    fitted_on: Mapping[str, Any]
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"calibration.method: {self.method!r} is not one of {', '.join(METHODS)}")
        if self.method == "temperature" and not (self.temperature and self.temperature > 0):
            raise ConfigError(f"calibration.temperature: {self.temperature} is not a number > 0")
        if not self.margin >= 0:
            raise ConfigError(f"calibration.margin: {self.margin} is not a number of points >= 0")
        ascending = all(list(knots) == sorted(knots) for knots in (self.raw, self.calibrated))
        if self.method == "isotonic" and (not self.raw or len(self.raw) != len(self.calibrated) or not ascending):
            raise ConfigError("calibration.raw, calibration.calibrated: two lists of equal length, both ascending, are accepted")

    def distribution(self, probabilities: Sequence[float]) -> Array:
        """[K] the distribution over the grid, as it is read: with a temperature sharpened or flattened and normalised."""
        p = np.asarray(probabilities, dtype=np.float64)
        if self.temperature is None:
            return p
        return _tempered(p, self.temperature)

    def score(self, score: float) -> float:
        """The calibrated score, in points, of an expected score; as it is for "temperature", which acts before the expectation."""
        return float(np.interp(score, self.raw, self.calibrated)) if self.method == "isotonic" else score

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "method": self.method,
            "temperature": self.temperature,
            "raw": list(self.raw),
            "calibrated": list(self.calibrated),
            "margin": self.margin,
            "fitted_on": dict(self.fitted_on),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """That of a JSON object.

        Raises:
            ConfigError, KeyError, TypeError: if it is none.
        """
        return cls(
            content["method"],
            content["temperature"],
            tuple(map(float, content["raw"])),
            tuple(map(float, content["calibrated"])),
            content["fitted_on"],
            float(content["margin"]),
        )


def _tempered(p: Array, temperature: float) -> Array:
    """[..., K] probabilities raised to 1 / temperature and normalised over the last axis."""
    from scipy.special import softmax

    with np.errstate(divide="ignore"):
        tempered: Array = softmax(np.log(p) / temperature, axis=-1)
    return tempered


def fit_temperature(readings: Sequence[Sequence[Sequence[float]]], values: Sequence[float], targets: Sequence[float]) -> float:
    """The temperature that gives the least squared error of the expected score.

    Args:
        readings: for each of n items the score distributions of its CoTs, [K] each, with some mass.
        values: [K] the grid, in points. targets: [n] true scores.
    """
    from scipy.optimize import minimize_scalar

    _check(len(readings), len(targets))
    grid, truth = np.asarray(values), np.asarray(targets)
    owners = np.repeat(np.arange(len(readings)), [len(item) for item in readings])
    stacked = np.asarray([reading for item in readings for reading in item])
    counts = np.bincount(owners, minlength=len(readings))

    def error(log_temperature: float) -> float:
        expected = _tempered(stacked, float(np.exp(log_temperature))) @ grid
        return float(np.mean((np.bincount(owners, expected, minlength=len(readings)) / counts - truth) ** 2))

    low, high = np.log(_TEMPERATURES)
    # The error need not have one valley: the best of a coarse row first, then the valley around it.
    row = np.linspace(low, high, 61)
    best = int(np.argmin([error(value) for value in row]))
    found = minimize_scalar(error, bounds=(row[max(best - 1, 0)], row[min(best + 1, len(row) - 1)]), method="bounded")
    return float(np.exp(found.x if found.fun <= error(row[best]) else row[best]))


def fit_isotonic(scores: Sequence[float], targets: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The knots (raw, calibrated) of the ascending map with the least squared error (pool adjacent violators).

    Args:
        scores: [n] expected scores, in points. targets: [n] true scores. Items of equal scores are one point, with their mean target.
    """
    from scipy.optimize import isotonic_regression

    _check(len(scores), len(targets))
    raw, where, counts = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True, return_counts=True)
    means = np.bincount(where, np.asarray(targets, dtype=np.float64)) / counts
    fitted = isotonic_regression(means, weights=counts).x
    # Of a flat stretch, its ends say all.
    keep = [k for k in range(len(raw)) if k in (0, len(raw) - 1) or not fitted[k - 1] == fitted[k] == fitted[k + 1]]
    return tuple(float(raw[k]) for k in keep), tuple(float(fitted[k]) for k in keep)


def fit_margin(intervals: Sequence[tuple[float, float]], targets: Sequence[float], confidence: float) -> float:
    """The least widening, in points, with which the share ``confidence`` of the intervals holds the true score.

    As in conformalised quantile regression (Romano, Patterson, Candes 2019), but no interval is made narrower, and nothing is set aside:
    how often the intervals hold what the fit did not see, cross-validation says.

    Args:
        intervals: [n] (low, high) in points. targets: [n] true scores. confidence: in (0, 1).
    """
    _check(len(intervals), len(targets))
    missing = sorted(max(low - target, target - high) for (low, high), target in zip(intervals, targets, strict=True))
    place = min(math.ceil((len(missing) + 1) * confidence), len(missing)) - 1
    return float(max(missing[place], 0.0))


def _check(items: int, targets: int) -> None:
    if items != targets:
        raise ValueError(f"{items} items with {targets} targets")
    if items < LEAST_ITEMS:
        raise DataError(f"calibration: {items} items with a score and a target; at least {LEAST_ITEMS} are needed")
