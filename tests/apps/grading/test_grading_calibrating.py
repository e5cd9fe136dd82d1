"""Cross-validated calibration: folds keep questions together, the error after is of held-out questions, coverage by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from graders import GRID

from tract.apps.grading.calibrating import Example, effect, fitted, folds_of, held_out
from tract.common.errors import DataError
from tract.inference.judgement import CUE, Judgement
from tract.judge.grades import Grade, calibrated, grade_of


def grade(p: Sequence[float]) -> Grade:
    judgement = Judgement("x", 0, 0, (), "", CUE, tuple(p), None, None)
    return grade_of([judgement], GRID, " ", request_id="x", predictor="rail", least_score_mass=0.0, calibration=None)


def overconfident(count: int, temperature: float = 3.0) -> list[Example]:
    """Targets are drawn from the distributions at this temperature, two to a question."""
    rng = np.random.default_rng(0)
    examples = []
    for number in range(count):
        logits = rng.normal(0, 4, 5)
        sharp, true = np.exp(logits) / np.exp(logits).sum(), np.exp(logits / temperature) / np.exp(logits / temperature).sum()
        examples.append(Example(grade(sharp), float(rng.choice(5, p=true) + 1), str(number // 2)))
    return examples


def test_questions_stay_together_and_are_dealt_evenly() -> None:
    questions = [str(number // 3) for number in range(60)]
    folds = folds_of(questions, 5, seed=0)
    assert all(len({folds[place] for place in range(60) if questions[place] == question}) == 1 for question in questions)
    assert [folds.count(number) for number in range(5)] == [12] * 5
    assert folds_of(questions, 5, seed=1) != folds
    assert folds_of(questions[::-1], 5, seed=0) == folds[::-1]


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_each_grade_is_calibrated_by_the_other_questions_alone(method: str) -> None:
    examples = overconfident(60)
    folds = folds_of([example.question for example in examples], 3, 0)
    found = held_out(examples, GRID, "rail", method, 3, 0)
    for fold in range(3):
        others = fitted([example for example, own in zip(examples, folds, strict=True) if own != fold], GRID, "rail", method, {})
        for example, own, got in zip(examples, folds, found, strict=True):
            if own == fold:
                assert got == calibrated(example.grade, GRID, "rail", others)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_intervals_of_an_overconfident_judge_hold_the_target_as_often_as_they_say(method: str) -> None:
    examples = overconfident(300)
    found = held_out(examples, GRID, "rail", method, 5, 0)
    gain = effect(examples, found, folds=5, seed=0, resamples=200, confidence=0.95)
    assert gain.coverage_before.high is not None
    assert gain.coverage_after.high is not None
    assert gain.coverage_before.high < 0.9 <= gain.coverage_after.high


def test_a_target_moves_no_grade_of_its_own_question() -> None:
    """What a held-out grade is, does not depend on the target that it is compared with."""
    examples = overconfident(40)
    changed = [dataclasses.replace(examples[0], target=6 - examples[0].target), *examples[1:]]
    before, after = (held_out(each, GRID, "rail", "isotonic", 4, 0) for each in (examples, changed))
    assert before[:2] == after[:2]  # the first question's two
    assert before != after


def test_an_overconfident_judge_is_mended_on_questions_that_were_not_fitted_on() -> None:
    examples = overconfident(200, temperature=8.0)
    after = held_out(examples, GRID, "rail", "temperature", 5, 0)
    gain = effect(examples, after, folds=5, seed=0, resamples=300, confidence=0.95)
    assert gain.difference.high is not None
    assert gain.difference.high < 0
    assert gain.coverage_before.value is not None
    assert gain.coverage_after.value is not None
    assert gain.coverage_before.value < 0.75
    assert gain.coverage_after.value > 0.85
    assert (gain.items, gain.questions, gain.folds) == (200, 100, 5)


def test_numbers_by_hand() -> None:
    sure_of_2, half = grade([0, 1, 0, 0, 0]), grade([0.5, 0, 0, 0, 0.5])
    examples = [Example(sure_of_2, 4.0, "a"), Example(half, 5.0, "b")]
    after = [grade([0, 0, 0, 1, 0]), grade([0, 0, 0, 1, 0])]
    gain = effect(examples, after, folds=2, seed=0, resamples=0, confidence=0.95)
    assert gain.rmse_before.value == pytest.approx(2.0)  # 2 and 2 off
    assert gain.rmse_after.value == pytest.approx(0.5**0.5)  # 0 and 1 off
    assert gain.difference.value == pytest.approx(0.5**0.5 - 2)
    assert (gain.coverage_before.value, gain.coverage_after.value) == (0.5, 0.5)
    assert gain.to_dict()["rmse_before"] == {"value": pytest.approx(2.0), "low": None, "high": None}


def test_too_little_to_be_honest_is_refused() -> None:
    with pytest.raises(DataError, match="no row has both a score and a target"):
        held_out([], GRID, "rail", "isotonic", 5, 0)
    with pytest.raises(DataError, match="2 questions with a score and a target cannot be cut into 5 folds; give more, or --folds"):
        held_out(overconfident(4), GRID, "rail", "isotonic", 5, 0)
    with pytest.raises(DataError, match="11 examples .* leave 7 to fit on beside the largest of 5 folds; at least 10 are needed"):
        held_out(overconfident(11), GRID, "rail", "isotonic", 5, 0)
