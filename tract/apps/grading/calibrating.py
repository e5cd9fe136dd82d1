"""How well a calibration works on examples that it was not fitted on: cross-validation over questions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tract.common.errors import DataError
from tract.data.readers.fields import short_hash
from tract.evaluation.bootstrap import metric_estimates
from tract.evaluation.calibration import LEAST_ITEMS, Calibration, fit_isotonic, fit_margin, fit_temperature
from tract.evaluation.scored import Array, Estimate
from tract.evaluation.weighted import weighted_mean
from tract.judge.grades import CONFIDENCE, Grade, calibrated
from tract.text.score_grid import ScoreGrid


@dataclass(frozen=True, slots=True)
class Example:
    """A graded response with its true score: the grade is not calibrated and has a score; ``target`` is in points.

    Attributes:
        content: ``response_hash`` of what was graded; empty where the file does not hold it.
    """

    grade: Grade
    target: float
    question: str
    content: str = ""


@dataclass(frozen=True)
class Effect:
    """What a calibration does to grades that it was not fitted on.

    Attributes:
        rmse_before, rmse_after: root mean squared errors, in points. difference: after minus before, paired.
        coverage_before, coverage_after: share of the 90 % intervals that hold the true score.
        items, questions, folds: how many.
    """

    rmse_before: Estimate
    rmse_after: Estimate
    difference: Estimate
    coverage_before: Estimate
    coverage_after: Estimate
    items: int
    questions: int
    folds: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def fitted(examples: Sequence[Example], grid: ScoreGrid, predictor: str, method: str, facts: dict[str, Any]) -> Calibration:
    """The calibration of a method on examples, with the margin of its intervals.

    Args:
        grid, predictor: of the judge. method: "temperature" or "isotonic". facts: of what it was fitted on.

    Raises:
        DataError: if they are too few.
    """
    targets = [example.target for example in examples]
    if method == "isotonic":
        raw, values = fit_isotonic([_score(example) for example in examples], targets)
        found = Calibration(method, None, raw, values, facts)
    else:
        found = Calibration(
            method, fit_temperature([_readings(example, grid) for example in examples], grid.values, targets), (), (), facts
        )
    grades = [calibrated(example.grade, grid, predictor, found) for example in examples]
    known = [(grade.interval, target) for grade, target in zip(grades, targets, strict=True) if grade.interval is not None]
    if len(known) < LEAST_ITEMS:  # of a predictor that reads no distribution
        return found
    return replace(found, margin=fit_margin([interval for interval, _ in known], [target for _, target in known], CONFIDENCE))


def _readings(example: Example, grid: ScoreGrid) -> list[list[float]]:
    """The distributions of the CoTs that gave a score."""
    return [[cot.distribution[label] for label in grid.labels] for cot in example.grade.cots if cot.score is not None]


def folds_of(questions: Sequence[str], folds: int, seed: int) -> list[int]:
    """The fold of each example: questions are dealt in the order of a seeded hash, so that those of one question stay together."""
    order = sorted(set(questions), key=lambda question: short_hash(str(seed), question, length=32))
    fold = {question: place % folds for place, question in enumerate(order)}
    return [fold[question] for question in questions]


def held_out(examples: Sequence[Example], grid: ScoreGrid, predictor: str, method: str, folds: int, seed: int) -> list[Grade]:
    """The grade of each example under a calibration that was fitted on the other folds.

    Raises:
        DataError: if there are too few questions or examples.
    """
    if not examples:
        raise DataError("calibrate: no row has both a score and a target, so there is nothing to fit on")
    questions = [example.question for example in examples]
    if len(set(questions)) < folds:
        raise DataError(
            f"calibrate: {len(set(questions))} questions with a score and a target cannot be cut into {folds} folds; give more, or --folds"
        )
    fold = folds_of(questions, folds, seed)
    rest = len(examples) - max(fold.count(number) for number in range(folds))
    if rest < LEAST_ITEMS:
        raise DataError(
            f"calibrate: {len(examples)} examples with a score and a target leave {rest} to fit on beside the largest of {folds} folds; "
            f"at least {LEAST_ITEMS} are needed, give more examples"
        )
    found: list[Grade | None] = [None] * len(examples)
    for number in range(folds):
        others = fitted([example for place, example in enumerate(examples) if fold[place] != number], grid, predictor, method, {})
        for place, example in enumerate(examples):
            if fold[place] == number:
                found[place] = calibrated(example.grade, grid, predictor, others)
    return [grade for grade in found if grade is not None]


def effect(examples: Sequence[Example], after: Sequence[Grade], *, folds: int, seed: int, resamples: int, confidence: float) -> Effect:
    """Errors and coverage before and after, with bootstrap intervals clustered by question.

    Args:
        after: the grade of each example under a calibration that did not see it.
    """
    targets = np.asarray([example.target for example in examples])
    before = [example.grade for example in examples]
    squares = {"before": _squares(before, targets), "after": _squares(after, targets)}
    covered = {"before": _covered(before, targets), "after": _covered(after, targets)}
    questions = [example.question for example in examples]

    def compute(weights: Array) -> dict[str, Array]:
        rmse = {name: np.sqrt(weighted_mean(weights, values)) for name, values in squares.items()}
        shares = {f"coverage_{name}": weighted_mean(weights, values) for name, values in covered.items()}
        return {"rmse_before": rmse["before"], "rmse_after": rmse["after"], "difference": rmse["after"] - rmse["before"], **shares}

    found = metric_estimates(compute, questions, seed=seed, resamples=resamples, confidence=confidence)
    return Effect(**found, items=len(examples), questions=len(set(questions)), folds=folds)


def _score(example: Example) -> float:
    assert example.grade.score is not None, "examples have a score"
    return example.grade.score


def _squares(grades: Sequence[Grade], targets: Array) -> Array:
    scores: Array = np.asarray([grade.score for grade in grades], dtype=np.float64)
    return (scores - targets) ** 2


def _covered(grades: Sequence[Grade], targets: Array) -> Array:
    """[n] 1 where the interval holds the target; a grade without an interval holds none."""
    bounds = [grade.interval or (np.inf, -np.inf) for grade in grades]
    return np.asarray([low <= target <= high for (low, high), target in zip(bounds, targets, strict=True)], dtype=np.float64)
