"""One judge's numbers on one benchmark: metrics with intervals, baselines, reliability, paired differences. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tract.common.errors import DataError
from tract.evaluation.bootstrap import estimates
from tract.evaluation.metrics import METRIC_TABLE, METRICS, Cases
from tract.evaluation.results import BenchmarkReport, Bin
from tract.evaluation.scored import Array, Estimate, Scored
from tract.evaluation.weighted import deviations, line_residuals, weighted_mean

# Those that a baseline has, which makes no judgements.
BASELINE_METRICS = tuple(name for name, metric in METRIC_TABLE.items() if metric.reads != "judgements")

Metrics = dict[str, Array]  # metric -> [R], NaN where undefined
Table = dict[tuple[str, str], Metrics]  # (field of BenchmarkReport, predictor or baseline) -> metrics


def metrics_of(scored: Scored, predictor: str) -> dict[str, float | None]:
    """The metrics of one predictor, in the order of ``METRICS``.

    Correlations are Pearson r, Spearman rho (midranks) and Kendall tau-b; they are None where predictions or targets are
    constant. ``rmse`` and ``mae`` are in points. ``accuracy_within_half`` is the share of items at most half a point off.
    ``score_mass`` is None for a predictor that does not read it.

    Raises:
        DataError: without items or the predictor, or if a number is not finite.
    """
    check_scored(scored, [predictor])
    values = judge_metrics(scored, predictor, np.ones((1, len(scored.ids))))
    return {metric: None if np.isnan(value[0]) else float(value[0]) for metric, value in values.items()}


def limits_of(metric: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have: correlations, errors in points, shares."""
    return METRIC_TABLE[metric].low, METRIC_TABLE[metric].high


def report_of(
    scored: Scored,
    predictors: Sequence[str],
    *,
    grid: tuple[float, float],
    seed: int,
    resamples: int,
    confidence: float,
    bins: int,
    other: Scored | None,
    other_name: str | None,
) -> BenchmarkReport:
    """All numbers of one judge on one benchmark, with bootstrap percentile intervals clustered by question.

    Differences are this judge minus the other on the same resamples, for those ``predictors`` that both have; one is None
    where either value is. Its interval counts a resample as undefined where either judge's value is.

    The baselines know the targets of these very items, which makes them generous; a judge has to beat them all the same.
    "constant" is the mean target, so its RMSE is the standard deviation of the targets; its correlations are None. "length" is
    log(1 + words of the response): its correlations, and the errors of the least-squares line of the targets on it. Both are
    fitted again in every resample. "question_mean" is the mean target of the question's other items, over the items that have such;
    it is left out where none has.

    ``over_baselines`` is the RMSE of a predictor minus that of "constant", "length" or "question_mean" on the same items and resamples.

    Args:
        scored: arrays are float64. predictors: which of its predictors to report, in this order.
        grid: lowest and highest score, in points. bins: of the reliability diagram.
        seed: of the resamples. resamples: how many; 0 for no intervals. confidence: of the intervals, in (0, 1).
        other: another judge on the same items in the same order, or None. other_name: what it is called.

    Raises:
        DataError: without items or one of the predictors, if a number is not finite, or if ``other`` has other items.
    """
    check_scored(scored, predictors)
    shared = [predictor for predictor in predictors if other is not None and predictor in other.scores]
    if other is not None:
        check_scored(other, shared)
        check_same_items(scored, other)

    table = estimates(
        lambda weights: _metric_table(scored, predictors, other, shared, weights),
        scored.questions, seed=seed, resamples=resamples, confidence=confidence,
    )  # fmt: skip

    def part(field: str) -> dict[str, dict[str, Estimate]]:
        return {name: values for (owner, name), values in table.items() if owner == field}

    return BenchmarkReport(
        scored=scored,
        metrics=part("metrics"),
        baselines=part("baselines"),
        reliability={name: reliability_bins(scored.scores[name], scored.targets, *grid, bins) for name in predictors},
        differences=part("differences"),
        compared_to=None if other is None else other_name,
        over_baselines=part("over_baselines"),
    )


def _metric_table(scored: Scored, predictors: Sequence[str], other: Scored | None, shared: Sequence[str], weights: Array) -> Table:
    """All metrics for weights [R, n] float64, and their differences to the other judge, read by the predictors that both share."""
    table: Table = {("metrics", predictor): judge_metrics(scored, predictor, weights) for predictor in predictors}
    baselines = baseline_metrics(scored, weights)
    table |= {("baselines", name): values for name, values in baselines.items()}
    for predictor in predictors:
        own = table["metrics", predictor]
        table["over_baselines", predictor] = _over_baselines(scored, predictor, own, baselines, weights)
    if other is not None:
        for predictor in shared:
            this, that = table["metrics", predictor], judge_metrics(other, predictor, weights)
            table["differences", predictor] = {metric: this[metric] - that[metric] for metric in METRICS}
    return table


def reliability_bins(scores: Array, targets: Array, lowest: float, highest: float, bins: int) -> tuple[Bin, ...]:
    """Mean predicted and mean true score in ``bins`` bins of equal width over [lowest, highest], by predicted score.

    Args:
        scores, targets: [n] float64, in points. Scores outside the range count in the first or last bin.
        lowest, highest: of the score grid, in points; ``highest`` itself is in the last bin.

    Returns:
        The bins that hold items, ascending.
    """
    edges = np.linspace(lowest, highest, bins + 1)
    index = np.searchsorted(edges[1:-1], scores, side="right")
    return tuple(
        Bin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            count=int(np.sum(index == i)),
            predicted=float(scores[index == i].mean()),
            true=float(targets[index == i].mean()),
        )
        for i in np.unique(index)
    )


