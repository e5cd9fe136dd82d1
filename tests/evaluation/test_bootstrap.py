"""Resamples draw whole questions, reproducibly; intervals cover the truth where items of one question agree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tract.evaluation import bootstrap
from tract.evaluation.bootstrap import estimates, percentile_interval, resample_weights
from tract.evaluation.scored import Array, Estimate
from tract.evaluation.weighted import weighted_mean, weighted_pearson

QUESTIONS = ("b", "a", "b", "c", "a", "b")


def test_items_of_one_question_are_drawn_together() -> None:
    weights = np.concatenate(list(resample_weights(QUESTIONS, seed=0, resamples=3000)))
    assert weights.shape == (3000, 6)
    assert weights.dtype == np.float64
    assert (weights[:, [0, 2]] == weights[:, [2, 5]]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    drawn = weights[:, [0, 1, 3]]  # b, a, c
    assert (drawn.sum(axis=1) == 3).all()
    assert drawn.mean(axis=0) == pytest.approx(np.ones(3), abs=0.06)
    assert (drawn == 0).mean() == pytest.approx((2 / 3) ** 3, abs=0.02)


def test_resamples_depend_on_the_seed_and_not_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(resample_weights(QUESTIONS, seed=1, resamples=50))
    other = list(resample_weights(QUESTIONS, seed=2, resamples=50))
    monkeypatch.setattr(bootstrap, "WEIGHTS_AT_ONCE", 7 * 6)
    chunks = list(resample_weights(QUESTIONS, seed=1, resamples=50))
    assert [len(chunk) for chunk in chunks] == [7] * 7 + [1]
    np.testing.assert_array_equal(np.concatenate(chunks), whole[0])
    assert (other[0] != whole[0]).any()


def test_undefined_resamples_are_left_out_up_to_five_percent() -> None:
    values = np.arange(1000.0)
    assert percentile_interval(values, 0.95) == pytest.approx((24.975, 974.025))
    values[:50] = np.nan
    low, high = percentile_interval(values, 0.9) or (0.0, 0.0)
    assert (low, high) == pytest.approx((50 + 0.05 * 949, 50 + 0.95 * 949))
    values[50] = np.nan
    assert percentile_interval(values, 0.9) is None


def test_without_resamples_or_with_one_question_there_is_no_interval() -> None:
    def compute(weights: Array) -> Mapping[str, Mapping[str, Array]]:
        return {"row": {"mean": weighted_mean(weights, np.arange(6.0)), "none": np.full(len(weights), np.nan)}}

    expected = {"row": {"mean": Estimate(2.5), "none": Estimate(None)}}
    assert estimates(compute, QUESTIONS, seed=0, resamples=0, confidence=0.95) == expected
    assert estimates(compute, ("a",) * 6, seed=0, resamples=50, confidence=0.95) == expected
    found = estimates(compute, QUESTIONS, seed=0, resamples=50, confidence=0.95)["row"]
    assert found["none"] == Estimate(None)
    assert found["mean"].low is not None


def test_clustered_intervals_cover_and_unclustered_ones_cover_less() -> None:
    """200 benchmarks of 60 questions with 5 items; targets and the judge's errors are shared within a question in part."""
    rng = np.random.default_rng(0)
    n_questions, per_question, simulations = 60, 5, 200
    questions = tuple(f"q{i // per_question}" for i in range(n_questions * per_question))
    ids = tuple(f"i{i}" for i in range(len(questions)))
    shared, own = 0.8, 0.6  # standard deviations; 0.8^2 + 0.6^2 = 1, for targets and for errors

    def draw() -> Array:
        return np.repeat(rng.normal(0, shared, n_questions), per_question) + rng.normal(0, own, len(questions))

    truth = {"rmse": 1.0, "pearson_r": 1 / np.sqrt(2)}
    hits = {(clusters, metric): 0 for clusters in ("clustered", "unclustered") for metric in truth}
    for simulation in range(simulations):
        targets, errors = draw(), draw()
        scores = targets + errors

        def compute(weights: Array, x: Array = scores, y: Array = targets) -> Mapping[str, Mapping[str, Array]]:
            return {"row": {"rmse": np.sqrt(weighted_mean(weights, (x - y) ** 2)), "pearson_r": weighted_pearson(weights, x, y)}}

        for clusters, groups in (("clustered", questions), ("unclustered", ids)):
            found = estimates(compute, groups, seed=simulation, resamples=300, confidence=0.95)["row"]
            for metric, value in truth.items():
                low, high = found[metric].low, found[metric].high
                assert low is not None
                assert high is not None
                hits[clusters, metric] += low <= value <= high
    coverage = {key: count / simulations for key, count in hits.items()}
    for metric in truth:
        assert 0.88 <= coverage["clustered", metric] <= 0.99, coverage
        assert coverage["unclustered", metric] <= coverage["clustered", metric] - 0.1, coverage
