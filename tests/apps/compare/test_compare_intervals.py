"""Means over seeds have Student's interval, also against scipy; one seed has that over questions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tract.evaluation.scored import Estimate
from tract.evaluation.seed_intervals import NONE, QUESTIONS, SEEDS, Difference, mean_of, t_interval
from tract.evaluation.statistics import limits_of


def test_t_interval_by_hand() -> None:
    """1, 2, 3: mean 2, standard error 1 / sqrt(3), and 4.302653 is the 97.5 % point of t with two degrees of freedom."""
    found = t_interval([1.0, 2.0, 3.0], 0.95)
    assert found.value == 2.0
    assert found.low == pytest.approx(2 - 4.302652729 / 3**0.5)
    assert found.high == pytest.approx(2 + 4.302652729 / 3**0.5)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("count", [3, 4, 12])
def test_t_interval_is_that_of_scipy(count: int, confidence: float) -> None:
    values = np.random.default_rng(count).normal(3, 2, count)
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    found = t_interval(values.tolist(), confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_without_three_values_there_is_no_interval() -> None:
    assert t_interval([], 0.95) == Estimate(None)
    assert t_interval([4.0], 0.95) == Estimate(4.0)
    assert t_interval([4.0, 5.0], 0.95) == Estimate(4.5)


def test_equal_values_have_an_interval_without_width() -> None:
    assert t_interval([0.5, 0.5, 0.5], 0.95) == Estimate(0.5, 0.5, 0.5)


def test_an_undefined_seed_is_counted_and_no_number() -> None:
    found = mean_of([1.0, None, 3.0, 5.0], 0.95, lambda k: pytest.fail("asked for one seed"))
    assert (found.estimate.value, found.seeds, found.runs, found.kind) == (3.0, 3, 4, SEEDS)
    two = mean_of([1.0, None, 3.0], 0.95, lambda k: pytest.fail("asked for one seed"))
    assert (two.estimate, two.seeds, two.runs, two.kind) == (Estimate(2.0), 2, 3, NONE)
    assert mean_of([None, None], 0.95, lambda k: Estimate(None)).estimate == Estimate(None)
    assert mean_of([None, None], 0.95, lambda k: Estimate(None)).kind == NONE


def test_one_seed_has_its_interval_over_questions() -> None:
    found = mean_of([None, 0.7], 0.95, lambda k: Estimate(0.7, 0.1 * k, 0.9))
    assert (found.estimate, found.kind, found.seeds, found.runs) == (Estimate(0.7, 0.1, 0.9), QUESTIONS, 1, 2)
    assert mean_of([0.7], 0.95, lambda k: Estimate(0.7)).kind == NONE


def test_a_difference_shows_its_interval_over_seeds_where_there_is_one() -> None:
    over_seeds, over_questions = Estimate(1.0, 0.5, 1.5), Estimate(1.0, -1.0, 2.0)
    assert Difference(over_seeds, over_questions, 2, 2).shown == (over_seeds, SEEDS)
    assert Difference(Estimate(1.0), over_questions, 1, 1).shown == (over_questions, QUESTIONS)
    assert Difference(Estimate(1.0), Estimate(1.0), 1, 1).shown == (Estimate(1.0), NONE)


def test_an_interval_over_seeds_is_cut_at_what_the_metric_can_be() -> None:
    whole = mean_of([0.99, 0.7, 0.8], 0.95, lambda k: Estimate(None)).estimate
    assert whole.low is not None
    assert whole.high is not None
    assert whole.high > 1 > whole.low
    cut = mean_of([0.99, 0.7, 0.8], 0.95, lambda k: Estimate(None), limits_of("pearson_r")).estimate
    assert cut == Estimate(whole.value, max(whole.low, -1.0), 1.0)
    assert limits_of("rmse") == (0.0, float("inf"))
    assert limits_of("accuracy_within_half") == limits_of("failure_rate") == (0.0, 1.0)