def check_scored(scored: Scored, predictors: Sequence[str]) -> None:
    """Raises DataError without items or one of the predictors, or if a number of theirs is not finite."""
    name = f"benchmark {scored.benchmark}"
    if not scored.ids:
        raise DataError(f"{name}: no items; at least one is needed, check the benchmark's file and filters")
    columns = {"target": scored.targets, "response_words": scored.response_words}
    for predictor in predictors:
        if predictor not in scored.scores:
            raise DataError(f"{name}: no scores of predictor {predictor!r}; there are {', '.join(scored.scores)}; choose among these")
        columns |= {f"{predictor} score": scored.scores[predictor], f"{predictor} failures": scored.failures[predictor]}
        if predictor in scored.score_mass:
            columns[f"{predictor} score mass"] = scored.score_mass[predictor]
    for column, values in columns.items():
        if values.shape != (len(scored.ids),):
            raise DataError(f"{name}: {column} has shape {values.shape}, the items {(len(scored.ids),)}; judge the benchmark again")
        for i in np.flatnonzero(~np.isfinite(values))[:1]:
            raise DataError(f"{name}, item {scored.ids[i]}: {column} is {values[i]}; it must be finite, judge the benchmark again")


def check_same_items(scored: Scored, other: Scored) -> None:
    """Raises DataError naming the first item of two judges on one benchmark that differs in id or target."""
    name, hint = f"benchmark {scored.benchmark}", "compare judges on the same benchmark file"
    for i, (this, that) in enumerate(zip(scored.ids, other.ids, strict=False)):
        if this != that:
            raise DataError(f"{name}: item {i} is {this} here and {that} for the other judge; {hint}")
        if scored.targets[i] != other.targets[i]:
            raise DataError(f"{name}, item {this}: target {scored.targets[i]} here and {other.targets[i]} for the other judge; {hint}")
    if len(scored.ids) != len(other.ids):
        shorter = min(len(scored.ids), len(other.ids))
        first = max(scored.ids, other.ids, key=len)[shorter]
        raise DataError(f"{name}: {len(scored.ids)} items here and {len(other.ids)} for the other judge (first: {first}); {hint}")


def judge_metrics(scored: Scored, predictor: str, weights: Array) -> Metrics:
    """Metric -> [R], NaN where undefined: those of one predictor for weights [R, n] float64, in the order of ``METRICS``."""
    scores, mass = scored.scores[predictor], scored.score_mass.get(predictor)
    cases = Cases(weights, scored.targets, scores, scores - scored.targets, scored.failures[predictor], mass)
    return {name: metric.compute(cases) for name, metric in METRIC_TABLE.items()}


def baseline_metrics(scored: Scored, weights: Array) -> dict[str, Metrics]:
    """Baseline -> metric -> [R], NaN where undefined, for weights [R, n] float64; see ``report_of``."""
    log_words, none = np.log1p(scored.response_words), np.zeros_like(scored.targets)
    constant = Cases(weights, scored.targets, none, deviations(weights, scored.targets)[0], none, None)
    length = Cases(weights, scored.targets, log_words, line_residuals(weights, log_words, scored.targets), none, None)
    undefined = np.full(len(weights), np.nan)
    of_errors = {name: METRIC_TABLE[name].compute(constant) for name in BASELINE_METRICS if METRIC_TABLE[name].reads == "residuals"}
    found = {
        "constant": {**dict.fromkeys(BASELINE_METRICS, undefined), **of_errors},  # one number for every item has no order and no scale
        "length": {name: METRIC_TABLE[name].compute(length) for name in BASELINE_METRICS},
    }
    means = other_means(scored.targets, scored.questions)
    if (known := ~np.isnan(means)).any():
        values, targets = means[known], scored.targets[known]
        others = Cases(weights[:, known], targets, values, values - targets, none[known], None)
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold no item with a known mean: undefined there
            found["question_mean"] = {name: METRIC_TABLE[name].compute(others) for name in BASELINE_METRICS}
    return found


def other_means(targets: Array, questions: Sequence[str]) -> Array:
    """[n] float64, in points: the mean target of the other items of each item's question; NaN where there is no other.

    Args:
        targets: [n] float64, in points. questions: [n] question ids.
    """
    _, question = np.unique(np.asarray(questions, dtype=str), return_inverse=True)
    sums, counts = np.bincount(question, targets), np.bincount(question)
    others = counts[question] - 1
    means: Array = np.full(len(targets), np.nan)
    np.divide(sums[question] - targets, others, out=means, where=others > 0)
    return means


def _over_baselines(scored: Scored, predictor: str, own: Metrics, baselines: dict[str, Metrics], weights: Array) -> Metrics:
    """Baseline -> [R]: RMSE of the predictor minus that of the baseline, on the items for which the baseline is known."""
    found = {name: own["rmse"] - baselines[name]["rmse"] for name in ("constant", "length")}
    if "question_mean" in baselines:
        known = ~np.isnan(other_means(scored.targets, scored.questions))
        residuals = (scored.scores[predictor] - scored.targets)[known]
        with np.errstate(invalid="ignore", divide="ignore"):
            found["question_mean"] = np.sqrt(weighted_mean(weights[:, known], residuals**2)) - baselines["question_mean"]["rmse"]
    return found
