"""Metrics equal scipy's, ties included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from tract.metrics import judge_metrics


def test_metrics_equal_scipy_on_data_with_ties_in_several_updates() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(1, 6, 200).astype(np.float32)
    preds = np.round(target + rng.normal(0, 1.5, 200), 1).astype(np.float32)
    metrics = judge_metrics("val/")
    for part in np.array_split(np.arange(200), 7):
        metrics.update(torch.from_numpy(preds[part]), torch.from_numpy(target[part]))
    found = {key: value.item() for key, value in metrics.compute().items()}
    assert found["val/pearson_r"] == pytest.approx(stats.pearsonr(preds, target).statistic, abs=1e-5)
    assert found["val/spearman_rho"] == pytest.approx(stats.spearmanr(preds, target).statistic, abs=1e-5)
    assert found["val/kendall_tau"] == pytest.approx(stats.kendalltau(preds, target, variant="b").statistic, abs=1e-5)
    assert found["val/rmse"] == pytest.approx(np.sqrt(np.mean((preds - target) ** 2)), abs=1e-5)
    assert found["val/rmse_constant"] == pytest.approx(np.std(target), abs=1e-5)


def test_reset_forgets() -> None:
    metrics = judge_metrics("val/")
    metrics.update(torch.tensor([1.0, 2.0]), torch.tensor([5.0, 1.0]))
    metrics.reset()
    metrics.update(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert metrics.compute()["val/rmse"].item() == 0.0
