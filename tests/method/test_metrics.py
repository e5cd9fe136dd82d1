"""Metrics equal scipy's, ties included, and are None where they are undefined."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from tract.method.metrics import CORRELATIONS, SPLIT_METRICS, judge_metrics


@pytest.mark.parametrize("spread", [1.0, 1e-3], ids=["spread out", "predictions that hardly differ"])
def test_metrics_equal_scipy_on_data_with_ties(spread: float) -> None:
    """torchmetrics by itself takes a small spread in float32 for none."""
    rng = np.random.default_rng(0)
    target = rng.integers(1, 6, 200).astype(np.float32)
    preds = (3 + spread * np.round(target + rng.normal(0, 1.5, 200), 1)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = judge_metrics(torch.from_numpy(preds), torch.from_numpy(target))
    assert tuple(found) == SPLIT_METRICS
    assert found["pearson_r"] == pytest.approx(stats.pearsonr(preds, target).statistic, abs=1e-5)
    assert found["spearman_rho"] == pytest.approx(stats.spearmanr(preds, target).statistic, abs=1e-5)
    assert found["kendall_tau"] == pytest.approx(stats.kendalltau(preds, target, variant="b").statistic, abs=1e-5)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((preds - target) ** 2)), abs=1e-5)
    assert found["rmse_constant"] == pytest.approx(np.std(target), abs=1e-5)


@pytest.mark.parametrize(
    ("predictions", "targets"),
    [
        ([2.5], [3.0]),
        ([2.5, 2.5], [3.0, 4.0]),
        ([2.5, 2.6], [3.0, 3.0]),
        ([3.1, 3.1 + 2e-7, 3.1 - 2e-7], [1.0, 2.0, 3.0]),  # rounding
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    ],
    ids=["one item", "one prediction", "one target", "rounding", "zeros"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_correlations_are_undefined_where_either_side_is_constant(
    predictions: list[float], targets: list[float], dtype: torch.dtype
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = judge_metrics(torch.tensor(predictions, dtype=dtype), torch.tensor(targets, dtype=dtype))
    assert {name for name, value in found.items() if value is None} == set(CORRELATIONS)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((np.array(predictions) - np.array(targets)) ** 2)), abs=0.01)


def test_two_items_have_a_correlation() -> None:
    found = judge_metrics(torch.tensor([1.0, 2.0]), torch.tensor([5.0, 1.0]))
    assert [found[name] for name in CORRELATIONS] == [pytest.approx(-1.0, abs=1e-5)] * 3
