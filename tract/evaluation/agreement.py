"""How well the raters of the same items agree: what a judge that learns from them can be measured against. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from tract.evaluation.cells import counted
from tract.evaluation.scored import Array
from tract.evaluation.weighted import SAME_SCORE, Indices, alpha_of_sums, weighted_pearson

# Items that two raters must both have scored for a correlation between them; a correlation over all scores needs as many.
MIN_COMMON_ITEMS = 3

Scores = Sequence[tuple[str | None, float]]  # (rater, score in points) of an item; None where the rater is not known


@dataclass(frozen=True, slots=True)
class RaterAgreement:
    """Agreement over the items that have two or more scores; None means not defined.

    Attributes:
        n_items: items with two or more scores. n_ratings: their scores. n_raters: different raters who are named among these.
        alpha: Krippendorff's alpha for interval data; 1 is perfect agreement, 0 what chance gives.
        pairwise_r: mean Pearson r over the pairs of named raters with ``MIN_COMMON_ITEMS`` or more items in common, in which
            both gave different scores. n_rater_pairs: the number of these pairs.
        pairwise_rmse, pairwise_difference: root mean squared and mean absolute difference in points, over all pairs of scores of
            the same item. exact: share of these pairs in which both scores are equal.
        others_r, others_rmse: Pearson r, and RMSE in points, of each score against the mean of its item's other scores: how well a
            single rater predicts the others, which a judge can be compared with. The r needs ``MIN_COMMON_ITEMS`` items.
    """

    n_items: int
    n_ratings: int
    n_raters: int
    alpha: float | None
    pairwise_r: float | None
    n_rater_pairs: int
    pairwise_rmse: float
    pairwise_difference: float
    exact: float
    others_r: float | None
    others_rmse: float

    def to_dict(self) -> dict[str, Any]:
        """For a manifest or a table; plain numbers and None."""
        return asdict(self)

    def sentence(self) -> str:
        """All of it as one sentence."""
        by = f" by {self.n_raters} named raters" if self.n_raters else ""
        r = f", r {self.pairwise_r:z.2f} over {counted(self.n_rater_pairs, 'pair')} of raters" if self.pairwise_r is not None else ""
        ceiling = f"RMSE {self.others_rmse:.2f}" if self.others_r is None else f"r {self.others_r:z.2f}, RMSE {self.others_rmse:.2f}"
        alpha = "undefined" if self.alpha is None else f"{self.alpha:z.2f}"
        return (
            f"{counted(self.n_items, 'item')} with two or more scores ({self.n_ratings} scores{by}): Krippendorff's alpha {alpha}{r}; "
            f"two scores differ by {self.pairwise_difference:.2f} points on average and are equal in {self.exact:.0%} of the pairs; "
            f"one score against the mean of the others: {ceiling}"
        )


def rater_agreement(items: Sequence[Scores]) -> RaterAgreement | None:
    """How well raters agree; None where no item has two scores.

    Args:
        items: the scores of each item. Those with fewer than two do not count.
    """
    paired = [scores for scores in items if len(scores) >= 2]
    if not paired:
        return None
    sizes = np.array([len(scores) for scores in paired])
    given = np.array([score for scores in paired for _, score in scores], dtype=np.float64)
    values = given - given.mean()  # the sums of squares below would lose digits far from 0
    item: Indices = np.repeat(np.arange(len(paired)), sizes)
    counts = sizes.astype(np.float64)
    sums: Array = np.bincount(item, values).astype(np.float64)
    squares: Array = np.bincount(item, values**2).astype(np.float64)
    others = (sums[item] - values) / (counts[item] - 1)
    n_pairs = float((counts * (counts - 1)).sum() / 2)
    squared = float(np.maximum(counts * squares - sums**2, 0.0).sum())  # (a - b)^2 over the pairs of each item
    absolute, equal = _differences(values, item, sizes)
    pairwise = _pairwise_r(paired)
    return RaterAgreement(
        n_items=len(paired),
        n_ratings=len(values),
        n_raters=len({rater for scores in paired for rater, _ in scores if rater is not None}),
        alpha=_defined(alpha_of_sums(np.ones((1, len(paired))), counts, sums, squares)),
        pairwise_r=float(np.mean(pairwise)) if pairwise else None,
        n_rater_pairs=len(pairwise),
        pairwise_rmse=(squared / n_pairs) ** 0.5,
        pairwise_difference=absolute / n_pairs,
        exact=equal / n_pairs,
        others_r=_pearson(values, others) if len(paired) >= MIN_COMMON_ITEMS else None,
        others_rmse=float(np.sqrt(np.mean((values - others) ** 2))),
    )


def _differences(values: Array, item: Indices, sizes: Indices) -> tuple[float, float]:
    """(sum of |a - b|, number of equal pairs) over the pairs of scores of each item, without listing the pairs."""
    order = np.lexsort((values, item))
    ascending, owner = values[order], item[order]
    place = np.arange(len(values)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # of each score in its item, from the lowest
    # The k-th lowest of m scores is the higher one of k pairs and the lower one of m - 1 - k.
    absolute = float((ascending * (2 * place - sizes[owner] + 1)).sum())
    new = np.r_[True, (np.diff(owner) != 0) | (np.diff(ascending) > SAME_SCORE)]
    ties = np.bincount(np.cumsum(new) - 1)
    return max(absolute, 0.0), float((ties * (ties - 1)).sum() / 2)


def _pairwise_r(paired: Sequence[Scores]) -> list[float]:
    """Pearson r of each pair of named raters with enough items in common, where it is defined."""
    common: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for scores in paired:
        named = sorted((rater, score) for rater, score in scores if rater is not None)
        for (one, score), (other, other_score) in combinations(named, 2):
            if one != other:
                common[one, other].append((score, other_score))
    found = [_pearson(*np.array(both, dtype=np.float64).T) for both in common.values() if len(both) >= MIN_COMMON_ITEMS]
    return [r for r in found if r is not None]


def _pearson(x: Array, y: Array) -> float | None:
    return _defined(weighted_pearson(np.ones((1, len(x))), x, y))


def _defined(value: Array) -> float | None:
    """The one value of an array; None where it is not defined."""
    return float(value[0]) if np.isfinite(value[0]) else None
