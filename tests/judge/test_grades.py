"""Grades: each status, means and intervals by hand, and no number where nothing was read."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from tract.evaluation.calibration import Calibration
from tract.inference.judgement import CUE, DIRECT, END, LENGTH, NONE, SCORE, Judgement
from tract.judge.grades import ERROR, OVER_LENGTH, STATUSES, Grade, calibrated, failed, grade_of
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3"))
TEMPERATURE_2 = Calibration("temperature", 2.0, (), (), {})
ISOTONIC = Calibration("isotonic", None, (1.0, 3.0), (1.0, 2.0), {})


def judgement(*probabilities: float, sample: int = 0, finish: str = CUE, forced: int | None = 0, free: str | None = None) -> Judgement:
    return Judgement("x", 0, sample, (5,), f"feedback {sample}", finish, probabilities, forced, free)


def grade(*judgements: Judgement, predictor: str = "rail", least_score_mass: float = 0.5, calibration: Calibration | None = None) -> Grade:
    return grade_of(
        judgements, GRID, " Score: ", request_id="x", predictor=predictor, least_score_mass=least_score_mass, calibration=calibration
    )  # fmt: skip


def test_the_score_is_the_mean_expectation_of_the_cots() -> None:
    found = grade(judgement(0.5, 0.25, 0.25, sample=1), judgement(0.0, 0.0, 1.0))
    assert found.score == pytest.approx((1.75 + 3.0) / 2)
    assert (found.status, found.calibrated, found.error) == ("ok", False, None)
    assert found.distribution == pytest.approx({"1": 0.25, "2": 0.125, "3": 0.625})
    assert [cot.score for cot in found.cots] == [3.0, 1.75]
    assert found.feedbacks == ("feedback 0", "feedback 1")
    assert found.feedback == "feedback 0"
    # The deviations from 2.375 are 0.625 each: variance 2 * 0.625^2 / 1, over 2 CoTs.
    assert found.standard_error == pytest.approx(0.625)
    assert found.score_mass == pytest.approx(1.0)
    assert found.raw_score == found.score


def test_one_cot_has_no_standard_error() -> None:
    assert grade(judgement(0.2, 0.3, 0.5)).standard_error is None


@pytest.mark.parametrize(
    ("probabilities", "interval"),
    [
        ((0.04, 0.9, 0.06), (2.0, 3.0)),  # 0.05 lies in the second score, 0.95 in the third
        ((0.06, 0.9, 0.04), (1.0, 2.0)),
        ((0.0, 0.0, 1.0), (3.0, 3.0)),
        ((0.024, 0.3, 0.276), (pytest.approx(1.452), 3.0)),  # normalised: 0.04, 0.5, 0.46; the score lies below
    ],
)
def test_the_interval_holds_nine_tenths_of_the_normalised_distribution(
    probabilities: tuple[float, ...], interval: tuple[float, float]
) -> None:
    assert grade(judgement(*probabilities)).interval == interval


def test_the_interval_holds_the_spread_between_cots() -> None:
    sure_of_one, sure_of_three = judgement(1.0, 0.0, 0.0), judgement(0.0, 0.0, 1.0, sample=1)
    assert grade(sure_of_one, sure_of_three).interval == (1.0, 3.0)
    assert grade(sure_of_one).interval == (1.0, 1.0)


@pytest.mark.parametrize(
    ("finish", "mass", "status", "has_score"),
    [
        (CUE, 1.0, "ok", True),
        (NONE, 1.0, "ok", True),
        (END, 1.0, "no_cue", True),
        (LENGTH, 1.0, "truncated_cot", True),
        (CUE, 0.3, "low_score_mass", False),
        (LENGTH, 0.3, "low_score_mass", False),
    ],
)
def test_each_status_of_a_cot(finish: str, mass: float, status: str, has_score: bool) -> None:
    found = grade(judgement(0.5 * mass, 0.0, 0.5 * mass, finish=finish))
    assert found.status == found.cots[0].status == status
    assert (found.score is not None) == has_score
    assert (found.interval is not None) == has_score
    assert found.score_mass == pytest.approx(mass)


def test_a_decoded_score_that_is_none_is_no_number() -> None:
    found = grade(judgement(0.5, 0.2, 0.3, free="good. Score: seven"), predictor="decode_free")
    assert (found.score, found.raw_score, found.status, found.interval) == (None, None, "unreadable_score", None)
    unwritten = grade(judgement(0.5, 0.2, 0.3, forced=None), predictor="decode_forced")
    assert (unwritten.score, unwritten.status) == (None, "unreadable_score")


@pytest.mark.parametrize(
    ("finish", "status"), [(CUE, "unreadable_score"), (SCORE, "unreadable_score"), (END, "no_cue"), (LENGTH, "truncated_cot")]
)
@pytest.mark.parametrize("least_score_mass", [0.0, 0.5])
def test_a_score_that_cannot_be_read_is_another_thing_than_an_unlikely_one(finish: str, status: str, least_score_mass: float) -> None:
    none = grade(judgement(0.0, 0.0, 0.0, finish=finish, forced=None), least_score_mass=least_score_mass)
    assert (none.score, none.status, none.score_mass, none.distribution) == (None, status, None, {})
    read = judgement(0.5, 0.25, 0.0, sample=1)
    both = grade(judgement(0.0, 0.0, 0.0, finish=finish, forced=None), read, least_score_mass=least_score_mass)
    assert (both.status, both.score_mass, both.distribution) == (status, 0.75, {"1": 0.5, "2": 0.25, "3": 0.0})
    assert [cot.distribution for cot in both.cots] == [{}, both.distribution]
    decoded = grade(judgement(0.4, 0.3, 0.3, finish=finish, free="Score: 7"), predictor="decode_free")
    assert decoded.status == status
    unlikely = grade(judgement(0.1, 0.1, 0.0, finish=finish, forced=None))
    assert (unlikely.score, unlikely.status) == (None, "low_score_mass")


def test_thoughts_are_kept_with_their_cot() -> None:
    thinking = replace(judgement(0.5, 0.2, 0.3), thoughts="Hm.")
    assert [cot.thoughts for cot in grade(thinking, judgement(0.5, 0.2, 0.3, sample=1)).cots] == ["Hm.", ""]
    assert Judgement.from_dict(json.loads(json.dumps(thinking.to_dict()))) == thinking
    assert "thoughts" not in judgement(0.5, 0.2, 0.3).to_dict()  # as judgements were kept before


def test_the_worst_status_counts_and_only_cots_with_a_score_are_averaged() -> None:
    found = grade(judgement(0.0, 0.0, 1.0), judgement(0.1, 0.0, 0.0, sample=1), judgement(1.0, 0.0, 0.0, sample=2, finish=LENGTH))
    assert found.status == "low_score_mass"
    assert [cot.status for cot in found.cots] == ["ok", "low_score_mass", "truncated_cot"]
    assert found.score == pytest.approx(2.0)
    assert found.interval == (1.0, 3.0)


def test_a_judge_without_feedback_has_none() -> None:
    found = grade(judgement(0.0, 1.0, 0.0, sample=DIRECT, finish=NONE))
    assert (found.score, found.feedback, found.feedbacks) == (2.0, "", ())


def test_a_request_that_was_not_judged_has_no_number() -> None:
    for status in (OVER_LENGTH, ERROR):
        found = failed("x", status, "the prompt has 900 tokens")
        assert (found.status, found.error) == (status, "the prompt has 900 tokens")
        numbers = (found.score, found.raw_score, found.interval, found.standard_error, found.score_mass)
        assert numbers == (None,) * 5
        assert found.distribution == {}


@pytest.mark.parametrize("calibration", [TEMPERATURE_2, ISOTONIC])
def test_what_was_not_read_stays_no_number_under_a_calibration(calibration: Calibration) -> None:
    low = grade(judgement(0.1, 0.0, 0.0), calibration=calibration)
    assert (low.score, low.interval, low.status, low.calibrated) == (None, None, "low_score_mass", True)
    again = calibrated(failed("x", ERROR, "no"), GRID, "rail", calibration)
    assert (again.score, again.interval, again.status, again.distribution) == (None, None, "error", {})


def test_a_temperature_acts_on_the_distribution_of_each_cot() -> None:
    # Square roots of 0.64, 0.04, 0.0: 0.8, 0.2 -> shares 0.8, 0.2.
    found = grade(judgement(0.64, 0.04, 0.0), judgement(0.0, 0.0, 1.0, sample=1), calibration=TEMPERATURE_2)
    assert found.cots[0].distribution == pytest.approx({"1": 0.8, "2": 0.2, "3": 0.0})
    assert found.score == pytest.approx((1.2 + 3.0) / 2)
    assert found.raw_score == pytest.approx((0.64 + 0.08 + 3.0) / 2)
    assert found.score_mass == pytest.approx((0.68 + 1.0) / 2)  # of the judge, not of what was normalised
    assert found.calibrated


def test_a_temperature_does_not_move_a_decoded_score() -> None:
    found = grade(judgement(0.64, 0.04, 0.0, forced=1), predictor="decode_forced", calibration=TEMPERATURE_2)
    assert found.score == 2.0
    assert found.distribution["1"] == pytest.approx(0.8)


def test_a_decoded_score_without_any_mass_has_no_interval_and_no_nan() -> None:
    found = grade(judgement(0.0, 0.0, 0.0, forced=1), predictor="decode_forced", least_score_mass=0.0, calibration=TEMPERATURE_2)
    assert (found.score, found.interval) == (2.0, None)
    assert all(math.isfinite(p) for p in found.distribution.values())


def test_an_isotonic_map_moves_score_and_standard_error() -> None:
    one, three = judgement(1.0, 0.0, 0.0), judgement(0.0, 0.0, 1.0, sample=1)
    found = grade(one, three, calibration=ISOTONIC)
    assert found.score == pytest.approx(1.5)  # 2 lies half way between 1 and 3, so half way between 1 and 2
    assert found.interval == (1.0, 3.0)  # the map is one of expectations, not of single scores
    assert found.standard_error == pytest.approx(0.5)  # that of 1 and 2
    assert found.raw_score == pytest.approx(2.0)
    assert found.distribution == pytest.approx({"1": 0.5, "2": 0.0, "3": 0.5})


def test_an_interval_holds_its_score() -> None:
    assert grade(judgement(0.6, 0.0, 0.0)).interval == (pytest.approx(0.6), 1.0)  # RAIL counts mass outside the grid as zero
    assert grade(judgement(0.96, 0.0, 0.04)).interval == (1.0, pytest.approx(1.08))
    assert grade(judgement(0.0, 0.0, 1.0), calibration=ISOTONIC).interval == (2.0, 3.0)


def test_a_margin_widens_the_interval_within_the_grid() -> None:
    sure = judgement(0.0, 1.0, 0.0)
    wide = Calibration("temperature", 1.0, (), (), {}, margin=0.75)
    assert grade(sure, calibration=wide).interval == (1.25, 2.75)
    assert grade(judgement(0.0, 0.0, 1.0), calibration=wide).interval == (2.25, 3.0)
    assert grade(sure).interval == (2.0, 2.0)


def test_a_calibration_afterwards_is_the_one_while_judging() -> None:
    several = (judgement(0.5, 0.3, 0.1), judgement(0.1, 0.2, 0.6, sample=1, finish=LENGTH), judgement(0.1, 0.1, 0.1, sample=2))
    for calibration in (TEMPERATURE_2, ISOTONIC):
        assert calibrated(grade(*several), GRID, "rail", calibration) == grade(*several, calibration=calibration)


def test_a_grade_is_json() -> None:
    found = grade(judgement(0.2, 0.3, 0.4)).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False))["distribution"] == {"1": 0.2, "2": 0.3, "3": 0.4}
    assert json.loads(json.dumps(failed("x", ERROR, "no").to_dict(), allow_nan=False))["score"] is None
    assert {found["status"]} <= set(STATUSES)
