"""What a judge says of one response: a score with its distribution, feedback, interval and status. Pure."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tract.common.errors import TractError
from tract.common.masking import masked_text
from tract.evaluation.calibration import Calibration
from tract.evaluation.scoring import predictions
from tract.inference.judgement import DIRECT, END, LENGTH, Judgement
from tract.text.score_grid import ScoreGrid

log = logging.getLogger(__name__)

# Statuses of a grade and of each CoT, the worst last.
OK = "ok"
NO_CUE = "no_cue"  # the judge ended its turn without the answer cue; the score was read behind a cue that was appended
TRUNCATED_COT = "truncated_cot"  # the CoT ran into max_cot_tokens; the score was read behind what there was
LOW_SCORE_MASS = "low_score_mass"  # the judge expected something else than a score there: no score
UNREADABLE_SCORE = "unreadable_score"  # what the judge wrote in place of a score is none of the grid: no score
OVER_LENGTH = "over_length"  # the prompt leaves no room for a CoT: nothing was asked, no score
ERROR = "error"  # the request could not be used, or the model failed: no score; ``Grade.error`` says why
STATUSES = (OK, NO_CUE, TRUNCATED_COT, LOW_SCORE_MASS, UNREADABLE_SCORE, OVER_LENGTH, ERROR)
# Of the interval of a score.
CONFIDENCE = 0.9
# The predictors whose score is an expectation, so that a temperature of the distribution moves it.
EXPECTATIONS = ("rail", "rail_normalized")


@dataclass(frozen=True, slots=True)
class CotGrade:
    """What was read behind one CoT.

    Attributes:
        feedback: the CoT, without the score sentence. score: in points; None where there is none.
        status: one of ``STATUSES``. distribution: score label -> probability, from the full softmax; empty where nothing was read.
        thoughts: what a reasoning model thought before it; empty for all others.
    """

    feedback: str
    score: float | None
    status: str
    distribution: Mapping[str, float]
    thoughts: str = ""


@dataclass(frozen=True, slots=True)
class Grade:
    """The grade of one response.

    Attributes:
        score: in points, the mean over the CoTs that gave one; None where none did.
        status: one of ``STATUSES``, the worst among the CoTs; a score with another status than "ok" is to be looked at.
        distribution: score label -> probability, mean over the CoTs that were read; sums to the score mass. Empty where none was.
        feedback: the first CoT; empty for a judge that writes none. feedbacks: all of them.
        interval: (low, high) in points, where the score of another draw lies with probability 0.9: the quantiles of the
            distribution over the grid, mixed over the CoTs, so it holds both their spread and that within each; and the score itself.
            None without a score.
        standard_error: of the score, from the spread over the CoTs; None with fewer than two.
        score_mass: the probability of the whole grid, mean over the CoTs that were read; None where none was.
        cots: each CoT by itself. shortened: whether the middle of a field was left out.
        calibrated: whether the score was calibrated. raw_score: what it was before, else the score itself.
        id: of the request; made of its content where none was given. error: what went wrong, one line; None if nothing did.
        ignored: fields of the request that the judge's prompt has no place for: "rubric", "reference_answer", "prompt".
    """

    score: float | None
    status: str
    distribution: Mapping[str, float]
    feedback: str
    feedbacks: tuple[str, ...]
    interval: tuple[float, float] | None
    standard_error: float | None
    score_mass: float | None
    cots: tuple[CotGrade, ...]
    shortened: bool
    calibrated: bool
    raw_score: float | None
    id: str
    error: str | None = None
    ignored: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON: lists and mappings, null where there is no number."""
        return asdict(self)


def failed(request_id: str, status: str, error: str) -> Grade:
    """The grade of a request that got no score.

    Args:
        status: ``OVER_LENGTH`` or ``ERROR``. error: what went wrong, one line.
    """
    return Grade(None, status, {}, "", (), None, None, None, (), False, False, None, request_id, error)


def failed_by(request_id: str, error: BaseException) -> Grade:
    """The grade of a request that an error ended, with that as one line; an error of ours is logged in detail, as every row may have it."""
    if not isinstance(error, TractError):
        log.debug("grading %s failed", request_id, exc_info=error)
    line = str(error) if isinstance(error, TractError) else f"{type(error).__name__}: {error}"
    return failed(request_id, ERROR, masked_text(" ".join(line.split()))[:500])


def grade_of(
    judgements: Sequence[Judgement],
    grid: ScoreGrid,
    cue: str,
    *,
    request_id: str,
    predictor: str,
    least_score_mass: float,
    calibration: Calibration | None,
    shortened: bool = False,
) -> Grade:
    """The grade that a response's judgements make.

    Args:
        judgements: one for each CoT, or the reading without one; not empty. grid, cue: of the judge.
        predictor: how each is read. least_score_mass: below it a reading is none. calibration: to be applied, None for none.
    """
    ordered = sorted(judgements, key=lambda judgement: judgement.sample)
    cots = tuple(_cot_grade(judgement, grid, cue, predictor, least_score_mass) for judgement in ordered)
    scores = [cot.score for cot in cots if cot.score is not None]
    feedbacks = tuple(judgement.cot for judgement in ordered if judgement.sample != DIRECT)
    grade = Grade(
        score=_mean(scores),
        status=max((cot.status for cot in cots), key=STATUSES.index),
        distribution=_mean_distribution(cots, grid),
        feedback=feedbacks[0] if feedbacks else "",
        feedbacks=feedbacks,
        interval=_interval(cots, grid, _mean(scores), 0.0),
        standard_error=_standard_error(scores),
        score_mass=_mean([math.fsum(judgement.probabilities) for judgement in ordered if _was_read(judgement)]),
        cots=cots,
        shortened=shortened,
        calibrated=False,
        raw_score=_mean(scores),
        id=request_id,
    )
    return grade if calibration is None else calibrated(grade, grid, predictor, calibration)


