"""Shifts, agreement and length against plain computations, one item after the other."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from tract.common.errors import DataError
from tract.evaluation.robustness import Readings, robustness_of
from tract.evaluation.scored import Scored
from tract.evaluation.weighted import krippendorff_alpha

N = 40
RNG = np.random.default_rng(5)
PREDICTORS = ("rail", "decode_free")


def scored(name: str, scores: np.ndarray, targets: np.ndarray, failures: np.ndarray, ids: list[str]) -> Scored:
    return Scored(
        benchmark=name,
        ids=tuple(ids),
        questions=tuple(f"q{int(item[1:]) // 2}" for item in ids),
        targets=targets,
        response_words=np.arange(3.0, 3 + len(ids)),
        scores={"rail": scores, "decode_free": np.round(scores)},
        failures={"rail": np.zeros(len(ids)), "decode_free": failures},
        score_mass={name: np.ones(len(ids)) for name in PREDICTORS},
    )


IDS = [f"i{number}" for number in range(N)]
TARGETS = RNG.integers(1, 6, N).astype(float)
SCORES = TARGETS + RNG.normal(0, 0.7, N)
FAILED = (np.arange(N) % 5 == 0) / 2
BASE = scored("b", SCORES, TARGETS, FAILED, IDS)
# Perturbed copies lack some items and stand in another order.
ORDER = RNG.permutation(N)[:31]
MOVED = SCORES[ORDER] + RNG.normal(0.4, 0.5, 31)
CHANGED = scored("b+beg", MOVED, TARGETS[ORDER] + (ORDER % 3 == 0), np.zeros(31), [IDS[k] for k in ORDER])
OTHER_ATTACK = scored("b+cue", SCORES + 1.0, TARGETS, np.zeros(N), IDS)
PADDED = scored("b+verbose", SCORES - 2.0, TARGETS, np.zeros(N), IDS)
DRAWS = SCORES[:, None] + RNG.normal(0, 0.3, (N, 3))
READINGS = Readings(BASE, {"rail": DRAWS}, {"beg": CHANGED, "cue": OTHER_ATTACK, "verbose": PADDED}, {"beg": 9, "cue": 0, "verbose": 0})


def robustness(readings: Readings = READINGS, other: Readings | None = None, **changes: Any) -> Any:
    arguments = {"seed": 0, "resamples": 200, "confidence": 0.9, **changes}
    return robustness_of(readings, PREDICTORS, other=other, **arguments)


def test_shifts_are_those_of_the_pairs() -> None:
    found = robustness()
    beg = found.shifts[0]
    shift = MOVED - SCORES[ORDER]
    undue = shift - (ORDER % 3 == 0)
    assert (beg.perturbation, beg.pairs, beg.unchanged) == ("beg", 31, 9)
    assert beg.true_change.value == pytest.approx(np.mean(ORDER % 3 == 0))
    values = {metric: estimate.value for metric, estimate in beg.metrics["rail"].items()}
    assert values == {
        "undue_shift": pytest.approx(undue.mean()), "undue_size": pytest.approx(np.abs(undue).mean()),
        "raised": pytest.approx((undue > 0.5).mean()), "lowered": pytest.approx((shift < 0).mean()),
    }  # fmt: skip
    estimate = beg.metrics["rail"]["undue_shift"]
    assert estimate.low < estimate.value < estimate.high


def test_pairs_with_a_failed_draw_are_left_out_and_counted() -> None:
    cue = robustness().shifts[1]
    assert cue.failed == {"rail": 0, "decode_free": 8}
    whole = FAILED == 0
    expected = (np.round(SCORES + 1) - np.round(SCORES))[whole].mean()
    assert cue.metrics["decode_free"]["undue_shift"].value == pytest.approx(expected)


def test_no_pair_is_no_number() -> None:
    failing = replace(OTHER_ATTACK, failures={"rail": np.ones(N), "decode_free": np.ones(N)})
    found = robustness(replace(READINGS, changed={"cue": failing}))
    assert found.shifts[0].metrics["rail"]["undue_shift"].value is None
    assert found.summary["rail"]["attack_shift"].value is None


def test_the_sum_is_over_attacks_alone_each_counting_the_same() -> None:
    found = robustness()
    undue = (MOVED - SCORES[ORDER] - (ORDER % 3 == 0)).mean()
    assert found.summary["rail"]["attack_shift"].value == pytest.approx((undue + 1.0) / 2)
    without = robustness(replace(READINGS, changed={"verbose": PADDED}))
    assert without.summary["rail"]["attack_shift"].value is None


def test_differences_are_paired() -> None:
    """Against itself nothing is left, to the last resample; against a judge that moves by a constant more, that constant."""
    same = robustness(other=READINGS).differences["rail"]["attack_shift"]
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    more = replace(READINGS, changed={"beg": CHANGED, "cue": replace(OTHER_ATTACK, scores={"rail": SCORES + 3.0, "decode_free": SCORES})})
    found = robustness(other=more).differences["rail"]["attack_shift"]
    assert (found.value, found.low, found.high) == pytest.approx((-1.0, -1.0, -1.0))
    assert robustness().differences == {}


def test_length_at_equal_true_score_is_that_of_a_regression() -> None:
    found = robustness().consistency["rail"]
    design = np.column_stack([np.ones(N), TARGETS, np.log2(1 + BASE.response_words)])
    slope = np.linalg.lstsq(design, SCORES, rcond=None)[0][2]
    assert found["length_slope"].value == pytest.approx(slope)
    left = [y - design[:, :2] @ np.linalg.lstsq(design[:, :2], y, rcond=None)[0] for y in (SCORES, design[:, 2])]
    assert found["length_r"].value == pytest.approx(np.corrcoef(*left)[0, 1])
    constant = replace(READINGS, base=replace(BASE, response_words=np.full(N, 7.0)))
    assert robustness(constant).consistency["rail"]["length_slope"].value is None


def plain_alpha(units: list[list[float]]) -> float:
    """Krippendorff's alpha by its definition: all pairs, one after the other."""
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    within = sum(sum((a - b) ** 2 for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units) / len(values)
    between = sum((a - b) ** 2 for a, b in permutations(values, 2)) / (len(values) * (len(values) - 1))
    return 1 - within / between


def test_alpha_of_krippendorffs_own_example() -> None:
    """Four observers, twelve units, some values missing: interval alpha .849 (Krippendorff 2011, Computing Krippendorff's Alpha)."""
    nan = float("nan")
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3], [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
    ]  # fmt: skip
    draws = np.array(observers, dtype=float).T
    assert krippendorff_alpha(np.ones((1, 12)), draws)[0] == pytest.approx(0.849, abs=5e-4)


