"""How well predicted scores agree with true ones: torchmetrics under the keys that all reports use."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.regression import kendall_rank_corrcoef, mean_squared_error, pearson_corrcoef, spearman_corrcoef

CORRELATIONS = ("pearson_r", "spearman_rho", "kendall_tau")
SPLIT_METRICS = (*CORRELATIONS, "rmse", "rmse_constant")
# A spread below this share of the largest value is rounding error of float32, in which scores are computed: they are all the same.
_ROUNDING = 1e-6


def judge_metrics(predictions: Tensor, targets: Tensor) -> dict[str, float | None]:
    """Pearson r, Spearman rho, Kendall tau-b, RMSE and the constant baseline's RMSE, in the order of ``SPLIT_METRICS``.

    The baseline is the RMSE of the best constant prediction, which is the standard deviation of the targets: a judge that does not
    beat it has learned nothing about the responses, whatever its RMSE looks like. Correlations are None where predictions or targets
    are all the same, as those of a single item are.

    Args:
        predictions, targets: [n] floating point, in points, one value per judged response; n > 0.
    """
    # Before torchmetrics is asked: it warns of a small spread and gives NaN for it, or 0 for Spearman's. In float64, in which
    # squares of small spreads are no zero, and whatever the model computes in.
    predictions, targets = predictions.detach().cpu().double(), targets.detach().cpu().double()
    found: dict[str, float | None] = dict.fromkeys(SPLIT_METRICS)
    if varies(predictions) and varies(targets):
        # Of a spread of 1: Pearson's does not depend on it, and the others on the order alone.
        scaled = [(values - values.mean()) / values.std(correction=0) for values in (predictions, targets)]
        found["pearson_r"] = pearson_corrcoef(*scaled).item()
        found["spearman_rho"] = spearman_corrcoef(predictions, targets).item()
        tau = kendall_rank_corrcoef(predictions, targets, variant="b")
        assert isinstance(tau, Tensor)  # a pair with a p-value, if that is asked for
        found["kendall_tau"] = tau.item()
    found["rmse"] = mean_squared_error(predictions, targets, squared=False).item()
    found["rmse_constant"] = targets.std(correction=0).item()
    return found


def varies(values: Tensor) -> bool:
    """Whether there are two values that differ by more than rounding; without, no correlation with them is defined."""
    return bool(torch.std(values, correction=0) > _ROUNDING * values.abs().max())
