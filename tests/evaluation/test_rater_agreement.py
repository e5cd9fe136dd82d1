"""Agreement of raters: each number by its definition, pair by pair, and by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import stats

from tract.evaluation.agreement import rater_agreement


def made(seed: int, n: int = 40) -> list[list[tuple[str | None, float]]]:
    """Items with none to four scores of the raters a to d, the last one without a name."""
    rng = np.random.default_rng(seed)
    items = []
    for _ in range(n):
        quality = rng.integers(1, 6)
        raters = [rater for rater in ("a", "b", "c", None) if rng.random() < 0.6]
        items.append([(rater, float(np.clip(quality + rng.integers(-1, 2), 1, 5))) for rater in raters])
    return items


def test_by_hand() -> None:
    """Two items of two scores, one of three: pairs (5, 4), (1, 2), and (3, 3), (3, 5), (3, 5)."""
    found = rater_agreement([[("a", 5.0), ("b", 4.0)], [("a", 1.0), ("b", 2.0)], [("a", 3.0), ("b", 3.0), (None, 5.0)], [("a", 1.0)]])
    assert found is not None
    assert (found.n_items, found.n_ratings, found.n_raters, found.n_rater_pairs) == (3, 7, 2, 1)
    assert found.pairwise_difference == pytest.approx((1 + 1 + 0 + 2 + 2) / 5)
    assert found.pairwise_rmse == pytest.approx(((1 + 1 + 0 + 4 + 4) / 5) ** 0.5)
    assert found.exact == pytest.approx(1 / 5)
    assert found.pairwise_r == pytest.approx(1.0)  # 5, 1, 3 and 4, 2, 3
    residuals = [5 - 4, 4 - 5, 1 - 2, 2 - 1, 3 - 4, 3 - 4, 5 - 3]
    assert found.others_rmse == pytest.approx(np.sqrt(np.mean(np.square(residuals))))


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_definitions(seed: int) -> None:
    items = made(seed)
    found = rater_agreement(items)
    units = [unit for unit in items if len(unit) >= 2]
    scores = [score for unit in units for _, score in unit]
    pairs = [(a, b) for unit in units for (_, a), (_, b) in combinations(unit, 2)]
    against = [
        (unit[k][1], np.mean([score for place, (_, score) in enumerate(unit) if place != k])) for unit in units for k in range(len(unit))
    ]
    within = sum(sum((a - b) ** 2 for (_, a), (_, b) in permutations(unit, 2)) / (len(unit) - 1) for unit in units) / len(scores)
    between = sum((a - b) ** 2 for a, b in permutations(scores, 2)) / (len(scores) * (len(scores) - 1))
    by_pair = []
    for one, other in combinations("abc", 2):
        both = [(dict(unit)[one], dict(unit)[other]) for unit in units if {one, other} <= dict(unit).keys()]
        by_pair.append(stats.pearsonr(*np.transpose(both)).statistic)
    assert found is not None
    assert found.alpha == pytest.approx(1 - within / between)
    assert found.pairwise_difference == pytest.approx(np.mean([abs(a - b) for a, b in pairs]))
    assert found.pairwise_rmse == pytest.approx(np.sqrt(np.mean([(a - b) ** 2 for a, b in pairs])))
    assert found.exact == pytest.approx(np.mean([a == b for a, b in pairs]))
    assert found.others_r == pytest.approx(stats.pearsonr(*np.transpose(against)).statistic)
    assert found.others_rmse == pytest.approx(np.sqrt(np.mean([(a - b) ** 2 for a, b in against])))
    assert found.pairwise_r == pytest.approx(np.mean(by_pair))
    assert found.n_rater_pairs == 3


def test_the_order_of_scores_and_items_does_not_matter() -> None:
    items = made(7)
    shuffled = [list(reversed(unit)) for unit in reversed(items)]
    one, other = rater_agreement(items), rater_agreement(shuffled)
    assert one is not None
    assert other is not None
    assert one.to_dict() == pytest.approx(other.to_dict())


def test_no_item_with_two_scores_has_no_agreement() -> None:
    assert rater_agreement([]) is None
    assert rater_agreement([[], [("a", 3.0)], [(None, 2.0)]]) is None


def test_what_is_not_defined_is_none_and_never_a_number() -> None:
    found = rater_agreement([[("a", 4.0), ("b", 4.0)]] * 5)
    assert found is not None
    assert (found.alpha, found.pairwise_r, found.others_r, found.n_rater_pairs) == (None, None, None, 0)
    assert (found.exact, found.pairwise_rmse, found.others_rmse) == (1.0, 0.0, 0.0)
    assert "alpha undefined" in found.sentence()
    assert "nan" not in json.dumps(found.to_dict()).lower()


def test_a_pair_of_raters_needs_three_items_in_common() -> None:
    found = rater_agreement([[("a", 1.0), ("b", 2.0)], [("a", 5.0), ("b", 4.0)]])
    assert found is not None
    assert (found.pairwise_r, found.n_rater_pairs, found.others_r) == (None, 0, None)
    assert found.alpha is not None


def test_raters_without_names_have_no_pairs() -> None:
    found = rater_agreement([[(None, 1.0), (None, 2.0)], [(None, 5.0), (None, 4.0)], [(None, 3.0), (None, 3.0)]])
    assert found is not None
    assert (found.n_raters, found.pairwise_r) == (0, None)
    assert found.sentence() == (
        f"3 items with two or more scores (6 scores): Krippendorff's alpha {found.alpha:.2f}; two scores differ by 0.67 points on "
        f"average and are equal in 33% of the pairs; one score against the mean of the others: r {found.others_r:.2f}, RMSE 0.82"
    )


def test_the_sentence_names_raters_and_pairs() -> None:
    found = rater_agreement([[("a", 1.0), ("b", 2.0)], [("a", 5.0), ("b", 4.0)], [("a", 3.0), ("b", 3.0)]])
    assert found is not None
    assert "3 items with two or more scores (6 scores by 2 named raters)" in found.sentence()
    assert "r 1.00 over 1 pair of raters" in found.sentence()


def test_no_agreement_is_zero_without_a_sign() -> None:
    found = rater_agreement([[("a", 1.0), ("b", 2.0)], [("a", 3.0), ("b", 1.001)], [("a", 2.0), ("b", 2.0)], [("a", 2.0), ("b", 3.0)]])
    assert found is not None
    assert "-0.00" not in replace(found, alpha=-0.001, pairwise_r=-0.004, others_r=-0.0).sentence()
