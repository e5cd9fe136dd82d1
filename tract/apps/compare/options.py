"""What to compare by. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_METRICS = ("pearson_r", "spearman_rho", "kendall_tau", "rmse")
DEFAULT_BASELINE = "tract"


@dataclass(frozen=True)
class CompareOptions:
    """What to compare by.

    Attributes:
        baseline: label of a variant, or a name or an ablation that only one has; None: "tract" if there is one, else the first.
        predictors: to read by; empty for all; None for the main predictor of each variant.
        metrics: names of ``METRICS``. confidence: of the intervals, in (0, 1). resamples: of the questions; 0 for none.
    """

    baseline: str | None
    predictors: tuple[str, ...] | None
    metrics: tuple[str, ...]
    confidence: float
    resamples: int
