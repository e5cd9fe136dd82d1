"""How far a judge's scores move when they should not, and how well its CoTs agree: numbers to compare judges by. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tract.common.errors import DataError
from tract.evaluation.bootstrap import estimates
from tract.evaluation.metrics import HALF_A_POINT
from tract.evaluation.results import Robustness, Shift
from tract.evaluation.scored import Array, Estimate, Scored
from tract.evaluation.statistics import check_scored
from tract.evaluation.weighted import krippendorff_alpha, line_residuals, weighted_mean, weighted_pearson
from tract.text.perturbations import ATTACK, PERTURBATIONS

# Of one perturbation, over the items where neither reading failed. "Undue" is what the score moved beyond the true score.
SHIFT_METRICS = ("undue_shift", "undue_size", "raised", "lowered")
CONSISTENCY_METRICS = ("alpha", "spread", "length_slope", "length_r")
SUMMARY_METRICS = ("attack_shift", "attack_size")
# Scores that differ by less are equal: rounding of float32.
_ROUNDING = 1e-6

Metrics = dict[str, Array]


@dataclass(frozen=True)
class Readings:
    """What one judge says about a benchmark and its perturbed copies.

    Attributes:
        base: the benchmark as it is.
        draws: predictor -> [n, S] points, the scores of each item's CoTs by themselves; NaN where a draw failed.
        changed: perturbation -> the same items changed; some may be missing, ids tell which.
        unchanged: perturbation -> items that it does not apply to, or whose prompt does not show it.
    """

    base: Scored
    draws: Mapping[str, Array]
    changed: Mapping[str, Scored]
    unchanged: Mapping[str, int]


def robustness_of(
    readings: Readings, predictors: Sequence[str], *, seed: int, resamples: int, confidence: float, other: Readings | None = None
) -> Robustness:
    """All numbers of one judge on one benchmark, with bootstrap percentile intervals clustered by question.

    Args:
        readings: of the judge. predictors: which to report.
        seed, resamples, confidence: as in ``statistics.report_of``.
        other: another judge's readings of the same items, for paired differences, or None.

    Raises:
        DataError: if a number is not finite, or a changed item belongs to no item of the benchmark.
    """
    own = _Pairs.of(readings, predictors)
    theirs = None if other is None else _Pairs.of(other, [name for name in predictors if name in other.base.scores])

    def compute(weights: Array) -> dict[tuple[str, str], Metrics]:
        table: dict[tuple[str, str], Metrics] = {}
        for name, pair in own.shifts.items():
            table[f"true {name}", ""] = {"true_change": _present_mean(weights, own.true_change[name])}
            table |= {(name, predictor): _shift_metrics(weights, shift, own.true_change[name]) for predictor, shift in pair.items()}
        for predictor in predictors:
            table["consistency", predictor] = _consistency(weights, readings, predictor)
            table["summary", predictor] = _summary(weights, own, predictor)
            if theirs is not None and predictor in theirs.predictors:
                that = _summary(weights, theirs, predictor)
                table["differences", predictor] = {key: value - that[key] for key, value in table["summary", predictor].items()}
        return table

    table = estimates(compute, readings.base.questions, seed=seed, resamples=resamples, confidence=confidence)

    def part(owner: str) -> dict[str, dict[str, Estimate]]:
        return {predictor: values for (name, predictor), values in table.items() if name == owner}

    shifts = tuple(
        Shift(
            name,
            int(np.isfinite(own.true_change[name]).sum()),
            readings.unchanged.get(name, 0),
            table[f"true {name}", ""]["true_change"],
            own.failed[name],
            part(name),
        )
        for name in own.shifts
    )
    return Robustness(readings.base.benchmark, shifts, part("consistency"), part("summary"), part("differences"))


@dataclass(frozen=True)
class _Pairs:
    """Per item of the benchmark, NaN where there is no pair.

    Attributes:
        predictors: names. shifts: perturbation -> predictor -> [n] points that the score moved. failed: the same -> pairs left out.
        true_change: perturbation -> [n] points that the true score moved.
    """

    predictors: tuple[str, ...]
    shifts: Mapping[str, Mapping[str, Array]]
    failed: Mapping[str, Mapping[str, int]]
    true_change: Mapping[str, Array]

    @classmethod
    def of(cls, readings: Readings, predictors: Sequence[str]) -> _Pairs:
        base = readings.base
        check_scored(base, predictors)
        place = {item: number for number, item in enumerate(base.ids)}
        shifts: dict[str, dict[str, Array]] = {}
        failed: dict[str, dict[str, int]] = {}
        true_change: dict[str, Array] = {}
        for name, changed in readings.changed.items():
            check_scored(changed, predictors)
            if strangers := [item for item in changed.ids if item not in place]:
                raise DataError(f"benchmark {changed.benchmark}: item {strangers[0]} is no item of {base.benchmark}; judge both again")
            rows = np.asarray([place[item] for item in changed.ids], dtype=np.intp)
            true_change[name] = _spread(changed.targets - base.targets[rows], rows, len(base.ids))
            shifts[name], failed[name] = {}, {}
            for predictor in predictors:
                whole = (base.failures[predictor][rows] == 0) & (changed.failures[predictor] == 0)
                moved = np.where(whole, changed.scores[predictor] - base.scores[predictor][rows], np.nan)
                shifts[name][predictor] = _spread(moved, rows, len(base.ids))
                failed[name][predictor] = int((~whole).sum())
        return cls(tuple(predictors), shifts, failed, true_change)


def _spread(values: Array, rows: NDArray[np.intp], size: int) -> Array:
    """[size] with the values in their rows and NaN elsewhere."""
    spread = np.full(size, np.nan)
    spread[rows] = values
    return spread


def _present_mean(weights: Array, values: Array) -> Array:
    """[R] float64: the mean of values [n] under each row of weights [R, n], over those that are no NaN; NaN where there is none."""
    present = np.isfinite(values)
    total = weights[:, present].sum(axis=1)
    summed = (weights[:, present] * values[present]).sum(axis=1)
    mean: Array = np.divide(summed, total, out=np.full(len(weights), np.nan), where=total > 0)
    return mean


def _shift_metrics(weights: Array, shift: Array, true_change: Array) -> Metrics:
    undue = shift - true_change
    known = np.where(np.isfinite(shift), 0.0, np.nan)
    return {
        "undue_shift": _present_mean(weights, undue),
        "undue_size": _present_mean(weights, np.abs(undue)),
        "raised": _present_mean(weights, known + (undue > HALF_A_POINT)),
        "lowered": _present_mean(weights, known + (shift < -_ROUNDING)),
    }


def _summary(weights: Array, pairs: _Pairs, predictor: str) -> Metrics:
    """Each attack counts the same, however many items it applies to."""
    undue = [pairs.shifts[name][predictor] - pairs.true_change[name] for name in pairs.shifts if PERTURBATIONS[name].kind == ATTACK]
    if not undue:
        return {metric: np.full(len(weights), np.nan) for metric in SUMMARY_METRICS}
    means = [_present_mean(weights, values) for values in undue]
    sizes = [_present_mean(weights, np.abs(values)) for values in undue]
    return {"attack_shift": np.mean(means, axis=0), "attack_size": np.mean(sizes, axis=0)}


def _consistency(weights: Array, readings: Readings, predictor: str) -> Metrics:
    base, undefined = readings.base, np.full(len(weights), np.nan)
    draws = readings.draws.get(predictor)
    alpha, spread = (undefined, undefined) if draws is None else (krippendorff_alpha(weights, draws), _spread_within(weights, draws))
    log_words = np.log2(1.0 + base.response_words)
    # Both freed of the true score (Frisch and Waugh): what is left of the score goes with what is left of the length.
    words, scores = (line_residuals(weights, base.targets, values) for values in (log_words, base.scores[predictor]))
    variance = weighted_mean(weights, words**2)
    slope = np.divide(weighted_mean(weights, words * scores), variance, out=undefined.copy(), where=variance > _ROUNDING)
    return {"alpha": alpha, "spread": spread, "length_slope": slope, "length_r": weighted_pearson(weights, words, scores)}


def _spread_within(weights: Array, draws: Array) -> Array:
    """[R] points: root mean variance (unbiased) among an item's values, over items with two or more."""
    counts = np.isfinite(draws).sum(axis=1)
    paired = counts >= 2
    if not paired.any():
        return np.full(len(weights), np.nan)
    variances = np.full(len(draws), np.nan)
    variances[paired] = np.nanvar(draws[paired], axis=1, ddof=1)
    return np.sqrt(_present_mean(weights, variances))
