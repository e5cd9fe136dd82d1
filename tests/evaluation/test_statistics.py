"""Metrics equal scipy's; intervals cover; reports pair, order and refuse what they must."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tract.common.errors import DataError
from tract.evaluation.results import BenchmarkReport
from tract.evaluation.scored import Array, Estimate, Scored
from tract.evaluation.statistics import BASELINE_METRICS, METRICS, metrics_of, other_means, reliability_bins, report_of

SETTINGS: dict[str, Any] = {"grid": (1.0, 5.0), "seed": 3, "resamples": 200, "confidence": 0.95, "bins": 4}


def scored_of(scores: dict[str, Array], targets: Array, per_question: int = 4, **changes: Any) -> Scored:
    n = len(targets)
    rng = np.random.default_rng(99)
    made = Scored(
        benchmark="Bench",
        ids=tuple(f"item-{i}" for i in range(n)),
        questions=tuple(f"q{i // per_question}" for i in range(n)),
        targets=targets,
        response_words=rng.integers(20, 400, n).astype(np.float64),
        scores=scores,
        failures={name: rng.random(n) for name in scores},
        score_mass={name: rng.random(n) for name in scores if name == "rail"},
    )
    return replace(made, **changes)


def tied_data(n: int, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(1, 6, n).astype(np.float64)
    return np.round(targets + rng.normal(0, 1.3, n), 1), targets


def report(scored: Scored, *predictors: str, other: Scored | None = None, **changes: Any) -> BenchmarkReport:
    return report_of(scored, predictors, other=other, other_name="other judge", **(SETTINGS | changes))


def values_of(estimates: Any) -> dict[str, float | None]:
    return {metric: estimate.value for metric, estimate in estimates.items()}


def scipy_metrics(x: Array, y: Array) -> dict[str, float]:
    return {
        "pearson_r": stats.pearsonr(x, y).statistic,
        "spearman_rho": stats.spearmanr(x, y).statistic,
        "kendall_tau": stats.kendalltau(x, y, variant="b").statistic,
        "rmse": np.sqrt(np.mean((x - y) ** 2)),
        "mae": np.mean(np.abs(x - y)),
        "accuracy_within_half": np.mean(np.abs(x - y) <= 0.5 + 1e-9),
    }


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_scipy_with_ties(seed: int) -> None:
    scores, targets = tied_data(150, seed)
    scored = scored_of({"rail": scores}, targets)
    found = metrics_of(scored, "rail")
    assert tuple(found) == METRICS
    expected = scipy_metrics(scores, targets)
    expected |= {"score_mass": scored.score_mass["rail"].mean(), "failure_rate": scored.failures["rail"].mean()}
    assert found == pytest.approx(expected, abs=1e-9)


def test_half_a_point_is_within_half_whatever_its_representation() -> None:
    scores, targets = np.array([4.4, 1.7, 1.0, 2.0]), np.array([3.9, 2.2, 1.5, 2.6])
    assert abs(4.4 - 3.9) > 0.5
    assert metrics_of(scored_of({"rail": scores}, targets), "rail")["accuracy_within_half"] == 0.75


@pytest.mark.parametrize(
    ("scores", "targets"),
    [([3.3] * 7, range(7)), (range(7), [1 / 3] * 7), ([2.0], [3.0]), ([0.1 + 0.2] * 3, [0.1] * 3)],
    ids=["constant predictions", "constant targets", "one item", "both"],
)
def test_undefined_correlations_are_none(scores: Any, targets: Any) -> None:
    scored = scored_of({"decode": np.array(scores, dtype=np.float64)}, np.array(targets, dtype=np.float64))
    found = metrics_of(scored, "decode")
    assert [found[metric] for metric in METRICS[:3]] == [None] * 3
    assert found["score_mass"] is None  # decode does not read it
    assert found["rmse"] is not None
    assert found["rmse"] > 0
    estimates = report(scored, "decode").metrics["decode"]
    assert estimates["pearson_r"] == Estimate(None)
    assert values_of(estimates) == found


def test_report_holds_the_point_values_inside_their_intervals() -> None:
    scores, targets = tied_data(120, 0)
    scored = scored_of({"rail": scores, "decode": np.round(scores)}, targets)
    made = report(scored, "decode", "rail")
    assert list(made.metrics) == list(made.reliability) == ["decode", "rail"]
    for predictor in ("decode", "rail"):
        assert tuple(made.metrics[predictor]) == METRICS
        assert values_of(made.metrics[predictor]) == metrics_of(scored, predictor)
    for metric, estimate in made.metrics["rail"].items():
        assert estimate.value is not None, metric
        assert estimate.low is not None, metric
        assert estimate.high is not None, metric
        assert estimate.low < estimate.value < estimate.high, metric
    assert made.scored is scored
    assert made.differences == {}
    assert made.compared_to is None


def test_report_depends_on_the_seed_only() -> None:
    scores, targets = tied_data(60, 1)
    scored = scored_of({"rail": scores, "decode": np.round(scores)}, targets)
    first = report(scored, "rail")
    assert first.metrics == report(scored, "rail").metrics
    assert first.metrics["rail"] == report(scored, "decode", "rail").metrics["rail"]
    assert first.metrics != report(scored, "rail", seed=4).metrics


def test_a_higher_confidence_widens_the_interval() -> None:
    scores, targets = tied_data(60, 1)
    scored = scored_of({"rail": scores}, targets)
    wide, narrow = (report(scored, "rail", confidence=confidence).metrics["rail"]["rmse"] for confidence in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high  # type: ignore[operator]


def test_one_question_gives_values_without_intervals() -> None:
    scores, targets = tied_data(12, 2)
    found = report(scored_of({"rail": scores}, targets, per_question=12), "rail").metrics["rail"]["rmse"]
    assert found.value is not None
    assert (found.low, found.high) == (None, None)


def test_a_metric_that_is_often_undefined_keeps_its_value_only() -> None:
    # One item of six differs: a third of the resamples miss it, and there the predictions are constant.
    scores, targets = np.array([1.0, 1, 1, 1, 1, 2]), np.arange(6, dtype=np.float64)
    found = report(scored_of({"rail": scores}, targets, per_question=1), "rail").metrics["rail"]
    assert found["pearson_r"].value == pytest.approx(stats.pearsonr(scores, targets).statistic)
    assert (found["pearson_r"].low, found["pearson_r"].high) == (None, None)
    assert found["rmse"].low is not None


def test_differences_are_paired() -> None:
    scores, targets = tied_data(120, 3)
    scored = scored_of({"rail": scores, "decode": np.round(scores), "mine": scores}, targets)
    shifted = scored_of({"decode": np.round(scores), "rail": scores + 0.25, "theirs": scores}, targets, score_mass={})
    made = report(scored, "rail", "decode", "mine", other=shifted)
    assert made.compared_to == "other judge"
    assert list(made.differences) == ["rail", "decode"]
    assert tuple(made.differences["rail"]) == METRICS
    # The same predictions on the same resamples: no difference at all, where unpaired intervals would be wide.
    assert made.differences["decode"]["rmse"] == Estimate(0.0, 0.0, 0.0)
    rail = made.differences["rail"]
    expected = metrics_of(scored, "rail")["rmse"] - metrics_of(shifted, "rail")["rmse"]  # type: ignore[operator]
    assert rail["rmse"].value == pytest.approx(expected, abs=1e-12)
    assert rail["pearson_r"].low == pytest.approx(0.0, abs=1e-12)
    assert rail["score_mass"] == Estimate(None)  # the other judge does not read it
    back = report(shifted, "rail", other=scored).differences["rail"]["rmse"]
    assert (back.low, back.high) == pytest.approx((-rail["rmse"].high, -rail["rmse"].low))  # type: ignore[operator]


def test_baselines_equal_their_definition() -> None:
    _, targets = tied_data(80, 4)
    scored = scored_of({"rail": targets}, targets)
    baselines = report(scored, "rail").baselines
    assert list(baselines) == ["constant", "length", "question_mean"]
    constant, length = values_of(baselines["constant"]), values_of(baselines["length"])
    assert tuple(constant) == tuple(length) == BASELINE_METRICS == METRICS[:6]
    best = np.full(80, targets.mean())
    assert [constant[metric] for metric in METRICS[:3]] == [None] * 3
    assert constant["rmse"] == pytest.approx(targets.std())
    assert constant["mae"] == pytest.approx(np.mean(np.abs(best - targets)))
    assert constant["accuracy_within_half"] == pytest.approx(np.mean(np.abs(best - targets) <= 0.5))
    words = np.log(1 + scored.response_words)
    line = np.polyval(np.polyfit(words, targets, 1), words)
    expected = scipy_metrics(words, targets) | {metric: scipy_metrics(line, targets)[metric] for metric in METRICS[3:6]}
    assert length == pytest.approx(expected, abs=1e-9)
    assert baselines["constant"]["rmse"].low < constant["rmse"] < baselines["constant"]["rmse"].high  # type: ignore[operator]


def test_the_mean_of_a_questions_other_items_is_known_where_there_are_others() -> None:
    targets = np.array([1.0, 2, 6, 4, 5, 3])
    questions = ("a", "a", "a", "b", "c", "c")
    assert other_means(targets, questions).tolist() == pytest.approx([4, 3.5, 1.5, np.nan, 3, 5], nan_ok=True)
    scored = scored_of({"rail": targets}, targets, questions=questions)
    found = values_of(report(scored, "rail").baselines["question_mean"])
    expected = scipy_metrics(np.array([4, 3.5, 1.5, 3, 5]), np.array([1.0, 2, 6, 5, 3]))
    assert found == pytest.approx(expected)
    alone = report(scored_of({"rail": targets}, targets, per_question=1), "rail")
    assert list(alone.baselines) == ["constant", "length"]
    assert list(alone.over_baselines["rail"]) == ["constant", "length"]


def test_differences_to_baselines_are_paired_on_the_same_items() -> None:
    scores, targets = tied_data(120, 6)
    scored = scored_of({"rail": scores, "decode": np.full(120, targets.mean())}, targets)
    made = report(scored, "rail", "decode")
    for baseline in ("constant", "length", "question_mean"):
        rail = made.over_baselines["rail"][baseline]
        expected = made.metrics["rail"]["rmse"].value - made.baselines[baseline]["rmse"].value  # type: ignore[operator]
        assert rail.value == pytest.approx(expected)
        assert rail.low < rail.value < rail.high  # type: ignore[operator]
    # The constant itself: never better than the constant that is fitted again in a resample, and narrow, as only the pairing makes it.
    same, own = made.over_baselines["decode"]["constant"], made.metrics["decode"]["rmse"]
    assert same.value == pytest.approx(0.0, abs=1e-12)
    assert same.low >= -1e-12  # type: ignore[operator]
    assert same.high - same.low < (own.high - own.low) / 4  # type: ignore[operator]


def test_length_baseline_with_equal_lengths_is_the_constant_one() -> None:
    _, targets = tied_data(40, 5)
    baselines = report(scored_of({"rail": targets}, targets, response_words=np.full(40, 7.0)), "rail").baselines
    assert baselines["length"]["pearson_r"] == Estimate(None)
    assert values_of(baselines["length"]) == pytest.approx(values_of(baselines["constant"]))


def test_reliability_bins_hold_every_item_once() -> None:
    scores = np.array([0.2, 1.0, 1.9, 2.0, 4.0, 5.0, 5.7])
    targets = np.array([1.0, 2, 3, 4, 5, 4, 3])
    bins = reliability_bins(scores, targets, 1.0, 5.0, 4)
    # [1, 2) with what lies below, [2, 3), [3, 4) is empty, [4, 5] with what lies above.
    assert [(b.low, b.high, b.count) for b in bins] == [(1.0, 2.0, 3), (2.0, 3.0, 1), (4.0, 5.0, 3)]
    assert [b.predicted for b in bins] == pytest.approx([3.1 / 3, 2.0, 4.9])
    assert [b.true for b in bins] == pytest.approx([2.0, 4.0, 4.0])
    assert reliability_bins(scores, targets, 1.0, 5.0, 1)[0].count == 7


def test_eight_predictors_take_seconds() -> None:
    targets = tied_data(320, 0)[1]
    scores = {f"p{i}": tied_data(320, i)[0] for i in range(8)}
    start = time.perf_counter()
    made = report(scored_of(scores, targets), *scores, resamples=500)
    assert time.perf_counter() - start < 20
    assert made.metrics["p7"]["kendall_tau"].low is not None


def test_what_cannot_be_scored_is_refused() -> None:
    scores, targets = tied_data(8, 0)
    scored = scored_of({"rail": scores}, targets)
    with pytest.raises(DataError, match=r"benchmark Bench: no scores of predictor 'median'; there are rail; choose"):
        metrics_of(scored, "median")
    empty = scored_of({"rail": scores[:0]}, targets[:0])
    with pytest.raises(DataError, match=r"benchmark Bench: no items; at least one is needed"):
        report(empty, "rail")
    holes = np.where(np.arange(8) == 5, np.nan, scores)
    with pytest.raises(DataError, match=r"benchmark Bench, item item-5: rail score is nan; it must be finite"):
        metrics_of(replace(scored, scores={"rail": holes}), "rail")
    with pytest.raises(DataError, match=r"item item-5: rail score mass is nan"):
        report(replace(scored, score_mass={"rail": holes}), "rail")
    with pytest.raises(DataError, match=r"item item-0: target is inf"):
        report(replace(scored, targets=targets + np.inf), "rail")
    with pytest.raises(DataError, match=r"rail failures has shape \(7,\), the items \(8,\)"):
        report(replace(scored, failures={"rail": scores[:7]}), "rail")
    with pytest.raises(DataError, match=r"item item-5: rail score is nan"):
        report(scored, "rail", other=replace(scored, scores={"rail": holes}))


def test_another_judge_must_have_the_same_items() -> None:
    scores, targets = tied_data(8, 0)
    scored = scored_of({"rail": scores}, targets)
    swapped = replace(scored, ids=(*scored.ids[:2], "item-3", "item-2", *scored.ids[4:]))
    with pytest.raises(DataError, match=r"benchmark Bench: item 2 is item-2 here and item-3 for the other judge; compare"):
        report(scored, "rail", other=swapped)
    with pytest.raises(DataError, match=r"item item-6: target \d\.0 here and 9\.0 for the other judge"):
        report(scored, "rail", other=replace(scored, targets=np.where(np.arange(8) == 6, 9.0, targets)))
    shorter = scored_of({"rail": scores[:5]}, targets[:5])
    with pytest.raises(DataError, match=r"8 items here and 5 for the other judge \(first: item-5\)"):
        report(scored, "rail", other=shorter)
    with pytest.raises(DataError, match=r"5 items here and 8 for the other judge \(first: item-5\)"):
        report(shorter, "rail", other=scored)
