"""How much better one model's answers are than another's: means, paired difference, wins; with intervals clustered by question. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tract.apps.grading.pairs import AnswerPairs
from tract.evaluation.bootstrap import estimates
from tract.evaluation.scored import Array, Estimate
from tract.evaluation.weighted import weighted_mean

# A difference that rounding alone puts above the margin is a tie as well.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Compared:
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


def compared(pairs: AnswerPairs, *, margin: float, seed: int, resamples: int, confidence: float) -> Compared:
    """The comparison of at least one pair.

    Args:
        margin: differences of no more are ties, in points. seed: of the resamples. resamples: of the questions; 0 for no intervals.
        confidence: of the intervals, in (0, 1).
    """
    difference = pairs.second - pairs.first
    better, worse = difference > margin + _ROUNDING, difference < -margin - _ROUNDING
    columns: dict[str, Array] = {
        "first": pairs.first,
        "second": pairs.second,
        "difference": difference,
        "wins": better.astype(np.float64),
        "ties": (~better & ~worse).astype(np.float64),
        "losses": worse.astype(np.float64),
    }

    def compute(weights: Array) -> dict[str, dict[str, Array]]:
        return {"": {name: weighted_mean(weights, values) for name, values in columns.items()}}

    found = estimates(compute, pairs.questions, seed=seed, resamples=resamples, confidence=confidence)[""]
    return Compared(**found, pairs=len(difference), questions=len(set(pairs.questions)), margin=margin, normalized=pairs.normalized)
