"""Every metric of an evaluation: its name, heading, meaning, limits, and how it is computed. Pure.

A metric is one entry of ``METRIC_TABLE``; tables, report, comparison, ``optimized_metric`` and the logs of runs read it from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tract.evaluation.scored import Array
from tract.evaluation.weighted import TieGroups, weighted_kendall, weighted_mean, weighted_pearson, weighted_spearman

HALF_A_POINT = 0.5 + 1e-9  # 4.4 - 3.9 is a little more than 0.5 in float64


@dataclass(frozen=True)
class Cases:
    """The n items that a metric looks at, under R weightings: resamples of a bootstrap, or the data as they are (all ones).

    Attributes:
        weights: [R, n] float64; item i counts as if it stood weights[r, i] times in the data.
        targets: [n] float64, true scores in points. scores: [n] float64, predicted ones.
        residuals: [n] or [R, n] float64, predicted minus true score, in points.
        failures: [n] float64, share of an item's draws that failed. mass: [n] float64, score mass; None for a predictor that reads none.
    """

    weights: Array
    targets: Array
    scores: Array
    residuals: Array
    failures: Array
    mass: Array | None

    @cached_property
    def score_ties(self) -> TieGroups:
        """The predicted scores, sorted, with their ties."""
        return TieGroups.of(self.scores)

    @cached_property
    def target_ties(self) -> TieGroups:
        """The same of the true ones."""
        return TieGroups.of(self.targets)


@dataclass(frozen=True)
class Metric:
    """A number for each weighting.

    Attributes:
        label: heading of a column. meaning: one sentence for people who do not know the field.
        compute: cases -> [R] float64, NaN where it is undefined.
        reads: "scores" (order and scale), "residuals" (errors in points), or "judgements" (failures and mass), which baselines do not have.
        low, high: the least and the greatest value that it can have.
        less_is_better: whether the least is the best one; None where neither end is, as of a bias.
    """

    label: str
    meaning: str
    compute: Callable[[Cases], Array]
    reads: str
    low: float
    high: float
    less_is_better: bool | None


def _score_mass(cases: Cases) -> Array:
    return np.full(len(cases.weights), np.nan) if cases.mass is None else weighted_mean(cases.weights, cases.mass)


METRIC_TABLE: dict[str, Metric] = {
    "pearson_r": Metric(
        "Pearson r",
        "linear correlation of predicted and true scores; 1 is a straight rising line.",
        lambda cases: weighted_pearson(cases.weights, cases.scores, cases.targets),
        "scores", -1.0, 1.0, False,
    ),
    "spearman_rho": Metric(
        "Spearman rho",
        "Pearson correlation of the ranks, ties sharing their mean rank: only the order counts.",
        lambda cases: weighted_spearman(cases.weights, cases.score_ties, cases.target_ties),
        "scores", -1.0, 1.0, False,
    ),
    "kendall_tau": Metric(
        "Kendall tau-b",
        "share of pairs in the right order minus the share in the wrong one, corrected for ties.",
        lambda cases: weighted_kendall(cases.weights, cases.score_ties, cases.target_ties),
        "scores", -1.0, 1.0, False,
    ),
    "rmse": Metric(
        "RMSE",
        "root of the mean squared error, in points; large errors weigh more.",
        lambda cases: np.sqrt(weighted_mean(cases.weights, cases.residuals**2)),
        "residuals", 0.0, np.inf, True,
    ),
    "mae": Metric(
        "MAE",
        "mean absolute error, in points.",
        lambda cases: weighted_mean(cases.weights, np.abs(cases.residuals)),
        "residuals", 0.0, np.inf, True,
    ),
    "accuracy_within_half": Metric(
        "within 0.5",
        "share of items whose predicted score is at most 0.5 points from the true one.",
        lambda cases: weighted_mean(cases.weights, (np.abs(cases.residuals) <= HALF_A_POINT).astype(np.float64)),
        "residuals", 0.0, 1.0, False,
    ),
    "score_mass": Metric(
        "score mass",
        "probability that the model gives to all scores of the grid together where the score is read; "
        "far below 1 it wanted to write something else there.",
        _score_mass,
        "judgements", 0.0, 1.0, False,
    ),
    "failure_rate": Metric(
        "failures",
        "share of the draws that gave no score of their own; they count with the declared fallback.",
        lambda cases: weighted_mean(cases.weights, cases.failures),
        "judgements", 0.0, 1.0, True,
    ),
}  # fmt: skip
METRICS = tuple(METRIC_TABLE)