def calibrated(grade: Grade, grid: ScoreGrid, predictor: str, calibration: Calibration) -> Grade:
    """The same grade under a calibration: score, interval, standard error, distributions; ``raw_score`` and ``score_mass`` stay.

    Args:
        grade: one that was not calibrated; without a score it stays as it is, but for the mark. grid, predictor: of the judge.
    """
    cots = tuple(_calibrated_cot(cot, grid, predictor, calibration) for cot in grade.cots)
    scores = [cot.score for cot in cots if cot.score is not None]
    mean = _mean(scores)
    score = None if mean is None else calibration.score(mean)
    return replace(
        grade,
        score=score,
        distribution=_mean_distribution(cots, grid) if cots else grade.distribution,
        interval=_interval(cots, grid, score, calibration.margin),
        standard_error=_standard_error([calibration.score(score) for score in scores]),
        cots=cots,
        calibrated=True,
    )


def _cot_grade(judgement: Judgement, grid: ScoreGrid, cue: str, predictor: str, least_score_mass: float) -> CotGrade:
    score = _raw_score(judgement, grid, cue, predictor, least_score_mass)
    distribution = dict(zip(grid.labels, judgement.probabilities, strict=True)) if _was_read(judgement) else {}
    return CotGrade(judgement.cot, score, _cot_status(judgement, score, least_score_mass), distribution, judgement.thoughts)


def _raw_score(judgement: Judgement, grid: ScoreGrid, cue: str, predictor: str, least_score_mass: float) -> float | None:
    mass = math.fsum(judgement.probabilities)
    # The expectation of no probability at all would be 0, a number that nobody has said.
    if mass < least_score_mass or (mass == 0 and predictor == "rail"):
        return None
    return predictions(judgement, grid, cue).get(predictor)


def _calibrated_cot(cot: CotGrade, grid: ScoreGrid, predictor: str, calibration: Calibration) -> CotGrade:
    """A CoT's grade under a temperature, which acts on the distribution, whose expectation then is the score."""
    if cot.score is None or calibration.temperature is None or not any(cot.distribution.values()):
        return cot
    p = calibration.distribution([cot.distribution[label] for label in grid.labels])
    expected = float(p @ np.asarray(grid.values))
    distribution = dict(zip(grid.labels, p.tolist(), strict=True))
    return replace(cot, score=expected if predictor in EXPECTATIONS else cot.score, distribution=distribution)


def _was_read(judgement: Judgement) -> bool:
    """Whether there is a distribution: none is of a hosted model's CoT whose score could not be read."""
    return judgement.forced_decode is not None or any(judgement.probabilities)


def _cot_status(judgement: Judgement, score: float | None, least_score_mass: float) -> str:
    # Where there is no distribution at all, that says why there is none, not how likely scores were.
    if _was_read(judgement) and math.fsum(judgement.probabilities) < least_score_mass:
        return LOW_SCORE_MASS
    if judgement.finish == LENGTH:
        return TRUNCATED_COT
    if judgement.finish == END:
        return NO_CUE
    return UNREADABLE_SCORE if score is None else OK


def _mean(scores: Sequence[float]) -> float | None:
    return float(np.mean(scores)) if scores else None


def _standard_error(scores: Sequence[float]) -> float | None:
    return float(np.std(scores, ddof=1) / math.sqrt(len(scores))) if len(scores) > 1 else None


def _mean_distribution(cots: Sequence[CotGrade], grid: ScoreGrid) -> dict[str, float]:
    """The mean over the CoTs that were read; empty where none was."""
    read = [cot.distribution for cot in cots if cot.distribution]
    return {label: float(np.mean([distribution[label] for distribution in read])) for label in grid.labels} if read else {}


def _interval(cots: Sequence[CotGrade], grid: ScoreGrid, score: float | None, margin: float) -> tuple[float, float] | None:
    """The quantiles of the normalised distribution, mixed over the CoTs that gave a score, widened by a margin and to the score."""
    rows = np.asarray([[cot.distribution[label] for label in grid.labels] for cot in cots if cot.score is not None])
    if not len(rows) or score is None:
        return None
    # A decoded score may stand where the distribution holds nothing that could be normalised.
    mass = rows.sum(axis=1, keepdims=True)
    rows = rows[mass[:, 0] > 0]
    if not len(rows):
        return None
    mixed = (rows / rows.sum(axis=1, keepdims=True)).mean(axis=0)
    cumulated = np.cumsum(mixed)
    tail = (1 - CONFIDENCE) / 2
    # Rounding must not push the upper quantile past the last score.
    places = [min(int(np.searchsorted(cumulated, share)), len(grid.values) - 1) for share in (tail, 1 - tail)]
    low, high = (grid.values[place] for place in places)
    # An expectation can lie beyond the quantiles: of a skewed distribution, without the mass outside the grid, or calibrated.
    return min(max(low - margin, grid.lowest), score), max(min(high + margin, grid.highest), score)
