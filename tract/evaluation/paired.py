"""How much better one model's answers are than another's: means, paired difference, wins; with intervals clustered by question. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tract.evaluation.bootstrap import metric_estimates
from tract.evaluation.scored import Array, Estimate
from tract.evaluation.weighted import weighted_mean

# A difference that rounding alone puts above the margin is a tie as well.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class PairedComparison:
    """Two models on the answers that pair up.

    Attributes:
        first, second: mean scores, in points. difference: second minus first, paired.
        wins, ties, losses: shares of the pairs in which the second is better by more than the margin, within it, worse.
        pairs, questions: how many. margin: in points. normalized: whether all points are (score - lowest) / (highest - lowest), 0 to 1.
    """

    first: Estimate
    second: Estimate
    difference: Estimate
    wins: Estimate
    ties: Estimate
    losses: Estimate
    pairs: int
    questions: int
    margin: float
    normalized: bool = False


def compared(
    first: Array,
    second: Array,
    questions: Sequence[str],
    *,
    margin: float,
    seed: int,
    resamples: int,
    confidence: float,
    normalized: bool = False,
) -> PairedComparison:
    """The comparison of at least one pair.

    Args:
        first, second: [n] float64, scores in points. questions: [n] ids; intervals are clustered by them. normalized: as in the result.
        margin: differences of no more are ties, in points. seed: of the resamples. resamples: of the questions; 0 for no intervals.
        confidence: of the intervals, in (0, 1).
    """
    difference = second - first
    better, worse = difference > margin + _ROUNDING, difference < -margin - _ROUNDING
    columns: dict[str, Array] = {
        "first": first,
        "second": second,
        "difference": difference,
        "wins": better.astype(np.float64),
        "ties": (~better & ~worse).astype(np.float64),
        "losses": worse.astype(np.float64),
    }

    def means(weights: Array) -> dict[str, Array]:
        return {name: weighted_mean(weights, values) for name, values in columns.items()}

    found = metric_estimates(means, questions, seed=seed, resamples=resamples, confidence=confidence)
    return PairedComparison(**found, pairs=len(difference), questions=len(set(questions)), margin=margin, normalized=normalized)
