"""A weighted metric equals scipy's on the repeated rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tract.evaluation import weighted
from tract.evaluation.scored import Array
from tract.evaluation.weighted import TieGroups, line_residuals, weighted_kendall, weighted_mean, weighted_pearson, weighted_spearman

N, R = 60, 12


def data(seed: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    y = rng.integers(1, 6, N).astype(np.float64)
    return rng.integers(0, 4, (R, N)).astype(np.float64), np.round(y + rng.normal(0, 1.5, N), 1), y


def repeated(weights: Array, values: Array) -> Array:
    return np.repeat(values, weights.astype(int))


def test_midranks_are_those_of_the_repeated_rows() -> None:
    weights, x, _ = data(0)
    ranks = TieGroups.of(x).midranks(weights)
    for row, found in zip(weights, ranks, strict=True):
        np.testing.assert_array_equal(repeated(row, found), stats.rankdata(repeated(row, x)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pairs", [1, 7 * N, 2**22])
def test_correlations_equal_scipy_on_the_repeated_rows(seed: int, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighted, "PAIRS_AT_ONCE", pairs)
    weights, x, y = data(seed)
    x_ties, y_ties = TieGroups.of(x), TieGroups.of(y)
    found = weighted_pearson(weights, x, y), weighted_spearman(weights, x_ties, y_ties), weighted_kendall(weights, x_ties, y_ties)
    for row, pearson, spearman, kendall in zip(weights, *found, strict=True):
        a, b = repeated(row, x), repeated(row, y)
        assert pearson == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-12)
        assert spearman == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
        assert kendall == pytest.approx(stats.kendalltau(a, b, variant="b").statistic, abs=1e-12)


def test_kendall_is_exact_for_weights_beyond_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, x, y = data(0)
    x_ties, y_ties = TieGroups.of(x), TieGroups.of(y)
    single = weighted_kendall(weights, x_ties, y_ties)
    monkeypatch.setattr(weighted, "EXACT_FLOAT32", 0)
    np.testing.assert_array_equal(weighted_kendall(weights, x_ties, y_ties), single)


def test_means_and_lines_equal_numpy_on_the_repeated_rows() -> None:
    weights, x, y = data(1)
    residuals = line_residuals(weights, x, y)
    for row, mean, residual in zip(weights, weighted_mean(weights, y), residuals, strict=True):
        a, b = repeated(row, x), repeated(row, y)
        assert mean == pytest.approx(b.mean(), abs=1e-12)
        np.testing.assert_allclose(repeated(row, residual), b - np.polyval(np.polyfit(a, b, 1), a), atol=1e-9)


def test_perfect_agreement_is_one_and_not_more() -> None:
    weights, x, _ = data(2)
    ties, reverse = TieGroups.of(x), TieGroups.of(-x)
    assert weighted_kendall(weights, ties, ties).tolist() == [1.0] * R
    assert weighted_kendall(weights, ties, reverse).tolist() == [-1.0] * R
    for correlation in (weighted_pearson(weights, x, 0.1 * x), weighted_spearman(weights, ties, ties)):
        assert correlation == pytest.approx(np.ones(R), abs=1e-12)
        assert correlation.max() <= 1.0


def test_only_resamples_that_are_constant_are_undefined() -> None:
    x, y = np.array([0.3, 0.3, 0.3, 0.7]), np.array([1.0, 2.0, 3.0, 4.0])
    weights = np.array([[1.0, 2, 3, 0], [0, 0, 0, 5], [1, 1, 1, 1]])
    x_ties, y_ties = TieGroups.of(x), TieGroups.of(y)
    for found in (weighted_pearson(weights, x, y), weighted_spearman(weights, x_ties, y_ties), weighted_kendall(weights, x_ties, y_ties)):
        assert np.isnan(found).tolist() == [True, True, False]