def test_alpha_of_weights_is_that_of_the_repeated_items() -> None:
    draws = DRAWS.copy()
    draws[::4, 2] = np.nan
    draws[3, 1:] = np.nan
    weights = RNG.integers(0, 4, (5, N)).astype(float)
    for row, alpha in zip(weights, krippendorff_alpha(weights, draws), strict=True):
        units = [[value for value in draws[k] if np.isfinite(value)] for k in range(N) for _ in range(int(row[k]))]
        assert alpha == pytest.approx(plain_alpha(units))
    assert robustness().consistency["rail"]["alpha"].value == pytest.approx(plain_alpha([list(unit) for unit in DRAWS]))


def test_alpha_needs_two_values_and_a_difference() -> None:
    ones = np.ones((2, 3))
    assert np.isnan(krippendorff_alpha(ones, np.array([[1.0, np.nan], [2.0, np.nan], [3.0, np.nan]]))).all()
    assert np.isnan(krippendorff_alpha(ones, np.full((3, 2), 4.0))).all()
    assert np.isnan(krippendorff_alpha(np.zeros((1, 3)), np.array([[1.0, 2.0]] * 3))).all()
    found = robustness().consistency["decode_free"]
    assert found["alpha"].value is found["spread"].value is None  # there are no draws of it here


def test_the_spread_is_the_deviation_among_an_items_draws() -> None:
    assert robustness().consistency["rail"]["spread"].value == pytest.approx(np.sqrt(np.var(DRAWS, axis=1, ddof=1).mean()))


def test_items_that_belong_nowhere_are_refused() -> None:
    stray = scored("b+beg", SCORES[:1], TARGETS[:1], np.zeros(1), ["i99"])
    with pytest.raises(DataError, match=r"benchmark b\+beg: item i99 is no item of b; judge both again"):
        robustness(replace(READINGS, changed={"beg": stray}))
